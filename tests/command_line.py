"""The command line in this process, exactly as `nanosam` runs it, with everything it printed."""

from __future__ import annotations

import io
import os
import sys
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from unittest import mock

from nanosam_cli.app import main

ENVIRONMENT = {"TERM": "dumb", "COLUMNS": "200"}  # no colours, no lines cut in the middle of a word


@dataclass(frozen=True)
class Ran:
    code: int
    out: str
    err: str

    @property
    def words(self) -> str:
        """Everything on stderr in one line, without the frames and line ends of Typer's errors."""
        return " ".join(self.err.replace("│", " ").split())


def run_nanosam(*arguments: object, stdin: bytes = b"") -> Ran:
    out, err = io.StringIO(), io.StringIO()
    code = 0
    with (
        mock.patch.dict(os.environ, ENVIRONMENT),
        mock.patch.object(sys, "argv", ["nanosam", *map(str, arguments)]),
        mock.patch.object(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin))),
        redirect_stdout(out),
        redirect_stderr(err),
    ):
        try:
            main()
        except SystemExit as exit:
            code = exit.code if isinstance(exit.code, int) else 1
    return Ran(code, out.getvalue(), err.getvalue())

"""A long run's results as they come: a line of JSON a photo, so that a kill loses the line in hand at most."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, suppress
from itertools import islice
from os import SEEK_END
from pathlib import Path
from types import TracebackType
from typing import Any

from nanosam_cli.core.errors import InputError, OutputError, UsageError
from nanosam_cli.core.schema import read_section
from nanosam_cli.core.system.documents import parse_json
from nanosam_cli.core.system.files import output_error
from nanosam_cli.core.system.lock import only_run

Record = dict[str, Any]

_BEGIN = b'{"settings": '  # of the first line
_FOREIGN = "{} is not a run's journal"


class Journal:
    """`results.jsonl`: first the run's settings, then a record a photo, each written out at once.

    Closed at the end of a `with` block. Raises OutputError where the file cannot be written, or is something else's.
    """

    def __init__(
        self, path: Path, settings: Mapping[str, Any], *, resume: bool = False, kind: type | None = None
    ) -> None:
        """Start anew, or with `resume` go on after the last whole line of a run of the same settings.

        `kind` is a dataclass of what is looked at of a record: a line that is none counts as cut off.
        InputError, with what differs, where the settings are others.
        """
        self.path, self._kind = path, kind
        with ExitStack() as opened:
            opened.enter_context(only_run(path))
            try:
                _refuse_foreign(path)
                path.parent.mkdir(parents=True, exist_ok=True)
                self._file = path.open("ab", buffering=0)
                opened.callback(self._close_file)
                whole = self._whole(settings) if resume else 0
                self._file.truncate(whole)
            except OSError as error:
                raise output_error(path, error) from error
            self._opened = opened.pop_all()
        if not whole:
            try:
                self.write({"settings": settings})
            except BaseException:
                self.remove()  # it holds nothing, and must not be in the way of another try
                raise

    def _whole(self, settings: Mapping[str, Any]) -> int:
        """Bytes of the whole lines that are there."""
        whole = 0
        with self.path.open("rb") as file:
            for number, line in enumerate(file):
                record = _parse(line, self._kind if number else None)
                if record is None:
                    break
                if number == 0:
                    check_same(self.path, record.get("settings"), settings)
                whole += len(line)
        return whole

    def write(self, record: Mapping[str, Any]) -> None:
        """Add one record. Once this returns, killing the process cannot undo it; a record that fails leaves nothing."""
        line = memoryview(json.dumps(record).encode() + b"\n")
        try:
            whole = self._file.seek(0, SEEK_END)
            while line:
                line = line[self._file.write(line) :]  # a disk that fills up takes a part first
            self._file.flush()
        except OSError as error:
            with suppress(OSError):
                self._file.truncate(whole)
            raise output_error(self.path, error) from error

    def records(self) -> Iterator[Record]:
        """Everything written so far but the settings; a full disk may have cut off the last line."""
        with self.path.open("rb") as file:
            for line in islice(file, 1, None):
                record = _parse(line, self._kind)
                if record is None:
                    return
                yield record

    def clear(self) -> None:
        """Forget the records: what they held is safe elsewhere."""
        self.keep(0)

    def keep(self, count: int) -> None:
        """Forget all records but the first `count`."""
        try:
            with self.path.open("rb") as file:
                kept = sum(len(line) for line in islice(file, 1 + count))
            self._file.truncate(kept)
        except OSError as error:
            raise output_error(self.path, error) from error

    def remove(self) -> None:
        """Close and delete the file: what it held is safe elsewhere."""
        self.path.unlink(missing_ok=True)
        self._close()

    def _close(self) -> None:
        self._opened.close()

    def _close_file(self) -> None:
        with suppress(OSError):  # only of a record that `write` could not write out, and said so
            self._file.close()

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()


def journal_path(output: Path) -> Path:
    """`results.json` -> `results.jsonl`."""
    return output.with_suffix(".jsonl")


def check_choice(resume: bool, force: bool) -> None:
    """UsageError where a run is to go on and to start anew."""
    if resume and force:
        raise UsageError("--resume goes on with a run, --force starts anew", "give one of them")


def check_free(journal: Path) -> None:
    """OutputError where a run is there already, before another starts unasked; or is at work there."""
    if journal.exists():
        with only_run(journal):
            pass
        raise OutputError(f"{journal} holds a run that was not finished", "--resume goes on, --force starts anew")


def _refuse_foreign(path: Path) -> None:
    """OutputError where a file is there that no run began: somebody may have kept other lines of JSON there."""
    if path.exists():
        with path.open("rb") as file:
            begin = file.read(len(_BEGIN))
        if not _BEGIN.startswith(begin):  # a kill in the first moment leaves less of it
            raise OutputError(_FOREIGN.format(path), "give another place with `-o`")


def _parse(line: bytes, kind: type | None) -> Record | None:
    """The record of a whole line; None where it was cut off or garbled, or is none of its kind."""
    if not line.endswith(b"\n"):
        return None
    try:
        record = parse_json(line)
        if kind is not None:
            read_section(kind, record, strangers=True)
    except ValueError:
        return None
    return record if isinstance(record, dict) else None


def check_same(path: Path, before: Any, now: Mapping[str, Any]) -> None:
    """InputError, with what differs, where the settings of the run in `path` are not those of now."""
    if not isinstance(before, dict):
        raise InputError(_FOREIGN.format(path), "give another place with `-o`")
    if changed := differences(before, now):
        raise InputError(
            f"{path} is a run with other settings: {changed}",
            "resume with its own options, `--force` to start anew, or give another place with `-o`",
        )


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """In words, which settings in a file are not those of now; nothing where all are."""
    wanted = json.loads(json.dumps(now))  # tuples become lists, as in the file
    return "; ".join(
        f"{key} was {json.dumps(before.get(key))}, is {json.dumps(wanted.get(key))}"
        for key in dict.fromkeys([*before, *wanted])
        if before.get(key) != wanted.get(key)
    )

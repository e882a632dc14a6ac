"""Where the `nanosam` executable begins: signals end it in one word from here on, while it still imports, too."""

from __future__ import annotations

import os
import signal
import sys
from typing import NoReturn

_CODES = {name: 130 if name == "SIGINT" else 143 for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)}


def main() -> None:
    """Run the command line; see `app.main`."""
    for name in _CODES:
        number = getattr(signal, name)
        if signal.getsignal(number) is not signal.SIG_IGN:  # as `nohup` has SIGHUP
            signal.signal(number, _leave)
    from nanosam_cli.app import main as run

    try:
        run()
    except SystemExit as error:
        if isinstance(error.code, int) and error.code in _CODES.values():
            _exit(error.code)  # an interrupted library may crash when the interpreter takes it down
        raise


def _leave(number: int, _: object) -> NoReturn:
    """Nothing was begun, so nothing is to be ended."""
    os.write(2, b"interrupted\n")
    os._exit(_CODES[signal.Signals(number).name])


def _exit(code: int) -> NoReturn:
    sys.stderr.flush()
    os._exit(code)

"""How a signal ends this process: within a second where nothing of the work at hand is kept, else with words.

Python's own handlers run when the main thread comes back from a library. One that builds an engine may be away for
minutes, or swallow the exception. So a thread hears of every signal at once, through `signal.set_wakeup_fd`.
"""

from __future__ import annotations

import os
import select
import shutil
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from time import monotonic
from typing import NoReturn

GRACE = 1.0  # seconds
ENDING = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))
INTERRUPTED, TERMINATED = 130, 143  # exit codes, the second of all signals but SIGINT

leftovers: set[Path] = set()  # files and folders that are removed where the process ends without cleaning up
_disposable: list[None] = []  # an entry for every block that is under way


@contextmanager
def disposable() -> Iterator[None]:
    """Mark work of which nothing is kept when it is cut off: a signal ends the process within GRACE, whatever a
    library is about. Without `watched` nothing changes."""
    _disposable.append(None)
    try:
        yield
    finally:
        _disposable.pop()


@contextmanager
def watched(say: Callable[[str], object]) -> Iterator[None]:
    """Hear of signals at once in this block. `say` is told why the process does not end, and that it does.

    A second Ctrl-C, where the first has not ended it, ends it within GRACE too.
    """
    if sys.platform == "win32":  # which cannot wait for a pipe
        yield
        return
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    before = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    thread = threading.Thread(target=_watch, args=(reader, say), daemon=True)
    thread.start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        os.close(writer)  # which the thread reads as the end
        thread.join()
        os.close(reader)


def exit_code(number: int) -> int:
    """Of a process that a signal ends."""
    return INTERRUPTED if number == signal.SIGINT else TERMINATED


def _watch(reader: int, say: Callable[[str], object]) -> None:
    first, since, told = 0, 0.0, False
    while True:
        left = None if not first else max(0.0, since + GRACE - monotonic())
        if select.select([reader], [], [], left)[0]:
            numbers = os.read(reader, 64)
            if not numbers:
                return
            again = told and signal.SIGINT in numbers
            if again:
                _disposable.append(None)  # for good
            news = next((number for number in numbers if number in ENDING), 0)
            if news and (again or not first):
                first, since = news, monotonic()
        elif _disposable:
            _end(first, say)
        else:
            if not told:
                say("waiting for what is under way to end; Ctrl-C once more leaves it as it is")
            told, since = True, monotonic()


def _end(number: int, say: Callable[[str], object]) -> NoReturn:
    for path in [*leftovers]:
        with suppress(OSError):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    say("interrupted")
    with suppress(OSError):
        sys.stderr.flush()
    os._exit(exit_code(number))


def _forget() -> None:
    with suppress(ValueError):  # in a thread nothing was heard of
        signal.set_wakeup_fd(-1)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)  # a child's signals are not its parent's

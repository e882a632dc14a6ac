"""How a signal ends this process: at once where nothing of the work at hand is kept, else by an exception, or words.

Python's own handlers run when the main thread comes back from a library. One that builds an engine may be away for
minutes, swallow the exception, or crash of it. So a thread hears of signals at once, by `signal.set_wakeup_fd`.
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

GRACE = 1.0  # seconds until it is said that the process does not end
ENDING = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))
INTERRUPTED, TERMINATED = 130, 143  # exit codes, the second of all signals but SIGINT

leftovers: set[Path] = set()  # files and folders that are removed where the process ends without cleaning up
_disposable: list[None] = []  # an entry for every block that is under way
_watching, _asked = threading.Event(), threading.Event()


@contextmanager
def disposable() -> Iterator[None]:
    """Mark work of which nothing is kept when it is cut off: a signal ends the process at once, whatever a library is
    about. Nothing is raised then, because libraries swallow it, or crash. Without `watched` nothing changes."""
    _disposable.append(None)
    try:
        yield
    finally:
        _disposable.pop()


@contextmanager
def watched(say: Callable[[str], object]) -> Iterator[None]:
    """Hear of signals at once in this block. `say` is told why the process does not end, and that it does.

    A second Ctrl-C, where the first has not ended it and that was said, ends it at once.
    """
    if sys.platform == "win32":  # which cannot wait for a pipe
        yield
        return
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    before = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    thread = threading.Thread(target=_watch, args=(reader, say), daemon=True)
    thread.start()
    _watching.set()
    try:
        yield
    finally:
        _watching.clear()
        signal.set_wakeup_fd(before)
        os.close(writer)  # which the thread reads as the end
        thread.join()
        os.close(reader)


def end_at_once() -> bool:
    """End the process, as a signal's handler asks for, if nothing of the work at hand is kept; else False."""
    if _disposable and _watching.is_set():
        _asked.set()
        return True
    return False


def exit_code(number: int) -> int:
    """Of a process that a signal ends."""
    return INTERRUPTED if number == signal.SIGINT else TERMINATED


def _watch(reader: int, say: Callable[[str], object]) -> None:
    first, since, told, hard = 0, 0.0, False, False
    while True:
        at_once = bool(_disposable) or hard or _asked.is_set()
        left = None if not first else 0.0 if at_once else max(0.0, since + GRACE - monotonic())
        if select.select([reader], [], [], left)[0]:
            numbers = os.read(reader, 64)
            if not numbers:
                return
            news = next((number for number in numbers if number in ENDING), 0)
            if not first and news:
                first, since = news, monotonic()
            elif told and signal.SIGINT in numbers:
                hard = True
        elif at_once:
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
    _watching.clear()
    with suppress(ValueError):  # in a thread nothing was heard of
        signal.set_wakeup_fd(-1)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)  # a child's signals are not its parent's

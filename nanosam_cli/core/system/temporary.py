"""Hidden files that are written before they get their names, locked by their process: it goes, and they are rubbish."""

from __future__ import annotations

import errno
import os
import re
import secrets
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

from nanosam_cli.core.system.ending import leftovers

if sys.platform != "win32":  # where files that are open can be neither renamed nor removed by others
    from fcntl import LOCK_EX, LOCK_NB, flock

_NAME = re.compile(r"\.nanosam-[0-9a-f]{16}(\..*)?")


@dataclass(frozen=True)
class Temporary:
    """An empty file with the lock that says that its process lives."""

    path: Path
    _handle: int | None

    @staticmethod
    def beside(target: Path) -> Temporary:
        """A new one: beside its target so that the rename is atomic, hidden so that no listing takes it up, with a
        short name of its own."""
        while True:
            path = target.with_name(f".nanosam-{secrets.token_hex(8)}{target.suffix}")
            handle = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o666)
            if sys.platform == "win32":
                os.close(handle)
                return Temporary(path, None)
            with suppress(OSError):  # a file system without locks, where nobody else gets one either
                flock(handle, LOCK_EX)
            if path.exists():
                leftovers.add(path)
                return Temporary(path, handle)
            os.close(handle)  # somebody cleared it before it was locked

    @staticmethod
    def part_of(target: Path) -> Temporary:
        """`video.part.mp4` of `video.mp4`: a name that is seen, for what can be used before it is finished. One that a
        killed process left is emptied; OSError where a process that lives writes it."""
        path = target.with_name(f"{target.stem}.part{target.suffix}")
        handle = os.open(path, os.O_CREAT | os.O_RDWR, 0o666)
        try:
            if sys.platform != "win32":
                flock(handle, LOCK_EX | LOCK_NB)
            os.truncate(handle, 0)
        except OSError:
            os.close(handle)
            raise
        if sys.platform == "win32":
            os.close(handle)
            return Temporary(path, None)
        return Temporary(path, handle)

    def remove(self) -> None:
        """Remove it, if it has not got its name, and give up the lock."""
        with suppress(OSError):  # a failed clean-up must not hide the first error
            self.path.unlink()
        leftovers.discard(self.path)
        if self._handle is not None:
            os.close(self._handle)


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """A folder for files that a library needs for a moment, in the system's place for such things."""
    with TemporaryDirectory(prefix="nanosam-") as name:
        folder = Path(name)
        leftovers.add(folder)
        try:
            yield folder
        finally:
            leftovers.discard(folder)


@cache  # once a process and folder: a run may write thousands of files there
def clear_left_over(folder: Path) -> None:
    """Remove the temporary files of killed processes. Those of a process that lives are locked, and stay."""
    if sys.platform == "win32":
        return
    found: list[Path] = []
    with suppress(OSError):  # a folder may be written and not be listed
        found += [path for path in folder.iterdir() if _NAME.fullmatch(path.name)]
    for path in found:
        with suppress(OSError):  # it is in use, was removed meanwhile, or is another user's
            handle = os.open(path, os.O_RDONLY)
            try:
                flock(handle, LOCK_EX | LOCK_NB)
                path.unlink()
            finally:
                os.close(handle)


def flush(path: Path) -> None:
    """Write a file, or the names in a folder, to the disk itself."""
    if sys.platform == "win32" and path.is_dir():
        return
    handle = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno != errno.EINVAL:  # a file system that has no such thing
            raise
    finally:
        os.close(handle)

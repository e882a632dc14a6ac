"""Making things in the cache: one process at a time, and there whole or not at all."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from nanosam_cli.core import paths
from nanosam_cli.core.errors import OutputError
from nanosam_cli.core.messages import Note

_ANOTHER = f"set {paths.HOME.name} to a directory that can be written"
_FREE_SPACE = "free some space and type the same again"


@contextmanager
def one_at_a_time(target: Path, note: Note, doing: str) -> Iterator[bool]:
    """Only one process is in such a block for a `target`. Yields whether another one had to be waited for.

    `note` is told what that one is `doing`.
    """
    from filelock import FileLock, Timeout

    lock = FileLock(lock_path(target))
    waited = False
    try:
        lock.acquire(timeout=0)
    except Timeout:
        note(f"another process is {doing} {target.name}; waiting for it")
        waited = True
        lock.acquire()
    try:
        yield waited
    finally:
        lock.release()


def lock_path(target: Path) -> Path:
    """The lock's file; it may stay when nobody holds it."""
    return target.with_name(f".{target.name}.lock")


@contextmanager
def unfinished(folder: Path) -> Iterator[Path]:
    """Yield an empty folder beside `folder`, to be renamed to it when it is finished; else it is removed.

    What an earlier process left that was killed is removed first, so callers hold the lock of `folder`.
    """
    temporary = unfinished_path(folder)
    _remove_tree(temporary)
    temporary.mkdir(parents=True)
    try:
        yield temporary
    finally:
        with suppress(OSError):  # a failed clean-up must not hide the first error
            _remove_tree(temporary)


def unfinished_path(folder: Path) -> Path:
    """Where `folder` is made; left behind by a process that was killed."""
    return folder.with_name(f".{folder.name}.unfinished")


@contextmanager
def cache_errors(target: Path, when_full: Callable[[], str] = lambda: _FREE_SPACE) -> Iterator[None]:
    """What the disk refuses, as an OutputError that says what to do; on a full disk, what `when_full` says."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise OutputError(f"cannot write {target}: disk full", when_full()) from error
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise OutputError(f"cannot write to {target.parent}: permission denied", _ANOTHER) from error
        raise OutputError(f"cannot write {target}: {error.strerror or error}", _ANOTHER) from error


def check_free_space(folder: Path, needed: int) -> None:
    """OutputError where the disk of an existing folder has fewer than `needed` bytes."""
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise OutputError(
            f"not enough space in {folder}: {needed / 1e6:.1f} MB are needed, {free / 1e6:.1f} MB are free",
            f"free some, or set {paths.HOME.name} to a directory on another disk",
        )


def _remove_tree(folder: Path) -> None:
    with suppress(FileNotFoundError):
        shutil.rmtree(folder)

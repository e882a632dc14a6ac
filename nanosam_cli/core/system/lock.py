"""One run an output: the second is told at once, before it reads, does or removes anything."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from nanosam_cli.core.errors import OutputError
from nanosam_cli.core.system.ending import leftovers
from nanosam_cli.core.system.files import output_error

_TRIES = 5


@contextmanager
def only_run(place: Path, lock_file: Path | None = None) -> Iterator[None]:
    """Hold the lock of an output file or folder from the first byte to the last. It goes with its process, killed too.

    The lock lies beside the place, unless another `lock_file` is given, such as one inside a folder.

    OutputError where another run holds it, or no lock can be made there.
    """
    from filelock import FileLock, Timeout

    path = lock_file or lock_path(place)
    lock = FileLock(path)
    made = not path.parent.exists()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        for _ in range(_TRIES):
            lock.acquire(timeout=0)
            if path.exists():
                break
            lock.release()  # of a file that its holder removed in this very moment
    except Timeout as error:
        if not path.exists():  # as in /proc, where no file can be made
            raise OutputError(f"cannot write {place}: no file can be made there", "give another place") from error
        raise OutputError(
            f"another run is at work on {place}", "wait until it has ended, or give another place with `-o`"
        ) from error
    except OSError as error:
        raise output_error(path, error) from error
    leftovers.add(path)
    try:
        yield
    finally:
        leftovers.discard(path)
        with suppress(OSError):  # a lock that stays behind is empty, and nobody's
            path.unlink()
        lock.release()
        if made:
            with suppress(OSError):  # something has come into it
                path.parent.rmdir()


def lock_path(target: Path) -> Path:
    """The lock's file, beside its target."""
    return target.with_name(f".{target.name}.lock")

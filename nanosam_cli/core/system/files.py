"""Writing results so that a reader never meets half a file."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import BinaryIO

from nanosam_cli.core.errors import InputError, OutputError
from nanosam_cli.core.system.temporary import Temporary, clear_left_over, flush

MOST_BYTES = 2**31  # of a file that is read whole: COCO's largest annotation file has a quarter of it
_ELSEWHERE = "give another place with `-o`"


def check_writable(directory: Path, hint: str = _ELSEWHERE) -> None:
    """OutputError where files could not be written into a directory, before the work for them is done.

    Missing directories are made when the first file is written, so the nearest one that exists counts.
    """
    nearest = next((parent for parent in (directory, *directory.parents) if parent.exists()), Path())
    if not nearest.is_dir():
        raise OutputError(f"cannot write into {directory}: {nearest} is not a directory", hint)
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise OutputError(f"cannot write into {directory}: permission denied", hint)


@contextmanager
def atomic_write(path: Path, overwrite: bool = False, *, durable: bool = True, seen: bool = False) -> Iterator[Path]:
    """Yield a temporary path beside `path` (same suffix, an empty file); what was written there becomes `path` on
    success.

    Missing parent directories are made. On any error, Ctrl-C included, the temporary file is removed and an existing
    `path` stays as it was. A link is followed: the file it points at is replaced, not the link. What a killed process
    left in the directory is removed.

    With `durable` a power cut thereafter leaves the whole file. That costs 8 ms on an SSD, so files of which a run
    makes thousands, and of which any can be made again, go without. With `seen` the temporary path is no hidden one but
    `NAME.part.SUFFIX`, for what is of use before it is finished: a kill leaves it until it is written anew.

    Raises:
        OutputError: `path` exists and `overwrite` is false, is no regular file, or cannot be written.
    """
    try:
        target = path.resolve()  # the rename must not put a file in the place of a link
        _refuse(target, path, overwrite)
        target.parent.mkdir(parents=True, exist_ok=True)
        clear_left_over(target.parent)
        made = Temporary.part_of(target) if seen else Temporary.beside(target)
    except OSError as error:
        raise output_error(path, error) from error
    except (ValueError, RuntimeError) as error:  # a NUL in the name; before Python 3.13, a loop of links
        raise OutputError(f"cannot write {str(path)!r}: {error}", _ELSEWHERE) from error
    try:
        yield made.path
        _refuse(target, path, overwrite)  # again: a video takes minutes, and somebody may have been faster
        if durable:
            flush(made.path)
        made.path.replace(target)
        if durable:
            flush(target.parent)
    except BrokenPipeError:
        raise  # of stdout, whose reader has gone; no file has pipes
    except OSError as error:
        if error.filename is not None and str(error.filename) != str(made.path):
            raise  # another file's trouble, met while writing this one
        raise output_error(path, error) from error
    finally:
        made.remove()  # gone after the rename


def write_bytes(path: Path, data: bytes, overwrite: bool = False, *, durable: bool = True) -> None:
    """Write a whole file at once, as `atomic_write` does."""
    with atomic_write(path, overwrite, durable=durable) as temporary:
        temporary.write_bytes(data)


def write_text(path: Path, text: str, overwrite: bool = False, *, durable: bool = True) -> None:
    """Write UTF-8 text with the line ends it has, on every platform, as `atomic_write` does."""
    write_bytes(path, text.encode(), overwrite, durable=durable)


def read_input(path: Path, what: str = "file", most: int = MOST_BYTES) -> bytes:
    """A file that the user gives, whole.

    InputError, which says `what`, where it is not there, cannot be read, is a device without an end, or has more than
    `most` bytes.
    """
    try:
        with path.open("rb") as file:
            if stat.S_ISCHR(os.fstat(file.fileno()).st_mode) and not file.isatty():
                raise InputError(f"cannot read {path}: it is a device, not a file", "give a file")
            return read_bounded(file, str(path), most)
    except FileNotFoundError as error:
        raise InputError(f"no such {what}: {path}", "check the path") from error
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}", "check the path") from error
    except ValueError as error:  # a NUL in the name
        raise InputError(f"cannot read {str(path)!r}: {error}", "check the path") from error


def read_input_text(path: Path) -> str:
    """The UTF-8 text of a file that the user gives, without a byte order mark. InputError as with `read_input`."""
    try:
        return read_input(path).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"cannot read {path}: {error}", "give a text file") from error


def read_bounded(file: BinaryIO, name: str, most: int = MOST_BYTES) -> bytes:
    """Everything that comes out of an open file. InputError where that is more than `most` bytes."""
    data = file.read(most + 1)
    if len(data) > most:
        raise InputError(f"{name} has more than {most // 2**20} MiB, or no end at all", "give a smaller file")
    return data


def file_sha256(path: Path) -> str:
    """The SHA-256 of a file of any size, in hexadecimal."""
    digest = sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _refuse(target: Path, path: Path, overwrite: bool) -> None:
    if target.is_dir():
        raise OutputError(f"cannot write {path}: it is a directory", "give a file name inside it")
    if not target.exists():
        return
    if not target.is_file():  # renaming over /dev/null would replace the device
        raise OutputError(f"cannot write {path}: it is not a regular file", _ELSEWHERE)
    if not overwrite:
        raise OutputError(f"{path} exists already", f"add `--force` to overwrite it, or {_ELSEWHERE}")


def output_error(path: Path, error: OSError) -> OutputError:
    """What the system says against writing a file, in words."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return OutputError(f"cannot write {path}: disk full", f"free some space, or {_ELSEWHERE}")
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return OutputError(f"cannot write {path}: permission denied", _ELSEWHERE)
    if error.errno in (errno.EEXIST, errno.ENOTDIR):
        return OutputError(f"cannot write {path}: {path.parent} is not a directory", _ELSEWHERE)
    return OutputError(f"cannot write {path}: {error.strerror or error}", _ELSEWHERE)

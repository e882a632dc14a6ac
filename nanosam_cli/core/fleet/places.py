"""Files on any file system: a local path, or an address such as s3://, gs:// or hf://."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
from pyarrow import fs

from nanosam_cli.core.errors import InputError

_ACCESS = "check the address, and that the credentials of that service are set where this runs"


def is_remote(place: str) -> bool:
    """Whether a place is an address and no path."""
    return "://" in place


def open_file_system(place: str) -> tuple[Any, str]:
    """The pyarrow file system of a place, and the path on it.

    InputError where there is none of that kind, or it cannot be reached.
    """
    if not is_remote(place):
        return fs.LocalFileSystem(), str(Path(place).absolute())
    try:
        found: tuple[Any, str] = fs.FileSystem.from_uri(place)
        return found
    except (pa.ArrowInvalid, OSError):
        return _of_fsspec(place)


def _of_fsspec(place: str) -> tuple[Any, str]:
    """What fsspec has a driver for, such as hf://."""
    try:
        import fsspec

        system, path = fsspec.core.url_to_fs(place)
    except ImportError as error:
        raise InputError(f"cannot read {place}: {error}", "install the driver that it names") from error
    except (OSError, ValueError) as error:
        raise InputError(f"cannot read {place}: {error}", _ACCESS) from error
    return fs.PyFileSystem(fs.FSSpecHandler(system)), path


def list_files(place: str) -> tuple[Any, list[str]]:
    """The file system, and every file below a place, or the place itself where it is one, hidden ones left out.

    InputError where there is nothing, or it cannot be listed.
    """
    system, path = open_file_system(place)
    try:
        (info,) = system.get_file_info([path])
        if info.type == fs.FileType.NotFound:
            raise InputError(f"no such place: {place}", "check the path")
        if info.type == fs.FileType.File:
            return system, [path]
        entries = system.get_file_info(fs.FileSelector(path, recursive=True))
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"cannot read {place}: {error}", _ACCESS) from error
    files = [entry.path for entry in entries if entry.type == fs.FileType.File]
    start = len(path.rstrip("/"))
    return system, [file for file in files if not any(part.startswith(".") for part in file[start:].split("/"))]


def read_range(system: Any, path: str, start: int = 0, count: int | None = None) -> bytes:
    """Bytes of a file. InputError where they cannot be had."""
    try:
        with system.open_input_file(path) as file:
            file.seek(start)
            data: bytes = file.read() if count is None else file.read(count)
            return data
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"cannot read {path}: {error}", _ACCESS) from error

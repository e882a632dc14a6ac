"""Zip and tar files unpacked so that nothing in them reaches out of the folder or fills the disk.

Members are written here, byte by byte, and never by the standard library's `extract`: only plain files and folders come
into being, on every release of Python alike.
"""

from __future__ import annotations

import errno
import lzma
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import IO

from nanosam_cli.core.errors import InputError
from nanosam_cli.core.system.cache import check_free_space

Progress = Callable[[int, int | None], object]  # bytes done, of so many

# Photos hardly shrink, annotations to a tenth. A bomb gives a thousand times its size and more.
LARGEST_RATIO = 100
HARMLESS = 1 << 26  # bytes that any archive may have, however small it is
_BLOCK = 1 << 20
_DAMAGED = (
    *(zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, EOFError),
    NotImplementedError,  # of zipfile: an unknown compression
)


@dataclass(frozen=True)
class Member:
    """A plain file in an archive."""

    name: str
    size: int  # bytes, as the archive says
    open: Callable[[], IO[bytes]]


def unpack(archive: Path, folder: Path, progress: Progress) -> None:
    """Write everything that a zip or tar file (also .gz, .bz2, .xz) holds into an empty folder.

    Nothing is written where any member is refused: names that lead out of the folder, links, devices, and sizes that
    the archive cannot have in earnest.

    Raises:
        InputError: it is no archive, damaged, or refused.
        OutputError: what it holds does not fit on the disk.
    """
    if not archive.is_file():
        raise InputError(f"no such archive: {archive}")
    with _reading(archive), _members(archive) as members:
        total = 0
        for member in members:
            _check_name(archive, member.name)
            total += member.size
            _check_total(archive, total)
        check_free_space(folder, total)
        done = 0
        progress(done, total)
        for member in members:
            for written in _write(archive, member, folder / member.name):
                done += written
                progress(done, total)


@contextmanager
def _members(archive: Path) -> Iterator[list[Member]]:
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as file:
            yield _zip_members(archive, file)
    elif tarfile.is_tarfile(archive):
        with tarfile.open(archive) as file:
            yield _tar_members(archive, file)
    else:
        raise InputError(f"{archive} is neither a zip nor a tar file", "get it again")


def _zip_members(archive: Path, file: zipfile.ZipFile) -> list[Member]:
    members = []
    for info in file.infolist():
        kind = stat.S_IFMT(info.external_attr >> 16)  # 0 where it was packed on a system without such modes
        if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise _refused(archive, info.filename, "is a link or a device")
        if info.flag_bits & 1:
            raise _refused(archive, info.filename, "needs a password")
        if not info.is_dir():
            members.append(Member(info.filename, info.file_size, lambda info=info: file.open(info)))  # type: ignore[misc]
    return members


def _tar_members(archive: Path, file: tarfile.TarFile) -> list[Member]:
    members, total = [], 0
    for info in file:
        if not (info.isreg() or info.isdir()):
            raise _refused(archive, info.name, "is a link or a device")
        total += info.size
        _check_total(archive, total)  # before what lies behind a huge one is looked for
        if info.isreg():
            members.append(Member(info.name, info.size, lambda info=info: _tar_member(file, info)))  # type: ignore[misc]
    return members


def _tar_member(file: tarfile.TarFile, info: tarfile.TarInfo) -> IO[bytes]:
    reader = file.extractfile(info)
    assert reader is not None  # only links and devices have none
    return reader


def _check_name(archive: Path, name: str) -> None:
    """A name is a path below the folder, on this system and on Windows."""
    posix, windows = PurePosixPath(name), PureWindowsPath(name)
    if posix.is_absolute() or windows.drive or windows.root or ".." in (*posix.parts, *windows.parts):
        raise _refused(archive, name, "leads out of the folder")
    if not posix.parts or "\0" in name or "\\" in name:
        raise _refused(archive, name, "is no usable file name")


def _check_total(archive: Path, total: int) -> None:
    packed = archive.stat().st_size
    if total > max(HARMLESS, LARGEST_RATIO * packed):
        raise InputError(
            f"{archive} is refused as a bomb: {packed / 1e6:.1f} MB would become {total / 1e6:.1f} MB or more",
            "get it from its publisher",
        )


def _refused(archive: Path, name: str, why: str) -> InputError:
    return InputError(f"{archive} is refused: its member {name!r} {why}", "get it from its publisher")


def _write(archive: Path, member: Member, target: Path) -> Iterator[int]:
    """Write one member and yield the size of each block."""
    target.parent.mkdir(parents=True, exist_ok=True)
    written = 0
    with member.open() as reader, target.open("xb") as file:  # x: of two members of one name, one is a trap
        while block := reader.read(_BLOCK):
            written += len(block)
            if written > member.size:
                break
            file.write(block)
            yield len(block)
    if written != member.size:
        raise InputError(f"{archive} is damaged: {member.name} is not of the size that it says", "get it again")


@contextmanager
def _reading(archive: Path) -> Iterator[None]:
    """What reading raises, as errors that name the archive; what the disk refuses is left to the caller."""
    try:
        yield
    except (FileExistsError, IsADirectoryError, NotADirectoryError) as error:
        raise InputError(f"{archive} is refused: it holds {error.filename} more than once") from error
    except _DAMAGED as error:
        raise InputError(f"{archive} is damaged: {error}", "get it again") from error
    except OSError as error:
        if error.errno in (None, errno.EIO):  # gzip's, which has no number
            raise InputError(f"{archive} is damaged: {error}", "get it again") from error
        raise

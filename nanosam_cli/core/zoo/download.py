"""The files of one entry of the catalogue: download, unpack, verify and remove them."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from nanosam_cli.core import paths
from nanosam_cli.core.errors import DownloadError, InputError, OutputError, UsageError
from nanosam_cli.core.messages import Note
from nanosam_cli.core.system.cache import cache_errors, one_at_a_time, unfinished, unfinished_path
from nanosam_cli.core.system.files import file_sha256, write_text
from nanosam_cli.core.zoo.archive import unpack
from nanosam_cli.core.zoo.catalogue import Entry, entries
from nanosam_cli.core.zoo.fetch import DownloadProgress, Fetched, FetchOptions, fetch, recorded_hash, side_files
from nanosam_cli.core.zoo.models import EXPORTED
from nanosam_cli.core.zoo.partial_file import PartFile
from nanosam_cli.core.zoo.remote_file import RemoteFile
from nanosam_cli.core.zoo.transport import shown

_MIRROR = "give a directory, or an address that begins with file://, http:// or https://"

FileState = Literal["ok", "unknown", "missing", "broken"]


@dataclass(frozen=True)
class Verified:
    """What a file is, against what it should be. Unknown: there is no hash to hold it against."""

    path: Path
    state: FileState
    detail: str


def options(mirror: str | None, offline: bool, overwrite: bool) -> FetchOptions:
    """What was asked for on the command line, else NANOSAM_MIRROR and NANOSAM_OFFLINE.

    UsageError where the mirror is no address.
    """
    mirror = mirror or paths.MIRROR.get()
    try:
        scheme = urlsplit(mirror or "").scheme
    except ValueError as error:
        raise UsageError(f"mirror {mirror} is no address: {error}", _MIRROR) from error
    if mirror and "://" in mirror and scheme not in ("http", "https", "file"):
        raise UsageError(f"mirror {shown(mirror)} cannot be read: {scheme}://", _MIRROR)
    return FetchOptions(mirror, offline or paths.OFFLINE.get() or False, overwrite)


def kept_bytes(entry: Entry, file: RemoteFile) -> int:
    """What an earlier download that broke off has left to go on with."""
    return PartFile(entry.path(file)).size


def download(entry: Entry, file: RemoteFile, asked: FetchOptions, progress: DownloadProgress, note: Note) -> Fetched:
    """One file of an entry, with its licence beside it as `NAME.licence.txt`. Errors are `fetch`'s.

    An archive that was unpacked is here already.
    """
    target, folder = entry.path(file), entry.folder_of(file)
    if folder is not None and entry.has(file) and not target.is_file() and not asked.overwrite:
        return Fetched(folder, None, None)
    fetched = fetch(file, target, asked, progress, note)
    if fetched.url is not None:
        lines = (
            f"{file.file}, of {entry.name}",
            f"licence: {entry.licence}",
            f"publisher: {entry.source or 'unknown'}",
            f"downloaded from: {shown(fetched.url)}",
            f"sha256: {fetched.sha256}, {'as published' if file.sha256 else 'none is published'}",
        )
        write_text(target.with_name(f"{target.name}.licence.txt"), "\n".join(lines) + "\n", overwrite=True)
    return fetched


def unpack_file(
    entry: Entry, file: RemoteFile, progress: DownloadProgress, note: Note, *, overwrite: bool = False
) -> Path | None:
    """Unpack an archive of an entry that is here, and delete it; where it is now. None for a file that is no archive.

    The folder gets its name when it is whole, so one that is there stays unless `overwrite`. Errors are `unpack`'s.
    """
    archive, folder = entry.path(file), entry.folder_of(file)
    if folder is None or file.unpacks_to is None:
        return None
    with cache_errors(folder), one_at_a_time(archive, note, "unpacking"):
        if overwrite or not folder.is_dir():
            with unfinished(folder) as temporary:
                unpack(archive, temporary, progress)
                inner = temporary / file.unpacks_to
                if not inner.is_dir():
                    raise InputError(f"{archive} holds no folder {file.unpacks_to}", "get it from its publisher")
                _delete(folder)
                inner.rename(folder)
        archive.unlink(missing_ok=True)
    return folder


def verify(entry: Entry) -> Iterator[Verified]:
    """Every file of an entry against its published, else its recorded hash."""
    for file in entry.files:
        path = entry.path(file)
        wanted = file.sha256 or recorded_hash(path)
        if not path.is_file() and entry.has(file):
            yield Verified(path, "unknown", f"was unpacked to {entry.folder_of(file)}; hashes are of the archive alone")
        elif not path.is_file():
            kept = PartFile(path).size
            yield Verified(path, "missing", f"{kept / 1e6:.1f} MB of a download that broke off" if kept else "not here")
        elif wanted is None:
            yield Verified(path, "unknown", "no hash is published, and none was recorded")
        elif (found := file_sha256(path)) != wanted:
            yield Verified(path, "broken", f"its sha256 is {found}, not {wanted}")
        else:
            yield Verified(path, "ok", f"sha256 as {'published' if file.sha256 else 'recorded by the first download'}")


def remove(entry: Entry) -> list[Path]:
    """Delete an entry's files and what downloading left beside them; what was deleted.

    A file that another downloaded entry needs stays. DownloadError for an entry that comes with the package,
    OutputError where a file cannot be deleted.
    """
    if entry.bundled:
        raise DownloadError(f"{entry.name} comes with the package", "pip uninstall nanosam-cli")
    mine = {entry.path(file) for file in entry.files}
    others = [
        {other.path(file) for file in other.files}
        for other in entries().values()
        if other.name != entry.name and other.is_here
    ]
    # an entry that is nothing but a part of this one goes with it
    needed = {path for files in others if not files <= mine for path in files}
    folders = [made for file in entry.files if entry.path(file) not in needed for made in _made_of(entry, file)]
    beside = [path for target in sorted(mine - needed) for path in (target, *side_files(target))]
    removed = [path for path in (*beside, *folders) if _delete(path)]
    return [path for path in removed if not path.name.endswith(".lock")]


def _made_of(entry: Entry, file: RemoteFile) -> Iterator[Path]:
    """What unpacking an archive or exporting a checkpoint may have left."""
    folder = entry.folder_of(file)
    if folder is not None:
        yield from (folder, unfinished_path(folder))
    if entry.kind == "model":  # with the lock, and what a process left that was killed
        yield from sorted(entry.path(file).parent.glob(f"*{EXPORTED}*"))


def _delete(path: Path) -> bool:
    """Delete a file or a folder; whether it was there."""
    try:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
    except FileNotFoundError:
        return False
    except OSError as error:
        raise OutputError(f"cannot delete {path}: {error.strerror or error}") from error
    return True

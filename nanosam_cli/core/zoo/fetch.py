"""One file from where it is published into the cache: resumed, verified, and there whole or not at all."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Protocol
from urllib.parse import quote

from nanosam_cli.core import paths
from nanosam_cli.core.errors import DownloadError, UsageError
from nanosam_cli.core.messages import Note
from nanosam_cli.core.system.cache import cache_errors, check_free_space, lock_path, one_at_a_time
from nanosam_cli.core.zoo.partial_file import Origin, PartFile
from nanosam_cli.core.zoo.remote_file import RemoteFile
from nanosam_cli.core.zoo.transport import Body, RangeError, TransientError, is_remote, open_body, shown

TRIES = 5  # in a row without progress
PROGRESS = 1 << 20  # bytes that count as progress
BACK_OFF = 0.5  # seconds before the second try, doubled before each further one
LONGEST_WAIT = 60.0  # seconds, whatever a server asks for
_ELSEWHERE = "--mirror DIR takes the right one from a directory"
_GO_ON = "free some space and type the same again: it goes on with the {:.1f} MB that are here"
_PAGES = (b"<!doctype html", b"<html")


class DownloadProgress(Protocol):
    """Told how many bytes of how many are here; fewer than before where it begins anew."""

    def __call__(self, done: int, total: int | None, /) -> None: ...


@dataclass(frozen=True)
class FetchOptions:
    """How to fetch. `mirror`: a directory, or a file:// or http base with the files by their plain names."""

    mirror: str | None = None
    offline: bool = False
    overwrite: bool = False  # fetch what is here already, too

    def urls(self, file: RemoteFile) -> tuple[str, ...]:
        """Where to try, in this order. UsageError where `offline` leaves nothing."""
        urls = file.urls if self.mirror is None else (f"{self.mirror.rstrip('/')}/{_plain(self.mirror, file)}",)
        if self.offline and all(map(is_remote, urls)):
            raise UsageError(
                f"{file.file} is not here, and --offline opens no network connection",
                f"leave out --offline (or {paths.OFFLINE.name}), or give --mirror DIR",
            )
        return tuple(url for url in urls if not (self.offline and is_remote(url)))


@dataclass(frozen=True)
class Fetched:
    """A file that is here now."""

    path: Path
    sha256: str | None  # None where it was here before and was not looked at
    url: str | None  # None where it was here before


def fetch(file: RemoteFile, target: Path, options: FetchOptions, progress: DownloadProgress, note: Note) -> Fetched:
    """Bring `file` to `target`. `note` takes what people may want to know: waiting, trying again, beginning anew.

    What breaks off stays as `NAME.part` and is gone on with, kill -9 included. A second process waits for the first. A
    file of the wrong hash is kept as `NAME.rejected`. Without a published hash the first download records its own in
    `NAME.sha256`, which later ones must match.

    Raises:
        DownloadError: it cannot be had, or is not what was published.
        OutputError: the cache cannot be written, or the disk is full.
        UsageError: `options` leave no place to take it from.
    """
    if target.is_file() and not options.overwrite:
        return Fetched(target, None, None)
    urls = options.urls(file)
    kept = PartFile(target)
    with (
        cache_errors(target, lambda: _GO_ON.format(kept.size / 1e6)),
        one_at_a_time(target, note, "downloading") as waited,
    ):
        if target.is_file() and (waited or not options.overwrite):  # another process was faster
            return Fetched(target, None, None)
        for index, url in enumerate(urls):
            try:
                return Fetched(target, _fetch_from(url, file, target, progress, note), url)
            except DownloadError as error:
                if index + 1 == len(urls):
                    raise
                note(f"{error}; trying {shown(urls[index + 1])}")
    raise AssertionError("a file without a url is not fetched")


def recorded_hash(target: Path) -> str | None:
    """What the first download of a file without a published hash recorded."""
    record = _record(target)
    words = record.read_text(encoding="ascii", errors="replace").split() if record.is_file() else []
    return words[0].lower() if words else None


def side_files(target: Path) -> list[Path]:
    """What fetching may leave beside a file."""
    suffixes = (".part", ".part.json", ".rejected", ".sha256", ".licence.txt")
    return [lock_path(target), *(target.with_name(target.name + suffix) for suffix in suffixes)]


def _fetch_from(url: str, file: RemoteFile, target: Path, progress: DownloadProgress, note: Note) -> str:
    """The sha256 of the file that is at `target` now."""
    part = PartFile(target)
    wanted = file.sha256 or recorded_hash(target)
    resumed = _may_resume(part, url, wanted)
    found = _read_whole(url, file, part, wanted, progress, note)
    if wanted and found != wanted and resumed:  # the file may have changed between the two halves
        note(f"{file.file}: the parts do not fit together; beginning anew")
        part.remove()
        found = _read_whole(url, file, part, wanted, progress, note)
    if wanted and found != wanted:
        rejected = target.with_name(f"{target.name}.rejected")
        part.become(rejected)
        origin = "the published one" if file.sha256 else "the one that the first download recorded"
        raise DownloadError(
            f"{shown(url)} is not the file it should be: its sha256 is {found}, not {origin}, {wanted}",
            f"it is not used, and kept as {rejected}; {_ELSEWHERE}",
        )
    if not file.sha256:
        _record(target).write_text(f"{found}  {target.name}\n", encoding="ascii")
    part.become(target)
    return found


def _may_resume(part: PartFile, url: str, wanted: str | None) -> bool:
    """With a hash any bytes of the right file will do; without one they must be of the same, unchanged file."""
    origin = part.origin()
    return origin is not None and (wanted is not None or (origin.url == url and origin.validator is not None))


def _read_whole(
    url: str, file: RemoteFile, part: PartFile, wanted: str | None, progress: DownloadProgress, note: Note
) -> str:
    """Read until the part is the whole file, over any number of connections. Its sha256."""
    failures, furthest = 0, part.size
    while True:
        try:
            return _read_on(url, file, part, wanted, progress)
        except RangeError:
            part.remove()
            failures += 1
            message, hint, wait = "the server has no such range", None, 0.0
        except TransientError as error:
            failures = 0 if part.size >= furthest + PROGRESS else failures + 1
            furthest = max(furthest, part.size)
            message, hint, wait = str(error), error.hint, error.retry_after
        if failures >= TRIES:
            kept = f"; {part.size / 1e6:.1f} MB are kept, and the same command goes on with them" if part.size else ""
            raise DownloadError(f"cannot download {file.file}: {message}", f"{hint or 'try again later'}{kept}")
        # jitter, so that many machines that lost the same server do not come back at the same moment
        wait = min(max(wait, BACK_OFF * 2 ** max(failures - 1, 0) * random.uniform(0.5, 1.0)), LONGEST_WAIT)
        note(f"{file.file}: {message}; trying again in {wait:.0f} s")
        time.sleep(wait)


def _read_on(url: str, file: RemoteFile, part: PartFile, wanted: str | None, progress: DownloadProgress) -> str:
    """Read from where the part ends, over one connection. The sha256 of the whole file."""
    origin = part.origin() if _may_resume(part, url, wanted) else None
    start = part.size if origin else 0
    total = file.size or (origin.total if origin else None)
    if origin and total is not None and start >= total:
        if start > total:
            raise RangeError
        return part.sha256()
    with open_body(url, start, origin.validator if origin and origin.url == url else None) as body:
        blocks = _file_blocks(url, body)
        if file.size and body.total not in (None, file.size):
            raise DownloadError(
                f"{shown(url)} has {body.total} bytes, not the {file.size} that are published",
                f"it is another file; {_ELSEWHERE}",
            )
        total = file.size or body.total
        if total is None and wanted is None and not body.framed:
            raise DownloadError(
                f"{shown(url)} does not tell how long it is, so half of it would pass for all", _ELSEWHERE
            )
        progress(body.start, total)
        check_free_space(part.path.parent, (total or 0) - body.start)
        with part.append(body.start, Origin(url, body.validator, total)) as write:
            got = body.start
            for block in blocks:
                got += len(block)
                if total is not None and got > total:
                    break
                write(block)
                progress(got, total)
    if total is not None and got > total:
        part.remove()
        raise DownloadError(f"{shown(url)} gives more than its {total} bytes", f"it is another file; {_ELSEWHERE}")
    if total is not None and got < total:
        raise TransientError(f"the connection broke off after {got} of {total} bytes")
    return part.sha256()


def _file_blocks(url: str, body: Body) -> Iterator[bytes]:
    """The blocks. DownloadError where they are a web page's, sent as if it were the file."""
    first = next(body.blocks, b"")
    if body.start == 0 and first.lstrip()[:14].lower().startswith(_PAGES):
        raise DownloadError(f"{shown(url)} gives a web page in place of the file", _ELSEWHERE)
    return chain((first,), body.blocks)


def _record(target: Path) -> Path:
    return target.with_name(f"{target.name}.sha256")


def _plain(mirror: str, file: RemoteFile) -> str:
    """The file's name as it stands in a mirror's address."""
    return quote(file.file) if "://" in mirror else file.file

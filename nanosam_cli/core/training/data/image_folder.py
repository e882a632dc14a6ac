"""Photos without masks: folders of any depth and tar shards, and what becomes of those that cannot be read."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from nanosam_cli.core.errors import InputError
from nanosam_cli.core.media.image import IMAGE_FORMATS, image_area, read_image
from nanosam_cli.core.schema import read_section
from nanosam_cli.core.system.documents import parse_json

ELSEWHERE = "--set data.root=DIR, the folder above data.sources"  # what to type where there is no such source
MOST_UNREADABLE = 0.05  # share of the photos
ENOUGH = 20  # unreadable photos after which the share among those that were tried counts

Answer = TypeVar("Answer")
Encoded = Path | bytes  # a file, or what is in one


@dataclass(frozen=True)
class PlainPhoto:
    """A photo in a file of its own, or one of a tar shard, which is read without unpacking."""

    path: Path  # of the photo, or of the shard
    bytes: int
    member: str | None = None  # name in the shard
    offset: int = 0  # of its bytes in the shard

    @property
    def name(self) -> str:
        """For messages."""
        return str(self.path if self.member is None else self.path / self.member)

    def read(self) -> NDArray[np.uint8]:
        """(H, W, 3) RGB. InputError where it cannot be read."""
        return self._ask(read_image)

    def area(self) -> int:
        """Pixels, by the file's header. InputError where it cannot be read."""
        return self._ask(image_area)

    def _ask(self, question: Callable[[Encoded], Answer]) -> Answer:
        if self.member is None:
            return question(self.path)
        try:
            with self.path.open("rb") as shard:
                shard.seek(self.offset)
                return question(shard.read(self.bytes))
        except OSError as error:
            raise InputError(f"cannot read {self.name}: {error.strerror or error}") from error
        except InputError as error:
            raise InputError(f"{self.name}: {error}", error.hint) from error


def find_training_photos(place: Path) -> list[PlainPhoto]:
    """All photos below a folder and in the tar shards there, or in one shard, in the order of their names.

    Tar shards are WebDataset's, as SA-1B comes (https://ai.meta.com/datasets/segment-anything/): photos beside other
    files of the same stem. Hidden files do not count. InputError where there is no such place, or no photo in it.
    """
    if not place.exists():
        raise InputError(f"no such folder of photos: {place}", ELSEWHERE)
    files = [place] if place.is_file() else sorted(path for path in place.rglob("*") if _is_shown(path, place))
    photos: list[PlainPhoto] = []
    for path in files:
        if path.suffix.lower() == ".tar":
            photos += _shard_photos(path)
        elif path.suffix.lower() in IMAGE_FORMATS:
            photos.append(PlainPhoto(path, path.stat().st_size))
    if not photos:
        raise InputError(f"no photos in {place}", f"known suffixes: {' '.join(IMAGE_FORMATS)} and .tar")
    return photos


def fingerprint(photos: Sequence[PlainPhoto], root: Path) -> str:
    """SHA-256 of names below `root` and sizes: the same photos give the same, wherever they lie."""
    digest = sha256()
    for photo in photos:
        digest.update(f"{photo.path.relative_to(root).as_posix()}\0{photo.member}\0{photo.bytes}\n".encode())
    return digest.hexdigest()


@dataclass(frozen=True)
class _Entry:
    """A photo that could not be read."""

    photo: str
    reason: str


class Unreadable:
    """The list of photos that could not be read: workers append to it, the run looks at it.

    A line of JSON a photo; a line this short reaches the file whole, so that processes may share it.
    """

    def __init__(self, path: Path, photos: int) -> None:
        self.path, self._photos = path, photos
        self._noted: set[str] = set()
        self._seen: set[str] = set()
        self._bytes = 0

    def add(self, name: str, error: InputError) -> None:
        """Note a photo, once."""
        if name in self._noted:
            return
        self._noted.add(name)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"photo": name, "reason": str(error)}) + "\n")

    def news(self, tried: int) -> Iterator[str]:
        """Photos that were noted since the last call, each by its reason.

        `tried` is how many samples were drawn so far: no more photos than that are known to be good or bad.

        InputError where more than MOST_UNREADABLE of all photos are bad, or ENOUGH of those that were drawn.
        """
        size = self.path.stat().st_size if self.path.exists() else 0
        if size <= self._bytes:
            return
        self._bytes = size
        for line in self.path.read_bytes().splitlines():
            try:
                entry = read_section(_Entry, parse_json(line))
            except ValueError as error:
                raise InputError(f"{self.path} is no list of photos: {error}", "delete it, and --resume") from error
            if entry.photo not in self._seen:
                self._seen.add(entry.photo)
                yield entry.reason
        count = len(self._seen)
        of_all, of_tried = count > MOST_UNREADABLE * self._photos, count > MOST_UNREADABLE * tried
        if of_all or (of_tried and count >= ENOUGH):
            photos = self._photos if of_all else max(tried, count)  # a sample whose photo is bad is drawn again
            raise InputError(
                f"{count} photos of {photos} cannot be read, more than {MOST_UNREADABLE:.0%}; they are in {self.path}",
                "mend or remove them, delete that list, then go on with --resume",
            )


def _is_shown(path: Path, place: Path) -> bool:
    return not any(part.startswith(".") for part in path.relative_to(place).parts) and path.is_file()


def _shard_photos(path: Path) -> list[PlainPhoto]:
    try:
        with tarfile.open(path, "r:") as shard:  # no compression: photos must be found where they lie
            return [
                PlainPhoto(path, member.size, member.name, member.offset_data)
                for member in shard
                if member.isfile() and Path(member.name).suffix.lower() in IMAGE_FORMATS
            ]
    except (tarfile.TarError, OSError) as error:
        raise InputError(
            f"cannot read {path}: {error}", "shards must be whole, and tar files without compression"
        ) from error

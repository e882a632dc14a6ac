"""Where a COCO data set lies: folders, or zip files as they were downloaded, which are read in place."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from contextlib import suppress
from functools import cached_property
from pathlib import Path, PurePosixPath
from unicodedata import normalize

import numpy as np
from numpy.typing import NDArray

from nanosam_cli.core import paths
from nanosam_cli.core.errors import InputError, UsageError
from nanosam_cli.core.media.image import image_orientation, read_image
from nanosam_cli.core.system.files import read_input

DOWNLOAD = "nanosam download coco-val2017"
_BROKEN = (OSError, zipfile.BadZipFile, NotImplementedError, RuntimeError)  # the last: an encrypted member


def find_data(images: Path | None, annotations: Path | None) -> tuple[Path, Path]:
    """The photos (a folder or a zip file) and the annotation file of an evaluation; COCO val2017 where none is given.

    Where one is given, the other is looked for where COCO and this project's data sets have it.

    Raises:
        InputError: there is no such place, or the default data set was not downloaded.
        UsageError: one is given and the other cannot be found.
    """
    root = paths.home() / "datasets" / "coco"
    inner = Path("annotations", "instances_val2017.json")
    if images is None and annotations is None:
        photos = _first(root / "val2017", root / "val2017.zip")
        file = _first(root / inner, root / "annotations_trainval2017.zip" / inner)
        if photos is None or file is None:
            raise InputError(
                f"COCO val2017 is not in {root}", f"{DOWNLOAD}, or give your own: --images DIR --annotations FILE"
            )
        return photos, file
    for place in (images, annotations):
        if place is not None and not _exists(place):
            raise InputError(f"no such file or folder: {place}", "check the path")
    if images is None:
        assert annotations is not None
        split = annotations.stem.removeprefix("instances_")
        images = _first(annotations.parent / "images", annotations.parent.parent / split)
        if images is None:
            raise UsageError(f"no photos found beside {annotations}", "give --images DIR, a folder or a zip file")
    if annotations is None:
        annotations = _first(
            images.parent / "instances.json", images.parent / "annotations" / f"instances_{images.stem}.json"
        )
        if annotations is None:
            raise UsageError(f"no annotation file found beside {images}", "give --annotations FILE")
    return images, annotations


def read_file(path: Path, what: str = "file") -> bytes:
    """The bytes of a file. A path may lead into a zip file: `annotations.zip/annotations/instances_val2017.json`.

    A zip file that holds one JSON file stands for that file. InputError, which says `what`, where it cannot be read.
    """
    archive = next((place for place in (path, *path.parents) if _is_zip(place)), None)
    try:
        if archive is None:
            return read_input(path, what)
        with zipfile.ZipFile(archive) as file:
            return file.read(_member(file, path, archive))
    except FileNotFoundError as error:
        raise InputError(f"no such {what}: {path}", "check the path") from error
    except _BROKEN as error:
        raise InputError(f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from error


class PhotoFiles:
    """The photos of a data set, in a folder or in a zip file. Closed at the end of a `with` block."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self._archive: zipfile.ZipFile | None = None
        self._members: dict[str, str] = {}  # full names, and plain names for those that an annotation file gives so
        if _is_zip(place):
            try:
                self._archive = zipfile.ZipFile(place)
            except _BROKEN as error:
                raise InputError(f"cannot read {place}: {error}", "download it again") from error
            names = [name for name in self._archive.namelist() if not name.endswith("/")]
            self._members = {PurePosixPath(name).name: name for name in names} | {name: name for name in names}
        elif not place.is_dir():
            raise InputError(f"{place} is neither a folder nor a zip file", "give the folder of the photos")

    def __enter__(self) -> PhotoFiles:
        return self

    def __exit__(self, *_: object) -> None:
        if self._archive is not None:
            self._archive.close()

    def __contains__(self, path: Path) -> bool:
        """Whether a photo is there, by its path below `place` or by its plain name: some tools write folders before.

        InputError where the name leads out of `place`.
        """
        return self._file(path) is not None

    def read(self, path: Path) -> NDArray[np.uint8]:
        """(H, W, 3) uint8 RGB, upright. InputError where the photo is missing or broken, or lies outside of `place`."""
        found = self._file(path)
        if found is None:
            raise InputError(f"no such photo: {path}", "check --images")
        if self._archive is None:
            return read_image(found)
        try:
            with self._archive.open(str(found)) as file:
                return read_image(file.read())
        except _BROKEN as error:
            raise InputError(f"cannot read {path}: {error}", "download it again") from error

    def orientation(self, path: Path) -> int:
        """EXIF's of a photo; see `image_orientation`."""
        found = self._file(path)
        if found is None or self._archive is None:
            return image_orientation(Path(found or path))
        return image_orientation(self._archive.read(str(found)))

    def _file(self, path: Path) -> str | Path | None:
        name = path.relative_to(self.place).as_posix() if path.is_relative_to(self.place) else path.name
        if self._archive is not None:
            return self._members.get(name) or self._members.get(path.name) or self._spelled(name)
        there = [place for place in (self.place / name, self.place / path.name) if _exists(place)]
        inside = next((place for place in there if self._is_inside(place)), None)
        if there and inside is None:
            raise InputError(
                f"{path} leads out of {self.place}, to {there[0].resolve()}",
                "give the folder where the photos are by --images, or copy that photo into it",
            )
        return inside or self._spelled(name)

    def _is_inside(self, photo: Path) -> bool:
        """Whether it lies in the folder, and not where `..` leads to. A link is the work of who made the folder: photos
        of a store (DVC, the Hugging Face cache) are links to elsewhere."""
        return ".." not in photo.parts or photo.resolve().is_relative_to(self._resolved)

    def _spelled(self, name: str) -> str | Path | None:
        """The photo whose name is the same text in other code points, as one that was written on a Mac."""
        if name.isascii():
            return None
        composed = normalize("NFC", name)
        return self._composed.get(composed) or self._composed.get(PurePosixPath(composed).name)

    @cached_property
    def _resolved(self) -> Path:
        return self.place.resolve()

    @cached_property
    def _composed(self) -> Mapping[str, str | Path]:
        """Photos by path and by plain name, as NFC."""
        if self._archive is not None:
            return {normalize("NFC", name): member for name, member in self._members.items()}
        found = (file for file in self.place.rglob("*") if self._is_inside(file))
        files = {file.relative_to(self.place).as_posix(): file for file in found}
        plain: dict[str, str | Path] = {normalize("NFC", file.name): file for file in files.values()}
        return plain | {normalize("NFC", name): file for name, file in files.items()}


def _first(*places: Path) -> Path | None:
    return next((place for place in places if _exists(place)), None)


def _exists(place: Path) -> bool:
    """Whether it is there, on its own or in a zip file."""
    archive = next((parent for parent in place.parents if _is_zip(parent)), None)
    if archive is None:
        return place.exists()
    with suppress(*_BROKEN), zipfile.ZipFile(archive) as file:
        return place.relative_to(archive).as_posix() in file.namelist()
    return False


def _is_zip(path: Path) -> bool:
    return path.suffix.lower() == ".zip" and path.is_file()


def _member(file: zipfile.ZipFile, path: Path, archive: Path) -> str:
    """What a path into a zip file means."""
    names = [name for name in file.namelist() if name.endswith(".json")]
    if path == archive and len(names) == 1:
        return names[0]
    inner = path.relative_to(archive).as_posix()
    if inner not in names:
        some = ", ".join(str(archive / name) for name in sorted(names)[:3])
        raise InputError(f"{path} does not say which file of {archive.name} is meant", f"such as {some}")
    return inner

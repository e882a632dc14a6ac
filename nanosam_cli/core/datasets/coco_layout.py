"""What every COCO file with `images` and `annotations` has in common, read once for boxes, poses and evaluation.

Formats: https://cocodataset.org/#format-data; LVIS (https://www.lvisdataset.org/dataset) has `coco_url` in the place of
`file_name`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote, urlsplit

from nanosam_cli.core.errors import InputError
from nanosam_cli.core.ids import read_id, whole_number
from nanosam_cli.core.messages import some
from nanosam_cli.core.names import read_name

_RENUMBER = "give each image an id of its own, and its annotations the same"


@dataclass(frozen=True)
class ListedImage:
    """An entry of `images`."""

    id: int
    name: str  # as written, with its folders
    size: tuple[int, int] | None  # height width as declared, whatever that says; None where it is not


@dataclass(frozen=True)
class ListedAnnotation:
    """An entry of `annotations` whose image is listed."""

    where: str  # for messages: `annotation 7`, by its id where it has one
    image: ListedImage
    content: Mapping[str, Any]


@dataclass(frozen=True)
class CocoLayout:
    """A file's entries, joined by their ids."""

    images: Mapping[int, ListedImage]
    categories: Mapping[int, Mapping[str, Any]]
    annotations: Sequence[ListedAnnotation]
    orphans: Sequence[str]  # annotations of images that are not listed, in words

    @property
    def notes(self) -> list[str]:
        """What was left out, for people."""
        if not self.orphans:
            return []
        count = len(self.orphans)
        return [f"{count} annotation{'s' * (count > 1)} of photos that are not listed left out: {some(self.orphans)}"]


def read_layout(path: Path, content: Mapping[str, Any]) -> CocoLayout:
    """Join the entries of a COCO file.

    Raises:
        InputError: an id is no whole number, stands for two images or two categories, or not one annotation has an
            image that is listed.
        AttributeError, KeyError, TypeError, ValueError: the content is laid out in another way.
    """
    images = _images(path, content["images"])
    categories = _categories(path, content.get("categories") or [])
    annotations, orphans = [], []
    for number, entry in enumerate(content["annotations"], 1):
        where = f"annotation {entry['id']}" if "id" in entry else f"annotation number {number}"
        image_id = read_id(entry, "image_id", f"{path}, {where}")
        if image_id in images:
            annotations.append(ListedAnnotation(where, images[image_id], entry))
        else:
            orphans.append(f"{where} of image {image_id}")
    if orphans and not annotations:
        raise InputError(
            f"{path} lists the photo of none of its annotations: {some(orphans)}",
            "give a file whose `images` has the ids that its annotations name",
        )
    return CocoLayout(images, categories, annotations, orphans)


def _images(path: Path, records: Sequence[Mapping[str, Any]]) -> dict[int, ListedImage]:
    images: dict[int, ListedImage] = {}
    for number, record in enumerate(records, 1):
        image = ListedImage(read_id(record, "id", f"{path}, image {number}"), _name(record), _size(record))
        other = images.setdefault(image.id, image)
        if other.name != image.name:
            raise InputError(f"{path} has two images with id {image.id}: {other.name} and {image.name}", _RENUMBER)
    return images


def _name(record: Mapping[str, Any]) -> str:
    """The photo's own name, else the last part of the address where it was published."""
    if record.get("file_name") is None and isinstance(record.get("coco_url"), str):
        return PurePosixPath(unquote(urlsplit(record["coco_url"]).path)).name
    name = record["file_name"]
    if not isinstance(name, str) or not name:
        raise ValueError(f"file_name {name!r} is no name")
    return name


def _size(record: Mapping[str, Any]) -> tuple[int, int] | None:
    sides = record.get("height"), record.get("width")
    return None if None in sides else (whole_number(sides[0]), whole_number(sides[1]))


def _categories(path: Path, entries: Sequence[Mapping[str, Any]]) -> dict[int, Mapping[str, Any]]:
    categories: dict[int, Mapping[str, Any]] = {}
    for number, entry in enumerate(entries, 1):
        key = read_id(entry, "id", f"{path}, category {number}")
        other = categories.setdefault(key, entry)
        if other.get("name") != entry.get("name"):
            names = f"{other.get('name')} and {entry.get('name')}"
            raise InputError(f"{path} has two categories with id {key}: {names}", "give each category an id of its own")
    return categories


def category_names(path: Path, categories: Mapping[int, Mapping[str, Any]]) -> dict[int, str]:
    """Names by id. InputError where one is no name of a class, KeyError where one is missing."""
    return {key: read_name(entry, "name", f"{path}, category {key}") for key, entry in categories.items()}

"""COCO-format instance annotations: read once, checked, masks kept compressed until they are needed.

Format: https://cocodataset.org/#format-data. This module and `formats` are where pycocotools' mask routines are used.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nanosam_cli.core.datasets.coco_layout import ListedAnnotation, ListedImage, category_names, read_layout
from nanosam_cli.core.datasets.photo_files import read_file
from nanosam_cli.core.errors import InputError, fault
from nanosam_cli.core.ids import read_id, whole_number
from nanosam_cli.core.media.image import MAX_PIXELS
from nanosam_cli.core.media.mask_codes import rle_box, rle_to_mask
from nanosam_cli.core.messages import quoted
from nanosam_cli.core.system.documents import parse_json

_MEND = "correct that entry, or leave it out of the file"
_EXPECTED = "give COCO's instances: images with id, file_name, height and width, and annotations with segmentation"
_FARTHEST = 1e6  # pixels; pycocotools walks along a polygon's edges, however long they are


@dataclass(frozen=True)
class AnnotatedObject:
    """One object's mask in a photo."""

    id: int
    category_id: int
    bbox: tuple[float, float, float, float]  # x y width height, original pixels
    area: float  # as annotated; decides COCO's size class
    iscrowd: bool
    rle: dict[str, Any]  # compressed run-length mask of the photo's size

    @property
    def box(self) -> tuple[float, float, float, float]:
        """x0 y0 x1 y1."""
        x, y, width, height = self.bbox
        return x, y, x + width, y + height

    def mask(self) -> NDArray[np.bool_]:
        """(H, W)."""
        return rle_to_mask(self.rle)


@dataclass(frozen=True)
class AnnotatedPhoto:
    """One photo with its objects."""

    id: int
    path: Path
    original_hw: tuple[int, int]
    objects: tuple[AnnotatedObject, ...]


@dataclass(frozen=True)
class Annotations:
    """An instances file."""

    path: Path
    sha256: str
    photos: tuple[AnnotatedPhoto, ...]
    categories: Mapping[int, str]  # names by id; empty where the file has none
    without_mask: int  # annotations left out because they have no segmentation
    notes: Sequence[str] = ()  # what else was left out, for people


def read_coco(annotations: Path, images: Path | None = None) -> list[AnnotatedPhoto]:
    """The photos of `read_annotations`."""
    return list(read_annotations(annotations, images).photos)


def read_annotations(annotations: Path, images: Path | None = None) -> Annotations:
    """Read an instances file; photos are looked for in `images`, else in `images/` beside the file.

    Annotations without a segmentation are left out and counted. Raises InputError where the file is not COCO's format.
    """
    folder = images if images is not None else annotations.parent / "images"
    data = read_file(annotations, "annotation file")
    missing = 0
    try:
        layout = read_layout(annotations, _parsed(annotations, data))
        found: dict[int, list[AnnotatedObject]] = {identity: [] for identity in layout.images}
        for entry in layout.annotations:
            rle = annotation_rle(entry, *_declared(entry.image))
            if rle is None:
                missing += 1
            else:
                found[entry.image.id].append(_annotated_object(annotations, entry, rle))
        photos = tuple(
            AnnotatedPhoto(image.id, folder / image.name, _declared(image), tuple(found[image.id]))
            for image in layout.images.values()
        )
        names = category_names(annotations, layout.categories)
        digest = sha256(data).hexdigest()
        return Annotations(annotations, digest, photos, names, missing, layout.notes)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise InputError(f"{annotations} is not a COCO instances file: {fault(error)}", _EXPECTED) from error
    except InputError as error:
        named = str(error).startswith(str(annotations))
        raise InputError(str(error) if named else f"{annotations}: {error}", error.hint) from error


def _parsed(annotations: Path, data: bytes) -> Any:
    try:
        return parse_json(data)
    except ValueError as error:
        raise InputError(f"{annotations} is not JSON: {error}", _EXPECTED) from error


def _declared(image: ListedImage) -> tuple[int, int]:
    """Height and width. KeyError where an image has none."""
    if image.size is None:
        raise KeyError("height and width")
    height, width = image.size
    if min(height, width) < 1 or height * width > MAX_PIXELS:
        raise InputError(
            f"image {image.id} has the size {quoted(width)}x{quoted(height)}",
            f"height and width are pixels, {MAX_PIXELS // 10**6} million of them at most",
        )
    return image.size


def annotation_rle(entry: ListedAnnotation, height: int, width: int) -> dict[str, Any] | None:
    """The annotation's mask as a compressed run-length code of the photo's size; None where there is none.

    InputError where it cannot be read, or has another size.
    """
    segmentation = entry.content.get("segmentation")
    try:
        if isinstance(segmentation, list):  # a polygon of fewer than three points has no area
            segmentation = [ring for ring in segmentation if len(ring) >= 6]
        if not segmentation:
            return None
        rle = _compressed(segmentation, height, width)
        size = tuple(rle["size"])
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise InputError(f"{entry.where} has a segmentation that cannot be read: {fault(error)}", _MEND) from error
    if size != (height, width):
        raise InputError(f"{entry.where} has a mask of {size}, its photo is ({height}, {width})", _MEND)
    return rle


def _annotated_object(path: Path, entry: ListedAnnotation, rle: dict[str, Any]) -> AnnotatedObject:
    """Box and area are those of the mask where the file has none."""
    content, where = entry.content, f"{path}, {entry.where}"
    try:
        bbox = content.get("bbox") or _around(content["segmentation"], rle)
        sides = [float(side) for side in bbox]
        if len(sides) != 4:
            raise ValueError(f"a box has 4 numbers, not {len(sides)}")
        x, y, width, height = sides
        area = float(np.count_nonzero(rle_to_mask(rle)) if content.get("area") is None else content["area"])
    except (TypeError, ValueError, OverflowError) as error:
        raise InputError(f"{entry.where} has no usable bbox and area: {fault(error)}", _MEND) from error
    if not all(math.isfinite(number) for number in (x, y, width, height, area)):
        raise InputError(f"{entry.where} has a bbox or an area that is no finite number", _MEND)
    return AnnotatedObject(
        id=read_id(content, "id", where),
        category_id=read_id(content, "category_id", where),
        bbox=(x, y, width, height),
        area=area,
        iscrowd=bool(content.get("iscrowd", 0)),
        rle=rle,
    )


def _around(segmentation: Any, rle: dict[str, Any]) -> tuple[float, float, float, float]:
    """x y width height of polygons by their corners, of another mask by its pixels."""
    if isinstance(segmentation, list):
        corners = np.concatenate([np.reshape(ring, (-1, 2)) for ring in segmentation if len(ring) >= 6]).astype(float)
        (x0, y0), (x1, y1) = corners.min(0), corners.max(0)
    else:
        x0, y0, x1, y1 = rle_box(rle)
    return float(x0), float(y0), float(x1 - x0), float(y1 - y0)


def _compressed(segmentation: Any, height: int, width: int) -> dict[str, Any]:
    """Polygons, an uncompressed or a compressed run-length mask -> a compressed one.

    KeyError, TypeError, ValueError or OverflowError where it is none: pycocotools trusts what it is given.
    """
    from pycocotools import mask as mask_api

    if isinstance(segmentation, list):
        rings = [[float(side) for side in ring] for ring in segmentation]
        if not all(abs(side) <= _FARTHEST for ring in rings for side in ring):  # NaN neither
            raise ValueError("a polygon lies far outside the photo")
        merged: dict[str, Any] = mask_api.merge(mask_api.frPyObjects(rings, height, width))
        return merged
    size, counts = [whole_number(side) for side in segmentation["size"]], segmentation["counts"]
    if isinstance(counts, list):
        runs = [whole_number(run) for run in counts]
        if len(size) != 2 or not all(0 <= run < 2**32 for run in runs):
            raise ValueError("its size or a run is out of range")
        packed: dict[str, Any] = mask_api.frPyObjects({"size": size, "counts": runs}, height, width)
        return packed
    if not isinstance(counts, (str, bytes)):
        raise TypeError
    return {"size": size, "counts": counts}

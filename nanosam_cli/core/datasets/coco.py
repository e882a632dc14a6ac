"""COCO-format instance annotations: read once, checked, masks kept compressed until they are needed.

Format: https://cocodataset.org/#format-data. This module and `formats` are where pycocotools' mask routines are used.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nanosam_cli.core.datasets.photo_files import read_file
from nanosam_cli.core.errors import InputError, fault
from nanosam_cli.core.media.mask_codes import rle_to_mask

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
        content = json.loads(data)
        records = {record["id"]: record for record in content["images"]}
        found: dict[int, list[AnnotatedObject]] = {identity: [] for identity in records}
        for entry in content["annotations"]:
            record = records[entry["image_id"]]
            rle = _segmentation(entry, record["height"], record["width"])
            if rle is None:
                missing += 1
            else:
                found[record["id"]].append(_annotated_object(entry, rle))
        photos = tuple(
            AnnotatedPhoto(key, folder / r["file_name"], (r["height"], r["width"]), tuple(found[key]))
            for key, r in records.items()
        )
        categories = {entry["id"]: str(entry["name"]) for entry in content.get("categories", [])}
        return Annotations(annotations, sha256(data).hexdigest(), photos, categories, missing)
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InputError(f"{annotations} is not JSON: {error}") from error
    except (AttributeError, KeyError, TypeError) as error:
        raise InputError(f"{annotations} is not a COCO instances file: {fault(error)}") from error
    except InputError as error:
        raise InputError(f"{annotations}: {error}", error.hint) from error


def _segmentation(entry: dict[str, Any], height: int, width: int) -> dict[str, Any] | None:
    """The annotation's mask as a compressed run-length code of the photo's size; None where there is none."""
    segmentation = entry.get("segmentation")
    if isinstance(segmentation, list):  # a polygon of fewer than three points has no area
        segmentation = [ring for ring in segmentation if len(ring) >= 6]
    if not segmentation:
        return None
    try:
        rle = _compressed(segmentation, height, width)
        size = tuple(rle["size"])
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise InputError(f"annotation {entry['id']} has a segmentation that cannot be read: {error!r}") from error
    if size != (height, width):
        raise InputError(f"annotation {entry['id']} has a mask of {size}, its photo is ({height}, {width})")
    return rle


def _annotated_object(entry: dict[str, Any], rle: dict[str, Any]) -> AnnotatedObject:
    try:
        x, y, width, height = (float(side) for side in entry["bbox"])
        area = float(entry["area"])
    except (ValueError, OverflowError) as error:
        raise InputError(f"annotation {entry['id']} has no usable bbox and area: {error}") from error
    if not all(math.isfinite(number) for number in (x, y, width, height, area)):
        raise InputError(f"annotation {entry['id']} has a bbox or an area that is no finite number")
    return AnnotatedObject(
        id=entry["id"],
        category_id=entry["category_id"],
        bbox=(x, y, width, height),
        area=area,
        iscrowd=bool(entry.get("iscrowd", 0)),
        rle=rle,
    )


def _compressed(segmentation: Any, height: int, width: int) -> dict[str, Any]:
    """Polygons, an uncompressed or a compressed run-length mask -> a compressed one."""
    from pycocotools import mask as mask_api

    if isinstance(segmentation, list):
        if not all(np.abs(np.asarray(ring, float)).max() <= _FARTHEST for ring in segmentation):  # NaN neither
            raise ValueError("a polygon lies far outside the photo")
        merged: dict[str, Any] = mask_api.merge(mask_api.frPyObjects(segmentation, height, width))
        return merged
    if isinstance(segmentation["counts"], list):
        packed: dict[str, Any] = mask_api.frPyObjects(segmentation, height, width)
        return packed
    return {"size": segmentation["size"], "counts": segmentation["counts"]}

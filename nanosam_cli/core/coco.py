"""COCO-format instance annotations: read once, checked, masks kept compressed until they are needed.

Format: https://cocodataset.org/#format-data. This module and `formats` are where pycocotools' mask routines are used.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nanosam_cli.core.errors import InputError
from nanosam_cli.core.formats import rle_to_mask


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


def read_coco(annotations: Path, images: Path | None = None) -> list[AnnotatedPhoto]:
    """Read an instances file; photos are looked for in `images`, else in `images/` beside the file.

    Annotations without a segmentation are left out. Raises InputError where the file is not COCO's format.
    """
    folder = images if images is not None else annotations.parent / "images"
    try:
        content = json.loads(annotations.read_bytes())
        records = {record["id"]: record for record in content["images"]}
        found: dict[int, list[AnnotatedObject]] = {identity: [] for identity in records}
        for entry in content["annotations"]:
            record = records[entry["image_id"]]
            if entry.get("segmentation"):
                found[record["id"]].append(_annotated_object(entry, record["height"], record["width"]))
        return [
            AnnotatedPhoto(key, folder / r["file_name"], (r["height"], r["width"]), tuple(found[key]))
            for key, r in records.items()
        ]
    except FileNotFoundError as error:
        raise InputError(f"no such annotation file: {annotations}") from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{annotations} is not JSON: {error}") from error
    except (KeyError, TypeError) as error:
        raise InputError(
            f"{annotations} is not a COCO instances file: {error!r} is missing or of the wrong type"
        ) from error


def _annotated_object(entry: dict[str, Any], height: int, width: int) -> AnnotatedObject:
    x, y, w, h = entry["bbox"]
    return AnnotatedObject(
        id=entry["id"],
        category_id=entry["category_id"],
        bbox=(float(x), float(y), float(w), float(h)),
        area=float(entry["area"]),
        iscrowd=bool(entry.get("iscrowd", 0)),
        rle=_compressed(entry["segmentation"], height, width),
    )


def _compressed(segmentation: Any, height: int, width: int) -> dict[str, Any]:
    """Polygons, an uncompressed or a compressed run-length mask -> a compressed one."""
    from pycocotools import mask as mask_api

    if isinstance(segmentation, list):
        merged: dict[str, Any] = mask_api.merge(mask_api.frPyObjects(segmentation, height, width))
        return merged
    if isinstance(segmentation["counts"], list):
        packed: dict[str, Any] = mask_api.frPyObjects(segmentation, height, width)
        return packed
    return {"size": segmentation["size"], "counts": segmentation["counts"]}

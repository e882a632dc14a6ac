"""Annotations of other tools as the beginning of an annotation file: COCO's, YOLO's outlines, labelme's polygons."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np

from nanosam_cli.core.datasets.coco import annotation_rle
from nanosam_cli.core.datasets.coco_layout import ListedAnnotation, ListedImage
from nanosam_cli.core.errors import InputError
from nanosam_cli.core.media.declared_size import SizeFit
from nanosam_cli.core.media.image import image_hw
from nanosam_cli.core.media.mask_codes import coco_image, rle_to_mask
from nanosam_cli.core.prompting.detection_files import read_detections
from nanosam_cli.core.prompting.detections import Detection
from nanosam_cli.core.serving.photos import OpenedPhotos
from nanosam_cli.core.system.documents import read_json

_MEND = "correct the file, or give what is in it by --detections, as boxes"


def imported_content(path: Path, photos: OpenedPhotos) -> tuple[Mapping[str, Any], list[str]]:
    """A COCO data set of what a file or a folder says of the photos, and notes for people.

    COCO's files stay as they are. Of others the outlines count, which stay polygons; objects that have a box alone are
    left out, and counted in the notes.

    InputError where it is of no known format, knows none of the photos, or was drawn on photos of another size.
    """
    if path.suffix.lower() == ".json" and path.is_file():
        content = read_json(path, _MEND)
        if isinstance(content, dict) and {"images", "annotations"} <= content.keys():
            return content, []
    file = read_detections(path)
    keys = file.match(photos.paths)
    numbers = {category: number for number, category in enumerate(sorted(file.classes), 1)}
    images, annotations, bare = [], [], 0
    ids = count(1)
    for image_id, (name, photo) in enumerate(((n, p) for n, p in photos.by_name.items() if p in keys), 1):
        original_hw = image_hw(photo)
        listed = ListedImage(image_id, name, original_hw)
        images.append(coco_image(image_id, name, original_hw))
        declared = file.declared(photo, keys[photo])
        fit = None if declared is None else declared.fit(original_hw)
        for one in file.photos[keys[photo]]:
            entry = _entry(one, next(ids), listed, numbers, fit) if one.rings else None
            bare += entry is None
            annotations += [] if entry is None else [entry]
    notes = file.left_out(keys)
    if bare:
        notes.append(f"{bare} objects of {path} have no outline: left out, and offered as boxes by --detections {path}")
    categories = [{"id": number, "name": file.classes[category]} for category, number in numbers.items()]
    return {"images": images, "annotations": annotations, "categories": categories}, notes


def _entry(
    one: Detection, identity: int, image: ListedImage, numbers: Mapping[int, int], fit: SizeFit | None
) -> dict[str, Any] | None:
    """An annotation with the detection's outlines as polygons; None where they have no pixel of the photo."""
    assert image.size is not None
    height, width = image.size
    rings = [_pixels(ring, one, (height, width), fit) for ring in one.rings]
    entry = {
        "id": identity,
        "image_id": image.id,
        "category_id": numbers[one.category_id],
        "segmentation": rings,
        "iscrowd": 0,
    }
    rle = annotation_rle(ListedAnnotation(f"{image.name}, object {identity}", image, entry), height, width)
    if rle is None or not (area := int(rle_to_mask(rle).sum())):
        return None
    corners = np.concatenate([np.reshape(ring, (-1, 2)) for ring in rings])
    (x0, y0), (x1, y1) = corners.min(0).tolist(), corners.max(0).tolist()
    return {**entry, "bbox": [x0, y0, x1 - x0, y1 - y0], "area": area}


def _pixels(ring: Sequence[float], one: Detection, original_hw: tuple[int, int], fit: SizeFit | None) -> list[float]:
    """x y x y ... in pixels of the photo, cut at its border."""
    corners = np.reshape(ring, (-1, 2)).astype(float)
    if one.relative:
        corners = corners * original_hw[::-1]
    elif fit is not None:
        corners = fit.points(corners)
    if not np.isfinite(corners).all():
        raise InputError(f"an outline has a corner at {ring}", _MEND)
    clipped: list[float] = np.clip(corners, 0, original_hw[::-1]).ravel().tolist()
    return clipped

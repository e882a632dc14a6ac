"""Annotations of other tools as the beginning of an annotation file: COCO's, YOLO's outlines, labelme's polygons."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from nanosam_cli.core.datasets.coco_layout import ListedImage
from nanosam_cli.core.masks import Mask, mask_window
from nanosam_cli.core.media.declared_size import SizeFit
from nanosam_cli.core.media.image import image_hw
from nanosam_cli.core.media.mask_codes import coco_image, mask_to_rle
from nanosam_cli.core.prompting.detection_files import read_detections
from nanosam_cli.core.prompting.detections import Detection
from nanosam_cli.core.serving.photos import OpenedPhotos
from nanosam_cli.core.system.documents import read_json

_MEND = "correct the file, or give what is in it by --detections, as boxes"


def imported_content(path: Path, photos: OpenedPhotos) -> tuple[Mapping[str, Any], list[str]]:
    """A COCO data set of what a file or a folder says of the photos, and notes for people.

    COCO's files stay as they are. Of others the outlines count; objects that have a box alone are
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
    """An annotation of the detection's outlines; None where they have no pixel of the photo."""
    assert image.size is not None
    mask = _filled(one, image.size, fit)
    window = mask_window(mask)
    if window is None:
        return None
    rows, columns = window
    box = columns.start, rows.start, columns.stop - columns.start, rows.stop - rows.start
    place = {"id": identity, "image_id": image.id, "category_id": numbers[one.category_id], "iscrowd": 0}
    measured = {"bbox": [float(side) for side in box], "area": int(mask.sum())}
    return {**place, **measured, "segmentation": mask_to_rle(mask)}


def _filled(one: Detection, original_hw: tuple[int, int], fit: SizeFit | None) -> Mask:
    """(H, W) of the photo. Corners are pixels, and are filled too, as labelme and ultralytics fill them."""
    height, width = original_hw if fit is None else fit.declared
    canvas = Image.new("L", (width, height))
    for ring in one.rings:
        corners = np.reshape(ring, (-1, 2)) * ((width, height) if one.relative else (1, 1))
        ImageDraw.Draw(canvas).polygon([(x, y) for x, y in np.floor(corners).tolist()], fill=1, outline=1)
    mask = np.asarray(canvas, bool)
    return mask if fit is None else fit.mask(mask)

"""Results as other tools' annotations: YOLO's segmentation rows and labelme's JSON.

Formats: https://docs.ultralytics.com/datasets/segment/ and labelme's `label_file.py`. Outlines are inclusive, because
the tools that read these files fill them with OpenCV or Pillow.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from nanosam_cli.core.media.mask_codes import join_rings, mask_to_polygons
from nanosam_cli.core.prompting.labels import UNNAMED
from nanosam_cli.core.segmentation.result import PhotoResult

_LABELME_VERSION = "5.5.0"  # whose layout is written


def yolo_names(classes: Mapping[int, str]) -> list[str]:
    """Names of YOLO's classes, which are numbered from 0 in the order of the category ids."""
    return [classes[category] for category in sorted(classes)] or [UNNAMED]


def class_names(classes: Mapping[int, str]) -> str:
    """The text of `classes.txt` for the names of category ids."""
    return "".join(f"{name}\n" for name in yolo_names(classes))


def data_yaml(classes: Mapping[int, str], folders: Sequence[str]) -> str:
    """The text of YOLO's `data.yaml`: names of classes by their number, and where the photos are.

    ultralytics looks for the rows of `images/a.jpg` in `labels/a.txt`, and of other photos beside them. A text in
    JSON's quotes is one in YAML's.
    """
    places = json.dumps(folders[0] if len(folders) == 1 else list(folders), ensure_ascii=False)
    names = enumerate(yolo_names(classes))
    lines = [f"  {number}: {json.dumps(name, ensure_ascii=False)}\n" for number, name in names]
    return f"train: {places}\nval: {places}\nnames:\n{''.join(lines)}"


def yolo_segments(result: PhotoResult, classes: Mapping[int, str], simplify: float = 0.0) -> str:
    """A row `class x y x y ...` for each object, in shares of the photo's sides; an empty mask has no row.

    Classes are numbered from 0 in the order of their category ids. A row holds one outline, so the parts of an object
    are joined by lines there and back; see `join_rings`. For `simplify` see `mask_to_polygons`.
    """
    numbers = {category: number for number, category in enumerate(sorted(classes))}
    size = np.array(result.image.shape[1::-1])
    rows = []
    for one in result.found:
        number = numbers.get(result.request.tag(one.prompt).category_id, 0)
        outline = join_rings(mask_to_polygons(one.segmentation.mask, simplify, inclusive=True))
        if len(outline):
            corners = (np.reshape(outline, (-1, 2)) / size).ravel()
            rows.append(" ".join([str(number), *(f"{side:.6f}" for side in corners)]))
    return "".join(f"{row}\n" for row in rows)


def labelme(result: PhotoResult, photo: str, simplify: float = 0.0) -> dict[str, Any]:
    """The content of a labelme file. `photo` is the path from there to the photo.

    Every part of an object is a shape; those of one object share a `group_id`, its number from 1. For `simplify` see
    `mask_to_polygons`.
    """
    shapes = []
    for number, one in enumerate(result.found, 1):
        tag = result.request.tag(one.prompt)
        for ring in mask_to_polygons(one.segmentation.mask, simplify, inclusive=True):
            shapes.append(
                {
                    "label": tag.name or UNNAMED,
                    "points": np.reshape(ring, (-1, 2)).tolist(),
                    "group_id": number,
                    "description": "" if tag.score is None else f"score {tag.score:.3f}",
                    "shape_type": "polygon",
                    "flags": {},
                }
            )
    height, width = result.image.shape[:2]
    return {
        "version": _LABELME_VERSION,
        "flags": {},
        "shapes": shapes,
        "imagePath": photo,
        "imageData": None,
        "imageHeight": height,
        "imageWidth": width,
        **({"notes": list(result.request.notes)} if result.request.notes else {}),
    }

"""Results as other tools' annotations: YOLO's segmentation rows and labelme's JSON.

Formats: https://docs.ultralytics.com/datasets/segment/ and labelme's `label_file.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from nanosam_cli.core.media.mask_codes import mask_to_polygons
from nanosam_cli.core.prompting.labels import UNNAMED
from nanosam_cli.core.segmentation.result import PhotoResult

_LABELME_VERSION = "5.5.0"  # whose layout is written


def class_names(classes: Mapping[int, str]) -> str:
    """The text of `classes.txt` for the names of category ids."""
    return "".join(f"{classes[category]}\n" for category in sorted(classes)) or f"{UNNAMED}\n"


def yolo_segments(result: PhotoResult, classes: Mapping[int, str], simplify: float = 0.0) -> str:
    """A row `class x y x y ...` for each object, in shares of the photo's sides; an empty mask has no row.

    Classes are numbered from 0 in the order of their category ids. A row holds one outline, so the parts of an object
    are joined by lines there and back, which have no area. For `simplify` see `mask_to_polygons`.
    """
    numbers = {category: number for number, category in enumerate(sorted(classes))}
    size = np.array(result.image.shape[1::-1])
    rows = []
    for one in result.found:
        number = numbers.get(result.request.tag(one.prompt).category_id, 0)
        outline = _joined(mask_to_polygons(one.segmentation.mask, simplify))
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
        for ring in mask_to_polygons(one.segmentation.mask, simplify):
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


def _joined(rings: Sequence[Sequence[float]]) -> list[float]:
    """One closed outline x y x y ... round all rings: from the first corner to each other ring, round it, and back."""
    if len(rings) < 2:
        return list(rings[0]) if rings else []
    home = list(rings[0][:2])
    outline = [*rings[0], *home]
    for ring in rings[1:]:
        outline += [*ring, *ring[:2], *home]
    return outline

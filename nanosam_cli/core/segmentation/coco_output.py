"""COCO's two files: results, which go with a data set that is there, and a data set.

Formats: https://cocodataset.org/#format-data and #format-results.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import Any

from nanosam_cli.core.media.mask_codes import coco_annotation, coco_image, coco_results
from nanosam_cli.core.prompting.by_photo import photo_keys
from nanosam_cli.core.prompting.labels import UNNAMED
from nanosam_cli.core.segmentation.result import EMPTY, PhotoResult, score
from nanosam_cli.version import __version__

Kept = Sequence[tuple[Path, int, Any]]  # photo, its image id, and what was kept of it


def result_rows(result: PhotoResult) -> list[dict[str, Any]]:
    """What `loadRes` reads, and names, which it ignores: without them no id would say which photo it stands for.

    Image ids are 0, because they are known only with all photos.
    """
    rows = []
    for one in result.found:
        tag = result.request.tag(one.prompt)
        entry = coco_annotation(one.segmentation, 0, 0, tag.category_id)
        (row,) = coco_results([{**entry, "score": score(one, result.request)}])
        name = {} if tag.name is None else {"category_name": tag.name}
        note = {} if one.segmentation.area else {"note": EMPTY}
        rows.append({**row, "file_name": result.photo.name, **name, **note})
    return rows


def join_results(kept: Kept, classes: Mapping[int, str]) -> list[dict[str, Any]]:
    """The rows of all photos."""
    return [{**row, "image_id": image_id} for _, image_id, rows in kept for row in rows]


def photo_annotations(result: PhotoResult, simplify: float = 0.0) -> dict[str, Any]:
    """A photo's entry of a data set and its annotations: exact outlines, as `mask_to_polygons` gives them.

    Ids are 0, because they are known only with all photos. An empty mask has no outline, so it is left out, and the
    image's `notes` say so.
    """
    annotations = []
    for one in result.found:
        if one.segmentation.area:
            category = result.request.tag(one.prompt).category_id
            entry = coco_annotation(one.segmentation, 0, 0, category, polygon=True, simplify=simplify)
            annotations.append({**entry, "score": score(one, result.request)})
    image = coco_image(0, result.photo.name, result.image.shape[:2])
    notes = {"notes": list(result.request.notes)} if result.request.notes else {}
    return {"image": {**image, **notes}, "annotations": annotations}


def join_data_set(kept: Kept, classes: Mapping[int, str]) -> dict[str, Any]:
    """A data set of all photos, with a category for every class that objects may have.

    A photo goes by its file name, or by its path where another has the same name.
    """
    names = photo_keys([photo.as_posix() for photo, _, _ in kept])
    numbers = count(1)
    return {
        "info": {"description": f"segmented by nanosam {__version__}"},
        "images": [
            {**entries["image"], "id": image_id, "file_name": names[photo.as_posix()]}
            for photo, image_id, entries in kept
        ],
        "annotations": [
            {**annotation, "id": next(numbers), "image_id": image_id}
            for _, image_id, entries in kept
            for annotation in entries["annotations"]
        ],
        "categories": [
            {"id": number, "name": name, "supercategory": ""}
            for number, name in sorted((classes or {1: UNNAMED}).items())
        ],
    }

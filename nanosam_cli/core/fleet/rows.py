"""A photo's row in a shard: its schema, made from masks, and masks from it again. docs/batch.md describes it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from nanosam_cli.core.media.mask_codes import mask_to_rle, rle_to_mask
from nanosam_cli.core.prompting.request import PromptLabel, Request
from nanosam_cli.core.segmentation.result import Found, PhotoResult, empty_note
from nanosam_cli.core.timing import Stopwatch
from nanosam_cli.core.types import Segmentation, no_boxes

_OBJECT = pa.struct(
    [
        ("class", pa.string()),  # null where the prompt names none
        ("category_id", pa.int64()),
        ("score", pa.float64()),  # of the model that gave the prompt; null where none did
        ("box", pa.list_(pa.float64())),  # of the prompt, x0 y0 x1 y1; null for clicks alone
        ("bbox", pa.list_(pa.int64())),  # of the mask, x y width height; null where it is empty
        ("area", pa.int64()),  # pixels
        ("predicted_iou", pa.float64()),
        ("segmentation", pa.struct([("size", pa.list_(pa.int64())), ("counts", pa.string())])),  # COCO's, compressed
    ]
)
SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("source", pa.string()),
        ("image_id", pa.int64()),  # the number that a COCO file of prompts has for the photo
        ("width", pa.int64()),
        ("height", pa.int64()),
        ("objects", pa.list_(_OBJECT)),
        ("notes", pa.list_(pa.string())),
        ("error", pa.string()),  # in words, where there is no result
    ]
)

Row = dict[str, Any]


def failed_row(photo_id: str, source: str, image_id: int | None, error: str) -> Row:
    """Of a photo without a result."""
    return {"id": photo_id, "source": source, "image_id": image_id, "objects": [], "notes": [], "error": error}


def photo_row(
    photo_id: str,
    source: str,
    image_id: int | None,
    original_hw: tuple[int, int],
    request: Request,
    found: Sequence[Found],
) -> Row:
    """Of a photo that was segmented."""
    height, width = original_hw
    return {
        "id": photo_id,
        "source": source,
        "image_id": image_id,
        "width": width,
        "height": height,
        "objects": [_object(one, request) for one in found],
        "notes": [*request.notes, *empty_note(found)],
        "error": None,
    }


def _object(one: Found, request: Request) -> Row:
    tag, boxes, segmentation = request.tag(one.prompt), request.boxes, one.segmentation
    has_box = boxes is not None and not no_boxes(boxes[one.prompt])
    return {
        "class": tag.name,
        "category_id": tag.category_id,
        "score": tag.score,
        "box": boxes[one.prompt].tolist() if boxes is not None and has_box else None,
        "bbox": None if segmentation.bbox is None else list(segmentation.bbox),
        "area": segmentation.area,
        "predicted_iou": segmentation.predicted_iou,
        "segmentation": mask_to_rle(segmentation.mask),
    }


def result_of(row: Mapping[str, Any]) -> PhotoResult:
    """What `segment` would have had of the photo, but for its pixels: for the writers of its formats.

    InputError where a run-length code is broken.
    """
    objects = row["objects"]
    tags = [PromptLabel(one["class"], one["category_id"], one["score"]) for one in objects]
    none = np.full(4, np.nan, np.float32)
    boxes = np.array([none if one["box"] is None else one["box"] for one in objects], np.float32).reshape(-1, 4)
    found = [
        Found(Segmentation(rle_to_mask(one["segmentation"]), one["predicted_iou"], _NO_LOGITS), place)
        for place, one in enumerate(objects)
    ]
    size_only = np.broadcast_to(np.uint8(0), (row["height"], row["width"], 3))
    request = Request(boxes, tags=tags, notes=row["notes"])
    return PhotoResult(Path(row["id"]), size_only, request, found, Stopwatch())


_NO_LOGITS = np.zeros((0, 0), np.float32)  # they are not kept

"""Segments a photo without a prompt: a grid of clicks, the readings that hold, and of doubles the best.

The method and its numbers are those of segment-anything's `SamAutomaticMaskGenerator`; doubles are found by the overlap
of the masks themselves, in the decoder's resolution, so that only what is kept is ever made as large as the photo.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nanosam_cli.core.errors import UsageError
from nanosam_cli.core.frame import Array, Frame, PixelBox
from nanosam_cli.core.inference.decoder_inputs import mask_to_logits
from nanosam_cli.core.inference.predictor import MAX_PROMPTS, Predictor, first_reading
from nanosam_cli.core.masks import mask_window
from nanosam_cli.core.media.mask_codes import mask_to_rle, rle_ious
from nanosam_cli.core.prompting.request import Request
from nanosam_cli.core.types import FOREGROUND, Prompt, Segmentation

_STABILITY_OFFSET = 1.0  # of the logits: a mask that hardly changes between -1 and 1 has a clear edge
_CROP_OVERLAP = 512 / 1500  # of a crop's shorter side
_RIM = 20  # pixels; what comes so near to a crop's inner border is cut off there


@dataclass(frozen=True)
class Everything:
    """What counts as an object. UsageError where a number makes no sense."""

    grid: int = 16  # clicks along each side of the photo; half as many in each finer layer of crops
    crop_layers: int = 0  # the k-th has 4**k crops, which find smaller objects
    min_iou: float = 0.3  # predicted; SAM, which is surer of itself, takes 0.88
    min_stability: float = 0.7  # SAM, whose logits are steeper, takes 0.95
    max_overlap: float = 0.6  # IoU of two masks beyond which the worse is a double
    min_area: int = 0  # pixels
    batch: int = MAX_PROMPTS  # clicks in one decoder call

    def __post_init__(self) -> None:
        for name, value in (
            ("--min-iou", self.min_iou),
            ("--min-stability", self.min_stability),
            ("--nms", self.max_overlap),
        ):
            if not 0 <= value <= 1:
                raise UsageError(f"{name} is from 0 to 1, not {value:g}")
        if not 1 <= self.batch <= MAX_PROMPTS:
            raise UsageError(f"--batch is from 1 to {MAX_PROMPTS}, not {self.batch}")
        if not 1 <= self.grid <= 256 or not 0 <= self.crop_layers <= 4:
            raise UsageError("--grid is from 1 to 256 and --crops from 0 to 4")


@dataclass(frozen=True, eq=False)
class _Candidate:
    """One reading of one click."""

    point: tuple[float, float]  # x y, original pixels
    logits: Array  # (256, 256) over the crop's square
    predicted_iou: float
    index: int  # which of the decoder's masks
    rle: dict[str, Any]  # of the mask in the decoder's resolution


@dataclass(frozen=True, eq=False)
class _Kept:
    """What is left of a crop, as large as the photo."""

    point: tuple[float, float]
    segmentation: Segmentation
    crop_area: int


def segment_everything(
    predictor: Predictor, image: NDArray[np.uint8], settings: Everything, threshold: float = 0.0
) -> tuple[Request, list[Segmentation]]:
    """(H, W, 3) uint8 RGB -> the clicks that found something, as a request, and the mask of each, the best first.

    `threshold` cuts the logits, as in `Predictor.predict`.
    """
    kept: list[_Kept] = []
    for layer in range(settings.crop_layers + 1):
        for crop in crops(image.shape[:2], layer):
            kept += _of_crop(predictor, image, crop, max(1, settings.grid >> layer), settings, threshold)
    if settings.crop_layers:  # of the same thing in two crops, the finer look
        rles = [mask_to_rle(one.segmentation.mask) for one in kept]
        kept = [kept[row] for row in distinct(rles, [-one.crop_area for one in kept], settings.max_overlap)]
    kept.sort(key=lambda one: -one.segmentation.predicted_iou)
    points = np.array([one.point for one in kept], np.float32).reshape(-1, 1, 2)
    labels = np.full(points.shape[:2], FOREGROUND, np.float32)
    notes = [] if kept else ["nothing was found that is sure enough"]
    return Request(points=points, labels=labels, notes=notes), [one.segmentation for one in kept]


def crops(original_hw: tuple[int, int], layer: int) -> list[PixelBox]:
    """x0 y0 x1 y1 of the 4**layer windows of a layer. Neighbours overlap: what lies on a border is whole in one."""
    count = 2**layer
    overlap = int(_CROP_OVERLAP * min(original_hw) * 2 / count) if layer else 0
    rows, columns = (_windows(length, count, overlap) for length in original_hw)
    return [(x0, y0, x1, y1) for (y0, y1), (x0, x1) in product(rows, columns)]


def _windows(length: int, count: int, overlap: int) -> list[tuple[int, int]]:
    """So many windows that cover a length; fewer where it has too few pixels for them."""
    side = math.ceil((overlap * (count - 1) + length) / count)
    starts = range(0, length, max(1, side - overlap))
    return [(start, min(start + side, length)) for start in starts[:count]]


def distinct(rles: Sequence[Mapping[str, Any]], ranks: Sequence[float], max_overlap: float) -> list[int]:
    """Rows that stay when, of every two masks that overlap by more than this IoU, the lower rank goes; best first."""
    doubles = rle_ious(rles) > max_overlap
    kept: list[int] = []
    for row in np.argsort(-np.asarray(ranks), kind="stable"):
        if not doubles[row, kept].any():
            kept.append(int(row))
    return kept


def stability(logits: Array, threshold: float = 0.0) -> float:
    """IoU of the masks of logits cut a little above and a little below the threshold; 0 where there is none."""
    inner, outer = (np.count_nonzero(logits > threshold + side * _STABILITY_OFFSET) for side in (1, -1))
    return inner / outer if outer else 0.0


def _of_crop(
    predictor: Predictor,
    image: NDArray[np.uint8],
    crop: PixelBox,
    grid: int,
    settings: Everything,
    threshold: float,
) -> list[_Kept]:
    x0, y0, x1, y1 = crop
    height, width = image.shape[:2]
    embedding = predictor.encode_window(image, crop)
    places = (np.arange(grid) + 0.5) / grid
    across, down = x0 + places * (x1 - x0), y0 + places * (y1 - y0)
    clicks = np.stack(np.meshgrid(across, down), axis=-1).reshape(-1, 1, 2).astype(np.float32)
    found: list[_Candidate] = []
    for start in range(0, len(clicks), settings.batch):
        points = clicks[start : start + settings.batch]
        prompt = Prompt(points=points, labels=np.full(points.shape[:2], FOREGROUND, np.float32))
        for rows, masks, ious in predictor.decode(embedding, prompt):
            assert rows.points is not None
            batch = list(_candidates(rows.points[:, 0], masks, ious, embedding.frame, settings, threshold))
            found += _distinct(batch, settings)  # at once: the logits of thousands of readings would fill the memory
    whole = (x1 - x0, y1 - y0) == (width, height)
    kept = []
    for one in _distinct(found, settings):
        mask = embedding.frame.mask_to_original(one.logits, threshold)
        if np.count_nonzero(mask) < max(1, settings.min_area) or _is_cut(mask, crop):
            continue
        logits = one.logits if whole else mask_to_logits(mask, predictor.frame((height, width)))
        segmentation = Segmentation(mask, one.predicted_iou, logits, one.index)
        kept.append(_Kept(one.point, segmentation, (x1 - x0) * (y1 - y0)))
    return kept


def _candidates(
    points: Array, masks: Array, ious: Array, frame: Frame, settings: Everything, threshold: float
) -> Iterator[_Candidate]:
    """The readings (P, K, 256, 256) that are good enough by their own judgement and have a clear edge."""
    height, width = (math.ceil(side * masks.shape[-1] / frame.input_size) for side in frame.input_hw)
    first = first_reading(ious)
    for row, reading in np.argwhere(ious[:, first:] >= settings.min_iou):
        index = first + reading
        logits = masks[row, index]
        seen = logits[:height, :width]  # without the padding
        if stability(seen, threshold) >= settings.min_stability and (seen > threshold).any():
            point = (float(points[row, 0]), float(points[row, 1]))
            yield _Candidate(point, logits.copy(), float(ious[row, index]), int(index), mask_to_rle(seen > threshold))


def _distinct(found: Sequence[_Candidate], settings: Everything) -> list[_Candidate]:
    rows = distinct([one.rle for one in found], [one.predicted_iou for one in found], settings.max_overlap)
    return [found[row] for row in rows]


def _is_cut(mask: NDArray[np.bool_], crop: PixelBox) -> bool:
    """Whether the mask reaches a border of its crop that is no border of the photo."""
    window = mask_window(mask)
    if window is None:
        return False
    rows, columns = window
    x0, y0, x1, y1 = crop
    height, width = mask.shape
    return bool(
        (x0 > 0 and columns.start < x0 + _RIM)
        or (y0 > 0 and rows.start < y0 + _RIM)
        or (x1 < width and columns.stop > x1 - _RIM)
        or (y1 < height and rows.stop > y1 - _RIM)
    )

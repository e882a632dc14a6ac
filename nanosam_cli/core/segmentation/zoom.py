"""Looks closer: a window around each object is encoded anew, so that small things on large photos get sharp masks.

An encoder shrinks a photo to its own side, and a thing of 30 pixels in a photo of 4,000 is then a thing of 4. Objects
near each other and of about one size share a window, so that each window costs one more run of the encoder.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from nanosam_cli.core.frame import Array, Frame, PixelBox
from nanosam_cli.core.inference.decoder_inputs import check_prompt, mask_to_logits
from nanosam_cli.core.inference.predictor import Predictor, Select
from nanosam_cli.core.masks import Mask, mask_window
from nanosam_cli.core.prompting.request import Request
from nanosam_cli.core.types import FOREGROUND, PADDING, Image, ImageEmbedding, Prompt, Segmentation, no_boxes

# In the longer side of an object's box; docs/experiments/prompts.md has what other numbers bring.
SIDE = 5.0  # of the window around an object
WIDEST = 8.0  # of a window that it shares with larger ones
ROOM = 0.5  # around it in a window, on each side

LEAST_GAIN = 1.5  # how many times larger than in the whole photo a window must show an object


@dataclass(frozen=True)
class Zoomed:
    """What was seen from near."""

    found: Sequence[Segmentation]  # one an object, in the order of the request
    windows: Sequence[PixelBox | None]  # where each object was looked at; None: in the whole photo
    encodings: int  # runs of the encoder

    def __str__(self) -> str:
        near, count = sum(window is not None for window in self.windows), len(self.windows)
        text = f"{near} of {count} objects seen closer, in {self.encodings} runs of the encoder"
        return text if near == count else f"{text}; a window would show the others hardly larger"


def segment_zoomed(
    predictor: Predictor, image: Image, request: Request, *, threshold: float = 0.0, select: Select = "auto"
) -> Zoomed:
    """Segment each object of a request in a window around it; masks are as large as the photo.

    An object of clicks alone is segmented in the whole photo first, and the box of what is found there is given with
    its clicks. An object that its window would hardly show larger than the whole photo does stays in the whole photo.
    `threshold`, `select` and errors are those of `Predictor.predict`.
    """
    looks = _Looks(predictor, image, threshold, select)
    frame = predictor.frame((image.shape[0], image.shape[1]))
    prompt = check_prompt(request.prompt(frame), frame.original_hw)  # all, so that errors have the objects' own numbers
    found: dict[int, Segmentation] = {}
    if request.masks is None:
        found = looks.segment(None, prompt, _boxless(prompt))
        masks: Mapping[int, Mask] = {row: one.mask for row, one in found.items()}
    else:
        masks = {row: request.masks[row] for row in _boxless(prompt)}
    near = _with_boxes(prompt, masks)
    windows = windows_around(_extents(near), frame.original_hw)
    for window in dict.fromkeys(windows):
        rows = [row for row, one in enumerate(windows) if one == window]
        if window is None:
            found |= looks.segment(None, prompt, [row for row in rows if row not in found])
        else:
            seen = _seen_in(near, request.masks, rows, replace(frame, window=window))
            found |= looks.segment(window, seen, rows)
    return Zoomed([found[row] for row in range(len(prompt))], windows, looks.encodings)


def windows_around(boxes: NDArray[np.floating], original_hw: tuple[int, int]) -> list[PixelBox | None]:
    """(P, 4) x0 y0 x1 y1 -> the window to see each in; None where it would gain nothing over the whole photo.

    The largest come first, and smaller ones join the first window that has room for them and is not too wide. A row of
    NaN has no window.
    """
    sides = np.maximum(boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]).clip(min=1)
    groups: list[_Group] = []
    for row in np.argsort(-sides, kind="stable"):
        side = float(sides[row])
        if np.isnan(side) or SIDE * side * LEAST_GAIN > max(original_hw):
            continue
        extent = _with_room(boxes[row], ROOM * side, original_hw)
        home = next((one for one in groups if one.side <= WIDEST * side and one.has_room(extent)), None)
        if home is None:
            home = _Group(SIDE * side, extent)
            groups.append(home)
        home.add(int(row), extent)
    windows: list[PixelBox | None] = [None] * len(boxes)
    for group in groups:
        for row in group.rows:
            windows[row] = group.window(original_hw)
    return windows


@dataclass
class _Group:
    """Objects that share a window: a square of `side` pixels that has room for all of them."""

    side: float
    extent: Array  # (4,) x0 y0 x1 y1 of their boxes, each with its room
    rows: list[int] = field(default_factory=list)

    def has_room(self, extent: Array) -> bool:
        x0, y0, x1, y1 = _union(self.extent, extent)
        return bool(max(x1 - x0, y1 - y0) <= self.side)

    def add(self, row: int, extent: Array) -> None:
        self.rows.append(row)
        self.extent = _union(self.extent, extent)

    def window(self, original_hw: tuple[int, int]) -> PixelBox:
        """The square about the middle of its objects, moved into the photo, and cut where the photo is smaller."""
        x0, y0, x1, y1 = (float(side) for side in self.extent)
        left, right = _span(x0, x1, self.side, original_hw[1])
        top, bottom = _span(y0, y1, self.side, original_hw[0])
        return left, top, right, bottom


def _span(low: float, high: float, side: float, length: int) -> tuple[int, int]:
    """A range of whole pixels within 0 and `length`, at least `side` long where it can be, about a middle."""
    count = min(int(np.ceil(side)) + 1, length)  # one more, because its start is rounded
    start = min(max(round((low + high - count) / 2), 0), length - count)
    return start, start + count


def _union(one: Array, other: Array) -> Array:
    return np.concatenate([np.minimum(one[:2], other[:2]), np.maximum(one[2:], other[2:])], dtype=np.float32)


def _with_room(box: NDArray[np.floating], room: float, original_hw: tuple[int, int]) -> Array:
    """A box with so much room on each side, as far as the photo goes."""
    height, width = original_hw
    return np.asarray(np.clip(box + np.array([-room, -room, room, room]), 0, 2 * (width, height)), np.float32)


@dataclass
class _Looks:
    """One photo, seen whole and in parts. The embedding of the whole is kept, those of windows serve once."""

    predictor: Predictor
    image: Image
    threshold: float
    select: Select
    encodings: int = 0
    _whole: ImageEmbedding | None = None

    def segment(self, window: PixelBox | None, prompt: Prompt, rows: Sequence[int]) -> dict[int, Segmentation]:
        """Some rows of a prompt -> the mask of each by its row; nothing is encoded for none."""
        if not rows:
            return {}
        prompts = prompt if len(prompt) == len(rows) else prompt[list(rows)]
        found = self.predictor.predict(self._encode(window), prompts, threshold=self.threshold, select=self.select)
        return dict(zip(rows, found, strict=True))

    def _encode(self, window: PixelBox | None) -> ImageEmbedding:
        if window is None and self._whole is not None:
            return self._whole
        self.encodings += 1
        if window is not None:
            return self.predictor.encode_window(self.image, window)
        self._whole = self.predictor.encode_image(self.image)
        return self._whole


def _boxless(prompt: Prompt) -> list[int]:
    """Rows without a box."""
    if prompt.boxes is None:
        return list(range(len(prompt)))
    return [int(row) for row in np.flatnonzero(no_boxes(prompt.boxes))]


def _with_boxes(prompt: Prompt, masks: Mapping[int, Mask]) -> Prompt:
    """The prompt with the boxes of some rows' masks; a row of NaN stays where a mask is empty."""
    if not masks:
        return prompt
    boxes = np.full((len(prompt), 4), np.nan, np.float32) if prompt.boxes is None else prompt.boxes.copy()
    for row, mask in masks.items():
        place = mask_window(mask)
        if place is not None:
            rows, columns = place
            boxes[row] = columns.start, rows.start, columns.stop, rows.stop
    return replace(prompt, boxes=boxes)


def _extents(prompt: Prompt) -> NDArray[np.float32]:
    """(P, 4) x0 y0 x1 y1 of what a window must show of each: its box and the clicks on it. NaN without a box."""
    assert prompt.boxes is not None
    extents = np.array(prompt.boxes)
    if prompt.points is not None and prompt.labels is not None:
        for row, column in np.argwhere(prompt.labels == FOREGROUND):
            extents[row] = _union(extents[row], np.tile(prompt.points[row, column], 2))  # of NaN, NaN
    return extents


def _seen_in(
    prompt: Prompt, masks: Sequence[Mask] | NDArray[np.bool_] | None, rows: Sequence[int], frame: Frame
) -> Prompt:
    """Rows of a prompt as a window sees them: masks in its own resolution, and no points that lie beyond it."""
    part = prompt[list(rows)]
    if masks is not None:
        part = replace(part, mask_logits=np.stack([mask_to_logits(masks[row], frame) for row in rows]))
    if part.points is not None and part.labels is not None:
        outside = ((part.points < frame.shown[:2]) | (part.points >= frame.shown[2:])).any(2)
        part = replace(part, labels=np.where(outside, np.float32(PADDING), part.labels))
    return part

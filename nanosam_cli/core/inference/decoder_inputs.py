"""From a `Prompt` in original pixels to what a mask decoder takes: checks, points and labels, mask logits."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from nanosam_cli.core.errors import InputError, UsageError
from nanosam_cli.core.frame import Array, Frame, PixelBox
from nanosam_cli.core.types import BACKGROUND, BOX_BOTTOM_RIGHT, BOX_TOP_LEFT, FOREGROUND, PADDING, Prompt, no_boxes

# Share of mask that a wholly covered cell is taken for, so that logits stay within +-6.9, the size of SAM's own.
# The constant is micro-sam's (micro_sam/prompt_based_segmentation.py).
_CERTAIN = 0.999


def check_prompt(prompt: Prompt, original_hw: tuple[int, int], window: PixelBox | None = None) -> Prompt:
    """The prompt with its boxes clipped to the photo of `original_hw` pixels, or to the window of it that was encoded.

    UsageError, with the object's number from 1, where a box is inverted, empty or wholly outside, a point is outside
    (valid are x0 <= x < x1, y0 <= y < y1), a label is unknown, or an object has no prompt at all.
    """
    height, width = original_hw
    bounds = window or (0, 0, width, height)
    place = ("photo", f"the photo is {width}x{height} pixels")
    if window is not None:
        place = ("window", "the window is {},{},{},{}".format(*window))
    boxes = prompt.boxes
    if boxes is not None:
        boxes = _clipped_boxes(boxes, bounds, place)
    if prompt.points is not None and prompt.labels is not None:
        _check_points(prompt.points, prompt.labels, bounds, place)
    if prompt.mask_logits is None:
        bare = np.ones(len(prompt), np.bool_) if boxes is None else no_boxes(boxes)[:, 0]
        pointless = np.True_ if prompt.labels is None else (prompt.labels == PADDING).all(1)
        for row in np.flatnonzero(bare & pointless):
            raise UsageError(f"object {row + 1} has no prompt", "give it a box, a point or a mask")
    return replace(prompt, boxes=boxes)


def split_prompts(
    prompt: Prompt, original_hw: tuple[int, int], window: PixelBox | None = None
) -> tuple[list[int], dict[int, str]]:
    """Which prompts suit a photo or its window, and of the others, by their places, what `check_prompt` has against
    them."""
    kept, skipped = [], {}
    for row in range(len(prompt)):
        try:
            check_prompt(prompt[row : row + 1], original_hw, window)
        except UsageError as error:
            skipped[row] = str(error).removeprefix("object 1").lstrip(": ")
        else:
            kept.append(row)
    return kept, skipped


def _clipped_boxes(boxes: Array, bounds: PixelBox, place: tuple[str, str]) -> Array:
    name, about = place
    top_left, bottom_right = boxes[:, :2], boxes[:, 2:]
    for row in np.flatnonzero((top_left >= bottom_right).any(1)):
        raise UsageError(
            f"object {row + 1}: box {_text(boxes[row])} is empty or inverted; {about}",
            "give x0,y0,x1,y1 with x0 < x1 and y0 < y1",
        )
    for row in np.flatnonzero((bottom_right <= bounds[:2]).any(1) | (top_left >= bounds[2:]).any(1)):
        raise UsageError(f"object {row + 1}: box {_text(boxes[row])} lies outside the {name}; {about}")
    low, high = (np.array(2 * corner, np.float32) for corner in (bounds[:2], bounds[2:]))
    return np.clip(boxes, low, high)


def _check_points(points: Array, labels: Array, bounds: PixelBox, place: tuple[str, str]) -> None:
    name, about = place
    for row, column in np.argwhere(~np.isin(labels, (FOREGROUND, BACKGROUND, PADDING))):
        raise UsageError(
            f"object {row + 1}: point label {labels[row, column]:g} is unknown",
            "labels are 1 foreground and 0 background",
        )
    outside = ((points < bounds[:2]) | (points >= bounds[2:])).any(2) & (labels != PADDING)
    for row, column in np.argwhere(outside):
        raise UsageError(f"object {row + 1}: point {_text(points[row, column])} lies outside the {name}; {about}")


def _text(numbers: Array) -> str:
    return ",".join(f"{number:g}" for number in numbers)


def decoder_points(prompt: Prompt, frame: Frame, count: int | None = None) -> tuple[Array, Array]:
    """`point_coords` (P, N, 2) in the frame and `point_labels` (P, N), composed as SAM's ONNX contract says.

    Points come first, a box follows as its two corners, and a padding point stands for a box that is not there. With a
    fixed `count` the rest is padding too; UsageError where the prompt has more than `count`.
    """
    padding_xy, padding_label = (
        np.zeros((len(prompt), 1, 2), np.float32),
        np.full((len(prompt), 1), PADDING, np.float32),
    )
    coords, labels = [padding_xy[:, :0]], [padding_label[:, :0]]
    if prompt.points is not None and prompt.labels is not None:
        real = prompt.labels != PADDING
        used = real.any(0)  # a slice of a longer prompt may have columns of padding only
        coords.append(np.where(real[..., None], frame.points_to_frame(prompt.points), 0)[:, used])
        labels.append(prompt.labels[:, used])
    if prompt.boxes is None:
        coords.append(padding_xy)
        labels.append(padding_label)
    else:
        none = no_boxes(prompt.boxes)
        coords.append(frame.boxes_to_frame(np.where(none, 0, prompt.boxes)).reshape(-1, 2, 2))
        corners = np.tile(np.array([BOX_TOP_LEFT, BOX_BOTTOM_RIGHT], np.float32), (len(prompt), 1))
        labels.append(np.where(none, np.float32(PADDING), corners))
    given = sum(part.shape[1] for part in labels)
    if count is not None:
        if given > count:
            raise UsageError(f"this mask decoder takes {count} points an object (a box counts as two), not {given}")
        coords.append(np.repeat(padding_xy, count - given, axis=1))
        labels.append(np.repeat(padding_label, count - given, axis=1))
    return np.concatenate(coords, axis=1, dtype=np.float32), np.concatenate(labels, axis=1, dtype=np.float32)


def check_mask_size(mask: NDArray[np.bool_], original_hw: tuple[int, int]) -> None:
    """InputError where a mask (H, W) is not of the photo's size."""
    if mask.shape != original_hw:
        found, photo = ("x".join(map(str, reversed(shape))) for shape in (mask.shape, original_hw))
        raise InputError(f"the mask is {found} pixels, the photo {photo}", "give a mask of the photo's size")


def mask_to_logits(mask: NDArray[np.bool_], frame: Frame) -> Array:
    """A known mask (H, W) bool over the photo -> (256, 256) logits, a row of `Prompt.mask_logits`.

    The logit of each cell's share of mask: +6.9 inside, -6.9 outside and in the padding, 0 where the edge halves it.
    InputError where the mask is not bool, not of the photo's size, or empty.
    """
    if mask.dtype != np.bool_:
        raise InputError(f"a mask must be bool, not {mask.dtype}")
    check_mask_size(mask, frame.original_hw)
    share = frame.masks_to_frame(mask)
    if not share.any():
        raise InputError("the mask is empty, so it points at no object")
    share = share / share.max()  # a thing smaller than a cell would be lost among the background
    share = np.clip(share, 1 - _CERTAIN, _CERTAIN)
    return np.asarray(np.log(share / (1 - share)), np.float32)

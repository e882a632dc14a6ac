"""What masks are, where they lie, and how alike two of them are."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.bool_]  # (H, W)
Window = tuple[slice, slice]  # rows, columns


def mask_window(mask: Mask) -> Window | None:
    """The smallest rows and columns that hold the mask, or None where it is empty."""
    rows = np.flatnonzero(mask.any(axis=1))
    if not len(rows):
        return None
    rows_window = slice(int(rows[0]), int(rows[-1]) + 1)
    columns = np.flatnonzero(mask[rows_window].any(axis=0))
    return rows_window, slice(int(columns[0]), int(columns[-1]) + 1)


def mask_iou(one: Mask, other: Mask) -> float:
    """Intersection over union of two masks of one size; 1 where both are empty."""
    union = np.count_nonzero(one | other)
    return float(np.count_nonzero(one & other) / union) if union else 1.0


def usable_boxes(boxes: NDArray[np.floating], original_hw: tuple[int, int]) -> NDArray[np.float32]:
    """(P, 4) x0 y0 x1 y1 -> the same, clipped to the photo; a side without length becomes that of one pixel.

    Annotations have such boxes, and boxes outside of their photo; a model takes none. See `has_area`.
    """
    corners = np.asarray(boxes, np.float32).reshape(-1, 2, 2)
    size = np.array(original_hw[::-1], np.float32)
    low, high = np.clip(corners[:, 0], 0, size), np.clip(corners[:, 1], 0, size)
    flat = low >= high
    pixel = np.clip(np.floor((low + high) / 2), 0, size - 1)
    return np.concatenate([np.where(flat, pixel, low), np.where(flat, pixel + 1, high)], axis=1, dtype=np.float32)


def has_area(box: Sequence[float], original_hw: tuple[int, int]) -> bool:
    """Whether any of the box lies in the photo, so that `usable_boxes` does no more than clip it."""
    x0, y0, x1, y1 = np.asarray(box, np.float32)
    height, width = original_hw
    return bool(max(x0, 0) < min(x1, width) and max(y0, 0) < min(y1, height))

"""What masks are, where they lie, and how alike two of them are."""

from __future__ import annotations

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

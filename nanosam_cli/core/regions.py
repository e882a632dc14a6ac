"""Connected regions of a mask, and how deep a pixel lies in one: exact, and small enough to need no library for it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from nanosam_cli.core.masks import Mask


def largest_region(mask: Mask) -> tuple[Mask, int]:
    """(H, W) -> its largest 8-connected region (H, W) and that one's pixels; of equals the first from the top.

    Runs of pixels of neighbouring rows are joined, and every run takes over the smallest number among its neighbours
    until none changes. An empty mask gives an empty region of 0 pixels.
    """
    edges = np.diff(np.pad(mask, ((0, 0), (1, 1))).astype(np.int8), axis=1)  # (H, W + 1)
    rows, starts = np.nonzero(edges == 1)
    if not len(rows):
        return np.zeros_like(mask), 0
    ends = np.nonzero(edges == -1)[1]  # exclusive; in the order of the starts
    upper, lower = _touching(rows, starts, ends, mask.shape[1])
    numbers = np.arange(len(rows))
    while True:
        least = numbers.copy()
        np.minimum.at(least, upper, numbers[lower])
        np.minimum.at(least, lower, numbers[upper])
        least = least[least]
        if np.array_equal(least, numbers):
            break
        numbers = least
    sizes = np.bincount(numbers, weights=ends - starts)
    chosen = numbers == sizes.argmax()
    painted = np.zeros(edges.shape, np.int8)
    painted[rows[chosen], starts[chosen]] += 1
    painted[rows[chosen], ends[chosen]] -= 1
    return painted.cumsum(axis=1)[:, :-1] > 0, int(sizes.max())


def _touching(
    rows: NDArray[np.intp], starts: NDArray[np.intp], ends: NDArray[np.intp], width: int
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Pairs of runs in neighbouring rows that touch, corners too."""
    stride = width + 2
    first = np.searchsorted(rows * stride + ends, (rows + 1) * stride + starts, "left")
    last = np.searchsorted(rows * stride + starts, (rows + 1) * stride + ends, "right")
    counts = np.maximum(last - first, 0)
    upper = np.repeat(np.arange(len(rows)), counts)
    places = np.arange(counts.sum()) - np.repeat(counts.cumsum() - counts, counts)
    return upper, np.repeat(first, counts) + places


def squared_depths(mask: Mask) -> NDArray[np.int64]:
    """(H, W) -> squared distance of each pixel to the nearest one outside of the mask; beyond the border is outside."""
    return squared_distances(np.pad(~mask, 1, constant_values=True))[1:-1, 1:-1]


def squared_distances(sources: Mask) -> NDArray[np.int64]:
    """(H, W) -> squared Euclidean distance of each pixel's centre to that of the nearest source; huge without any.

    First down the columns, then along the rows (Felzenszwalb and Huttenlocher 2012): a neighbour so far away that it
    could not be nearer than what was found ends the search.
    """
    height, width = sources.shape
    rows = np.arange(height)[:, None]
    far = 2 * (height + width)
    above = rows - np.maximum.accumulate(np.where(sources, rows, -far), axis=0)
    below = np.minimum.accumulate(np.where(sources, rows, height + far)[::-1], axis=0)[::-1] - rows
    vertical = np.square(np.minimum(above, below))
    nearest: NDArray[np.int64] = vertical.astype(np.int64)
    for shift in range(1, width):
        if shift**2 >= nearest.max():
            break
        moved = vertical + shift**2
        np.minimum(nearest[:, shift:], moved[:, :-shift], out=nearest[:, shift:])
        np.minimum(nearest[:, :-shift], moved[:, shift:], out=nearest[:, :-shift])
    return nearest


def opened(mask: Mask, radius: float) -> Mask:
    """What discs of a radius in pixels can cover of a mask (H, W) without leaving it (morphological opening)."""
    kept = squared_depths(mask) > radius**2
    return np.asarray(mask & (squared_distances(kept) <= radius**2)) if kept.any() else kept


def moved(mask: Mask, down: int, right: int) -> Mask:
    """The mask (H, W) moved by whole pixels; what leaves the photo is lost."""
    result = np.zeros_like(mask)
    height, width = mask.shape
    top, left = max(down, 0), max(right, 0)
    bottom, end = min(height, height + down), min(width, width + right)
    if top < bottom and left < end:
        result[top:bottom, left:end] = mask[top - down : bottom - down, left - right : end - right]
    return result

"""The embedding's cells as a tracker sees them: short vectors on a grid, boxes in cells, masks as parts of cells."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nanosam_cli.core.frame import Array, Frame
from nanosam_cli.core.inference.session import host
from nanosam_cli.core.masks import Mask, Window
from nanosam_cli.core.types import ImageEmbedding

Box = NDArray[np.float64]  # (4,) x0 y0 x1 y1 in cells

SIDE = 64  # cells of the embedding's square a side
FOLD = 4  # low-resolution mask pixels of a cell a side: 256 / 64
PARTS = FOLD * FOLD

_TINY = 1e-3


@dataclass(frozen=True, eq=False)
class CellSpace:
    """The cells of one video: which of them show the picture, and the axes along which the first frame's differ most.

    Channels are brought to one scale and rotated (principal components); two cells of the first frame are 1 apart on
    average (root mean square). So distances mean the same for every model, whatever its channels hold.
    """

    frame: Frame
    mean: Array  # (256,)
    axes: Array  # (256, D)

    @staticmethod
    def of(embedding: ImageEmbedding, dimensions: int) -> CellSpace:
        """The space of a video's first frame."""
        cells = _cells(embedding)
        mean = cells.mean(axis=0)
        scale = 1 / (cells.std(axis=0) + _TINY)
        scaled = (cells - mean) * scale
        variances, vectors = np.linalg.eigh(scaled.T @ scaled / len(scaled))  # ascending
        kept = slice(None, -dimensions - 1, -1)
        spread = np.sqrt(2 * max(float(variances[kept].sum()), _TINY))  # root mean square distance of two cells
        axes = vectors[:, kept] * (scale[:, None] / spread)
        return CellSpace(embedding.frame, mean, np.ascontiguousarray(axes, np.float32))

    @property
    def hw(self) -> tuple[int, int]:
        """Rows and columns that show the picture; the rest is padding."""
        return grid_hw(self.frame)

    def project(self, embedding: ImageEmbedding) -> Array:
        """(h, w, D) of a frame's cells."""
        height, width = self.hw
        cells = _cells(embedding) @ self.axes - self.mean @ self.axes
        return np.asarray(cells.reshape(height, width, -1))

    def to_cells(self, boxes: NDArray[np.floating]) -> NDArray[np.float64]:
        """(..., 4) boxes in original pixels -> in cells."""
        return np.asarray(self.frame.boxes_to_frame(boxes), float) * (SIDE / self.frame.coordinate_size)

    def to_pixels(self, boxes: NDArray[np.floating]) -> Array:
        """The inverse of `to_cells`."""
        return self.frame.boxes_to_original(np.asarray(boxes, float) * (self.frame.coordinate_size / SIDE))


def grid_hw(frame: Frame) -> tuple[int, int]:
    """Rows and columns of the embedding that show any of the picture."""
    height, width = (int(np.ceil(side / frame.input_size * SIDE)) for side in frame.input_hw)
    return height, width


def _cells(embedding: ImageEmbedding) -> Array:
    """(h * w, 256) without the padding."""
    height, width = grid_hw(embedding.frame)
    cells: Array = host(embedding.features)[0, :, :height, :width]
    return np.asarray(cells.reshape(len(cells), -1).T)


def window_around(box: Box, hw: tuple[int, int], size: float, margin: float = 2.0) -> Window:
    """Rows and columns of the cells in a box `size` times as large about the same centre, and `margin` cells more.

    At least one cell, also where the box lies outside the grid.
    """
    windows = []
    for axis in (1, 0):  # plain numbers: numpy's are slow one by one
        low, high, length = float(box[axis]), float(box[axis + 2]), hw[1 - axis]
        centre, half = (low + high) / 2, (high - low) / 2 * size + margin
        first = min(max(math.floor(centre - half), 0), length - 1)
        windows.append(slice(first, min(max(math.ceil(centre + half), first + 1), length)))
    return windows[0], windows[1]


def places_in(box: Box, window: Window) -> Array:
    """(n, 2) u v of the window's cells, row by row: -1 and 1 at the box's sides, cut off at 2 beyond them."""
    centre, half = (box[:2] + box[2:]) / 2, np.maximum((box[2:] - box[:2]) / 2, _TINY)
    rows, columns = np.mgrid[window]
    places = (np.stack([columns.ravel(), rows.ravel()], axis=1) + 0.5 - centre) / half
    return np.asarray(places.clip(-2, 2), np.float32)


def split_cells(low_res: Array) -> Array:
    """(256, 256) over the whole square -> (64, 64, 16): what each part of each cell holds."""
    split = low_res.reshape(SIDE, FOLD, SIDE, FOLD).transpose(0, 2, 1, 3)
    return np.asarray(split.reshape(SIDE, SIDE, PARTS))


def cell_shares(low_res: Mask | Array) -> Array:
    """(256, 256) over the whole square -> (64, 64): the mean of each cell."""
    values: NDArray[Any] = low_res.view(np.uint8) if low_res.dtype == np.bool_ else low_res
    rows = values[0::FOLD] + values[1::FOLD] + values[2::FOLD] + values[3::FOLD]  # numpy's own sum of four is slow
    cells = rows[:, 0::FOLD] + rows[:, 1::FOLD] + rows[:, 2::FOLD] + rows[:, 3::FOLD]
    return np.asarray(cells / np.float32(PARTS), np.float32)


def join_cells(parts: Array, window: Window, fill: float) -> Array:
    """The inverse of `split_cells` for a window's (h, w, 16); `fill` elsewhere."""
    rows, columns = window
    low_res = np.full((SIDE * FOLD, SIDE * FOLD), fill, np.float32)
    height, width = parts.shape[:2]
    joined = parts.reshape(height, width, FOLD, FOLD).transpose(0, 2, 1, 3).reshape(height * FOLD, width * FOLD)
    low_res[rows.start * FOLD : rows.stop * FOLD, columns.start * FOLD : columns.stop * FOLD] = joined
    return low_res


def mask_box(low_res: Mask) -> Box | None:
    """The box of a (256, 256) mask, or None where it is empty."""
    rows, columns = np.flatnonzero(low_res.any(axis=1)), np.flatnonzero(low_res.any(axis=0))
    if not len(rows):
        return None
    return np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1], float) / FOLD


def connected_part(low_res: Mask, box: Box, core: float = 0.7) -> Mask:
    """What of a (256, 256) mask hangs together, cell by cell, with the middle of a box; `core` of its sides."""
    rows = low_res.reshape(SIDE, FOLD, SIDE * FOLD).any(axis=1)
    cells: Mask = np.asarray(rows.reshape(SIDE, SIDE, FOLD).any(axis=2))
    seeds = np.zeros_like(cells)
    seeds[window_around(box, (SIDE, SIDE), core, 0)] = True
    return low_res & hanging_together(seeds, cells).repeat(FOLD, axis=0).repeat(FOLD, axis=1)


def hanging_together(seeds: Mask, cells: Mask) -> Mask:
    """What of the cells (h, w) can be reached from the seeds among them."""
    grown, before = cells & seeds, -1
    while (size := int(np.count_nonzero(grown))) != before:
        before = size
        for axis in (0, 1):
            grown = _spread(grown, axis) & cells
    return grown


def widened(cells: Mask, steps: int) -> Mask:
    """(h, w) grown by so many cells to all eight sides."""
    for _ in range(steps):
        cells = _spread(_spread(cells, 0), 1)
    return cells


def _spread(cells: Mask, axis: int) -> Mask:
    """Grown by one cell to both sides along an axis."""
    narrow = np.swapaxes(cells, 0, axis)
    wide = narrow.copy()
    wide[1:] |= narrow[:-1]
    wide[:-1] |= narrow[1:]
    return np.swapaxes(wide, 0, axis)


def area_of(box: Box) -> float:
    x0, y0, x1, y1 = box.tolist()  # plain numbers: numpy's are slow one by one
    return float(max(x1 - x0, 0) * max(y1 - y0, 0))


def box_iou(one: Box, other: Box) -> float:
    """Intersection over union of two boxes; 0 where both are empty."""
    shared = area_of(np.concatenate([np.maximum(one[:2], other[:2]), np.minimum(one[2:], other[2:])]))
    union = area_of(one) + area_of(other) - shared
    return shared / union if union > 0 else 0.0

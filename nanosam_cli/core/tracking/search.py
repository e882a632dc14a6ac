"""Where an object may be, by how much cells look like it: a template moved about, and boxes anywhere."""

from __future__ import annotations

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from nanosam_cli.core.frame import Array
from nanosam_cli.core.masks import Mask, Window
from nanosam_cli.core.tracking.cells import SIDE, Box, box_iou

APART = 0.25  # IoU of two boxes from which on they mean the same place
STILL = 0.01  # what a cell of way costs: of places that fit alike the nearest is taken


def best_shift(
    look: Array,
    template: Mask,
    window: Window,
    expected: NDArray[np.float64],
    reach: int,
    still: NDArray[np.float64],
) -> Box:
    """x y in cells by which a template, which lay at `window`, has moved.

    Its cells should look like the object in `look` (h, w), those around it should not; beyond the picture nothing does.
    Places up to `reach` cells from the `expected` shift are compared; being one cell from it costs `still` (x, y),
    squared.
    """
    rows, columns = window
    inside = max(1, int(np.count_nonzero(template)))
    signs = np.where(template, 1 / inside, -1 / max(1, template.size - inside)).astype(look.dtype)
    shift = np.round(expected).astype(int)
    margin = reach + int(np.abs(shift).max()) + 1
    padded = np.pad(look, [(margin, margin + SIDE - side) for side in look.shape])
    top, left = rows.start + shift[1] - reach + margin, columns.start + shift[0] - reach + margin
    height, width = template.shape
    area = padded[top : top + height + 2 * reach, left : left + width + 2 * reach]
    fits = np.einsum("yxij,ij->yx", sliding_window_view(area, template.shape), signs)
    steps = np.arange(-reach, reach + 1)
    fits = fits - STILL * np.hypot(steps[:, None], steps)
    fits = fits - (steps[:, None] * still[1]) ** 2 - (steps * still[0]) ** 2
    y, x = np.unravel_index(int(fits.argmax()), fits.shape)
    fine = np.array([_peak(fits[y, :], int(x)), _peak(fits[:, x], int(y))])
    return np.asarray(shift + np.array([x, y]) - reach + fine)


def _peak(values: NDArray[np.floating], at: int) -> float:
    """Where between its neighbours a maximum lies, by a parabola: -0.5 to 0.5."""
    if not 0 < at < len(values) - 1:
        return 0.0
    before, here, after = values[at - 1 : at + 2]
    bend = before - 2 * here + after
    return float(np.clip(0.5 * (before - after) / bend, -0.5, 0.5)) if bend < 0 else 0.0


def likely_boxes(look: Array, size: NDArray[np.float64], count: int) -> list[Box]:
    """Boxes of about a size (w, h) whose inside looks more like the object than what is around, best first."""
    found: list[tuple[float, Box]] = []
    sums = np.pad(look, ((1, 0), (1, 0))).cumsum(axis=0, dtype=float).cumsum(axis=1)
    height, width = look.shape
    y, x = np.mgrid[:height, :width] + 0.5
    for scale in (0.7, 1.0, 1.4):
        half = np.maximum(size * scale / 2, 0.5)
        inside, cells = _sum_in(sums, x, y, half)
        outer, more = _sum_in(sums, x, y, half * 1.5)
        ring = (outer - inside) / np.maximum(more - cells, 1)
        value = inside / np.maximum(cells, 1) - ring.clip(0)
        value *= np.minimum(1, cells / np.prod(2 * half) + 0.25)  # what lies mostly outside the picture says little
        for place in np.argsort(value, axis=None)[: -8 * count - 1 : -1]:
            row, column = divmod(int(place), width)
            centre = np.array([column + 0.5, row + 0.5])
            found.append((float(value[row, column]), np.concatenate([centre - half, centre + half])))
    found.sort(key=lambda item: -item[0])
    kept: list[Box] = []
    for _, box in found:
        box = np.concatenate([box[:2].clip(0), np.minimum(box[2:], (width, height))])
        if all(box_iou(box, other) < APART for other in kept):
            kept.append(box)
        if len(kept) == count:
            break
    return kept


def _sum_in(
    sums: NDArray[np.float64], x: NDArray[np.float64], y: NDArray[np.float64], half: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Sum and number of cells in boxes about the centres x y, from an integral image."""
    height, width = sums.shape[0] - 1, sums.shape[1] - 1
    left, right = (np.rint(x + side * half[0]).clip(0, width).astype(int) for side in (-1, 1))
    top, bottom = (np.rint(y + side * half[1]).clip(0, height).astype(int) for side in (-1, 1))
    total = sums[bottom, right] - sums[top, right] - sums[bottom, left] + sums[top, left]
    return total, ((right - left) * (bottom - top)).astype(float)

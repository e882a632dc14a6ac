"""Looking for an object by the cells that look like it."""

from __future__ import annotations

import numpy as np
import pytest

from nanosam_cli.core.tracking.cells import box_iou
from nanosam_cli.core.tracking.search import best_shift, likely_boxes


def look_of(*squares: tuple[int, int, float], side: int = 6) -> np.ndarray:
    """(40, 64) with squares at x y that look like the object so much."""
    look = np.zeros((40, 64), np.float32)
    for x, y, value in squares:
        look[max(0, y) : y + side, max(0, x) : x + side] = value
    return look


@pytest.mark.parametrize(
    ("place", "expected", "moved"),
    [((20, 10), (0, 0), (0, 0)), ((23, 8), (0, 0), (3, -2)), ((29, 10), (6, 0), (9, 0)), ((40, 10), (0, 0), None)],
)
def test_shift(place: tuple[int, int], expected: tuple[int, int], moved: tuple[int, int] | None) -> None:
    template = np.zeros((10, 10), bool)
    template[2:8, 2:8] = True
    window = slice(8, 18), slice(18, 28)  # the object was at 20, 10
    found = best_shift(look_of((*place, 1.0)), template, window, np.array(expected, float), 5, np.array([0.05, 0.05]))
    np.testing.assert_allclose(found, moved or (0, 0), atol=0.5)


@pytest.mark.parametrize(("still", "moved"), [(0.0, (5, 0)), (0.1, (-1, 0))])
def test_what_is_near_is_preferred(still: float, moved: tuple[int, int]) -> None:
    """The object has moved a little and looks less like itself; a double stands farther off."""
    template = np.ones((6, 3), bool)
    look = np.zeros((40, 64), np.float32)
    look[10:16, 19:22], look[10:16, 25:28] = 0.8, 1.0
    window = slice(10, 16), slice(20, 23)
    found = best_shift(look, template, window, np.zeros(2), 6, np.array([still, still]))
    np.testing.assert_allclose(found, moved, atol=0.5)


def test_likely_boxes() -> None:
    boxes = likely_boxes(look_of((5, 5, 0.6), (50, 30, 1.0)), np.array([6.0, 6.0]), 3)
    assert 2 <= len(boxes) <= 3
    assert box_iou(boxes[0], np.array([50.0, 30, 56, 36])) > 0.6
    assert box_iou(boxes[1], np.array([5.0, 5, 11, 11])) > 0.45
    for box in boxes:
        assert (box >= 0).all()
        assert (box[2:] <= (64, 40)).all()

from __future__ import annotations

import numpy as np
import pytest

from nanosam_cli.core.masks import mask_iou


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [([1, 1, 0, 0], [0, 1, 1, 0], 1 / 3), ([0, 0], [0, 0], 1.0), ([1, 0], [0, 1], 0.0), ([1, 1], [1, 1], 1.0)],
)
def test_mask_iou(one: list[int], other: list[int], expected: float) -> None:
    assert mask_iou(np.array([one], bool), np.array([other], bool)) == pytest.approx(expected)

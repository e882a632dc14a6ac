"""Label Studio's brush code: bytes as its own package writes them, and masks that come back."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from nanosam_cli.core.media.brush_code import mask_to_brush
from tests.brush import brush_to_mask

LONG = np.ones((1, 20_000), np.bool_)


@pytest.mark.parametrize(
    ("mask", "code"),
    [  # by `label_studio_sdk.converter.brush.mask2rle`, label-studio-sdk 2.1.2
        (np.array([[0, 1, 1]], np.bool_), [0, 0, 0, 12, 57, 27, 252, 96, 19, 255, 128]),
        (np.eye(3, dtype=np.bool_), [0, 0, 0, 36, 57, 27, 252, 127, 246, 192, 35, 255, 182, 1, 31, 248]),
        (LONG, [0, 1, 56, 128, 57, 27, 255, 255, 255, 255, 231, 15, 255, 224]),  # two runs, of 65,536 and the rest
    ],
)
def test_the_code_is_that_of_label_studios_own_package(mask: np.ndarray, code: Sequence[int]) -> None:
    assert mask_to_brush(mask) == code


@pytest.mark.parametrize("share", [0.0, 0.02, 0.5, 1.0])
@pytest.mark.parametrize("hw", [(1, 1), (1, 17), (17, 1), (40, 33), (300, 451)])
def test_masks_come_back(hw: tuple[int, int], share: float) -> None:
    mask = np.random.default_rng(0).random(hw) < share
    np.testing.assert_array_equal(brush_to_mask(mask_to_brush(mask), hw), mask)


@pytest.mark.parametrize(
    "length", [2, 4, 5, 64, 65, 16_384, 16_385, 32_768, 40_000]
)  # pixels: where lengths get longer
def test_runs_of_every_length_come_back(length: int) -> None:
    mask = np.zeros((2, 50_000), np.bool_)
    mask[0, 7 : 7 + length] = True
    np.testing.assert_array_equal(brush_to_mask(mask_to_brush(mask), mask.shape), mask)

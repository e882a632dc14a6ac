"""The way back to the photo that stands in a graph, against the one that the predictor takes."""

from __future__ import annotations

import pytest

pytest.importorskip("torch", reason="models need the extra `train`")

import numpy as np
import torch

from nanosam_cli.core.frame import Frame
from nanosam_cli.core.modeling.whole_model import masks_to_original

SIZES = [(427, 640), (640, 427), (1, 1), (3, 2000), (2999, 17), (300, 451), (1024, 1024), (1365, 2048), (767, 6144)]


@pytest.mark.parametrize("image_size", [512, 768, 1024])
@pytest.mark.parametrize("original_hw", SIZES, ids=str)
def test_masks_lie_where_the_frame_puts_them(original_hw: tuple[int, int], image_size: int) -> None:
    low_res = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    found = masks_to_original(low_res, torch.tensor(original_hw).float(), image_size).numpy()
    np.testing.assert_allclose(found, Frame(original_hw, image_size).masks_to_original(low_res.numpy()), atol=2e-4)


def test_whole_numbers_round_as_the_frame_does() -> None:
    """It rounds floats; between the two is no photo."""
    sides = np.arange(1, 8193, dtype=np.int64)
    for image_size in (512, 1024):
        for longest in (1, 2, 3, 640, 1333, 2048, 4032, 6144, 8191, 8192):
            whole = (2 * sides * image_size + longest) // (2 * longest)
            np.testing.assert_array_equal(whole, (sides * (image_size / longest) + 0.5).astype(np.int64))

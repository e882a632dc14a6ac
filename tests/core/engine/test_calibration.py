from __future__ import annotations

import numpy as np
import pytest

from nanosam_cli.core.engine.calibration import calibration_tensors
from nanosam_cli.core.precision.photos import ProofPhoto
from nanosam_cli.core.types import Prompt
from nanosam_cli.core.zoo.models import DEFAULT_MODEL, find_model


@pytest.mark.parametrize("hw", [(40, 97), (97, 40), (64, 64)])
def test_photos_fill_the_square(hw: tuple[int, int]) -> None:
    """Bars would give the numbers behind them a range that no photo has."""
    spec = find_model(DEFAULT_MODEL)
    image = np.zeros((*hw, 3), np.uint8)
    top, left = ((side - min(hw)) // 2 for side in hw)
    image[top : top + min(hw), left : left + min(hw)] = 255  # only the middle can be seen
    [tensor] = calibration_tensors([ProofPhoto("wide", image, Prompt.from_boxes([[0, 0, 9, 9]]))], 64, spec)
    white = (255 - np.array(spec.mean)) / np.array(spec.std)
    assert tensor.shape == (1, 3, 64, 64)
    np.testing.assert_allclose(tensor, np.broadcast_to(white[None, :, None, None], tensor.shape), rtol=1e-5)


def test_no_photos_give_none() -> None:
    assert calibration_tensors([], 64, find_model(DEFAULT_MODEL)) == []

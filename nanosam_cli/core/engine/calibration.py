"""What activations are calibrated on: photos without the bars that letterboxing adds."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from nanosam_cli.core.frame import Frame
from nanosam_cli.core.precision.photos import ProofPhoto
from nanosam_cli.core.zoo.models import ModelSpec


def calibration_tensors(photos: Sequence[ProofPhoto], size: int, spec: ModelSpec) -> list[NDArray[np.float32]]:
    """The middle square of each photo, filling the encoder's of side S = `size`: (1, 3, S, S) each.

    The bars beside a letterboxed photo give larger numbers than anything in a photo (up to eight times, in the model in
    the box), and the steps of int8 would be as much coarser.
    """
    mean, std = np.array(spec.mean, np.float32), np.array(spec.std, np.float32)
    squares = [_middle_square(photo.image) for photo in photos]
    return [Frame(square.shape[:2], size).image_to_input(square, mean, std) for square in squares]


def _middle_square(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(H, W, 3) -> (S, S, 3)."""
    side = min(image.shape[:2])
    top, left = (image.shape[0] - side) // 2, (image.shape[1] - side) // 2
    return image[top : top + side, left : left + side]

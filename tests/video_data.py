"""Small videos and annotated clips: a bright square that moves over a dark, noisy ground."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from nanosam_cli.core.media.image import write_png
from nanosam_cli.core.media.render import PALETTE
from nanosam_cli.core.media.video import VideoWriter

HW = 96, 128
SIDE = 30


def square(index: int, hw: tuple[int, int] = HW) -> NDArray[np.bool_]:
    """Where the object is in a frame: it moves two pixels to the right each time."""
    mask = np.zeros(hw, bool)
    left = 20 + 2 * index
    mask[30 : 30 + SIDE, left : left + SIDE] = True
    return mask


def picture(index: int, hw: tuple[int, int] = HW, there: bool = True) -> NDArray[np.uint8]:
    """(H, W, 3) of one frame, the ground the same in all."""
    image = np.random.default_rng(0).integers(0, 60, (*hw, 3)).astype(np.uint8)
    if there:
        image[square(index, hw)] = (230, 120, 40)
    return image


def save_frames(folder: Path, count: int = 8, hw: tuple[int, int] = HW) -> Path:
    """A clip as `eval davis` takes it."""
    folder.mkdir(parents=True)
    for index in range(count):
        Image.fromarray(picture(index, hw)).save(folder / f"{index:05}.jpg", quality=95)
        write_png(folder / f"{index:05}.png", square(index, hw).astype(np.uint8), PALETTE)
    return folder


def save_video(path: Path, count: int = 8, hw: tuple[int, int] = HW, times: Sequence[Fraction] | None = None) -> Path:
    """A video of ten frames a second, or with times of its own."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with VideoWriter(path, Fraction(10), Fraction(1, 1000)) as writer:
        for index in range(count):
            writer.write(picture(index, hw), Fraction(index, 10) if times is None else times[index])
    return path

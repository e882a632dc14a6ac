"""Mask files: which are objects by their values, and which are one mask with soft edges."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from nanosam_cli.core.errors import InputError
from nanosam_cli.core.media.mask_files import read_masks

HW = 60, 80


def disc(radius: float = 15, x: int = 40, y: int = 30) -> NDArray[np.uint8]:
    ys, xs = np.ogrid[: HW[0], : HW[1]]
    return np.asarray((np.hypot(xs - x, ys - y) < radius) * 255, np.uint8)


def blurred(radius: float) -> NDArray[np.uint8]:
    return np.asarray(Image.fromarray(disc()).filter(ImageFilter.GaussianBlur(radius)))


def enlarged() -> NDArray[np.uint8]:
    return np.asarray(Image.fromarray(disc()).resize((160, 120), Image.Resampling.BILINEAR))


def antialiased() -> NDArray[np.uint8]:
    return np.asarray(Image.fromarray(disc()).resize((40, 30), Image.Resampling.BOX))


def ramp() -> NDArray[np.uint8]:
    """A blur so wide that every value has a broad band."""
    return np.asarray(np.tile(np.repeat(np.arange(256), 5), (40, 1)), np.uint8)


def objects(values: list[int], side: int = 8) -> NDArray[np.uint8]:
    labels = np.zeros(HW, np.uint8)
    for place, value in enumerate(values):
        row, column = divmod(place, HW[1] // (side + 1))
        labels[row * (side + 1) : row * (side + 1) + side, column * (side + 1) : column * (side + 1) + side] = value
    return labels


def superpixels() -> NDArray[np.uint8]:
    """No background: neighbours are numbered one after the other."""
    return np.asarray(1 + np.arange(12)[:, None].repeat(5, 0) * 16 + np.arange(16)[None].repeat(5, 1), np.uint8)


def save(path: Path, values: NDArray[np.generic]) -> Path:
    Image.fromarray(values).save(path)
    return path


@pytest.mark.parametrize("soft", [blurred(1), blurred(3), enlarged(), antialiased(), ramp()])
@pytest.mark.parametrize("deep", [False, True])
def test_a_soft_mask_is_one_object_cut_at_half(tmp_path: Path, soft: NDArray[np.uint8], deep: bool) -> None:
    values = soft.astype(np.uint16) * 257 if deep else soft
    masks = read_masks(save(tmp_path / "m.png", values))
    assert len(masks) == 1
    np.testing.assert_array_equal(masks[0], soft >= 128)


@pytest.mark.parametrize(
    ("labels", "count"),
    [
        (disc(), 1),
        (disc() // 255, 1),
        (objects([1, 2, 3]), 3),
        (objects([85, 170, 255]), 3),
        (objects([*range(1, 41)]), 40),
        (objects([*range(201, 241)]), 40),
        (objects([*range(100, 250)], side=2), 150),  # too small to have an inside
        (objects([3, 130, 131, 255], side=1), 4),
        (superpixels(), 192),
    ],
)
def test_a_label_map_has_an_object_a_value(tmp_path: Path, labels: NDArray[np.uint8], count: int) -> None:
    masks = read_masks(save(tmp_path / "m.png", labels))
    assert len(masks) == count == len(np.unique(labels[labels > 0]))
    for mask, value in zip(masks, np.unique(labels[labels > 0])):
        np.testing.assert_array_equal(mask, labels == value)


def test_indexed_pictures_are_label_maps_whatever_they_hold(tmp_path: Path) -> None:
    image = Image.fromarray(blurred(1))
    image.putpalette(bytes(range(256)) * 3)
    image.save(tmp_path / "m.png")
    assert len(read_masks(tmp_path / "m.png")) == len(np.unique(blurred(1))) - 1


def test_a_greyscale_palette_is_greyscale(tmp_path: Path) -> None:
    image = Image.fromarray(blurred(1))
    image.putpalette(bytes(value for value in range(256) for _ in range(3)))
    image.save(tmp_path / "m.png")
    assert len(read_masks(tmp_path / "m.png")) == 1


def test_an_enlarged_label_map_is_refused_with_its_values(tmp_path: Path) -> None:
    """Values between those of the objects came in at their borders."""
    image = Image.fromarray(objects([85, 170, 255], 20)).resize((240, 180), Image.Resampling.BICUBIC)
    image.save(tmp_path / "m.png")
    count = len(np.unique(np.asarray(image))) - 1
    with pytest.raises(InputError, match=f"m.png has {count} grey values") as caught:
        read_masks(tmp_path / "m.png")
    assert caught.value.hint

"""Masks that the user gives as a PNG: a binary mask, a label map, or one mask with soft edges."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from nanosam_cli.core.errors import InputError
from nanosam_cli.core.masks import Mask

_FEWEST = 4  # grey values of a soft mask; fewer are objects
_SOFT_INSIDE = 0.25  # a soft mask has no more of its mid-tones inside of an even area


@dataclass(frozen=True, eq=False)
class LabelMasks(Sequence[Mask]):
    """The masks (H, W) of a label map's values, made one by one as they are asked for: there may be thousands."""

    labels: NDArray[np.int32]  # (H, W)
    values: Sequence[int]

    def __len__(self) -> int:
        return len(self.values)

    @overload
    def __getitem__(self, place: int) -> Mask: ...
    @overload
    def __getitem__(self, place: slice) -> LabelMasks: ...
    def __getitem__(self, place: int | slice) -> Mask | LabelMasks:
        if isinstance(place, slice):
            return LabelMasks(self.labels, self.values[place])
        return np.asarray(self.labels == self.values[place])


def read_masks(path: Path) -> Sequence[Mask]:
    """The masks (H, W) of a PNG: every value but 0 of an indexed or greyscale image is an object, in ascending order.

    A binary mask (0 and 255) is one object. So is a grey mask with soft edges, as background removers and enlarged
    masks have it: it is cut at half of the range, 128 of 8 bit.

    Raises:
        InputError: the file cannot be read, has colours, is all 0, or has grey values that may be either.
    """
    try:
        with Image.open(path, formats=["PNG"]) as image:
            mode = "L" if _is_grey_palette(image) else image.mode
            if mode not in ("1", "L", "P", "I", "I;16"):
                raise InputError(f"{path} is a colour picture, not a mask", "save it as an indexed or greyscale PNG")
            labels = np.asarray(image).astype(np.int32)
    except FileNotFoundError as error:
        raise InputError(f"no such file: {path}", "check the path") from error
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise InputError(f"{path} is not a PNG that can be read: {error}", "give a PNG mask") from error
    half = 128 if mode == "L" else 32768
    values = np.unique(labels[labels > 0])
    if not len(values):
        raise InputError(f"{path} is all 0, so it marks no object")
    if mode not in ("1", "P") and len(values) >= _FEWEST:
        if values[-1] >= half and _is_soft(labels):
            return [labels >= half]
        if not _is_label_map(labels, values):
            raise InputError(
                f"{path} has {len(values)} grey values: it may be one mask with soft edges, or so many objects",
                "save one mask as black and white, or objects as an indexed PNG",
            )
    return LabelMasks(labels, [int(value) for value in np.unique(labels) if value])


def _is_grey_palette(image: Image.Image) -> bool:
    """Whether an indexed picture is a greyscale one, whose value k is the grey k."""
    if image.mode != "P":
        return False
    palette = np.reshape(image.getpalette() or [], (-1, 3))
    return len(palette) > 1 and bool((palette == np.arange(len(palette))[:, None]).all())


def _is_soft(values: NDArray[np.int32]) -> bool:
    """Whether grey values (H, W) run on from pixel to pixel, so that their mid-tones are nowhere even."""
    top = values.max()
    middle = (values > top / 10) & (values < top * 0.9)
    if not middle.any():
        return False
    steps = sum(int(np.count_nonzero((one > 0) & (other > 0) & (one != other))) for one, other in _pairs(values))
    inside = np.count_nonzero(_even(values) & middle) / np.count_nonzero(middle)
    return bool(steps >= np.count_nonzero(middle) / 2 and inside < _SOFT_INSIDE) or _is_ramp(values)


def _is_ramp(values: NDArray[np.int32]) -> bool:
    """Whether neighbours are the next or the next but one of many values: a blur wider than its steps."""
    known, ranks = np.unique(values, return_inverse=True)
    steps = np.concatenate([np.abs(a - b).ravel() for a, b in _pairs(ranks.reshape(values.shape))])
    steps = steps[steps > 0]
    return len(known) >= 64 and bool(np.mean(steps <= 2) > 0.9)


def _is_label_map(values: NDArray[np.int32], known: NDArray[np.int32]) -> bool:
    """Whether most values have an even area of their own, or border on nothing but the background."""
    solid = len(np.unique(values[_even(values) & (values > 0)]))
    touching = any(((one > 0) & (other > 0) & (one != other)).any() for one, other in _pairs(values))
    return solid * 2 >= len(known) or not touching


def _even(values: NDArray[np.int32]) -> NDArray[np.bool_]:
    """(H, W) the pixels that are as all eight round them."""
    padded = np.pad(values, 1, constant_values=-1)
    height, width = values.shape
    even = np.ones(values.shape, np.bool_)
    for row in range(3):
        for column in range(3):
            even &= padded[row : row + height, column : column + width] == values
    return even


def _pairs(values: NDArray[Any]) -> list[tuple[NDArray[Any], NDArray[Any]]]:
    """Neighbours side by side, and one above the other."""
    return [(values[:, :-1], values[:, 1:]), (values[:-1], values[1:])]

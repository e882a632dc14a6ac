"""Coordinates that were drawn on a photo of another size, or on its pixels as they are stored, brought to the photo.

EXIF's orientations: tag 0x0112 of https://www.cipa.jp/std/documents/e/DC-X008-Translation-2019-E.pdf, 5 to 8 of which
exchange width and height.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nanosam_cli.core.errors import InputError
from nanosam_cli.core.media.image import image_orientation

Size = tuple[int, int]  # height width, pixels
_TURNED = (5, 6, 7, 8)
_PILLOW_TURNS = {5: "TRANSPOSE", 6: "ROTATE_270", 7: "TRANSVERSE", 8: "ROTATE_90"}


@dataclass(frozen=True)
class SizeFit:
    """From coordinates of a `declared` size to those of a photo as it is shown."""

    declared: Size
    shown: Size
    orientation: int = 1  # EXIF's, where the declared size is that of the pixels as stored

    @property
    def note(self) -> str:
        """What is done, for people."""
        if not self.orientation > 1:
            return f"drawn on {_text(self.declared)} pixels: scaled to the photo's {_text(self.shown)}"
        return (
            f"drawn on the photo as it is stored, {_text(self.declared)} pixels: turned with it, to {_text(self.shown)}"
        )

    @property
    def area_scale(self) -> float:
        return float(np.prod(self.shown) / np.prod(self.declared))

    def points(self, points: NDArray[np.floating]) -> NDArray[np.float64]:
        """(..., 2) x y."""
        x, y = np.moveaxis(np.asarray(points, float), -1, 0)
        height, width = self.declared
        if self.orientation in _TURNED:
            far_x, far_y = width - x, height - y
            x, y = {5: (y, x), 6: (far_y, x), 7: (far_y, far_x), 8: (y, far_x)}[self.orientation]
            height, width = width, height
        return np.stack([x * (self.shown[1] / width), y * (self.shown[0] / height)], axis=-1)

    def boxes(self, boxes: NDArray[np.floating]) -> NDArray[np.float64]:
        """(P, 4) x0 y0 x1 y1."""
        corners = self.points(np.reshape(boxes, (-1, 2, 2)))
        # where a side is turned round its corners change places; a box that was inverted before stays so
        order = np.sort(corners, axis=1)
        usual = (np.asarray(boxes)[:, :2] <= np.asarray(boxes)[:, 2:])[:, None].all(-1, keepdims=True)
        return np.where(usual, order, corners).reshape(-1, 4)

    def mask(self, mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """(H, W) of the declared size -> of the photo's; scaled by the nearest pixel."""
        from PIL import Image

        picture = Image.fromarray(mask)
        if self.orientation in _TURNED:
            picture = picture.transpose(Image.Transpose[_PILLOW_TURNS[self.orientation]])
        if picture.size != self.shown[::-1]:
            picture = picture.resize(self.shown[::-1], Image.Resampling.NEAREST)
        return np.array(picture, bool)


def fit_size(what: str, declared: Size, shown: Size, orientation: Callable[[], int]) -> SizeFit | None:
    """How to mend coordinates of a declared size; None where it is the photo's own.

    `orientation` tells EXIF's of the photo, and is asked only where the sizes differ. A size that is neither the
    photo's, nor that of its pixels as stored, nor either of them by one scale is refused.

    Raises:
        InputError: the sizes do not fit; `what` is the photo, for the message.
    """
    if declared == shown:
        return None
    turn = orientation()
    turned = turn if turn in _TURNED else 1
    if turned > 1 and declared == shown[::-1]:
        return SizeFit(declared, shown, turned)
    if _is_scaled(declared, shown):
        return SizeFit(declared, shown)
    if turned > 1 and _is_scaled(declared[::-1], shown):
        return SizeFit(declared, shown, turned)
    raise InputError(
        f"{what} is {_text(shown)} pixels, annotated as {_text(declared)}",
        "give the photo that was annotated, or correct width and height where they are wrong",
    )


@dataclass(frozen=True)
class DeclaredPhoto:
    """A photo's file, and the size that somebody else says it has."""

    path: Path
    size: Size

    def fit(self, shown: Size) -> SizeFit | None:
        """See `fit_size`."""
        return fit_size(str(self.path), self.size, shown, lambda: image_orientation(self.path))


def _is_scaled(declared: Size, shown: Size) -> bool:
    """Whether one scale leads from one size to the other, as far as whole pixels tell."""
    if min(*declared, *shown) < 1:
        return False
    small, large = sorted((declared, shown))
    if not all(a <= b for a, b in zip(small, large)):
        return False
    sides = list(zip(small, large))
    return any(
        max((a + low) / b for a, b in sides) < min((a + low + 1) / b for a, b in sides) for low in (-0.5, 0)
    )  # both sides rounded, or both rounded down


def _text(size: Size) -> str:
    return f"{size[1]}x{size[0]}"

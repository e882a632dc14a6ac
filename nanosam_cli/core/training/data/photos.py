"""Where crops get their pixels from: photos that are read when they are needed, or a device that holds them all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from nanosam_cli.core.datasets.coco import AnnotatedPhoto
from nanosam_cli.core.datasets.fit_annotations import checked_size
from nanosam_cli.core.media.image import read_image
from nanosam_cli.core.training.data.image_folder import PlainPhoto

Photo = AnnotatedPhoto | PlainPhoto


@dataclass(frozen=True)
class View:
    """Which part of a photo a crop shows."""

    photo: Photo
    window: tuple[float, float, float, float]  # x0 y0 x1 y1, original pixels
    scale: float  # crop pixels an original pixel
    mirror: bool

    def valid_hw(self, side: int, zoom: float = 1) -> tuple[int, int]:
        """What of a square, `zoom` times as large as the crop, is photo; the rest is padding."""
        x0, y0, x1, y1 = self.window
        scale = self.scale * zoom
        return min(side, max(1, round((y1 - y0) * scale))), min(side, max(1, round((x1 - x0) * scale)))


@dataclass(frozen=True)
class PhotoShape:
    """An object's mask, at least the rectangle that holds all of it."""

    left: int  # of the pixels in the photo
    top: int
    pixels: NDArray[np.bool_]  # (h, w)
    area: int  # pixels that are set
    offset: int = 0  # of the same pixels on the device that holds them


class Photos(Protocol):
    """Pixels of photos and masks, cut out and resized as Pillow's BILINEAR does, mirrored, zero-padded."""

    def original_hw(self, photo: Photo) -> tuple[int, int]:
        """InputError where it cannot be read."""
        ...

    def shape(self, photo: AnnotatedPhoto, row: int) -> PhotoShape:
        """The mask of one of the photo's objects."""
        ...

    def image(self, view: View, side: int, zoom: float = 1) -> Tensor:
        """(3, side, side) uint8, `zoom` times as large as in the crop. InputError where it cannot be read."""
        ...

    def cut(self, view: View, shapes: Sequence[PhotoShape], side: int) -> tuple[Tensor, Tensor]:
        """A crop's image, as above, and masks of the photo's objects (n, side, side) uint8, 255 = wholly object."""
        ...


class PhotoReader:
    """Photos that are read when they are needed. Annotated ones are few and come often, so they are kept; of folders of
    photos, only the one in hand is."""

    def original_hw(self, photo: Photo) -> tuple[int, int]:
        if isinstance(photo, AnnotatedPhoto):
            return photo.original_hw
        height, width = _last_image(photo).shape[:2]
        return height, width

    def shape(self, photo: AnnotatedPhoto, row: int) -> PhotoShape:
        mask = photo.objects[row].mask()
        return PhotoShape(0, 0, mask, int(np.count_nonzero(mask)))

    def image(self, view: View, side: int, zoom: float = 1) -> Tensor:
        photo = view.photo
        if isinstance(photo, AnnotatedPhoto):
            pixels = checked_size(photo, _cached_image(photo.path))
        else:
            pixels = _last_image(photo)
        out = np.zeros((side, side, 3), np.uint8)
        _paste_resized(out, pixels, view, *view.valid_hw(side, zoom))
        return torch.from_numpy(out).permute(2, 0, 1)

    def cut(self, view: View, shapes: Sequence[PhotoShape], side: int) -> tuple[Tensor, Tensor]:
        out = np.zeros((len(shapes), side, side), np.uint8)
        for square, shape in zip(out, shapes):
            _paste_resized(square, shape.pixels.astype(np.uint8) * 255, view, *view.valid_hw(side))
        return self.image(view, side), torch.from_numpy(out)


class MaskReader(PhotoReader):
    """Masks alone, for a run that keeps what its encoder made of the photos: these are not read, and black."""

    def image(self, view: View, side: int, zoom: float = 1) -> Tensor:
        return torch.zeros(3, side, side, dtype=torch.uint8)


def _paste_resized(out: NDArray[np.uint8], pixels: NDArray[np.uint8], view: View, height: int, width: int) -> None:
    resized = Image.fromarray(pixels).resize((width, height), Image.Resampling.BILINEAR, box=view.window)
    found = np.asarray(resized)
    out[:height, :width] = found[:, ::-1] if view.mirror else found


def read_photo(photo: Photo) -> NDArray[np.uint8]:
    """(H, W, 3) RGB. InputError where it cannot be read, or is not of the size that was annotated."""
    return checked_size(photo, read_image(photo.path)) if isinstance(photo, AnnotatedPhoto) else photo.read()


def name_of(photo: Photo) -> str:
    """For messages."""
    return str(photo.path) if isinstance(photo, AnnotatedPhoto) else photo.name


@lru_cache(maxsize=1)
def _last_image(photo: PlainPhoto) -> NDArray[np.uint8]:
    return photo.read()


@lru_cache(maxsize=4096)
def _cached_image(path: Path) -> NDArray[np.uint8]:
    return read_image(path)

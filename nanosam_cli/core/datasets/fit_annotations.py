"""Annotations of a photo on its side, or of a larger or smaller copy of it, brought to the photo that is there."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from nanosam_cli.core.datasets.coco import AnnotatedObject, AnnotatedPhoto
from nanosam_cli.core.errors import InputError
from nanosam_cli.core.media.declared_size import Size, SizeFit
from nanosam_cli.core.media.mask_codes import mask_to_rle


class OtherSizeError(InputError):
    """A photo that is not of the size that its annotations say."""

    def __init__(self, photo: AnnotatedPhoto, shown: Size) -> None:
        found, wanted = (f"{width}x{height}" for height, width in (shown, photo.original_hw))
        super().__init__(
            f"{photo.path} is {found} pixels, annotated as {wanted}",
            "give the photo that was annotated, or correct width and height where they are wrong",
        )
        self.shown = shown


def checked_size(photo: AnnotatedPhoto, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The photo (H, W, 3) that was read. OtherSizeError where it is not of the size that was annotated."""
    shown = (image.shape[0], image.shape[1])
    if shown != photo.original_hw:
        raise OtherSizeError(photo, shown)
    return image


def fit_object(target: AnnotatedObject, fit: SizeFit) -> AnnotatedObject:
    """The same object in pixels of the photo. InputError where its mask is broken."""
    x0, y0, x1, y1 = fit.boxes(np.array([target.box])).tolist()[0]
    mask = mask_to_rle(fit.mask(target.mask()))
    return replace(target, bbox=(x0, y0, x1 - x0, y1 - y0), area=target.area * fit.area_scale, rle=mask)


def fit_photo(photo: AnnotatedPhoto, fit: SizeFit) -> AnnotatedPhoto:
    """The same photo with its objects in pixels that it has."""
    return replace(photo, original_hw=fit.shown, objects=tuple(fit_object(target, fit) for target in photo.objects))

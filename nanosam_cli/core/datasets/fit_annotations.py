"""Annotations of a photo on its side, or of a larger or smaller copy of it, brought to the photo that is there."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from nanosam_cli.core.datasets.coco import AnnotatedObject, AnnotatedPhoto
from nanosam_cli.core.media.declared_size import SizeFit
from nanosam_cli.core.media.mask_codes import mask_to_rle


def fit_object(target: AnnotatedObject, fit: SizeFit) -> AnnotatedObject:
    """The same object in pixels of the photo. InputError where its mask is broken."""
    x0, y0, x1, y1 = fit.boxes(np.array([target.box])).tolist()[0]
    mask = mask_to_rle(fit.mask(target.mask()))
    return replace(target, bbox=(x0, y0, x1 - x0, y1 - y0), area=target.area * fit.area_scale, rle=mask)


def fit_photo(photo: AnnotatedPhoto, fit: SizeFit) -> AnnotatedPhoto:
    """The same photo with its objects in pixels that it has."""
    return replace(photo, original_hw=fit.shown, objects=tuple(fit_object(target, fit) for target in photo.objects))

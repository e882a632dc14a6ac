"""Photos to crops: where a crop is cut, what it shows of each object, and how its pixels are changed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageEnhance

from nanosam_cli.core.coco import AnnotatedPhoto
from nanosam_cli.core.image import read_image
from nanosam_cli.core.training.image_folder import PlainPhoto

MIN_SIDE = 3.0  # pixels of the crop: smaller objects say nothing
MIN_VISIBLE = 0.3  # share of an object that a crop must show


@dataclass(frozen=True)
class View:
    """Which part of a photo a crop shows."""

    photo: AnnotatedPhoto | PlainPhoto
    window: tuple[float, float, float, float]  # x0 y0 x1 y1, original pixels
    scale: float  # crop pixels an original pixel
    mirror: bool

    def render(self, side: int, zoom: float = 1) -> NDArray[np.uint8]:
        """(side, side, 3), `zoom` times as large as in the crop, zero-padded."""
        return _resize_window(_read(self.photo), self.window, self.scale * zoom, side, self.mirror)


@dataclass
class Crop:
    """Pixels of one crop and the objects in it."""

    image: NDArray[np.uint8]  # (C, C, 3)
    valid_hw: tuple[int, int]  # what is photo; the rest is padding
    masks: list[NDArray[np.uint8]]  # (C, C), 255 = wholly object
    boxes: list[tuple[float, float, float, float]]  # x0 y0 x1 y1, crop pixels
    view: View | None = None  # None where it is of several photos

    def resized(self, side: int) -> tuple[NDArray[np.uint8], tuple[int, int]]:
        """The same picture (side, side, 3) for a network of another input size, and what of it is photo; drawn anew
        from the photo where it is one."""
        zoom = side / len(self.image)
        if zoom == 1:
            return self.image, self.valid_hw
        if self.view is not None:
            return self.view.render(side, zoom), _resized_hw(self.view.window, self.view.scale * zoom, side)
        height, width = (max(1, round(length * zoom)) for length in self.valid_hw)
        return np.asarray(Image.fromarray(self.image).resize((side, side), Image.Resampling.BILINEAR)), (height, width)


def crop_photo(
    photo: AnnotatedPhoto | PlainPhoto, rng: np.random.Generator, crop: int, longest: float, mirrored: float = 0.5
) -> Crop:
    """The photo with its longest side resized to `longest`, mirrored as often as asked for, and `crop` pixels square
    cut out around a random object (a random place where it has none): all of the photo where it is not larger."""
    height, width = photo.original_hw if isinstance(photo, AnnotatedPhoto) else _read(photo).shape[:2]
    scale = longest / max(height, width)
    side = crop / scale  # of the crop, original pixels
    objects = photo.objects if isinstance(photo, AnnotatedPhoto) else ()
    if objects:
        anchor = objects[rng.integers(len(objects))].box
    else:
        x, y = rng.uniform(0, width), rng.uniform(0, height)
        anchor = (x, y, x, y)
    x0 = _crop_start(anchor[0], anchor[2], side, width, rng)
    y0 = _crop_start(anchor[1], anchor[3], side, height, rng)
    window = (x0, y0, min(x0 + side, width), min(y0 + side, height))
    view = View(photo, window, scale, bool(rng.random() < mirrored))
    pixels, mirror = view.render(crop), view.mirror
    valid_hw = _resized_hw(window, scale, crop)

    masks, boxes = [], []
    for target in objects:
        left, top, right, bottom = target.box
        if right <= window[0] or left >= window[2] or bottom <= window[1] or top >= window[3]:
            continue
        mask = target.mask()
        box = _visible_box(mask, window, scale)
        if box is None or min(box[2] - box[0], box[3] - box[1]) < MIN_SIDE:
            continue
        if mirror:
            box = (valid_hw[1] - box[2], box[1], valid_hw[1] - box[0], box[3])
        masks.append(_resize_window(mask.astype(np.uint8) * 255, window, scale, crop, mirror))
        boxes.append(box)
    return Crop(pixels, valid_hw, masks, boxes, view)


def _crop_start(low: float, high: float, side: float, length: int, rng: np.random.Generator) -> float:
    """Where the crop begins on one axis: it holds the object if it can, and may run past the photo's far edge."""
    if side >= length:
        return 0.0
    first, last = (high - side, low) if high - low <= side else (low, high - side)
    padded = length - side * (1 - 0.25 * rng.random())  # up to a quarter of the crop is padding
    first, last = max(0.0, first), max(0.0, min(last, padded))
    return float(rng.uniform(min(first, last), max(first, last)))


def _resized_hw(window: tuple[float, float, float, float], scale: float, crop: int) -> tuple[int, int]:
    x0, y0, x1, y1 = window
    return min(crop, max(1, round((y1 - y0) * scale))), min(crop, max(1, round((x1 - x0) * scale)))


def _resize_window(
    pixels: NDArray[np.uint8], window: tuple[float, float, float, float], scale: float, crop: int, mirror: bool
) -> NDArray[np.uint8]:
    """A window of (H, W) or (H, W, 3) -> (crop, crop[, 3]), mirrored within what is photo, zero-padded."""
    height, width = _resized_hw(window, scale, crop)
    resized = np.asarray(Image.fromarray(pixels).resize((width, height), Image.Resampling.BILINEAR, box=window))
    out = np.zeros((crop, crop, *pixels.shape[2:]), np.uint8)
    out[:height, :width] = resized[:, ::-1] if mirror else resized
    return out


def _visible_box(
    mask: NDArray[np.bool_], window: tuple[float, float, float, float], scale: float
) -> tuple[float, float, float, float] | None:
    """The box of what the window shows of a mask, crop pixels; None where too little of it is seen."""
    x0, y0, x1, y1 = window
    seen = mask[int(y0) : int(np.ceil(y1)), int(x0) : int(np.ceil(x1))]
    count = np.count_nonzero(seen)
    if count == 0 or count < MIN_VISIBLE * np.count_nonzero(mask):
        return None
    columns, rows = np.flatnonzero(seen.any(axis=0)) + int(x0), np.flatnonzero(seen.any(axis=1)) + int(y0)
    left, right = max(columns[0], x0), min(columns[-1] + 1, x1)
    top, bottom = max(rows[0], y0), min(rows[-1] + 1, y1)
    return (left - x0) * scale, (top - y0) * scale, (right - x0) * scale, (bottom - y0) * scale


def paste_object(crop: Crop, donor: Crop, rng: np.random.Generator) -> Crop:
    """Lay one object of the donor over the crop (copy-paste, Ghiasi et al. 2021, arXiv 2012.07177).

    Objects of the crop that are mostly hidden by it are dropped; the boxes of the others follow what is left of them.
    """
    if not donor.masks:
        return crop
    row = int(rng.integers(len(donor.masks)))
    mask = donor.masks[row].copy()
    mask[crop.valid_hw[0] :] = 0
    mask[:, crop.valid_hw[1] :] = 0
    pasted_box = _mask_box(mask)
    if pasted_box is None:
        return crop
    alpha = mask.astype(np.float32)[:, :, None] / 255
    image = (crop.image * (1 - alpha) + donor.image * alpha).astype(np.uint8)
    masks, boxes = [mask], [pasted_box]
    for other, box in zip(crop.masks, crop.boxes):
        left = (other * (1 - alpha[:, :, 0])).astype(np.uint8)
        if np.array_equal(left, other):
            masks.append(other)
            boxes.append(box)
            continue
        left_box = _mask_box(left)
        if left_box is not None and np.count_nonzero(left > 127) >= 0.4 * np.count_nonzero(other > 127):
            masks.append(left)
            boxes.append(left_box)
    return Crop(image, crop.valid_hw, masks, boxes)


def _mask_box(mask: NDArray[np.uint8]) -> tuple[float, float, float, float] | None:
    filled = mask > 127
    columns, rows = np.flatnonzero(filled.any(axis=0)), np.flatnonzero(filled.any(axis=1))
    if len(columns) < MIN_SIDE or len(rows) < MIN_SIDE:
        return None
    return float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1)


def change_colours(
    image: NDArray[np.uint8], rng: np.random.Generator, strength: float, grey: float
) -> NDArray[np.uint8]:
    """Random brightness, contrast and saturation, each a factor within 1 +- strength; sometimes no colour at all."""
    picture = Image.fromarray(image)
    enhancers: list[Callable[[Image.Image], ImageEnhance._Enhance]] = [
        ImageEnhance.Brightness,
        ImageEnhance.Contrast,
        ImageEnhance.Color,
    ]
    for enhancer in enhancers:
        picture = enhancer(picture).enhance(float(rng.uniform(1 - strength, 1 + strength)))
    if rng.random() < grey:
        picture = picture.convert("L").convert("RGB")
    return np.asarray(picture)


def _read(photo: AnnotatedPhoto | PlainPhoto) -> NDArray[np.uint8]:
    """Annotated photos are few and read often; of folders of photos, only the one in hand is kept."""
    return _cached_image(photo.path) if isinstance(photo, AnnotatedPhoto) else _last_image(photo)


@lru_cache(maxsize=1)
def _last_image(photo: PlainPhoto) -> NDArray[np.uint8]:
    return photo.read()


@lru_cache(maxsize=4096)
def _cached_image(path: Path) -> NDArray[np.uint8]:
    return read_image(path)

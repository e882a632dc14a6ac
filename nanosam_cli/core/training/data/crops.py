"""Photos to crops: where a crop is cut, what it shows of each object, and how its pixels are changed.

Everything random is drawn from numpy's generator, everything done to pixels is done by torch, where the pixels are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from nanosam_cli.core.datasets.coco import AnnotatedPhoto
from nanosam_cli.core.frame import SAM_MEAN, SAM_STD
from nanosam_cli.core.training.data.photos import Photo, Photos, PhotoShape, View
from nanosam_cli.core.training.data.resize import Box, resize

MIN_SIDE = 3.0  # pixels of the crop: smaller objects say nothing
MIN_VISIBLE = 0.3  # share of an object that a crop must show
MIN_LEFT = 0.4  # share of an object in a crop that must be left when another was pasted over it
LUMA = (0.299, 0.587, 0.114)  # ITU-R 601, as in Pillow


@dataclass(frozen=True)
class Crop:
    """Pixels of one crop and the objects in it."""

    image: Tensor  # (3, C, C) uint8
    valid_hw: tuple[int, int]  # what is photo; the rest is padding
    masks: Tensor  # (n, C, C) uint8, 255 = wholly object
    boxes: list[Box]  # crop pixels
    view: View | None = None  # None where it is of several photos

    @property
    def side(self) -> int:
        """C."""
        return self.image.shape[-1]

    def resized(self, side: int, photos: Photos) -> tuple[Tensor, tuple[int, int]]:
        """The same picture (3, side, side) for a network of another input size, and what of it is photo; drawn anew
        from the photo where it is one."""
        zoom = side / self.side
        if zoom == 1:
            return self.image, self.valid_hw
        if self.view is not None:
            return photos.image(self.view, side, zoom), self.view.valid_hw(side, zoom)
        height, width = (max(1, round(length * zoom)) for length in self.valid_hw)
        whole = (0.0, 0.0, float(self.side), float(self.side))
        return resize(self.image, whole, (side, side)), (height, width)


def crop_photo(
    photo: Photo, photos: Photos, rng: np.random.Generator, crop: int, longest: float, mirrored: float = 0.5
) -> Crop:
    """The photo with its longest side resized to `longest`, mirrored as often as asked for, and `crop` pixels square
    cut out around a random object (a random place where it has none): all of the photo where it is not larger."""
    height, width = photos.original_hw(photo)
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
    valid_hw = view.valid_hw(crop)
    shapes, boxes = _visible_objects(view, photos, valid_hw[1])
    image, masks = photos.cut(view, shapes, crop)
    return Crop(image, valid_hw, masks, boxes, view)


def _crop_start(low: float, high: float, side: float, length: int, rng: np.random.Generator) -> float:
    """Where the crop begins on one axis: it holds the object if it can, and may run past the photo's far edge."""
    if side >= length:
        return 0.0
    first, last = (high - side, low) if high - low <= side else (low, high - side)
    padded = length - side * (1 - 0.25 * rng.random())  # up to a quarter of the crop is padding
    first, last = max(0.0, first), max(0.0, min(last, padded))
    return float(rng.uniform(min(first, last), max(first, last)))


def _visible_objects(view: View, photos: Photos, width: int) -> tuple[list[PhotoShape], list[Box]]:
    """The objects of which a view shows enough, and their boxes in pixels of a crop that shows `width` of photo."""
    if not isinstance(view.photo, AnnotatedPhoto):
        return [], []
    shapes, boxes = [], []
    x0, y0, x1, y1 = view.window
    for row, target in enumerate(view.photo.objects):
        left, top, right, bottom = target.box
        if right <= x0 or left >= x1 or bottom <= y0 or top >= y1:
            continue
        shape = photos.shape(view.photo, row)
        box = visible_box(shape, view.window, view.scale)
        if box is None or min(box[2] - box[0], box[3] - box[1]) < MIN_SIDE:
            continue
        shapes.append(shape)
        boxes.append((width - box[2], box[1], width - box[0], box[3]) if view.mirror else box)
    return shapes, boxes


def visible_box(shape: PhotoShape, window: Box, scale: float) -> Box | None:
    """The box of what the window shows of a mask, crop pixels; None where too little of it is seen."""
    x0, y0, x1, y1 = window
    first_x, first_y = max(int(x0), shape.left), max(int(y0), shape.top)
    last_x, last_y = max(first_x, int(np.ceil(x1))), max(first_y, int(np.ceil(y1)))
    seen = shape.pixels[first_y - shape.top : last_y - shape.top, first_x - shape.left : last_x - shape.left]
    count = np.count_nonzero(seen)
    if count == 0 or count < MIN_VISIBLE * shape.area:
        return None
    columns, rows = np.flatnonzero(seen.any(axis=0)) + first_x, np.flatnonzero(seen.any(axis=1)) + first_y
    left, right = max(columns[0], x0), min(columns[-1] + 1, x1)
    top, bottom = max(rows[0], y0), min(rows[-1] + 1, y1)
    return (left - x0) * scale, (top - y0) * scale, (right - x0) * scale, (bottom - y0) * scale


def paste_object(crop: Crop, donor: Crop, rng: np.random.Generator) -> Crop:
    """Lay one object of the donor over the crop (copy-paste, Ghiasi et al. 2021, arXiv 2012.07177).

    Objects of the crop that are mostly hidden by it are dropped; the boxes of the others follow what is left of them.
    """
    if not len(donor.masks):
        return crop
    mask = donor.masks[int(rng.integers(len(donor.masks)))].clone()
    mask[crop.valid_hw[0] :] = 0
    mask[:, crop.valid_hw[1] :] = 0
    alpha = mask.float() / 255
    left = (crop.masks * (1 - alpha)).to(torch.uint8)
    together = torch.cat([mask[None], left])
    pasted_box, *left_boxes = _mask_boxes(together)
    if pasted_box is None:
        return crop
    image = (crop.image * (1 - alpha) + donor.image * alpha).to(torch.uint8)
    before, after = ((masks > 127).sum(dim=(1, 2)) for masks in (crop.masks, left))
    counts = torch.stack([before, after, (left != crop.masks).sum(dim=(1, 2))], dim=1).tolist()
    rows, boxes = [0], [pasted_box]
    for row, (box, left_box, (was, now, changed)) in enumerate(zip(crop.boxes, left_boxes, counts), 1):
        if changed and (left_box is None or now < MIN_LEFT * was):
            continue
        rows.append(row)
        boxes.append(left_box if changed and left_box is not None else box)
    return Crop(image, crop.valid_hw, together[rows], boxes)


def paste_double(crop: Crop, rng: np.random.Generator) -> Crop:
    """Lay one of a crop's objects beside itself, in front or behind: two that look the same, as people in a crowd do,
    can be told apart by their outlines alone.

    The double is moved by up to four fifths of the object's box, and mirrored half of the time. Where little of it
    would be seen the crop stays as it is.
    """
    if not len(crop.masks):
        return crop
    row = int(rng.integers(len(crop.masks)))
    own, (x0, y0, x1, y1) = crop.masks[row], crop.boxes[row]
    far, near = rng.uniform(0.25, 0.8) * rng.choice((-1, 1)), rng.uniform(-0.25, 0.25)
    across, down = (far, near) if rng.random() < 0.75 else (near, far)
    mirror, behind = rng.random(2) < 0.5

    places = torch.arange(crop.side, device=own.device)
    rows, columns = places - round(down * (y1 - y0)), places - round(across * (x1 - x0))  # where each pixel comes from
    if mirror:
        columns = round(x0 + x1) - 1 - columns
    inside = [(line >= 0) & (line < crop.side) & (places < end) for line, end in zip((rows, columns), crop.valid_hw)]
    rows, columns = (line.clamp(0, crop.side - 1) for line in (rows, columns))
    mask = own[rows][:, columns] * (inside[0][:, None] & inside[1])
    if behind:
        mask = (mask * (1 - own.float() / 255)).to(torch.uint8)
    if (mask > 127).sum() < MIN_LEFT * (own > 127).sum():
        return crop
    return paste_object(crop, Crop(crop.image[:, rows][:, :, columns], crop.valid_hw, mask[None], []), rng)


def _mask_boxes(masks: Tensor) -> list[Box | None]:
    """The boxes of masks (n, C, C), crop pixels; None where there is hardly anything."""
    filled = masks > 127
    across, down = (filled.any(dim=dim).cpu().numpy() for dim in (1, 2))
    boxes: list[Box | None] = []
    for columns, rows in zip(map(np.flatnonzero, across), map(np.flatnonzero, down)):
        small = len(columns) < MIN_SIDE or len(rows) < MIN_SIDE
        box = None if small else (float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1))
        boxes.append(box)
    return boxes


@dataclass(frozen=True)
class Colours:
    """How a crop's colours are changed."""

    brightness: float  # factors, 1 = as it is
    contrast: float
    saturation: float  # 0 = grey

    @classmethod
    def draw(cls, rng: np.random.Generator, strength: float, grey: float) -> Colours:
        """Each factor within 1 +- strength; sometimes no colour at all."""
        brightness, contrast, saturation = rng.uniform(1 - strength, 1 + strength, 3)
        return cls(brightness, contrast, 0.0 if rng.random() < grey else saturation)


def change_colours(images: Tensor, colours: Sequence[Colours]) -> Tensor:
    """(B, 3, C, C) of any type, 0 to 255 -> the same as float32; as Pillow's ImageEnhance, which rounds after each."""
    factors = torch.tensor([(c.brightness, c.contrast, c.saturation) for c in colours], dtype=torch.float32)
    brightness, contrast, saturation = factors.to(images.device)[:, :, None, None, None].unbind(1)
    luma = torch.tensor(LUMA, device=images.device)[:, None, None]
    changed = (images * brightness).clamp(0, 255)
    mean = (changed * luma).sum(dim=1, keepdim=True).mean(dim=(2, 3), keepdim=True)
    changed = torch.lerp(mean, changed, contrast).clamp(0, 255)
    grey = (changed * luma).sum(dim=1, keepdim=True)
    return torch.lerp(grey, changed, saturation).clamp(0, 255)


def normalise(images: Tensor, valid_hw: Sequence[tuple[int, int]]) -> Tensor:
    """(B, 3, C, C), 0 to 255 -> float32, zero beyond `valid_hw`, as at inference."""
    mean, std = (torch.tensor(values, device=images.device)[:, None, None] for values in (SAM_MEAN, SAM_STD))
    valid = torch.tensor(valid_hw, device=images.device)[:, :, None]  # (B, 2, 1)
    inside = torch.arange(images.shape[-1], device=images.device) < valid  # (B, 2, C)
    return (images - mean) / std * (inside[:, 0, None, :, None] & inside[:, 1, None, None, :])

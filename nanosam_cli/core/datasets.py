"""Training samples: crops of annotated photos with prompts. Sample i of a seed is always the same sample.

Nothing here keeps random state, so a run resumes exactly by going on with the next index, whatever the worker count.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageEnhance
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from nanosam_cli.core.coco import AnnotatedPhoto, read_coco
from nanosam_cli.core.errors import InputError
from nanosam_cli.core.frame import COORDINATE_SIZE
from nanosam_cli.core.image import read_image
from nanosam_cli.core.recipe import DataSection, PromptSection, Recipe
from nanosam_cli.core.types import BACKGROUND, BOX_BOTTOM_RIGHT, BOX_TOP_LEFT, FOREGROUND, PADDING
from nanosam_cli.core.zoo import SAM_MEAN, SAM_STD

MIN_SIDE = 3.0  # pixels of the crop: smaller objects say nothing
MIN_VISIBLE = 0.3  # share of an object that a crop must show
FULL_SCALE = (0.75, 1.25)  # of whole photos at the model's own size; 1 = as at inference
MORE_POINTS = (0.7, 0.2, 0.1)  # how often a prompt of points has none, one or two besides the first


class Batch(NamedTuple):
    """B crops with P prompts in all. Coordinates are in the frame (1024 for the whole input square)."""

    images: Tensor  # (B, 3, C, C) float32, normalised, zero-padded
    owner: Tensor  # (P,) which crop a prompt belongs to
    masks: Tensor  # (P, 1, C, C) uint8, 255 = wholly object
    boxes: Tensor  # (P, 4) the object's true box, frame
    point_coords: Tensor  # (P, 3, 2) one point and two box corners, frame
    point_labels: Tensor  # (P, 3)
    ambiguous: Tensor  # (P,) bool: a single point

    def to(self, device: torch.device) -> Batch:
        """The same on a device."""
        return Batch(*(part.to(device, non_blocking=True) for part in self))


@dataclass
class Crop:
    """Pixels of one crop and the objects in it."""

    image: NDArray[np.uint8]  # (C, C, 3)
    valid_hw: tuple[int, int]  # what is photo; the rest is padding
    masks: list[NDArray[np.uint8]]  # (C, C), 255 = wholly object
    boxes: list[tuple[float, float, float, float]]  # x0 y0 x1 y1, crop pixels


class TrainingCrops(Dataset[Batch]):
    """One sample = one crop with its prompts, as a Batch of one image."""

    def __init__(self, recipe: Recipe) -> None:
        self.data: DataSection = recipe.data
        self.prompts: PromptSection = recipe.prompts
        self.seed = recipe.run.seed
        self.image_size = recipe.model.image_size
        self.steps, self.batch = recipe.optimiser.steps, recipe.optimiser.batch
        self.crops_a_photo = (recipe.model.image_size // recipe.data.crop) ** 2
        self.sources = [_load_source(Path(recipe.data.root) / source.path) for source in recipe.data.sources]
        weights = np.array([source.weight for source in recipe.data.sources])
        self.shares = weights / weights.sum()
        self.units = COORDINATE_SIZE / self.image_size  # frame units a pixel

    def __len__(self) -> int:
        return self.steps * self.batch

    def is_full(self, step: int) -> bool:
        """Whether a step (from 0) shows whole photos at the model's own size."""
        return bool(np.random.default_rng((self.seed, step, 1)).random() < self.data.full)

    def samples_of(self, step: int) -> range:
        """Indices of a step's samples: a batch of crops, or as many whole photos as have the same area."""
        count = max(1, self.batch // self.crops_a_photo) if self.is_full(step) else self.batch
        return range(step * self.batch, step * self.batch + count)

    def __getitem__(self, index: int) -> Batch:
        rng = np.random.default_rng((self.seed, index))
        full = self.is_full(index // self.batch)
        crop = self._crop(rng, full)
        while not crop.masks:  # no object fits this crop: draw another
            crop = self._crop(rng, full)
        if rng.random() < self.data.copy_paste:
            crop = paste_object(crop, self._crop(rng, full), rng)
        image = change_colours(crop.image, rng, self.data.colour, self.data.grey)
        chosen = rng.permutation(len(crop.masks))[: 2 * self.data.objects]  # more than its share: others may have few
        if full:  # a photo stands for several crops, so its objects are prompted several times
            chosen = np.resize(chosen, self.crops_a_photo * len(chosen))
        masks = np.stack([crop.masks[i] for i in chosen])
        boxes = np.array([crop.boxes[i] for i in chosen], np.float32)
        coords, labels = self._prompt(masks, boxes, rng)
        return Batch(
            images=normalise(image, crop.valid_hw)[None],
            owner=torch.zeros(len(chosen), dtype=torch.long),
            masks=torch.from_numpy(masks)[:, None],
            boxes=torch.from_numpy(boxes * np.float32(self.units)),
            point_coords=torch.from_numpy(coords * np.float32(self.units)),
            point_labels=torch.from_numpy(labels),
            ambiguous=torch.from_numpy(labels[:, 1] == PADDING),
        )

    def _crop(self, rng: np.random.Generator, full: bool) -> Crop:
        photos = self.sources[rng.choice(len(self.sources), p=self.shares)]
        photo = photos[rng.integers(len(photos))]
        if full:
            return crop_photo(photo, rng, self.image_size, self.image_size * rng.uniform(*FULL_SCALE))
        if rng.random() < self.data.whole:
            return crop_photo(photo, rng, self.data.crop, self.data.crop * rng.uniform(0.75, 1))
        return crop_photo(photo, rng, self.data.crop, self.image_size * np.exp(rng.uniform(*np.log(self.data.scale))))

    def _prompt(
        self, masks: NDArray[np.uint8], boxes: NDArray[np.float32], rng: np.random.Generator
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """-> (P, 3, 2) coordinates in crop pixels, (P, 3) labels: a point, then a box's corners or more points.

        Every object has its point, labelled as padding where the prompt is a box alone.
        """
        count = len(masks)
        coords, labels = np.zeros((count, 3, 2), np.float32), np.full((count, 3), PADDING, np.float32)
        for row, (mask, box) in enumerate(zip(masks, boxes)):
            draw = rng.random()
            coords[row, 0] = random_point(mask, rng)
            if draw < self.prompts.point + self.prompts.box_and_point:
                labels[row, 0] = FOREGROUND
            if draw < self.prompts.point:
                for slot in range(1, 1 + rng.choice(3, p=MORE_POINTS)):
                    coords[row, slot], labels[row, slot] = further_point(mask, box, rng)
            else:
                rough = 5 if rng.random() < self.prompts.rough_boxes else 1
                coords[row, 1:] = jitter_box(box, self.prompts.box_jitter * rough, rng).reshape(2, 2)
                labels[row, 1:] = BOX_TOP_LEFT, BOX_BOTTOM_RIGHT
        return coords, labels


class ResumableSteps(Sampler[list[int]]):
    """Sample indices of the steps after `done`: the dataset is random access, so this is all a resumption needs."""

    def __init__(self, dataset: TrainingCrops, done: int) -> None:
        self.dataset, self.done = dataset, done

    def __iter__(self) -> Iterator[list[int]]:
        return (list(self.dataset.samples_of(step)) for step in range(self.done, self.dataset.steps))

    def __len__(self) -> int:
        return self.dataset.steps - self.done


def collate(samples: Sequence[Batch], prompts: int) -> Batch:
    """Join crops into one batch of exactly `prompts` prompts; `owner` says which crop each came from.

    Crops take turns giving one; where all together have too few, they are gone through again. A fixed number keeps
    every step's shapes the same, which is what kernels are compiled for.
    """
    counts = [len(sample.owner) for sample in samples]
    turns = [(turn, row) for turn in range(max(counts)) for row in range(len(samples)) if turn < counts[row]]
    firsts = np.cumsum([0, *counts[:-1]])
    taken = [turns[i % len(turns)] for i in range(prompts)]
    rows = torch.tensor([int(firsts[row]) + turn for turn, row in taken])
    joined = Batch(*(torch.cat([getattr(sample, name) for sample in samples]) for name in Batch._fields))
    owner = torch.tensor([row for _, row in taken])
    return Batch(joined.images, owner, *(part[rows] for part in joined[2:]))


def normalise(image: NDArray[np.uint8], valid_hw: tuple[int, int]) -> Tensor:
    """(C, C, 3) uint8 -> (3, C, C) float32, zero beyond `valid_hw`, as at inference."""
    pixels = (image - np.array(SAM_MEAN, np.float32)) / np.array(SAM_STD, np.float32)
    pixels[valid_hw[0] :] = 0
    pixels[:, valid_hw[1] :] = 0
    return torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))


def crop_photo(photo: AnnotatedPhoto, rng: np.random.Generator, crop: int, longest: float) -> Crop:
    """The photo with its longest side resized to `longest`, mirrored half the time, and `crop` pixels square cut out
    around a random object: all of the photo where it is not larger than that."""
    height, width = photo.original_hw
    scale = longest / max(height, width)
    side = crop / scale  # of the crop, original pixels
    anchor = photo.objects[rng.integers(len(photo.objects))].box
    x0 = _crop_start(anchor[0], anchor[2], side, width, rng)
    y0 = _crop_start(anchor[1], anchor[3], side, height, rng)
    window = (x0, y0, min(x0 + side, width), min(y0 + side, height))
    mirror = bool(rng.random() < 0.5)
    pixels = _resize_window(_cached_image(photo.path), window, scale, crop, mirror)
    valid_hw = _resized_hw(window, scale, crop)

    masks, boxes = [], []
    for target in photo.objects:
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
    return Crop(pixels, valid_hw, masks, boxes)


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


def random_point(mask: NDArray[np.uint8], rng: np.random.Generator) -> tuple[float, float]:
    """x y of a pixel centre on the object: half the time anywhere on it, else near its middle, where people click."""
    rows, columns = np.nonzero(mask > 127)
    if not len(rows):
        rows, columns = np.nonzero(mask == mask.max())
    pick = int(rng.integers(len(rows)))
    if rng.random() < 0.5:
        pick = int(np.argmin((rows - rows.mean()) ** 2 + (columns - columns.mean()) ** 2))
    return float(columns[pick]) + 0.5, float(rows[pick]) + 0.5


def further_point(
    mask: NDArray[np.uint8], box: NDArray[np.float32], rng: np.random.Generator
) -> tuple[tuple[float, float], int]:
    """Another click: x y and label, half the time on the object, else beside it, at most half a box away."""
    if rng.random() < 0.5:
        return random_point(mask, rng), FOREGROUND
    reach = (box[2:] - box[:2]) / 2
    low, high = np.maximum(box[:2] - reach, 0), np.minimum(box[2:] + reach, mask.shape[0]) - 1
    for x, y in np.floor(rng.uniform(low, high, (8, 2))).astype(int):
        if mask[y, x] == 0:
            return (float(x) + 0.5, float(y) + 0.5), BACKGROUND
    return random_point(mask, rng), FOREGROUND


def jitter_box(box: NDArray[np.float32], share: float, rng: np.random.Generator) -> NDArray[np.float32]:
    """Move each side by a normal error of `share` of the box's width or height; at least half the box is left."""
    sides = np.tile(box[2:] - box[:2], 2)
    error = np.clip(rng.normal(0, share, 4), -0.25, 0.25)
    return (box + error * sides).astype(np.float32)


def _load_source(folder: Path) -> list[AnnotatedPhoto]:
    photos = [
        AnnotatedPhoto(photo.id, photo.path, photo.original_hw, tuple(o for o in photo.objects if not o.iscrowd))
        for photo in read_coco(folder / "instances.json")
    ]
    photos = [photo for photo in photos if photo.objects]
    if not photos:
        raise InputError(f"{folder} has no photo with an object mask")
    return photos


@lru_cache(maxsize=4096)
def _cached_image(path: Path) -> NDArray[np.uint8]:
    return read_image(path)

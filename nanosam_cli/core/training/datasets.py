"""Training samples: crops of photos with prompts, for a student and its teacher. Sample i of a seed is always the same.

Nothing here keeps random state, so a run resumes exactly by going on with the next index, whatever the worker count.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from nanosam_cli.core.coco import AnnotatedPhoto, read_annotations
from nanosam_cli.core.errors import InputError
from nanosam_cli.core.frame import COORDINATE_SIZE
from nanosam_cli.core.training.crops import Crop, change_colours, crop_photo, paste_object
from nanosam_cli.core.training.embedding_cache import EmbeddingCache
from nanosam_cli.core.training.image_folder import PlainPhoto, Unreadable, find_photos, fingerprint
from nanosam_cli.core.training.recipe import PromptSection, Recipe
from nanosam_cli.core.types import BACKGROUND, BOX_BOTTOM_RIGHT, BOX_TOP_LEFT, FOREGROUND, PADDING
from nanosam_cli.core.zoo import SAM_MEAN, SAM_STD

FULL_SCALE = (0.75, 1.25)  # of whole photos at the model's own size; 1 = as at inference
TRIES = 50  # photos in a row that may be unreadable
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
    teacher_images: Tensor | None = None  # (B, 3, T, T) float32: the same pictures, without changed colours
    teacher_embeddings: Tensor | None = None  # (B, 256, h, w) float16: what the teacher made of them, from a cache

    def to(self, device: torch.device) -> Batch:
        """The same on a device."""
        return Batch(*(None if part is None else part.to(device, non_blocking=True) for part in self))  # type: ignore[arg-type]

    def rows(self, chosen: Tensor) -> Batch:
        """The same crops with some of the prompts."""
        return self._replace(**{name: getattr(self, name)[chosen] for name in PER_PROMPT})


PER_PROMPT = ("owner", "masks", "boxes", "point_coords", "point_labels", "ambiguous")


@dataclass(frozen=True)
class LoadedSource:
    """A source's photos, and a hash that tells whether they are the same ones."""

    path: str  # as in the recipe
    photos: Sequence[AnnotatedPhoto | PlainPhoto]
    sha256: str


class TrainingCrops(Dataset[Batch]):
    """One sample = one crop with its prompts, as a Batch of one image.

    With a teacher of input size `teacher_size`, samples hold its view of the crop; with a `cache`, its embedding.
    Photos that cannot be read are noted in `unreadable` and others are drawn; without it InputError is raised.
    """

    def __init__(self, recipe: Recipe, teacher_size: int | None = None) -> None:
        self.data, self.prompts = recipe.data, recipe.prompts
        self.seed = recipe.run.seed
        self.image_size, self.teacher_size = recipe.model.image_size, teacher_size
        self.cache: EmbeddingCache | None = None
        self.unreadable: Unreadable | None = None
        self.steps, self.batch, self.micro_batch = recipe.optimiser.steps, recipe.optimiser.batch, recipe.micro_batch
        self.repeat = recipe.cache_steps
        self.crops_a_photo = (recipe.model.image_size // recipe.data.crop) ** 2
        self.sources = [_load_source(recipe, source.path, source.kind or "masks") for source in recipe.data.sources]
        weights = np.array([source.weight for source in recipe.data.sources])
        self.shares = weights / weights.sum()
        self.units = COORDINATE_SIZE / self.image_size  # frame units a pixel

    def __len__(self) -> int:
        return self.steps * self.batch

    @property
    def photos(self) -> int:
        """Photos of all sources."""
        return sum(len(source.photos) for source in self.sources)

    def is_full(self, step: int) -> bool:
        """Whether a step (from 0) shows whole photos at the model's own size."""
        step = step % self.repeat if self.repeat else step
        return bool(np.random.default_rng((self.seed, step, 1)).random() < self.data.full)

    def samples_of(self, step: int, part: int = 0) -> range:
        """Indices of the samples of one of a step's micro-batches: so many crops, or as many whole photos as have the
        same area."""
        count = max(1, self.micro_batch // self.crops_a_photo) if self.is_full(step) else self.micro_batch
        first = step * self.batch + part * self.micro_batch
        return range(first, first + count)

    def all_samples_of(self, step: int) -> list[int]:
        """Indices of all of a step's samples."""
        return [index for part in range(self.batch // self.micro_batch) for index in self.samples_of(step, part)]

    def _place(self, index: int) -> int:
        """Where a sample stands among all of its step."""
        step, row = divmod(index, self.batch)
        part, place = divmod(row, self.micro_batch)
        return part * len(self.samples_of(step)) + place

    def __getitem__(self, index: int) -> Batch:
        step = index // self.batch
        crop, rng = self.draw(index)
        image = change_colours(crop.image, rng, self.data.colour, self.data.grey)
        sample = self._prompted(crop, normalise(image, crop.valid_hw)[None], rng, self.is_full(step))
        if self.cache is not None and self.repeat:
            return sample._replace(teacher_embeddings=self.cache.read(step % self.repeat, self._place(index))[None])
        if self.teacher_size is not None:
            return sample._replace(teacher_images=self.teacher_view(crop)[None])
        return sample

    def draw(self, index: int) -> tuple[Crop, np.random.Generator]:
        """The crop of a sample, and what draws its colours and prompts. With a cache, crops come again after a while,
        but with other colours and prompts."""
        folded = index % (self.repeat * self.batch) if self.repeat else index
        rng = np.random.default_rng((self.seed, folded))
        full = self.is_full(index // self.batch)
        crop = self._crop(rng, full, folded)
        while not crop.masks and self._should_have_masks(crop):  # no object fits this crop: draw another
            crop = self._crop(rng, full)
        if rng.random() < self.data.copy_paste:
            crop = paste_object(crop, self._crop(rng, full), rng)
        return crop, np.random.default_rng((self.seed, index, 2)) if self.repeat else rng

    def teacher_view(self, crop: Crop) -> Tensor:
        """(3, T, T) what a teacher sees of a crop, T as large for it as the crop is for the student."""
        assert self.teacher_size is not None
        return normalise(*crop.resized(len(crop.image) * self.teacher_size // self.image_size))

    def _should_have_masks(self, crop: Crop) -> bool:
        return self.prompts is not None and crop.view is not None and isinstance(crop.view.photo, AnnotatedPhoto)

    def _crop(self, rng: np.random.Generator, full: bool, number: int | None = None) -> Crop:
        for _ in range(TRIES):
            photo = self._choose(rng, number)
            try:
                return self._cut(photo, rng, full)
            except InputError as error:
                if self.unreadable is None:
                    raise
                self.unreadable.add(str(photo.path) if isinstance(photo, AnnotatedPhoto) else photo.name, error)
                number = None
        raise InputError(f"{TRIES} photos in a row cannot be read; the last is {photo.path}", "check data.sources")

    def _choose(self, rng: np.random.Generator, number: int | None) -> AnnotatedPhoto | PlainPhoto:
        """A photo by the sources' weights. Those of a folder without masks take turns, in another order every time."""
        photos = self.sources[rng.choice(len(self.sources), p=self.shares)].photos
        if number is None or isinstance(photos[0], AnnotatedPhoto):
            return photos[int(rng.integers(len(photos)))]
        turn, place = divmod(number, len(photos))
        return photos[int(_order(self.seed, turn, len(photos))[place])]

    def _cut(self, photo: AnnotatedPhoto | PlainPhoto, rng: np.random.Generator, full: bool) -> Crop:
        if self.prompts is None and isinstance(photo, AnnotatedPhoto):  # nobody asks for its masks
            photo = AnnotatedPhoto(photo.id, photo.path, photo.original_hw, ())
        mirror = 0.5 if self.data.mirror is None else self.data.mirror
        if full:
            return crop_photo(photo, rng, self.image_size, self.image_size * rng.uniform(*FULL_SCALE), mirror)
        crop = self.data.crop
        if rng.random() < self.data.whole:
            return crop_photo(photo, rng, crop, crop * rng.uniform(0.75, 1), mirror)
        return crop_photo(photo, rng, crop, self.image_size * np.exp(rng.uniform(*np.log(self.data.scale))), mirror)

    def _prompted(self, crop: Crop, images: Tensor, rng: np.random.Generator, full: bool) -> Batch:
        side = len(crop.image)
        if self.prompts is None or not crop.masks:
            nothing = torch.zeros(0, 3, 2)
            owner, masks = torch.zeros(0, dtype=torch.long), torch.zeros(0, 1, side, side, dtype=torch.uint8)
            return Batch(images, owner, masks, torch.zeros(0, 4), nothing, nothing[:, :, 0], torch.zeros(0).bool())
        chosen = rng.permutation(len(crop.masks))[: 2 * self.data.objects]  # more than its share: others may have few
        if full:  # a photo stands for several crops, so its objects are prompted several times
            chosen = np.resize(chosen, self.crops_a_photo * len(chosen))
        object_masks = np.stack([crop.masks[i] for i in chosen])
        boxes = np.array([crop.boxes[i] for i in chosen], np.float32)
        coords, labels = _draw_prompts(self.prompts, object_masks, boxes, rng)
        return Batch(
            images=images,
            owner=torch.zeros(len(chosen), dtype=torch.long),
            masks=torch.from_numpy(object_masks)[:, None],
            boxes=torch.from_numpy(boxes * np.float32(self.units)),
            point_coords=torch.from_numpy(coords * np.float32(self.units)),
            point_labels=torch.from_numpy(labels),
            ambiguous=torch.from_numpy(labels[:, 1] == PADDING),
        )


def _draw_prompts(
    section: PromptSection, masks: NDArray[np.uint8], boxes: NDArray[np.float32], rng: np.random.Generator
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """-> (P, 3, 2) coordinates in crop pixels, (P, 3) labels: a point, then a box's corners or more points.

    Every object has its point, labelled as padding where the prompt is a box alone.
    """
    count = len(masks)
    coords, labels = np.zeros((count, 3, 2), np.float32), np.full((count, 3), PADDING, np.float32)
    for row, (mask, box) in enumerate(zip(masks, boxes)):
        draw = rng.random()
        coords[row, 0] = random_point(mask, rng)
        if draw < section.point + section.box_and_point:
            labels[row, 0] = FOREGROUND
        if draw < section.point:
            for slot in range(1, 1 + rng.choice(3, p=MORE_POINTS)):
                coords[row, slot], labels[row, slot] = further_point(mask, box, rng)
        else:
            rough = 5 if rng.random() < section.rough_boxes else 1
            coords[row, 1:] = jitter_box(box, section.box_jitter * rough, rng).reshape(2, 2)
            labels[row, 1:] = BOX_TOP_LEFT, BOX_BOTTOM_RIGHT
    return coords, labels


class ResumableSteps(Sampler[list[int]]):
    """Sample indices of the micro-batches after `done` steps that are this process's: every `ranks`-th one of a step.

    The dataset is random access, so this is all that a resumption or another process needs.
    """

    def __init__(self, dataset: TrainingCrops, done: int, rank: int = 0, ranks: int = 1) -> None:
        self.dataset, self.done = dataset, done
        self.parts = range(rank, dataset.batch // dataset.micro_batch, ranks)

    def __iter__(self) -> Iterator[list[int]]:
        steps = range(self.done, self.dataset.steps)
        return (list(self.dataset.samples_of(step, part)) for step in steps for part in self.parts)

    def __len__(self) -> int:
        return (self.dataset.steps - self.done) * len(self.parts)


def collate(samples: Sequence[Batch], prompts: int) -> Batch:
    """Join crops into one batch of exactly `prompts` prompts (none where no crop has any); `owner` says which crop each
    came from.

    Crops take turns giving one; where all together have too few, they are gone through again. A fixed number keeps
    every step's shapes the same, which is what kernels are compiled for.
    """
    counts = [len(sample.owner) for sample in samples]
    turns = [(turn, row) for turn in range(max(counts)) for row in range(len(samples)) if turn < counts[row]]
    firsts = np.cumsum([0, *counts[:-1]])
    taken = [turns[i % len(turns)] for i in range(prompts if turns else 0)]
    rows = torch.tensor([int(firsts[row]) + turn for turn, row in taken], dtype=torch.long)
    joined = Batch(*(_join([getattr(sample, name) for sample in samples]) for name in Batch._fields))  # type: ignore[arg-type]
    return joined.rows(rows)._replace(owner=torch.tensor([row for _, row in taken], dtype=torch.long))


def _join(parts: Sequence[Tensor | None]) -> Tensor | None:
    present = [part for part in parts if part is not None]
    return torch.cat(present) if present else None


def normalise(image: NDArray[np.uint8], valid_hw: tuple[int, int]) -> Tensor:
    """(C, C, 3) uint8 -> (3, C, C) float32, zero beyond `valid_hw`, as at inference."""
    pixels = (image - np.array(SAM_MEAN, np.float32)) / np.array(SAM_STD, np.float32)
    pixels[valid_hw[0] :] = 0
    pixels[:, valid_hw[1] :] = 0
    return torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))


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


def _load_source(recipe: Recipe, path: str, kind: str) -> LoadedSource:
    folder = recipe.data.folder(path)
    if kind == "images":
        found = find_photos(folder)
        return LoadedSource(path, found, fingerprint(found, folder))
    annotations = read_annotations(folder / "instances.json", photo_folder(folder))
    photos = [
        AnnotatedPhoto(photo.id, photo.path, photo.original_hw, tuple(o for o in photo.objects if not o.iscrowd))
        for photo in annotations.photos
    ]
    photos = [photo for photo in photos if photo.objects]
    if not photos:
        raise InputError(f"{folder} has no photo with an object mask")
    return LoadedSource(path, photos, annotations.sha256)


def photo_folder(folder: Path) -> Path:
    """Where the photos of `folder`/instances.json are: in `images/`, or beside it where there is no such folder."""
    return folder / "images" if (folder / "images").is_dir() else folder


@lru_cache(maxsize=8)
def _order(seed: int, turn: int, count: int) -> NDArray[np.int64]:
    return np.random.default_rng((seed, turn, 3)).permutation(count)

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

from nanosam_cli.core.datasets.coco import AnnotatedPhoto, read_annotations
from nanosam_cli.core.errors import InputError
from nanosam_cli.core.frame import COORDINATE_SIZE
from nanosam_cli.core.training.data.clicks import PromptNumbers, make_prompts
from nanosam_cli.core.training.data.crops import (
    Colours,
    Crop,
    change_colours,
    crop_photo,
    normalise,
    paste_double,
    paste_object,
)
from nanosam_cli.core.training.data.image_folder import ELSEWHERE, Unreadable, find_training_photos, fingerprint
from nanosam_cli.core.training.data.photos import Photo, PhotoReader, Photos, name_of
from nanosam_cli.core.training.recipe import Recipe
from nanosam_cli.core.training.teaching.embedding_cache import EmbeddingCache
from nanosam_cli.core.types import PADDING

FULL_SCALE = (0.75, 1.25)  # of whole photos at the model's own size; 1 = as at inference
TRIES = 50  # draws in a row that may give an unreadable photo


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
    photos: Sequence[Photo]
    sha256: str


@dataclass(frozen=True)
class Drawn:
    """A sample: a crop, and the numbers that decide the rest."""

    index: int
    crop: Crop
    colours: Colours
    rows: NDArray[np.int64]  # of the crop's masks: one for each prompt
    numbers: PromptNumbers


class TrainingCrops:
    """One sample = one crop with its prompts; `batch` joins some.

    With a teacher of input size `teacher_size`, batches hold its view of the crops; with a `cache`, its embeddings.
    Photos that cannot be read are noted in `unreadable` and others are drawn; without it InputError is raised.
    """

    def __init__(self, recipe: Recipe, teacher_size: int | None = None) -> None:
        self.data, self.prompts = recipe.data, recipe.prompts
        self.seed = recipe.run.seed
        self.image_size, self.teacher_size = recipe.model.image_size, teacher_size
        self.pixels: Photos = PhotoReader()
        self.cache: EmbeddingCache | None = None
        self.unreadable: Unreadable | None = None
        self.steps, self.batch_size, self.micro_batch = (
            recipe.optimiser.steps,
            recipe.optimiser.batch,
            recipe.micro_batch,
        )
        self.repeat = recipe.cache_steps
        self.crops_a_photo = (recipe.model.image_size // recipe.data.crop) ** 2
        self.sources = [_load_source(recipe, source.path, source.kind) for source in recipe.data.sources]
        weights = np.array([source.weight for source in recipe.data.sources])
        self.shares = weights / weights.sum()
        self.units = COORDINATE_SIZE / self.image_size  # frame units a pixel

    def __len__(self) -> int:
        return self.steps * self.batch_size

    @property
    def photos(self) -> list[Photo]:
        """Those of all sources."""
        return [photo for source in self.sources for photo in source.photos]

    def is_full(self, step: int) -> bool:
        """Whether a step (from 0) shows whole photos at the model's own size."""
        step = step % self.repeat if self.repeat else step
        return bool(np.random.default_rng((self.seed, step, 1)).random() < self.data.full)

    def samples_of(self, step: int, part: int = 0) -> range:
        """Indices of the samples of one of a step's micro-batches: so many crops, or as many whole photos as have the
        same area."""
        count = max(1, self.micro_batch // self.crops_a_photo) if self.is_full(step) else self.micro_batch
        first = step * self.batch_size + part * self.micro_batch
        return range(first, first + count)

    def all_samples_of(self, step: int) -> list[int]:
        """Indices of all of a step's samples."""
        return [index for part in range(self.batch_size // self.micro_batch) for index in self.samples_of(step, part)]

    def _place(self, index: int) -> int:
        """Where a sample stands among all of its step."""
        step, row = divmod(index, self.batch_size)
        part, place = divmod(row, self.micro_batch)
        return part * len(self.samples_of(step)) + place

    def batch(self, indices: Sequence[int], prompts: int | None = None) -> Batch:
        """Samples together, with exactly `prompts` prompts (none where no crop has any); all they have by default.

        Crops take turns giving one; where all together have too few, they are gone through again. A fixed number keeps
        every step's shapes the same, which is what kernels are compiled for.
        """
        drawn = [self.draw(index) for index in indices]
        turns = _turns([len(sample.rows) for sample in drawn])
        taken = [turns[i % len(turns)] for i in range(len(turns) if prompts is None else prompts)] if turns else []
        batch = self._prompted(drawn, taken)
        if self.cache is not None and self.repeat:
            steps = (index // self.batch_size % self.repeat for index in indices)
            embeddings = [self.cache.read(step, self._place(index)) for step, index in zip(steps, indices)]
            return batch._replace(teacher_embeddings=torch.stack(embeddings))
        if self.teacher_size is not None:
            return batch._replace(teacher_images=self.teacher_views([sample.crop for sample in drawn]))
        return batch

    def draw(self, index: int) -> Drawn:
        """Everything random of a sample. With a cache, crops come again after a while, but with other colours and
        prompts."""
        folded = index % (self.repeat * self.batch_size) if self.repeat else index
        rng = np.random.default_rng((self.seed, folded))
        full = self.is_full(index // self.batch_size)
        crop = self._crop(rng, full, folded)
        while not crop.boxes and self._should_have_masks(crop):  # no object fits this crop: draw another
            crop = self._crop(rng, full)
        if rng.random() < self.data.copy_paste:
            crop = paste_object(crop, self._crop(rng, full), rng)
        if self.data.doubles and rng.random() < self.data.doubles:
            crop = paste_double(crop, rng)
        if self.repeat:
            rng = np.random.default_rng((self.seed, index, 2))
        colours = Colours.draw(rng, self.data.colour, self.data.grey)
        rows = rng.permutation(len(crop.boxes))[: 2 * self.data.objects]  # more than its share: others may have few
        if self.prompts is None:
            rows = rows[:0]
        elif full:  # a photo stands for several crops, so its objects are prompted several times
            rows = np.resize(rows, self.crops_a_photo * len(rows))
        return Drawn(index, crop, colours, rows, PromptNumbers.draw(rng, len(rows)))

    def teacher_views(self, crops: Sequence[Crop]) -> Tensor:
        """(B, 3, T, T) what a teacher sees of crops, T as large for it as the crop is for the student."""
        assert self.teacher_size is not None
        side = crops[0].side * self.teacher_size // self.image_size
        images, valid_hw = zip(*(crop.resized(side, self.pixels) for crop in crops))
        return normalise(torch.stack(images), valid_hw)

    def _should_have_masks(self, crop: Crop) -> bool:
        return self.prompts is not None and crop.view is not None and isinstance(crop.view.photo, AnnotatedPhoto)

    def _crop(self, rng: np.random.Generator, full: bool, number: int | None = None) -> Crop:
        bad = set()  # with few photos, one is drawn several times
        for _ in range(TRIES):
            photo = self._choose(rng, number)
            try:
                return self._cut(photo, rng, full)
            except InputError as error:
                if self.unreadable is None:
                    raise
                self.unreadable.add(name_of(photo), error)
                bad.add(name_of(photo))
                number = None
        raise InputError(
            f"{len(bad)} photos in a row cannot be read; the last is {name_of(photo)}", "check data.sources"
        )

    def _choose(self, rng: np.random.Generator, number: int | None) -> Photo:
        """A photo by the sources' weights. Those of a folder without masks take turns, in another order every time."""
        photos = self.sources[rng.choice(len(self.sources), p=self.shares)].photos
        if number is None or isinstance(photos[0], AnnotatedPhoto):
            return photos[int(rng.integers(len(photos)))]
        turn, place = divmod(number, len(photos))
        return photos[int(_order(self.seed, turn, len(photos))[place])]

    def _cut(self, photo: Photo, rng: np.random.Generator, full: bool) -> Crop:
        if self.prompts is None and isinstance(photo, AnnotatedPhoto):  # nobody asks for its masks
            photo = AnnotatedPhoto(photo.id, photo.path, photo.original_hw, ())
        side = self.image_size if full else self.data.crop
        if full:
            longest = side * rng.uniform(*FULL_SCALE)
        elif rng.random() < self.data.whole:
            longest = side * rng.uniform(0.75, 1)
        else:
            longest = self.image_size * np.exp(rng.uniform(*np.log(self.data.scale)))
        return crop_photo(photo, self.pixels, rng, side, longest, self.data.mirror)

    def _prompted(self, drawn: Sequence[Drawn], taken: Sequence[tuple[int, int]]) -> Batch:
        """The images of all samples and the prompts (sample, its row) that are taken."""
        images = torch.stack([sample.crop.image for sample in drawn])
        device, side = images.device, images.shape[-1]
        colours, valid_hw = [sample.colours for sample in drawn], [sample.crop.valid_hw for sample in drawn]
        images = normalise(change_colours(images, colours), valid_hw)
        if not taken or self.prompts is None:
            nothing = torch.zeros(0, 3, 2, device=device)
            owner, masks = torch.zeros(0, dtype=torch.long), torch.zeros(0, 1, side, side, dtype=torch.uint8)
            boxes, labels = nothing.flatten(1)[:, :4], nothing[:, :, 0]
            return Batch(images, owner.to(device), masks.to(device), boxes, nothing, labels, labels[:, 0].bool())
        rows = [(number, drawn[number].rows[row]) for number, row in taken]
        masks = torch.stack([drawn[number].crop.masks[row] for number, row in rows])
        corners = np.array([drawn[number].crop.boxes[row] for number, row in rows], np.float32)
        firsts = np.cumsum([0, *(len(sample.rows) for sample in drawn)])
        places = torch.tensor([int(firsts[number]) + row for number, row in taken], device=device)
        numbers = PromptNumbers.join([sample.numbers for sample in drawn], device).rows(places)
        boxes = torch.from_numpy(corners).to(device)
        coords, labels = make_prompts(self.prompts, masks, boxes, numbers)
        return Batch(
            images=images,
            owner=torch.tensor([number for number, _ in taken], device=device),
            masks=masks[:, None],
            boxes=boxes * self.units,
            point_coords=coords * self.units,
            point_labels=labels,
            ambiguous=labels[:, 1] == PADDING,
        )


def _turns(counts: Sequence[int]) -> list[tuple[int, int]]:
    """Which crop gives which of its prompts, one after the other."""
    return [(number, row) for row in range(max(counts)) for number, count in enumerate(counts) if row < count]


class MicroBatches(Dataset[Batch]):
    """Batches of a fixed number of prompts by their samples' indices, for a DataLoader."""

    def __init__(self, dataset: TrainingCrops) -> None:
        self.dataset = dataset

    def __getitem__(self, indices: Sequence[int]) -> Batch:
        return self.dataset.batch(indices, self.dataset.micro_batch * self.dataset.data.objects)


class ResumableSteps(Sampler[list[int]]):
    """Sample indices of the micro-batches after `done` steps that are this process's: every `ranks`-th one of a step.

    The dataset is random access, so this is all that a resumption or another process needs.
    """

    def __init__(self, dataset: TrainingCrops, done: int, rank: int = 0, ranks: int = 1) -> None:
        self.dataset, self.done = dataset, done
        self.parts = range(rank, dataset.batch_size // dataset.micro_batch, ranks)

    def __iter__(self) -> Iterator[list[int]]:
        steps = range(self.done, self.dataset.steps)
        return (list(self.dataset.samples_of(step, part)) for step in steps for part in self.parts)

    def __len__(self) -> int:
        return (self.dataset.steps - self.done) * len(self.parts)


def _load_source(recipe: Recipe, path: str, kind: str) -> LoadedSource:
    folder = recipe.data.folder(path)
    if kind == "images":
        found = find_training_photos(folder)
        return LoadedSource(path, found, fingerprint(found, folder))
    if not (folder / "instances.json").is_file():
        raise InputError(f"no such annotation file: {folder / 'instances.json'}", ELSEWHERE)
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

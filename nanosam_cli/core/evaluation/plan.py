"""What an evaluation is to do: which objects of which photos, and the settings that decide its results."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nanosam_cli.core.datasets.coco import AnnotatedPhoto, Annotations
from nanosam_cli.core.datasets.photo_files import PhotoFiles
from nanosam_cli.core.errors import InputError, UsageError
from nanosam_cli.core.evaluation.prompting import Prompting
from nanosam_cli.core.evaluation.protocols import EvaluationProtocol, select_objects
from nanosam_cli.core.evaluation.results import find_categories
from nanosam_cli.core.evaluation.segmenters import Segmenter
from nanosam_cli.core.masks import has_area
from nanosam_cli.version import __version__


@dataclass(frozen=True)
class ObjectFilter:
    """Which objects of a data set are evaluated: the first `limit` photos that have any, and of these a share."""

    protocol: EvaluationProtocol
    categories: Sequence[str] = ()  # ids or names; all where empty
    limit: int | None = None
    shard: tuple[int, int] = (1, 1)  # which of how many, from 1: photos by turns, so that shards take equally long


@dataclass(frozen=True)
class EvaluationPlan:
    """What is to be done. `settings` decide the results: a run goes on, and shards join, only where they are equal."""

    annotations: Annotations
    images: Path
    prompting: Prompting
    photos: Sequence[AnnotatedPhoto]  # with the chosen objects, in the order of the file
    missing: Sequence[AnnotatedPhoto]  # of these, the ones that are not there
    settings: Mapping[str, Any]

    @property
    def objects(self) -> int:
        return sum(len(photo.objects) for photo in self.photos)

    @property
    def boxes_without_area(self) -> int:
        """Annotated boxes that are empty or lie outside the photo; such a prompt is widened to one pixel."""
        return sum(not has_area(target.box, photo.original_hw) for photo in self.photos for target in photo.objects)


def plan_evaluation(
    annotations: Annotations,
    files: PhotoFiles,
    segmenter: Segmenter,
    choice: ObjectFilter,
    prompting: Prompting,
    *,
    save_masks: bool = False,
) -> EvaluationPlan:
    """Choose the objects and look for the photos.

    Raises:
        UsageError: there is no such category or shard, or the segmenter does not take such prompts.
        InputError: ids of annotations are no whole numbers or are used twice, or not one photo is there.
    """
    segmenter.check(prompting)
    part, parts = choice.shard
    if not 1 <= part <= parts:
        raise UsageError(f"there is no shard {part} of {parts}", "the shards of 4 are 1/4, 2/4, 3/4 and 4/4")
    wanted = find_categories(choice.categories, annotations.categories) if choice.categories else None
    selected = select_objects(annotations.photos, choice.protocol, wanted)
    photos = selected[: choice.limit][part - 1 :: parts]
    _check_ids(annotations, photos)
    missing = [photo for photo in photos if photo.path not in files]
    if photos and len(missing) == len(photos):
        raise InputError(
            f"none of the {len(photos)} photos that {annotations.path} names is in {files.place}",
            f"--images says where they are; the first is {photos[0].path.name}",
        )
    protocol = choice.protocol
    settings = {
        "nanosam": __version__,
        "model": segmenter.describe(),
        "protocol": protocol.name,
        "crowd": protocol.crowd,
        "select": protocol.select,
        "prompt": str(prompting),
        "box_noise": prompting.noise,
        "seed": prompting.seed,
        "annotations_sha256": annotations.sha256,
        "categories": wanted,
        "limit": choice.limit,
        "shard": list(choice.shard),
        "save_masks": save_masks,
    }
    return EvaluationPlan(annotations, files.place, prompting, photos, missing, settings)


def _check_ids(annotations: Annotations, photos: Sequence[AnnotatedPhoto]) -> None:
    ids = [target.id for photo in photos for target in photo.objects]
    odd = next((name for name in [*ids, *(photo.id for photo in photos)] if type(name) is not int), None)
    if odd is not None:
        raise InputError(f"{annotations.path}: id {odd!r} is no whole number", "number images and annotations")
    twice = next((name for name, count in Counter(ids).items() if count > 1), None)
    if twice is not None:
        raise InputError(f"{annotations.path} has two annotations with id {twice}", "number the annotations anew")

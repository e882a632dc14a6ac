"""The one evaluation loop: annotated photos and prompts made from them in, IoU of each object out."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TypeVar

from nanosam_cli.core.datasets.annotated_mask import AnnotatedMask
from nanosam_cli.core.datasets.coco import AnnotatedPhoto
from nanosam_cli.core.datasets.fit_annotations import OtherSizeError, fit_photo
from nanosam_cli.core.errors import InputError
from nanosam_cli.core.evaluation.prompting import Prompting
from nanosam_cli.core.evaluation.protocols import PROTOCOLS, select_objects
from nanosam_cli.core.evaluation.results import ObjectResult
from nanosam_cli.core.evaluation.segmenters import (
    ModelSegmenter,
    ReadImage,
    Ready,
    ScoredMask,
    Segmenter,
)
from nanosam_cli.core.inference.predictor import Predictor
from nanosam_cli.core.media.declared_size import fit_size
from nanosam_cli.core.media.image import image_orientation, read_image

T = TypeVar("T")
R = TypeVar("R")

AHEAD = 2  # photos that are prepared before it is their turn

Failed = Callable[[AnnotatedPhoto, InputError], None]


@dataclass(frozen=True, eq=False)
class EvaluatedPhoto:
    """One photo's objects, in the order of their annotations."""

    photo: AnnotatedPhoto
    results: Sequence[ObjectResult]
    masks: Sequence[ScoredMask]
    empty: int  # objects whose annotated mask has no pixel: nothing can be right about them, their IoU is 0
    note: str = ""  # what was done to the annotations, where they are of another size than the photo


# what is asked of one photo that is ready, and what comes of it: more than one prompt an object
Examine = Callable[[AnnotatedPhoto, Sequence[AnnotatedMask], Ready], EvaluatedPhoto]


def evaluate(
    segmenter: Segmenter,
    photos: Iterable[AnnotatedPhoto],
    *,
    prompting: Prompting | None = None,
    examine: Examine | None = None,
    read: ReadImage = read_image,
    orientation: Callable[[Path], int] = image_orientation,
    failed: Failed | None = None,
) -> Iterator[EvaluatedPhoto]:
    """Segment every object -> results, photo by photo in their order. Without `prompting`, by the annotated box.

    With `examine`, each photo is handed to it, and `prompting` is only the largest prompt that it gives. Photos are
    read and prepared in a thread of their own while the ones before them are segmented. A photo whose image or masks
    cannot be read is told to `failed` and left out; without it, InputError is raised. Annotations of a photo on its
    side, as EXIF's `orientation` tells it, or of a larger or smaller copy are brought to the photo.
    """
    ask = prompting or Prompting()
    segmenter.check(ask)

    def once(photo: AnnotatedPhoto, truths: Sequence[AnnotatedMask], segment: Ready) -> EvaluatedPhoto:
        masks = segment(ask(photo.original_hw, truths))
        results = [
            object_result(photo, truth, truth.iou(found.mask)) for truth, found in zip(truths, masks, strict=True)
        ]
        return EvaluatedPhoto(photo, results, masks, sum(truth.area == 0 for truth in truths))

    def prepare(photo: AnnotatedPhoto) -> tuple[AnnotatedPhoto, list[AnnotatedMask], Ready, str]:
        note = ""
        try:
            ready = segmenter.prepare(photo, read)
        except OtherSizeError as error:
            fit = fit_size(str(photo.path), photo.original_hw, error.shown, partial(orientation, photo.path))
            if fit is None:
                raise
            photo, note = fit_photo(photo, fit), fit.note
            ready = segmenter.prepare(photo, read)
        return photo, [AnnotatedMask.of(target) for target in photo.objects], ready, note

    for photo, prepared in _ahead(prepare, photos):
        try:
            fitted, truths, segment, note = prepared.result()
            result = (examine or once)(fitted, truths, segment)
        except InputError as error:
            if failed is None:
                raise
            failed(photo, error)
            continue
        yield replace(result, note=note)


def evaluate_boxes(predictor: Predictor, photos: Sequence[AnnotatedPhoto]) -> list[ObjectResult]:
    """Results of every object but crowds, prompted with its box: how training follows a model."""
    done = evaluate(ModelSegmenter(predictor), select_objects(photos, PROTOCOLS["edgesam"]))
    return [result for photo in done for result in photo.results]


def object_result(photo: AnnotatedPhoto, truth: AnnotatedMask, iou: float) -> ObjectResult:
    """What is written down of one object."""
    target = truth.target
    return ObjectResult(
        id=target.id,
        area=target.area,
        category_id=target.category_id,
        iscrowd=int(target.iscrowd),
        image_id=photo.id,
        box=target.box,
        iou=iou,
    )


def _ahead(function: Callable[[T], R], items: Iterable[T]) -> Iterator[tuple[T, Future[R]]]:
    """Each item with what `function` makes of it, one after the other in a second thread, a few items ahead."""
    pool = ThreadPoolExecutor(1, thread_name_prefix="prepare")
    waiting: deque[tuple[T, Future[R]]] = deque()
    try:
        for item in items:
            waiting.append((item, pool.submit(function, item)))
            if len(waiting) > AHEAD:
                yield waiting.popleft()
        while waiting:
            yield waiting.popleft()
    finally:
        pool.shutdown(cancel_futures=True)

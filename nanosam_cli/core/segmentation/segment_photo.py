"""The straight line for one photo: read, prompt, encode, decode."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

from nanosam_cli.core.errors import UsageError
from nanosam_cli.core.inference.predictor import MAX_PROMPTS, Predictor
from nanosam_cli.core.media.image import read_image
from nanosam_cli.core.prompting.options import PromptOptions
from nanosam_cli.core.prompting.request import Request
from nanosam_cli.core.segmentation.everything import segment_everything
from nanosam_cli.core.segmentation.job import Job
from nanosam_cli.core.segmentation.result import Found, PhotoResult, empty_note, packed_masks, without_overlap
from nanosam_cli.core.segmentation.zoom import segment_zoomed
from nanosam_cli.core.timing import Stopwatch
from nanosam_cli.core.types import ImageEmbedding
from nanosam_cli.version import __version__


@dataclass(frozen=True)
class MaskOptions:
    """How masks are taken from the decoder's answers."""

    multimask: bool = False  # every reading of a prompt
    threshold: float = 0.0  # of the logits
    exclusive: bool = False  # each pixel to the best mask that has it
    zoom: bool = False  # a window around each object is encoded anew


def segment_photo(
    predictor: Predictor,
    job: Job,
    photo: Path,
    file: Path | BinaryIO,
    reading: MaskOptions,
    check_count: Callable[[int], None] | None = None,
) -> PhotoResult:
    """Segment a photo of a job, read from `file`. InputError and UsageError where this photo cannot be done.

    `check_count` is told how many objects there will be, and refuses what the output cannot hold.
    """
    watch = Stopwatch()
    with watch("read"):
        image = read_image(file)
    zoomed = None
    if job.everything is not None:
        with watch("segment"):
            request, masks = segment_everything(predictor, image, job.everything, reading.threshold)
        found = packed_masks(masks)
    else:
        with watch("prompt" if job.model else "read"):  # a model takes its time, a file has been read
            request = job.sources[photo].request_for(image)
        if check_count is not None:
            check_count(request.count)
        request.check((image.shape[0], image.shape[1]))
        if reading.zoom:
            with watch("segment"):
                zoomed = segment_zoomed(predictor, image, request, threshold=reading.threshold)
            found = packed_masks(zoomed.found)
        else:
            with watch("encode"):
                embedding = predictor.encode_image(image)
            with watch("decode"):
                found = _decoded(predictor, embedding, request, reading)
    if reading.exclusive:
        found = without_overlap(found, request)
    request = replace(request, notes=[*request.notes, *empty_note(found)])
    return PhotoResult(photo, image, request, found, watch, zoomed)


def _decoded(predictor: Predictor, embedding: ImageEmbedding, request: Request, reading: MaskOptions) -> list[Found]:
    """The masks of a request, packed call by call: of all at once the memory of a machine may be too small."""
    predict = predictor.predict_multimask if reading.multimask else predictor.predict
    found: list[Found] = []
    for number, prompt in enumerate(request.prompts(embedding.frame, MAX_PROMPTS)):
        # no name for the call's own masks, which would keep them while the next are made
        found += packed_masks(predict(embedding, prompt, threshold=reading.threshold), number * MAX_PROMPTS)
    return found


def check_mask_options(job: Job, reading: MaskOptions) -> None:
    """UsageError where a job cannot be read so."""
    if job.everything is not None and reading.multimask:
        raise UsageError("--everything takes every reading of its clicks by itself, so it takes no --multimask")
    if job.everything is not None and reading.zoom:
        raise UsageError("--everything has no objects to look closer at before it has found them", "--crops 1")
    if reading.multimask and reading.zoom:
        raise UsageError("--multimask gives readings of different sizes, for which --zoom has no one window")
    if reading.multimask and reading.exclusive:
        raise UsageError("--multimask gives readings that overlap by their nature, so it takes no --exclusive")


def run_settings(predictor: Predictor, asked: PromptOptions, job: Job, reading: MaskOptions) -> dict[str, Any]:
    """What decides a run's masks: it goes on only where all this is the same."""
    return {
        "nanosam": __version__,
        "model": predictor.describe(),
        **asked.settings(),
        **job.settings(),
        **asdict(reading),
    }

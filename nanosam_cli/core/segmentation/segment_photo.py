"""The straight line for one photo: read, prompt, encode, decode."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

from nanosam_cli.core.errors import UsageError
from nanosam_cli.core.inference.predictor import Predictor
from nanosam_cli.core.media.image import read_image
from nanosam_cli.core.prompting.options import PromptOptions
from nanosam_cli.core.segmentation.everything import segment_everything
from nanosam_cli.core.segmentation.job import Job
from nanosam_cli.core.segmentation.result import PhotoResult, empty_note, found_masks, without_overlap
from nanosam_cli.core.timing import Stopwatch
from nanosam_cli.version import __version__


@dataclass(frozen=True)
class MaskOptions:
    """How masks are taken from the decoder's answers."""

    multimask: bool = False  # every reading of a prompt
    threshold: float = 0.0  # of the logits
    exclusive: bool = False  # each pixel to the best mask that has it


def segment_photo(
    predictor: Predictor, job: Job, photo: Path, file: Path | BinaryIO, reading: MaskOptions
) -> PhotoResult:
    """Segment a photo of a job, read from `file`. InputError and UsageError where this photo cannot be done."""
    watch = Stopwatch()
    with watch("read"):
        image = read_image(file)
    if job.everything is not None:
        with watch("segment"):
            request, masks = segment_everything(predictor, image, job.everything, reading.threshold)
        found = found_masks(masks)
    else:
        with watch("prompt" if job.model else "read"):  # a model takes its time, a file has been read
            request = job.sources[photo].request_for(image)
        with watch("encode"):
            embedding = predictor.encode_image(image)
        with watch("decode"):
            predict = predictor.predict_multimask if reading.multimask else predictor.predict
            found = found_masks(predict(embedding, request.prompt(embedding.frame), threshold=reading.threshold))
    if reading.exclusive:
        found = without_overlap(found, request)
    request = replace(request, notes=[*request.notes, *empty_note(found)])
    return PhotoResult(photo, image, request, found, watch)


def check_mask_options(job: Job, reading: MaskOptions) -> None:
    """UsageError where a job cannot be read so."""
    if job.everything is not None and reading.multimask:
        raise UsageError("--everything takes every reading of its clicks by itself, so it takes no --multimask")
    if reading.multimask and reading.exclusive:
        raise UsageError("--multimask gives readings that overlap by their nature, so it takes no --exclusive")


def run_settings(predictor: Predictor, asked: PromptOptions, reading: MaskOptions) -> dict[str, Any]:
    """What decides a run's masks: it goes on only where all this is the same."""
    return {"nanosam": __version__, "model": predictor.describe(), **asked.settings(), **asdict(reading)}

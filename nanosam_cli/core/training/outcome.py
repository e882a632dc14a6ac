"""What a run leaves besides weights: where it came from, how good it is, pictures and model files."""

from __future__ import annotations

import math
import platform
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import nn

from nanosam_cli.core.datasets.coco import AnnotatedPhoto, read_coco
from nanosam_cli.core.datasets.photo_files import PhotoFiles
from nanosam_cli.core.evaluation.contact_sheet import SheetEntry, draw_sheet
from nanosam_cli.core.evaluation.loop import evaluate, evaluate_boxes
from nanosam_cli.core.evaluation.metrics import mean_iou_by_size
from nanosam_cli.core.evaluation.protocols import PROTOCOLS, select_objects
from nanosam_cli.core.evaluation.results import ObjectResult
from nanosam_cli.core.evaluation.segmenters import ModelSegmenter, ScoredMask
from nanosam_cli.core.export.export import export_model
from nanosam_cli.core.export.finished import Exported
from nanosam_cli.core.export.options import ALL
from nanosam_cli.core.export.source import load_source
from nanosam_cli.core.inference.backends.torch import TorchSession
from nanosam_cli.core.inference.predictor import Predictor
from nanosam_cli.core.inference.session import Session
from nanosam_cli.core.media.image import write_png
from nanosam_cli.core.media.mask_codes import mask_to_rle
from nanosam_cli.core.modeling.model import PromptableModel
from nanosam_cli.core.training.checkpoint import save_weights
from nanosam_cli.core.training.data.datasets import TrainingCrops, photo_folder
from nanosam_cli.core.training.recipe import Recipe
from nanosam_cli.core.training.run_log import RunNote
from nanosam_cli.core.training.stages import WEIGHTS_FILE
from nanosam_cli.core.training.teaching.teacher import Teacher
from nanosam_cli.core.types import DECODER, ENCODER
from nanosam_cli.version import __version__

SHEET = "masks.png"
SHEET_OBJECTS = 10


def provenance(
    recipe: Recipe, dataset: TrainingCrops, teacher: Teacher | None, model: PromptableModel
) -> dict[str, Any]:
    """The resolved recipe, and everything else that decided the run. Plain values for JSON."""
    record: dict[str, Any] = {
        "recipe": recipe.to_dict(),
        "photos_per_source": {source.path: len(source.photos) for source in dataset.sources},
        "data_sha256": {source.path: source.sha256 for source in dataset.sources},
        "versions": {"nanosam": __version__, "torch": torch.__version__, "python": platform.python_version()},
    }
    if teacher is not None:
        record["teacher_sha256"] = teacher.sha256
    if model.encoder.not_pretrained is not None:
        record["not_pretrained"] = model.encoder.not_pretrained
    return record


def read_evaluation(recipe: Recipe) -> list[AnnotatedPhoto]:
    """The photos that the recipe evaluates on; none where it names no folder."""
    if not recipe.run.evaluate_on:
        return []
    folder = recipe.data.folder(recipe.run.evaluate_on)
    return read_coco(folder / "instances.json", photo_folder(folder))[: recipe.run.evaluate_limit or None]


def student_predictor(model: nn.Module, teacher: Teacher | None) -> Predictor:
    """The product's predictor over a student, with the teacher's decoder where it has none of its own."""
    student = cast(PromptableModel, model)
    decoder = teacher.open_decoder() if student.decoder is None and teacher is not None else None
    return model_predictor(student, decoder)


def evaluate_model(model: nn.Module, photos: Sequence[AnnotatedPhoto], teacher: Teacher | None) -> dict[str, float]:
    """mIoU of box prompts, of all and of the sizes that there are, through the same predictor that users run."""
    with student_predictor(model, teacher) as predictor:
        means = mean_iou_by_size(evaluate_boxes(predictor, photos))
    return {size: mean for size, mean in means.items() if size == "all" or not math.isnan(mean)}


def finish(
    recipe: Recipe, folder: Path, checkpoint: Path, model: nn.Module, teacher: Teacher | None
) -> Iterator[RunNote]:
    """The weights alone, pictures and, where the recipe asks for them, model files."""
    save_weights(folder / WEIGHTS_FILE, checkpoint)
    photos = read_evaluation(recipe)
    if photos:
        yield RunNote(f"masks: {draw_masks(folder / SHEET, photos, model, teacher)}")
    if recipe.run.export:
        for file in export_run(checkpoint, folder / "export", teacher):
            yield RunNote(
                f"{file.part}: {file.path}, max |torch - ONNX Runtime| {max(file.proof.max_difference.values()):.1e}"
            )


def draw_masks(path: Path, photos: Sequence[AnnotatedPhoto], model: nn.Module, teacher: Teacher | None) -> Path:
    """A PNG of up to SHEET_OBJECTS objects with the student's masks beside the teacher's; beside the annotated ones
    where there is no teacher with a mask decoder."""
    shown = list(select_objects(photos, PROTOCOLS["edgesam"]))[:SHEET_OBJECTS]
    most = -(-SHEET_OBJECTS // max(1, len(shown)))
    shown = [replace(photo, objects=photo.objects[:most]) for photo in shown]
    with student_predictor(model, teacher) as predictor:
        masks = list(evaluate(ModelSegmenter(predictor), shown))
    name = "annotated mask"
    if teacher is not None and teacher.has_decoder:
        name = "teacher's mask"
        with Predictor(teacher.open_encoder(), teacher.open_decoder()) as predictor:
            targets = [taught.masks for taught in evaluate(ModelSegmenter(predictor), shown)]
    else:
        targets = [[ScoredMask(target.mask(), 1.0) for target in photo.objects] for photo in shown]
    entries = [
        _entry(done.photo, result, predicted, target)
        for done, wanted in zip(masks, targets)
        for result, predicted, target in zip(done.results, done.masks, wanted)
    ]
    with PhotoFiles(shown[0].path.parent) as files:
        sheet = draw_sheet(entries[:SHEET_OBJECTS], files, legend=(name, "student's mask", "annotated box"))
    write_png(path, sheet, overwrite=True)
    return path


def _entry(photo: AnnotatedPhoto, result: ObjectResult, predicted: ScoredMask, target: ScoredMask) -> SheetEntry:
    """One tile: the student's mask against `target`, which stands where the annotated one would."""
    both = np.count_nonzero(predicted.mask & target.mask)
    either = np.count_nonzero(predicted.mask | target.mask)
    annotated = next(found for found in photo.objects if found.id == result.id)
    return SheetEntry(
        replace(result, iou=both / either if either else 1.0),
        "",
        photo,
        replace(annotated, rle=mask_to_rle(target.mask)),
        mask_to_rle(predicted.mask),
    )


def export_run(checkpoint: Path, folder: Path, teacher: Teacher | None) -> list[Exported]:
    """Both model files of a run; the decoder is the teacher's own where the student has none."""
    source = load_source(checkpoint)
    if source.decoder is not None:
        return export_model(checkpoint, folder, ALL, overwrite=True)
    files = export_model(checkpoint, folder, ENCODER, overwrite=True)
    assert teacher is not None
    teacher.save_decoder(folder / f"{DECODER}.onnx")
    return files


def model_predictor(model: PromptableModel, decoder: Session | None = None) -> Predictor:
    """The product's predictor over torch modules; with another `decoder`, which it closes, where there is one."""
    metadata = {"nanosam.image_size": str(model.encoder.image_size)}
    if decoder is None:
        assert model.decoder is not None
        decoder = TorchSession(model.decoder, DECODER, {})
    return Predictor(TorchSession(model.encoder, ENCODER, metadata), decoder)

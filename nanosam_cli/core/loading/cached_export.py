"""Models that are published as a checkpoint: exported once into the cache, and run from there without torch."""

from __future__ import annotations

from pathlib import Path

from nanosam_cli.core.errors import MissingExtraError, ModelError
from nanosam_cli.core.messages import Note
from nanosam_cli.core.system.cache import cache_errors, one_at_a_time, unfinished
from nanosam_cli.core.system.files import file_sha256
from nanosam_cli.core.types import ENCODER
from nanosam_cli.core.zoo.models import CHECKPOINT, ModelSpec, file_path


def export_into_cache(spec: ModelSpec, note: Note) -> None:
    """Make encoder and decoder of a model from its checkpoint, both proved, or neither.

    `note` is told what is being done, which takes a minute.

    Raises:
        ModelError: the checkpoint is not here or not the published one, or the proof failed.
        MissingExtraError: torch is not installed.
        OutputError: the cache cannot be written.
    """
    checkpoint, folder = file_path(spec, CHECKPOINT), file_path(spec, ENCODER).parent
    if not checkpoint.is_file():
        raise ModelError(
            f"the checkpoint of model {spec.name} is missing: {checkpoint}", f"nanosam download {spec.name}"
        )
    try:
        from nanosam_cli.core.export.export import export_model
        from nanosam_cli.core.export.options import ALL
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            f"{spec.name} is a checkpoint; making ONNX files of it", "train", str(error.name)
        ) from error
    with cache_errors(folder), one_at_a_time(folder, note, "exporting"):
        if folder.is_dir():  # another process was faster
            return
        _check_hash(spec, checkpoint)
        note(f"{spec.name} is a checkpoint: exporting it to ONNX, once")
        with unfinished(folder) as temporary:
            for file in export_model(checkpoint, temporary, ALL, note=note):
                if file.proof.mask_iou is not None:
                    note(f"{file.path.name}: {file.proof.mask_iou.title} with torch: {file.proof.mask_iou.figures}")
            temporary.rename(folder)
        note(f"{spec.name} is in {folder} now, and runs without torch")


def _check_hash(spec: ModelSpec, checkpoint: Path) -> None:
    """The folder is named after the published hash, so nothing else may go into it."""
    found, wanted = file_sha256(checkpoint), spec.parts[CHECKPOINT].sha256
    if found != wanted:
        raise ModelError(
            f"{checkpoint} is not the published file: its sha256 is {found}, not {wanted}",
            f"nanosam download {spec.name} --force, or for a checkpoint of your own: nanosam export all FILE",
        )

"""The files of a model's parts, on this machine."""

from __future__ import annotations

from pathlib import Path

from nanosam_cli.core.errors import ModelError
from nanosam_cli.core.loading.cached_export import export_into_cache
from nanosam_cli.core.messages import Note
from nanosam_cli.core.types import DECODER, ENCODER
from nanosam_cli.core.zoo.models import CHECKPOINT, MODELS, ModelSpec, file_path


def part_file(spec: ModelSpec, part: str, note: Note = lambda _: None) -> Path:
    """The file of one part. A checkpoint's parts are exported first where they were not yet, and `note` is told so.

    Raises:
        ModelError: the model cannot run, or the file is not on this machine.
        MissingExtraError, OutputError: it must be exported and cannot be; see `export_into_cache`.
    """
    if spec.cannot_run:
        raise ModelError(f"model {spec.name} is not run: {spec.cannot_run}", _instead(spec))
    path = file_path(spec, part)
    if path.is_file():
        return path
    if part not in spec.parts and CHECKPOINT in spec.parts:
        export_into_cache(spec, note)
        return path
    hint = "pip install --force-reinstall nanosam-cli" if spec.bundled else f"nanosam download {spec.name}"
    raise ModelError(f"the {part} of model {spec.name} is missing: {path}", hint)


def model_files(spec: ModelSpec, note: Note = lambda _: None) -> tuple[Path, Path]:
    """The encoder's and the decoder's file, as `part_file` gives them."""
    return part_file(spec, ENCODER, note), part_file(spec, DECODER, note)


def _instead(spec: ModelSpec) -> str:
    run = ", ".join(name for name, model in MODELS.items() if not model.cannot_run)
    files = " ".join(f"--{part} {file_path(spec, part)}" for part in (ENCODER, DECODER))
    return f"models that run: {run}; to try this one, see its masks: --model {spec.name} {files}"

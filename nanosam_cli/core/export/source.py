"""What can be exported: a checkpoint by its path, or a model of the zoo that is one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import nn

from nanosam_cli.core.errors import InputError, ModelError, UsageError
from nanosam_cli.core.export.read_back import read_back
from nanosam_cli.core.messages import Note, did_you_mean
from nanosam_cli.core.modeling.checkpoint import load_state, put_weights
from nanosam_cli.core.modeling.mobile_sam import load_mobile_sam
from nanosam_cli.core.modeling.model import PromptableModel
from nanosam_cli.core.system.files import file_sha256
from nanosam_cli.core.zoo.models import CHECKPOINT, MODELS, file_path

_FOREIGN = (".pt", ".pth")
_SUFFIXES = (*_FOREIGN, ".safetensors")
_MOBILE_SAM = MODELS["mobile-sam"]
_OWN_LICENCE = "that of whoever trained it, and of the photos it was trained on"


@dataclass(frozen=True)
class ExportSource:
    """Two modules in evaluation mode, and what the files made from them say of themselves."""

    name: str
    encoder: nn.Module
    decoder: nn.Module | None  # None where the teacher's decoder is used as it is
    image_size: int
    checkpoint: Path
    sha256: str  # of the checkpoint
    licence: str
    steps: int | None = None  # of training, where the checkpoint tells
    teacher: str | None = None  # whose decoder goes with an encoder alone, as the recipe names it


def find_checkpoint(text: str) -> Path:
    """The file that a path or a name of the zoo means.

    Raises:
        InputError: there is no such file, and no model of that name.
        ModelError: it was not downloaded yet.
        UsageError: the model comes as ONNX files, so there is nothing to export.
    """
    path = Path(text)
    if path.is_file() or path.suffix in _SUFFIXES:
        return path
    spec = MODELS.get(text)
    if spec is None:
        known = [name for name, model in MODELS.items() if CHECKPOINT in model.parts]
        raise InputError(f"no such checkpoint: {text}", did_you_mean(text.lower(), known) or "check the path")
    if CHECKPOINT not in spec.parts:
        raise UsageError(
            f"{text} comes as ONNX files, so there is nothing to export",
            f"they are in {file_path(spec, next(iter(spec.parts))).parent}",
        )
    path = file_path(spec, CHECKPOINT)
    if not path.is_file():
        raise ModelError(f"the checkpoint of {text} is not here: {path}", f"nanosam download {text}")
    return path


def load_source(checkpoint: Path) -> ExportSource:
    """A training checkpoint (safetensors; its averaged weights), or MobileSAM's `mobile_sam.pt`.

    Raises InputError where the file is neither, or holds anything but tensors.
    """
    if checkpoint.suffix in _FOREIGN:
        sam = load_mobile_sam(checkpoint)
        name, size, licence = _MOBILE_SAM.name, sam.encoder.image_size, _MOBILE_SAM.licence
        return ExportSource(name, sam.encoder, sam.decoder, size, checkpoint, file_sha256(checkpoint), licence)
    state = load_state(checkpoint)
    if state.about.places:
        state = read_back(state)
    section = state.about.recipe.model
    if section is None:
        raise InputError(f"{checkpoint} does not say which model it holds: its metadata has no recipe.model")
    model = PromptableModel(section, download=False).eval()
    put_weights(model, state.part("ema.module."), checkpoint)
    return ExportSource(
        section.name,
        model.encoder,
        model.decoder,
        section.image_size,
        checkpoint,
        file_sha256(checkpoint),
        _OWN_LICENCE,
        steps=state.about.step,
        teacher=_teacher(state.about.recipe.teacher),
    )


def with_decoder(source: ExportSource, note: Note) -> ExportSource:
    """The same with its teacher's decoder, where it holds an encoder alone and its recipe names a checkpoint's."""
    if source.decoder is not None or source.teacher is None:
        return source
    teacher = load_source(find_checkpoint(source.teacher))
    note(f"{source.checkpoint} holds an image encoder alone: the mask decoder is {source.teacher}'s, its teacher's")
    return replace(source, decoder=teacher.decoder)


def _teacher(section: Mapping[str, Any] | None) -> str | None:
    """The name or file of the teacher whose decoder is used; None where that is a file for a runtime."""
    name = (section.get("decoder") or section.get("encoder")) if section else None
    return name if isinstance(name, str) and (Path(name).suffix in _SUFFIXES or name in MODELS) else None

"""The models, as data. Adding one is adding an entry to MODELS."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path

from nanosam_cli.core import paths
from nanosam_cli.core.errors import ModelError

# Segment Anything's normalisation, RGB in [0, 255]: ImageNet's times 255.
SAM_MEAN = (123.675, 116.28, 103.53)
SAM_STD = (58.395, 57.12, 57.375)

ENCODER, DECODER = "encoder", "decoder"  # the parts of a model


@dataclass(frozen=True)
class ModelPart:
    """One file of a model. A bundled file needs no url."""

    file: str  # plain name, in the model's directory and on mirrors
    url: str | None = None
    mirrors: tuple[str, ...] = ()
    size: int | None = None  # bytes
    sha256: str | None = None


@dataclass(frozen=True)
class ModelSpec:
    """One model: an image encoder and a mask decoder that understands its embeddings."""

    name: str
    description: str
    licence: str
    image_size: int  # side S of the encoder's square input
    parts: Mapping[str, ModelPart]  # encoder, decoder
    bundled: bool = False  # its files come with the package
    mean: tuple[float, float, float] = SAM_MEAN
    std: tuple[float, float, float] = SAM_STD
    # what an engine is built in where nothing else is asked for
    default_precision: Mapping[str, str] = field(default_factory=lambda: {ENCODER: "fp16", DECODER: "fp32"})


DEFAULT_MODEL = "nanosam-b0"

MODELS: Mapping[str, ModelSpec] = {
    spec.name: spec
    for spec in (
        ModelSpec(
            name=DEFAULT_MODEL,
            description="Small 512-pixel student of SAM, trained by this project; comes with the package",
            licence="Apache-2.0",
            image_size=512,
            parts={ENCODER: ModelPart("encoder.onnx"), DECODER: ModelPart("decoder.onnx")},
            bundled=True,
        ),
    )
}


def find_model(name: str) -> ModelSpec:
    """The model called `name`. ModelError with the nearest names where there is none."""
    if name in MODELS:
        return MODELS[name]
    near = get_close_matches(name.lower(), MODELS, n=3)
    hint = f"did you mean {' or '.join(near)}?" if near else f"models: {', '.join(MODELS)}"
    raise ModelError(f"unknown model: {name}", hint)


def part_file(spec: ModelSpec, part: str) -> Path:
    """The file of one part, `encoder` or `decoder`. ModelError where it is not on this machine."""
    name = spec.parts[part].file
    path = paths.resource("models", spec.name, name) if spec.bundled else paths.home() / "models" / spec.name / name
    if not path.is_file():
        hint = "pip install --force-reinstall nanosam-cli" if spec.bundled else f"nanosam download {spec.name}"
        raise ModelError(f"the {part} of model {spec.name} is missing: {path}", hint)
    return path


def model_files(spec: ModelSpec) -> tuple[Path, Path]:
    """The encoder's and the decoder's file. ModelError where one is not on this machine."""
    return part_file(spec, ENCODER), part_file(spec, DECODER)

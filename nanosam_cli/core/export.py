"""Checkpoint to ONNX files of the two-file contract, each proved against torch before it gets its name."""

from __future__ import annotations

import io
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from torch import Tensor, nn

from nanosam_cli import __version__
from nanosam_cli.core.backends.onnxruntime import open_file
from nanosam_cli.core.checkpoint import load_state
from nanosam_cli.core.contract import INPUTS, OUTPUTS
from nanosam_cli.core.errors import InputError, ModelError
from nanosam_cli.core.files import atomic_write, file_sha256
from nanosam_cli.core.frame import COORDINATE_SIZE
from nanosam_cli.core.modeling.mobile_sam import load_mobile_sam
from nanosam_cli.core.modeling.model import PromptableModel
from nanosam_cli.core.recipe import ModelSection
from nanosam_cli.core.session import host
from nanosam_cli.core.zoo import DECODER, ENCODER

OPSET = 17  # the first with LayerNormalization; the TorchScript exporter's graphs ran fastest at it
TOLERANCE = 1e-4  # largest difference between torch and ONNX Runtime, as a share of the largest value

# Which axes stay free in the exported files; the encoder's batch too, for teachers that run in batches.
_FREE_AXES = {
    ENCODER: {"image": {0: "B"}, "image_embeddings": {0: "B"}},
    DECODER: {
        "point_coords": {0: "P", 1: "N"},
        "point_labels": {0: "P", 1: "N"},
        "mask_input": {0: "P"},
        "has_mask_input": {0: "P"},
        "iou_predictions": {0: "P"},
        "low_res_masks": {0: "P"},
    },
}


@dataclass(frozen=True)
class Exported:
    """One file, and how far it is from the torch module it was made of."""

    part: str
    path: Path
    max_difference: dict[str, float]  # by output: largest absolute difference over all proof inputs
    bytes: int

    def record(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {**asdict(self), "path": str(self.path)}


@dataclass(frozen=True)
class Source:
    """Two modules in evaluation mode, and what the files made from them say of themselves."""

    name: str
    encoder: nn.Module
    decoder: nn.Module | None  # None where the teacher's decoder is used as it is
    image_size: int
    details: dict[str, str]


def load_source(checkpoint: Path) -> Source:
    """A training checkpoint (safetensors; its averaged weights), or MobileSAM's `mobile_sam.pt`.

    Raises InputError where the file is neither, or holds anything but tensors.
    """
    if checkpoint.suffix in (".pt", ".pth"):
        sam = load_mobile_sam(checkpoint)
        return Source("mobile-sam", sam.encoder, sam.decoder, sam.encoder.image_size, {})
    state = load_state(checkpoint)
    try:
        section = ModelSection(**state.metadata["recipe"]["model"])
    except (KeyError, TypeError) as error:
        raise InputError(f"{checkpoint} does not say which model it holds: {error}") from error
    model = PromptableModel(section, download=False).eval()
    missing, extra = model.load_state_dict(state.part("ema.module."), strict=False)
    if missing or extra:
        raise InputError(f"{checkpoint} does not fit its model: missing {missing or 'none'}, extra {extra or 'none'}")
    steps = {"nanosam.steps": str(state.metadata["step"])}
    return Source(section.name, model.encoder, model.decoder, section.image_size, steps)


def export_model(checkpoint: Path, folder: Path, parts: Sequence[str], *, overwrite: bool = False) -> list[Exported]:
    """Write `encoder.onnx` and/or `decoder.onnx` into `folder`.

    Raises ModelError where a file's outputs differ from torch's by more than TOLERANCE; that file is not kept.
    """
    source = load_source(checkpoint)
    modules = {ENCODER: source.encoder, DECODER: source.decoder}
    if source.decoder is None and DECODER in parts:
        raise InputError(
            f"{checkpoint} holds an image encoder alone, for its teacher's mask decoder",
            f"nanosam export encoder {checkpoint}; the decoder is exported from the teacher",
        )
    metadata = {
        "nanosam.model": source.name,
        "nanosam.image_size": str(source.image_size),
        "nanosam.coordinate_size": str(COORDINATE_SIZE),
        "nanosam.precision": "fp32",
        "nanosam.source_sha256": file_sha256(checkpoint),
        "nanosam.exporter": f"nanosam {__version__}, torch {torch.__version__}, opset {OPSET}",
        **source.details,
    }
    return [
        export_part(part, module, source.image_size, folder / f"{part}.onnx", metadata, overwrite=overwrite)
        for part in parts
        if (module := modules[part]) is not None
    ]


def export_part(
    part: str, module: nn.Module, image_size: int, path: Path, metadata: dict[str, str], *, overwrite: bool = False
) -> Exported:
    """Write and prove one file of the contract."""
    proofs = proof_inputs(part, image_size)
    graph = to_onnx(part, module, proofs[-1])
    onnx.helper.set_model_props(graph, {**metadata, "nanosam.part": part})
    with atomic_write(path, overwrite) as temporary:
        onnx.save(graph, temporary)
        differences = prove(part, module, temporary, proofs)
    return Exported(part, path, differences, path.stat().st_size)


def to_onnx(part: str, module: nn.Module, example: Sequence[Tensor]) -> onnx.ModelProto:
    """Trace a module of the contract."""
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        # the TorchScript exporter is deprecated, and tracing remarks on shapes that are constants; the proof tells
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module,
            tuple(example),
            buffer,  # type: ignore[arg-type]  # the TorchScript exporter takes streams
            input_names=list(INPUTS[part]),
            output_names=list(OUTPUTS[part]),
            dynamic_axes=_FREE_AXES[part],
            opset_version=OPSET,
            dynamo=False,
        )
    graph = onnx.load_from_string(buffer.getvalue())
    onnx.checker.check_model(graph)
    return graph


def proof_inputs(part: str, image_size: int) -> list[tuple[Tensor, ...]]:
    """Inputs on which torch and the file are compared: several batch sizes, prompts of every kind."""
    random = torch.Generator().manual_seed(0)
    if part == ENCODER:
        return [(torch.randn(count, 3, image_size, image_size, generator=random),) for count in (1, 2)]
    # one prompt a row: box; box and point; foreground point; foreground and background points; mask alone
    labels = torch.tensor([[2, 3, -1], [1, 2, 3], [1, -1, -1], [1, 0, -1], [-1, -1, -1]]).float()
    coords = torch.rand(len(labels), 3, 2, generator=random) * 400 + 100
    coords[0, 1] = coords[0, 0] + 200
    coords[1, 2] = coords[1, 1] + torch.tensor([300.0, 90.0])
    masks = torch.full((len(labels), 1, 256, 256), -4.0)
    masks[4, 0, 60:120, 80:200] = 4
    has_mask = torch.tensor([0.0, 0.0, 0.0, 1.0, 1.0])
    embeddings = torch.randn(1, 256, 64, 64, generator=random)
    box_alone = (embeddings, coords[:1, :2], labels[:1, :2], masks[:1], has_mask[:1])
    return [box_alone, (embeddings, coords, labels, masks, has_mask)]


def prove(part: str, module: nn.Module, path: Path, proofs: Sequence[tuple[Tensor, ...]]) -> dict[str, float]:
    """Largest |torch - ONNX Runtime| of each output. Raises ModelError above TOLERANCE."""
    session = open_file(path, "cpu", None)
    differences = dict.fromkeys(OUTPUTS[part], 0.0)
    try:
        for inputs in proofs:
            with torch.no_grad():
                expected = module(*inputs)
            found = session.run({name: tensor.numpy() for name, tensor in zip(INPUTS[part], inputs, strict=True)})
            for name, tensor in zip(OUTPUTS[part], expected if isinstance(expected, tuple) else (expected,)):
                if host(found[name]).dtype != np.float32:
                    raise ModelError(f"the exported {part} gives {name} as {host(found[name]).dtype}, not float32")
                difference = float(np.abs(host(found[name]) - tensor.numpy()).max())
                differences[name] = max(differences[name], difference)
                if not difference <= TOLERANCE * max(1.0, float(tensor.abs().max())):  # also catches NaN
                    raise ModelError(
                        f"the exported {part} does not compute what torch does: {name} is off by {difference:.3g}",
                        "no file was kept; this is a fault of the exporter or of the model's code",
                    )
    finally:
        session.close()
    return differences

"""The files an export can make: which module each holds, what its tensors are called, and what it is proved on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from nanosam_cli.core.errors import InputError
from nanosam_cli.core.export.options import WHOLE, ExportOptions
from nanosam_cli.core.export.source import ExportSource
from nanosam_cli.core.inference.contract import INPUTS, OUTPUTS
from nanosam_cli.core.modeling.whole_model import WHOLE_INPUTS, WHOLE_OUTPUTS, WholeModel
from nanosam_cli.core.types import DECODER, ENCODER


@dataclass(frozen=True)
class ExportPart:
    """One file to be made."""

    name: str  # of the file, without suffix
    kind: str  # ENCODER, DECODER or WHOLE
    module: nn.Module
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    free_axes: Mapping[str, Mapping[int, str]]  # by tensor; all other axes are fixed
    examples: tuple[tuple[Tensor, ...], ...]  # what the file is proved on; the last one is traced
    clicks: tuple[int, ...] = ()  # rows of the last example that are clicks alone

    def run(self, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """What torch computes."""
        with torch.no_grad():
            outputs = self.module(*inputs)
        return outputs if isinstance(outputs, tuple) else (outputs,)


def make_part(name: str, source: ExportSource, options: ExportOptions) -> ExportPart:
    """One of the names that `ExportOptions.names` gives. InputError where the source has no decoder for it."""
    if name not in (DECODER, WHOLE):
        return encoder_part(source.encoder, source.image_size, options.batch, name)
    if source.decoder is None:
        raise InputError(
            f"{source.checkpoint} holds an image encoder alone, for its teacher's mask decoder",
            f"nanosam export encoder {source.checkpoint}, and nanosam export decoder TEACHER: its recipe names it",
        )
    if name == DECODER:
        return decoder_part(source.decoder, options.max_points)
    return _whole_part(source.encoder, source.decoder, source.image_size, options.max_points)


def encoder_part(module: nn.Module, image_size: int, batch: int | None = None, name: str = ENCODER) -> ExportPart:
    """An image encoder for `batch` images a run, or any number."""
    random = _random()
    images = [
        torch.randn(count, 3, image_size, image_size, generator=random) for count in ([batch] if batch else [2, 1])
    ]
    free = {} if batch else {tensor: {0: "B"} for tensor in (*INPUTS[ENCODER], *OUTPUTS[ENCODER])}
    examples = tuple((image,) for image in images)
    return ExportPart(name, ENCODER, module, tuple(INPUTS[ENCODER]), tuple(OUTPUTS[ENCODER]), free, examples)


def decoder_part(module: nn.Module, max_points: int | None = None) -> ExportPart:
    """A mask decoder for any number of prompts, of up to `max_points` points each or any number."""
    embeddings = torch.randn(1, 256, 64, 64, generator=_random())
    examples = []
    for coords, labels in _example_points(max_points):
        masks = torch.full((len(labels), 1, 256, 256), -4.0)
        masks[-1, 0, 60:120, 80:200] = 4
        has_mask = torch.zeros(len(labels))
        has_mask[3:] = 1  # with background points, and alone
        examples.append((embeddings, coords, labels, masks, has_mask))
    free = {name: {0: "P"} for name in (*INPUTS[DECODER], *OUTPUTS[DECODER]) if name != "image_embeddings"}
    inputs, outputs = tuple(INPUTS[DECODER]), tuple(OUTPUTS[DECODER])
    free |= _free_points(max_points)
    return ExportPart(DECODER, DECODER, module, inputs, outputs, free, tuple(examples), _CLICKS)


def _whole_part(encoder: nn.Module, decoder: nn.Module, image_size: int, max_points: int | None) -> ExportPart:
    module = WholeModel(encoder, decoder, image_size).eval()
    image = torch.randn(1, 3, image_size, image_size, generator=_random())
    sizes = (torch.tensor([427.0, 640.0]), torch.tensor([611.0, 300.0]))
    points = _example_points(max_points)
    examples = tuple((image, coords, labels, size) for (coords, labels), size in zip(points, sizes, strict=True))
    free = {name: {0: "P"} for name in ("iou_predictions", "low_res_masks")} | _free_points(max_points)
    free["masks"] = {0: "P", 2: "H", 3: "W"}
    return ExportPart(WHOLE, WHOLE, module, WHOLE_INPUTS, WHOLE_OUTPUTS, free, examples, _CLICKS)


_CLICKS = (2, 3)  # among the prompts of every kind


def _free_points(max_points: int | None) -> dict[str, dict[int, str]]:
    axes = {0: "P"} if max_points else {0: "P", 1: "N"}
    return {"point_coords": axes, "point_labels": axes}


def _example_points(max_points: int | None) -> list[tuple[Tensor, Tensor]]:
    """A box alone, and prompts of every kind: coordinates (P, N, 2) in the frame and labels (P, N)."""
    # box; box and point; foreground point; foreground and background points; nothing but a mask
    labels = torch.tensor([[2, 3, -1], [2, 3, 1], [1, -1, -1], [1, 0, -1], [-1, -1, -1]]).float()
    coords = torch.rand(len(labels), 3, 2, generator=_random()) * 400 + 100
    coords[:2, 1] = coords[:2, 0] + torch.tensor([[200.0, 200.0], [300.0, 90.0]])
    if max_points is None:
        return [(coords[:1, :2], labels[:1, :2]), (coords, labels)]
    padding = max(0, max_points - 3)
    coords = torch.cat([coords, torch.zeros(len(labels), padding, 2)], dim=1)[:, :max_points]
    labels = torch.cat([labels, -torch.ones(len(labels), padding)], dim=1)[:, :max_points]
    return [(coords[:1], labels[:1]), (coords, labels)]


def _random() -> torch.Generator:
    return torch.Generator().manual_seed(0)

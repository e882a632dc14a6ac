"""Weights to train on beside their ONNX files, without what those hold already.

An exporter folds each batch norm into the convolution before it, so that the files run fast and nothing can be trained
on them alone. With the norms' own numbers beside them every weight can be read back: a tensor is found in the graphs by
its value, as it is, transposed, or times its norm's scale, and the place is written down.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from torch import Tensor, nn

from nanosam_cli.core.errors import InputError
from nanosam_cli.core.export.read_back import FEWEST, PREFIX, Values, graph_tensors
from nanosam_cli.core.export.source import ExportSource
from nanosam_cli.core.modeling.checkpoint import Place, load_state, save_tensors
from nanosam_cli.core.system.files import file_sha256
from nanosam_cli.core.types import DECODER, ENCODER


@dataclass(frozen=True)
class _Norm:
    """A batch norm by its name in the model, and what it multiplies channels with."""

    name: str
    eps: float
    scale: Values


def save_trainable(path: Path, source: ExportSource, files: Mapping[str, Path]) -> None:
    """Write what `source` has beyond its ONNX `files` (by part, in the folder of `path`), atomically.

    Raises InputError where `source` is no checkpoint of training.
    """
    if source.checkpoint.suffix != ".safetensors":
        raise InputError(f"{source.checkpoint} is no checkpoint of `nanosam distill`", "leave out --trainable")
    places: dict[str, Place] = {}
    rest: dict[str, Tensor] = {}
    for part, module in ((ENCODER, source.encoder), (DECODER, source.decoder)):
        if module is None:
            continue
        found = dict(_places(module, files[part].name, graph_tensors(files[part])))
        places |= {f"{part}.{name}": place for name, place in found.items()}
        left = {name: tensor for name, tensor in module.state_dict().items() if name not in found}
        rest |= {f"{PREFIX}{part}.{name}": tensor for name, tensor in left.items()}
    state = load_state(source.checkpoint)
    hashes = {file.name: file_sha256(file) for file in files.values()}
    kept = {key: state.metadata[key] for key in ("recipe", "step")}
    written = {name: asdict(place) for name, place in places.items()}
    save_tensors(path, rest, {**kept, "source_sha256": source.sha256, "files": hashes, "places": written})


def _places(module: nn.Module, file: str, arrays: Mapping[str, Values]) -> Iterator[tuple[str, Place]]:
    """Where the tensors of a module are in its file, those that are there."""
    norms = [_norm(name, part) for name, part in module.named_modules() if isinstance(part, nn.BatchNorm2d)]
    for name, tensor in module.state_dict().items():
        if tensor.numel() < FEWEST or not tensor.is_floating_point():
            continue
        values = tensor.detach().float().numpy()
        place = _find(values, file, arrays, norms)
        if place is not None:
            yield name, place


def _norm(name: str, norm: nn.BatchNorm2d) -> _Norm:
    assert norm.running_var is not None
    scale = norm.weight.detach() / (norm.running_var + norm.eps).sqrt()
    return _Norm(name, norm.eps, scale.numpy())


def _find(values: Values, file: str, arrays: Mapping[str, Values], norms: list[_Norm]) -> Place | None:
    for tensor, array in arrays.items():
        if _alike(values, array):
            return Place(file, tensor)
        if values.ndim == 2 and _alike(values.T, array):
            return Place(file, tensor, "transposed")
    if values.ndim != 4:
        return None
    candidates = {tensor: array for tensor, array in arrays.items() if array.shape == values.shape}
    for norm in norms:
        if len(norm.scale) != len(values):
            continue
        folded = values * norm.scale[:, None, None, None]
        for tensor, array in candidates.items():
            if _alike(folded, array):
                return Place(file, tensor, "folded", norm.name, norm.eps)
    return None


def _alike(values: Values, array: Values) -> bool:
    """Equal but for what storing in half precision takes."""
    return values.shape == array.shape and np.allclose(values, array, rtol=1e-3, atol=1e-6)

"""Weights to train on, read back from ONNX files and what lies beside them; `trainable` writes that."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import numpy_helper
from torch import Tensor

from nanosam_cli.core.errors import InputError
from nanosam_cli.core.modeling.checkpoint import AVERAGE, TrainingState
from nanosam_cli.core.system.files import file_sha256

PLACES = "places"  # of the metadata: what is read from which file
FEWEST = 256  # numbers of a tensor that is worth looking for
TRANSPOSED, FOLDED = "transposed", "folded"
PREFIX = f"{AVERAGE}module."

Values = NDArray[np.float32]


def read_back(state: TrainingState, checkpoint: Path) -> TrainingState:
    """The whole of what `save_trainable` left at `checkpoint`. InputError where a file is missing, or another one."""
    files = state.metadata["files"]
    for name, sha256 in files.items():
        path = checkpoint.parent / name
        if not path.is_file() or file_sha256(path) != sha256:
            raise InputError(
                f"{checkpoint} goes with another {name} than the one beside it, or none is there",
                "keep them in one folder",
            )
    arrays = {name: graph_tensors(checkpoint.parent / name) for name in files}
    tensors = dict(state.tensors)
    for name, place in state.metadata[PLACES].items():
        values = torch.from_numpy(arrays[place["file"]][place["tensor"]])
        if place["how"] == TRANSPOSED:
            values = values.T.contiguous()
        if place["how"] == FOLDED:
            part = name.split(".")[0]
            values = _unfolded(values, tensors, f"{PREFIX}{part}.{place['norm']}", place["eps"])
        tensors[f"{PREFIX}{name}"] = values
    return TrainingState(tensors, state.metadata)


def _unfolded(values: Tensor, tensors: Mapping[str, Tensor], norm: str, eps: float) -> Tensor:
    scale = tensors[f"{norm}.weight"] / (tensors[f"{norm}.running_var"] + eps).sqrt()
    dead = scale == 0  # such a channel gives a constant whatever its weights are
    scale = torch.where(dead, 1, scale).reshape(-1, *[1] * (values.ndim - 1))
    return torch.where(dead.reshape(scale.shape), 0, values / scale)


def graph_tensors(path: Path) -> dict[str, Values]:
    """The tensors of an ONNX file that have at least FEWEST numbers, as float32."""
    graph = onnx.load(path).graph
    constants = [(node.output[0], node.attribute[0].t) for node in graph.node if node.op_type == "Constant"]
    named = [*((tensor.name, tensor) for tensor in graph.initializer), *constants]
    large = [(name, tensor) for name, tensor in named if np.prod(tensor.dims) >= FEWEST]
    return {name: numpy_helper.to_array(tensor).astype(np.float32) for name, tensor in large}

"""Weights to train on, read back from ONNX files and what lies beside them; `trainable` writes that."""

from __future__ import annotations

from dataclasses import replace
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

FEWEST = 256  # numbers of a tensor that is worth looking for
PREFIX = f"{AVERAGE}module."

Values = NDArray[np.float32]


def read_back(state: TrainingState) -> TrainingState:
    """The whole of what `save_trainable` left. InputError where a file is missing, or another one."""
    beside = state.path.parent
    for name, sha256 in state.about.files.items():
        path = beside / name
        if Path(name).name != name or not path.is_file() or file_sha256(path) != sha256:
            raise InputError(
                f"{state.path} goes with another {name} than the one beside it, or none is there",
                "keep them in one folder",
            )
    arrays = {name: graph_tensors(beside / name) for name in state.about.files}
    tensors = dict(state.tensors)
    try:
        for name, place in state.about.places.items():
            values = torch.from_numpy(arrays[place.file][place.tensor])
            if place.how == "transposed":
                values = values.T.contiguous()
            if place.how == "folded":
                norm = f"{PREFIX}{name.split('.')[0]}.{place.norm}"
                values = _unfolded(values, tensors[f"{norm}.weight"], tensors[f"{norm}.running_var"] + place.eps)
            tensors[f"{PREFIX}{name}"] = values
    except (KeyError, RuntimeError) as error:
        raise InputError(f"{state.path} says wrongly where its weights are: {error}", "export them again") from error
    return replace(state, tensors=tensors)


def _unfolded(values: Tensor, weight: Tensor, variance: Tensor) -> Tensor:
    scale = weight / variance.sqrt()
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

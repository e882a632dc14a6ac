"""A graph as ONNX Runtime's own optimiser leaves it."""

from __future__ import annotations

from typing import Any, Literal

import onnx
import onnxruntime

from nanosam_cli.core.errors import ModelError
from nanosam_cli.core.graphs.graph import metadata_of
from nanosam_cli.core.inference.backends.onnxruntime import session_options
from nanosam_cli.core.system.temporary import scratch_folder

# basic: standard operators only. extended: fused ones of ONNX Runtime's own, the same on every CPU. What is beyond
# depends on the CPU, and loading does it.
Level = Literal["basic", "extended"]


def optimized(model: onnx.ModelProto, level: Level) -> onnx.ModelProto:
    """Constants folded, nodes fused. ModelError where ONNX Runtime does not take the model."""
    levels = onnxruntime.GraphOptimizationLevel
    options: Any = session_options(1)
    options.graph_optimization_level = {"basic": levels.ORT_ENABLE_BASIC, "extended": levels.ORT_ENABLE_EXTENDED}[level]
    with scratch_folder() as folder:
        path = folder / "optimized.onnx"
        options.optimized_model_filepath = str(path)
        try:
            onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        except (RuntimeError, ValueError) as error:
            raise ModelError(f"ONNX Runtime cannot load the graph: {str(error).partition(chr(10))[0]}") from error
        found = onnx.load(path)
    onnx.helper.set_model_props(found, metadata_of(model))  # which the optimiser drops
    return found

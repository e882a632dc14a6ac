"""Small ONNX graphs for the tests of what is done to graphs, and running them on ONNX Runtime."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

Arrays = dict[str, NDArray[Any]]


def make_model(
    nodes: Sequence[onnx.NodeProto],
    inputs: Mapping[str, Sequence[int | str]],
    outputs: Mapping[str, Sequence[int | str] | None],
    constants: Mapping[str, Any] | None = None,
    *,
    opset: int = 17,
    output_types: Mapping[str, int] | None = None,
) -> onnx.ModelProto:
    """Float32 in and out, but for `output_types`."""
    types = output_types or {}
    graph = helper.make_graph(
        list(nodes),
        "small",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in inputs.items()],
        [
            helper.make_tensor_value_info(name, types.get(name, TensorProto.FLOAT), shape)
            for name, shape in outputs.items()
        ],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in (constants or {}).items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    return model


def run_model(model: onnx.ModelProto, feeds: Mapping[str, NDArray[Any]], *, fuse_int8: bool = True) -> Arrays:
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.disable_quant_qdq", "0" if fuse_int8 else "1")
    options.log_severity_level, options.intra_op_num_threads = 4, 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, dict(feeds))))


def random_feeds(model: onnx.ModelProto, seed: int = 0, **sides: int) -> Arrays:
    """Standard normal numbers for every input; `sides` gives the dynamic ones."""
    random = np.random.default_rng(seed)
    return {
        value.name: random.standard_normal(
            [side.dim_value or sides[side.dim_param] for side in value.type.tensor_type.shape.dim], np.float32
        )
        for value in model.graph.input
    }


def elem_types(model: onnx.ModelProto) -> dict[str, int]:
    """The type of every value."""
    graph = onnx.shape_inference.infer_shapes(model, strict_mode=True).graph
    found = {tensor.name: tensor.data_type for tensor in graph.initializer}
    for value in (*graph.input, *graph.value_info, *graph.output):
        found[value.name] = value.type.tensor_type.elem_type
    return found


def metadata(model: onnx.ModelProto) -> dict[str, str]:
    return {entry.key: entry.value for entry in model.metadata_props}

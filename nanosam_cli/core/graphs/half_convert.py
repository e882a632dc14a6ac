"""ONNX to ONNX: a float32 graph in half precision, inputs and outputs still float32, without torch."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper, numpy_helper

from nanosam_cli.core.graphs.graph import (
    STORED,
    Graph,
    array_of,
    check_model,
    drop_unused,
    free_name,
    metadata_of,
    read_graph,
    set_metadata,
)
from nanosam_cli.core.graphs.half_plan import BF16, FP16, Half, HalfPlan, plan_half
from nanosam_cli.core.graphs.half_writer import HalfWriter, half_graph, half_tensor

_PRODUCTS = ("Conv", "ConvTranspose", "Gemm", "MatMul")


def convert_to_fp16(model: onnx.ModelProto, keep: Collection[str] = ()) -> onnx.ModelProto:
    """`convert_to_half` for float16."""
    return convert_to_half(model, FP16, keep)


def convert_to_bf16(model: onnx.ModelProto, keep: Collection[str] = ()) -> onnx.ModelProto:
    """`convert_to_half` for bfloat16, which has float32's range and three digits.

    Raises the model's opset to the first where convolutions take it.
    """
    return convert_to_half(model, BF16, keep)


def convert_to_half(model: onnx.ModelProto, half: Half, keep: Collection[str] = ()) -> onnx.ModelProto:
    """A copy of the graph in half precision, but for the nodes named in `keep` and what `plan_half` leaves in float32.

    Graph inputs and outputs stay float32. Weights are converted once, and casts stand only where precision changes.
    Metadata say what was done. Raises ModelError where the model is no valid ONNX or `keep` names no node of it.
    """
    graph = half_graph(model, half)
    _Converter(graph, plan_half(graph, half, keep)).write()
    set_metadata(graph.model, precision=half.name, **({"fp32_nodes": " ".join(sorted(set(keep)))} if keep else {}))
    check_model(graph.model)
    return graph.model


def stored_in_half(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy that computes in float32 and takes half the room: weights of products are float16 in the file.

    A Cast widens each, which runtimes do once, when they load it. Weights beyond float16's range stay as they are.
    """
    graph = read_graph(model)
    body, weights = graph.model.graph, {node.input[1] for node in graph.nodes if node.op_type in _PRODUCTS}
    casts = []
    for name in sorted(weights & graph.constants.keys()):
        tensor, values = graph.constants[name], array_of(graph.constants[name])
        if graph.is_float(name) and np.abs(values).max(initial=0) <= FP16.largest:
            stored = free_name(f"{name}_{FP16.name}", graph.constants)
            tensor.CopyFrom(numpy_helper.from_array(values.astype(np.float16), stored))
            cast_name = free_name(f"{name}/Cast", {node.name for node in graph.nodes})
            casts.append(helper.make_node("Cast", [stored], [name], cast_name, to=TensorProto.FLOAT))
    nodes = graph.nodes
    del body.node[:]
    body.node.extend([*casts, *nodes])
    drop_unused(body)
    helper.set_model_props(graph.model, {**metadata_of(graph.model), STORED: FP16.name})
    check_model(graph.model)
    return graph.model


class _Converter(HalfWriter):
    """Values made by half nodes are half; casts stand where one goes to a float32 node or out of the graph."""

    def __init__(self, graph: Graph, plan: HalfPlan) -> None:
        super().__init__(graph, plan)
        self._made_half: dict[str, str] = {}  # value -> its name in the new graph
        self._raised: dict[str, str] = {}  # and that of its float32 copy

    def _as_made(self, name: str) -> str:
        return self._made_half.get(name, name)

    def _as_float(self, name: str) -> str:
        if name not in self._made_half:
            return name
        if name not in self._raised:
            self._raised[name] = self._add("Cast", name, self._free(f"{name}_fp32"), to=TensorProto.FLOAT)
        return self._raised[name]

    def _lowered(self, name: str) -> str:
        return self._add("Cast", name, self._free(f"{name}_{self._half.name}"), to=self._half.elem_type)

    def _constant(self, name: str, values: NDArray[np.float32]) -> str:
        return self._add_constant(half_tensor(values, self._half), f"{name}_{self._half.name}")

    def _write_outputs(self, node: NodeProto, names: list[str]) -> None:
        for attribute in node.attribute:
            if node.op_type == "Cast" and attribute.name == "to":
                attribute.i = self._half.elem_type
        for name in names:
            inner = self._free(f"{name}_{self._half.name}") if name in self._outputs else name
            node.output[list(node.output).index(name)] = inner
            self._made_half[name] = self._halved[name] = inner
            if name in self._outputs:
                self._raised[name] = self._add("Cast", inner, name, to=TensorProto.FLOAT)

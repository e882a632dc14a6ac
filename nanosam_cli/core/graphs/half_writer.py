"""Rewriting a graph's nodes by a plan of what runs in half; what a change of precision is made of is the subclass's."""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper, version_converter

from nanosam_cli.core.errors import ModelError
from nanosam_cli.core.graphs.graph import Graph, array_of, drop_unused, free_name, opset_of, read_graph
from nanosam_cli.core.graphs.half_plan import FP16, Half, HalfPlan, type_variables

_ANY = frozenset(("Cast", "Shape", "Size"))  # take either precision


def half_graph(model: onnx.ModelProto, half: Half) -> Graph:
    """The graph that `plan_half` takes, at an opset where operators take half."""
    if opset_of(model) < half.opset:
        try:
            model = version_converter.convert_version(model, half.opset)
        except (RuntimeError, ValueError) as error:
            raise ModelError(f"cannot raise the opset to {half.opset}, which {half.name} needs: {error}") from error
    return read_graph(model)


class HalfWriter(ABC):
    """One pass over a graph that it owns."""

    def __init__(self, graph: Graph, plan: HalfPlan) -> None:
        self._graph, self._plan, self._half = graph, plan, plan.half
        self._nodes: list[NodeProto] = []
        self._names = {name for node in graph.nodes for name in (*node.input, *node.output, node.name)}
        self._names |= {value.name for value in graph.model.graph.input} | set(graph.constants)
        self._halved: dict[str, str] = {}  # value -> the name under which nodes that take half find it
        self._outputs = {value.name for value in graph.model.graph.output}

    def write(self) -> None:
        """Put the rewritten nodes into the graph's model."""
        for node in self._graph.nodes:
            half = node.name in self._plan.nodes
            tied = type_variables(self._graph, node) if half else {}
            for index, name in enumerate(node.input):
                if self._graph.is_float(name):
                    node.input[index] = self._input(name, name in tied, node.op_type in _ANY)
            self._nodes.append(node)
            if half:
                self._write_outputs(node, [name for name in node.output if self._graph.is_float(name)])
        self._finish()
        body = self._graph.model.graph
        del body.node[:]
        body.node.extend(self._nodes)
        del body.value_info[:]
        drop_unused(body)

    def _input(self, name: str, half: bool, either: bool) -> str:
        """What a node reads for a value."""
        if either or not half:
            return self._as_made(name) if either else self._as_float(name)
        if name not in self._halved:
            tensor = self._graph.constants.get(name)
            self._halved[name] = self._lowered(name) if tensor is None else self._constant(name, array_of(tensor))
        return self._halved[name]

    @abstractmethod
    def _as_made(self, name: str) -> str:
        """The value for a node that takes either precision."""

    @abstractmethod
    def _as_float(self, name: str) -> str:
        """The value for a node that takes float32."""

    @abstractmethod
    def _lowered(self, name: str) -> str:
        """A float32 value made half; asked for once a value."""

    @abstractmethod
    def _constant(self, name: str, values: NDArray[np.float32]) -> str:
        """A constant made half; asked for once a value."""

    @abstractmethod
    def _write_outputs(self, node: NodeProto, names: list[str]) -> None:
        """What becomes of the float outputs of a half node that was written last."""

    def _finish(self) -> None:
        """What is to be written after the last node."""
        return

    def _free(self, wanted: str) -> str:
        name = free_name(wanted, self._names)
        self._names.add(name)
        return name

    def _add(self, kind: str, name: str, output: str, **attributes: int) -> str:
        """Write a node of one input."""
        node = helper.make_node(kind, [name], [output], name=self._free(f"{output}/{kind}"))
        node.attribute.extend(helper.make_attribute(key, value) for key, value in attributes.items())
        self._nodes.append(node)
        return output

    def _add_constant(self, tensor: TensorProto, wanted: str) -> str:
        tensor.name = self._free(wanted)
        self._graph.model.graph.initializer.append(tensor)
        return tensor.name


def in_half(values: NDArray[np.float32], half: Half) -> NDArray[np.float32]:
    """Float32 numbers that half has too: the nearest ones. Beyond its range the largest, but infinities stay."""
    values = np.where(np.isfinite(values), np.clip(values, -half.largest, half.largest), values).astype(np.float32)
    if half is FP16:
        return values.astype(np.float16).astype(np.float32)
    bits = values.view(np.uint32)  # bfloat16 is the upper half of a float32: add half a step, to even, and cut
    cut = (bits + np.uint32(0x7FFF) + ((bits >> 16) & 1)) & np.uint32(0xFFFF0000)
    return np.where(np.isnan(values), values, cut.view(np.float32))


def half_tensor(values: NDArray[np.float32], half: Half) -> TensorProto:
    """A constant in half, rounded as `in_half`."""
    numbers = in_half(values, half)
    data = numbers.astype("<f2") if half is FP16 else (numbers.view(np.uint32) >> 16).astype("<u2")
    return helper.make_tensor("", half.elem_type, values.shape, data.tobytes(), raw=True)

"""Which nodes of a float32 graph run in half precision, and why the others do not.

Three kinds of values never become half: what is known without looking at data (constants and shapes: a runtime computes
them once, and half has no integers above 2048), prompt coordinates (half has steps of 0.5 pixel at 1,000), and what an
operator takes as float32 only.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from enum import Enum

import numpy as np
import onnx
from onnx import NodeProto, TensorProto

from nanosam_cli.core.errors import ModelError
from nanosam_cli.core.graphs.graph import Graph, array_of, subgraphs

COORDINATES = ("point_coords",)  # graph inputs in pixels

# They give what they take, so they stay in the precision of what they take: between two float32 nodes, too.
MOVES = frozenset(
    (
        *("Concat", "DepthToSpace", "Expand", "Flatten", "Gather", "GatherElements", "GatherND", "Identity", "Pad"),
        *("Reshape", "ScatterElements", "ScatterND", "Slice", "SpaceToDepth", "Split", "Squeeze", "Tile"),
        *("Transpose", "Unsqueeze", "Where"),
    )
)
# What they give is no longer in pixels. They themselves still need their input's precision.
_NORMS = ("InstanceNormalization", "LayerNormalization", "Softmax")
_BOUNDED = frozenset((*_NORMS, "Cos", "Erf", "Exp", "HardSigmoid", "Sigmoid", "Sin", "Tanh"))
_PRODUCTS = frozenset(("Conv", "ConvTranspose", "Einsum", "Gemm", "MatMul"))
_POSITIONAL = 4  # products over at most so many numbers (x y, or two corners) still work on coordinates


@dataclass(frozen=True)
class Half:
    """A 16-bit type of floating-point numbers."""

    name: str
    elem_type: int  # TensorProto's
    type_name: str  # that of ONNX's operator schemas
    largest: float
    smallest: float  # above 0
    opset: int  # the first in which all operators of image models take it
    unbuilt: frozenset[str] = frozenset()  # operators that ONNX allows it in, but TensorRT does not build


FP16 = Half("fp16", TensorProto.FLOAT16, "tensor(float16)", 65504.0, 2.0**-24, 1)
BF16 = Half(
    "bf16", TensorProto.BFLOAT16, "tensor(bfloat16)", 3.3895313892515355e38, 2.0**-133, 22, frozenset(["ConvTranspose"])
)


@dataclass(frozen=True)
class HalfPlan:
    """What to do with each node, by name. Nodes in neither have no floats, or are known without looking at data."""

    half: Half
    nodes: frozenset[str]  # in half precision
    kept: Mapping[str, str]  # in float32, and why


class _Kind(Enum):
    known = "known without looking at data"
    coordinate = "in pixels"
    data = "data"


def plan_half(graph: Graph, half: Half, keep: Collection[str] = ()) -> HalfPlan:
    """Decide for each node. ModelError where `keep` names a node that is not there."""
    names = [node.name for node in graph.nodes]
    for name in keep:
        if name not in set(names):
            near = get_close_matches(name, names, n=3)
            raise ModelError(f"there is no node called {name!r}", f"nearest: {', '.join(near)}" if near else None)
    return _Planner(graph, half, frozenset(keep)).plan()


def type_variables(graph: Graph, node: NodeProto) -> dict[str, str]:
    """Float32 values of a node -> the type variable, such as T, that its operator ties them to.

    Values that the operator only takes as float32 are left out. Empty where the operator is not ONNX's own.
    """
    schema = _schema(graph, node)
    if schema is None:
        return {}
    variables = {constraint.type_param_str for constraint in schema.type_constraints}
    found = {}
    for values, formals in ((node.input, schema.inputs), (node.output, schema.outputs)):
        for index, value in enumerate(values):
            formal = formals[min(index, len(formals) - 1)]  # the last one may stand for any number
            if value and graph.is_float(value) and formal.type_str in variables:
                found[value] = formal.type_str
    return found


def overflows(tensor: TensorProto, half: Half) -> bool:
    """Whether a finite number of a constant would become infinite."""
    magnitudes = np.abs(array_of(tensor))
    return float(magnitudes[np.isfinite(magnitudes)].max(initial=0.0)) > half.largest


def vanishes(tensor: TensorProto, half: Half) -> bool:
    """Whether a constant that is not 0 would become 0 altogether, such as the 1e-12 that guards a division."""
    return 0 < float(np.abs(array_of(tensor)).max(initial=0.0)) < half.smallest


class _Planner:
    """One walk over the nodes in their order."""

    def __init__(self, graph: Graph, half: Half, keep: frozenset[str]) -> None:
        self._graph, self._half, self._keep = graph, half, keep
        self._kinds = dict.fromkeys(graph.constants, _Kind.known)
        self._kinds |= {
            value.name: _Kind.coordinate if value.name in COORDINATES else _Kind.data
            for value in graph.model.graph.input
            if value.name not in graph.constants
        }
        self._half_values: set[str] = set()
        self._read_inside = {
            name
            for node in graph.nodes
            for body in subgraphs(node)
            for inner in body.node
            for name in (*inner.input, *(value.name for value in body.output))
        }

    def plan(self) -> HalfPlan:
        nodes, kept = [], {}
        for node in self._graph.nodes:
            kind = self._kind(node)
            self._kinds |= dict.fromkeys(node.output, kind)
            if kind is _Kind.known or not any(map(self._graph.is_float, (*node.input, *node.output))):
                continue
            reason = self._reason(node, kind)
            if reason:
                kept[node.name] = reason
            else:
                nodes.append(node.name)
                self._half_values |= {*filter(self._graph.is_float, node.output)}
        return HalfPlan(self._half, frozenset(nodes), kept)

    def _kind(self, node: NodeProto) -> _Kind:
        """What the node's outputs are."""
        inputs = [self._kind_of(name) for name in node.input if name]
        if node.op_type in ("Shape", "Size") or (
            all(kind is _Kind.known for kind in inputs)
            and not node.op_type.startswith("Random")
            and not any(subgraphs(node))
        ):
            return _Kind.known
        return _Kind.coordinate if self._takes_pixels(node) and node.op_type not in _BOUNDED else _Kind.data

    def _takes_pixels(self, node: NodeProto) -> bool:
        """Whether it computes on coordinates, rather than weighing features with them."""
        floats = [name for name in node.input if self._graph.is_float(name)]
        if not any(self._kind_of(name) is _Kind.coordinate for name in floats):
            return False
        if node.op_type in _PRODUCTS:
            return (_summed(self._graph, node) or _POSITIONAL + 1) <= _POSITIONAL
        return node.op_type != "Concat" or not self._half_values.intersection(floats)

    def _kind_of(self, name: str) -> _Kind:
        return self._kinds.get(name, _Kind.data)

    def _reason(self, node: NodeProto, kind: _Kind) -> str | None:
        """Why a node with floats stays in float32; None where it does not."""
        if node.name in self._keep:
            return "asked for"
        if any(subgraphs(node)) or {*node.output} & self._read_inside:
            return "belongs to a branch or a loop"
        if self._takes_pixels(node):
            return "works on prompt coordinates"
        if node.op_type == "Cast":
            return self._reason_of_cast(node)
        if node.op_type in self._half.unbuilt:
            return f"TensorRT builds no {node.op_type} in {self._half.name}"
        if not self._half_exists(node):
            return f"{node.op_type} takes no {self._half.name} at opset {self._graph.opset}"
        floats = [name for name in node.input if self._graph.is_float(name)]
        if not floats:
            return f"{node.op_type} makes its numbers itself"
        data = [name for name in floats if self._kind_of(name) is not _Kind.known]
        if node.op_type in MOVES and data and not self._half_values.intersection(data):
            return "moves float32 values"
        lost = [name for name in node.input if self._is_lost(node, name)]
        return f"its constant {lost[0]} has no {self._half.name} value" if lost else None

    def _reason_of_cast(self, node: NodeProto) -> str | None:
        """Casts of bools give half at once; a cast to another type than float32 takes whatever there is."""
        if self._graph.types.get(node.input[0]) == TensorProto.BOOL or node.input[0] in self._half_values:
            return None
        return "casts values that are no half"

    def _half_exists(self, node: NodeProto) -> bool:
        schema = _schema(self._graph, node)
        values = [name for name in (*node.input, *node.output) if name]
        if schema is None or any(name not in self._graph.types for name in values):
            return False
        tied = type_variables(self._graph, node)
        allowed = {entry.type_param_str: entry.allowed_type_strs for entry in schema.type_constraints}
        if any(self._graph.is_float(name) and name not in tied for name in node.output):
            return False
        return bool(tied) and all(self._half.type_name in allowed[variable] for variable in tied.values())

    def _is_lost(self, node: NodeProto, name: str) -> bool:
        tensor = self._graph.constants.get(name)
        if tensor is None or name not in type_variables(self._graph, node):
            return False
        # a limit beyond half's range is as good as half's largest number
        return vanishes(tensor, self._half) or (node.op_type != "Clip" and overflows(tensor, self._half))


def _summed(graph: Graph, node: NodeProto) -> int | None:
    """How many products each output of a product of matrices sums; None where that is not known."""
    if node.op_type not in ("MatMul", "Gemm"):
        return None
    transposed = any(attribute.name == "transB" and attribute.i for attribute in node.attribute)
    shape = graph.shapes.get(node.input[1], ())
    return shape[-1 if transposed else -2] if len(shape) >= 2 else None


def _schema(graph: Graph, node: NodeProto) -> onnx.defs.OpSchema | None:
    if node.domain not in ("", "ai.onnx"):
        return None
    try:
        return onnx.defs.get_schema(node.op_type, graph.opset, "")
    except onnx.defs.SchemaError:
        return None

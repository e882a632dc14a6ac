"""An ONNX model made ready for surgery: constants in one place, every node named, the type of every value known."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from numpy.typing import NDArray
from onnx import AttributeProto, NodeProto, TensorProto, helper, inliner, numpy_helper, shape_inference

from nanosam_cli.core.errors import ModelError

STORED = "nanosam.weights"  # metadata of a file whose weights are stored in another precision than it computes in

Shape = tuple[int | None, ...]  # None where a side is dynamic

_PROBLEMS = (onnx.checker.ValidationError, shape_inference.InferenceError, RuntimeError, TypeError, ValueError)


@dataclass(frozen=True, eq=False)
class Graph:
    """A model without local functions and Constant nodes; its node names are unique. It owns the model."""

    model: onnx.ModelProto
    types: dict[str, int]  # TensorProto's element type of each tensor; what is not known or no tensor is left out
    shapes: dict[str, Shape]  # of each tensor whose rank is known
    constants: dict[str, TensorProto]

    @property
    def opset(self) -> int:
        return opset_of(self.model)

    @property
    def nodes(self) -> list[NodeProto]:
        return list(self.model.graph.node)

    def is_float(self, name: str) -> bool:
        return self.types.get(name) == TensorProto.FLOAT


def read_graph(model: onnx.ModelProto) -> Graph:
    """A copy of the model, made ready. ModelError where it is no valid ONNX."""
    try:
        copy = inliner.inline_local_functions(model) if model.functions else _copied(model)
        _gather_constants(copy.graph)
        _name_nodes(copy.graph)
        inferred = shape_inference.infer_shapes(copy, data_prop=True).graph
    except _PROBLEMS as error:
        raise ModelError(f"not a valid ONNX graph: {_first_line(error)}", "export it again") from error
    constants = {tensor.name: tensor for tensor in copy.graph.initializer}
    types = {name: tensor.data_type for name, tensor in constants.items()}
    shapes: dict[str, Shape] = {name: tuple(tensor.dims) for name, tensor in constants.items()}
    for value in (*inferred.input, *inferred.value_info, *inferred.output):
        if value.type.HasField("tensor_type"):
            tensor = value.type.tensor_type
            types.setdefault(value.name, tensor.elem_type)
            if tensor.HasField("shape"):
                shapes.setdefault(value.name, tuple(side.dim_value or None for side in tensor.shape.dim))
    return Graph(copy, {name: kind for name, kind in types.items() if kind}, shapes, constants)


def widened(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with float32 weights where they are stored in half, and no word of that; any other as it is."""
    half = {tensor.name for tensor in model.graph.initializer if tensor.data_type == TensorProto.FLOAT16}
    if not any(node.op_type == "Cast" and node.input[0] in half for node in model.graph.node):
        return model
    wide = read_graph(model).model
    drop_unused(wide.graph)
    helper.set_model_props(wide, {key: value for key, value in metadata_of(wide).items() if key != STORED})
    return wide


def check_model(model: onnx.ModelProto) -> None:
    """ModelError where operators, types or shapes of the graph do not fit together."""
    try:
        onnx.checker.check_model(model, full_check=True)
    except _PROBLEMS as error:
        raise ModelError(f"not a valid ONNX graph: {_first_line(error)}") from error


def opset_of(model: onnx.ModelProto) -> int:
    """The version of ONNX's own operators that the model was written for."""
    return next((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), 1)


def metadata_of(model: onnx.ModelProto) -> dict[str, str]:
    """What the model says of itself."""
    return {entry.key: entry.value for entry in model.metadata_props}


def external_files(path: Path) -> list[str]:
    """The files that hold weights of an ONNX file, as it names them: relative to its folder.

    ModelError where it is none.
    """
    try:
        model = onnx.load(path, load_external_data=False)
    except DecodeError as error:
        raise ModelError(f"{path} is not a whole ONNX file", "download or export it again") from error
    bodies = [model.graph, *(body for node in model.graph.node for body in subgraphs(node)), *model.functions]
    tensors = [tensor for body in bodies if isinstance(body, onnx.GraphProto) for tensor in body.initializer]
    tensors += [attribute.t for body in bodies for node in body.node for attribute in node.attribute]
    places = (entry.value for tensor in tensors for entry in tensor.external_data if entry.key == "location")
    return sorted(set(places))


def set_metadata(model: onnx.ModelProto, **entries: str) -> None:
    """Put `nanosam.*` entries beside those that the model has."""
    own = {f"nanosam.{key}": value for key, value in entries.items()}
    helper.set_model_props(model, {**metadata_of(model), **own})


def subgraphs(node: NodeProto) -> Iterator[onnx.GraphProto]:
    """The bodies of If, Loop and Scan, with those within them."""
    for attribute in node.attribute:
        for body in (*([attribute.g] if attribute.type == AttributeProto.GRAPH else []), *attribute.graphs):
            yield body
            for inner in body.node:
                yield from subgraphs(inner)


def array_of(tensor: TensorProto) -> NDArray[np.float32]:
    """A constant's numbers."""
    return np.asarray(numpy_helper.to_array(tensor))


def attribute_of(node: NodeProto, name: str, default: Any) -> Any:
    """A node's attribute as Python has it."""
    return next((helper.get_attribute_value(entry) for entry in node.attribute if entry.name == name), default)


def free_name(wanted: str, taken: Collection[str]) -> str:
    """`wanted`, with a number after it where it is taken."""
    name, number = wanted, 1
    while name in taken:
        name, number = f"{wanted}_{number}", number + 1
    return name


def drop_unused(graph: onnx.GraphProto) -> None:
    """Take out nodes and constants that nothing reads."""
    used = {value.name for value in graph.output}
    kept = []
    for node in reversed(graph.node):
        if used.intersection(node.output):
            kept.append(node)
            used.update(node.input)
            used.update(name for body in subgraphs(node) for inner in body.node for name in inner.input)
    constants = [tensor for tensor in graph.initializer if tensor.name in used]
    del graph.node[:], graph.initializer[:]
    graph.node.extend(reversed(kept))
    graph.initializer.extend(constants)


def _copied(model: onnx.ModelProto) -> onnx.ModelProto:
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    return copy


def _gather_constants(graph: onnx.GraphProto) -> None:
    """Constant nodes become initialisers; what Identity makes of a constant is the constant itself.

    Exporters store equal weights once and hand them on through Identity. Weights that are stored in half are widened.
    """
    constants = {tensor.name for tensor in graph.initializer}
    half = {tensor.name: tensor for tensor in graph.initializer if tensor.data_type == TensorProto.FLOAT16}
    aliases: dict[str, str] = {}
    outputs = {value.name for value in graph.output}
    captured = {name for node in graph.node for body in subgraphs(node) for n in body.node for name in n.input}
    nodes = list(graph.node)
    del graph.node[:]
    for node in nodes:
        for index, name in enumerate(node.input):
            node.input[index] = aliases.get(name, name)
        if node.op_type == "Constant" and node.output[0] not in outputs and (tensor := _constant(node)) is not None:
            graph.initializer.append(tensor)
            constants.add(tensor.name)
        elif node.op_type == "Cast" and node.input[0] in half and node.output[0] not in outputs | captured:
            graph.initializer.append(_widened(half[node.input[0]], node))
            constants.add(node.output[0])
        elif node.op_type == "Identity" and node.input[0] in constants and not {*node.output} & (outputs | captured):
            aliases[node.output[0]] = node.input[0]
        else:
            graph.node.append(node)


_NUMBERS: dict[str, Callable[[AttributeProto], object]] = {
    "value_float": lambda attribute: np.float32(attribute.f),
    "value_floats": lambda attribute: np.array(attribute.floats, np.float32),
    "value_int": lambda attribute: np.int64(attribute.i),
    "value_ints": lambda attribute: np.array(attribute.ints, np.int64),
}


def _constant(node: NodeProto) -> TensorProto | None:
    """What a Constant node gives; None for strings and sparse tensors."""
    attribute = node.attribute[0]
    if attribute.name == "value":
        tensor = TensorProto()
        tensor.CopyFrom(attribute.t)
    elif attribute.name in _NUMBERS:
        tensor = numpy_helper.from_array(np.asarray(_NUMBERS[attribute.name](attribute)))
    else:
        return None
    tensor.name = node.output[0]
    return tensor


def _widened(tensor: TensorProto, cast: NodeProto) -> TensorProto:
    """What Cast makes of a constant."""
    kind = helper.tensor_dtype_to_np_dtype(attribute_of(cast, "to", TensorProto.FLOAT))
    return numpy_helper.from_array(array_of(tensor).astype(kind), cast.output[0])


def _name_nodes(graph: onnx.GraphProto) -> None:
    taken: set[str] = set()
    for node in graph.node:
        node.name = free_name(node.name or next(filter(None, node.output), node.op_type), taken)
        taken.add(node.name)


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]

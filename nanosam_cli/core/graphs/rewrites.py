"""Rewrites that runtimes do not do by themselves: the same numbers up to rounding, with less to move about.

They matter most in int8, where a product costs a quarter and everything beside it as much as before.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import NodeProto, helper, numpy_helper

from nanosam_cli.core.graphs.graph import Graph, array_of, attribute_of, check_model, drop_unused, free_name, read_graph

_UNSHUFFLE = [0, 1, 3, 5, 2, 4]  # how (B, C, H / r, r, W / r, r) is turned before r x r pixels become channels
SPLIT, SPLIT_SUM = "_unshuffled", "_unshuffled_sum"  # ends of the names of nodes that are new
_RESHAPES = ("Reshape", "Squeeze", "Unsqueeze")


def rewrite(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy with the rewrites; names of what is left stay. Shapes must be known to the shape inference."""
    graph = read_graph(model)
    for node in graph.nodes:
        if _is_pointwise(graph, node):
            _split_concat(graph, node)
    for node in graph.nodes:
        if _is_pointwise(graph, node):
            _fold_unshuffle(graph, node)
    for node in graph.nodes:
        if node.op_type == "Mul":
            _fold_scale(graph, node)
    drop_unused(graph.model.graph)
    check_model(graph.model)
    return graph.model


@dataclass(frozen=True)
class _Unshuffle:
    """r x r pixels folded into channels."""

    source: str  # (B, C, H, W)
    fold: int  # r


def _split_concat(graph: Graph, conv: NodeProto) -> None:
    """A 1 x 1 convolution of [x, unshuffled]: the sum of one for each, of which the second can then be folded."""
    concat = _maker(graph, conv.input[0])
    if concat is None or concat.op_type != "Concat" or len(concat.input) != 2 or attribute_of(concat, "axis", 0) != 1:
        return
    one, other = concat.input
    split = (graph.shapes.get(one) or (None, None))[1]
    if split is None or _unshuffle(graph, other) is None or len(_readers(graph, conv.input[0])) > 1:
        return
    weights, output = array_of(graph.constants[conv.input[1]]), conv.output[0]
    second = NodeProto()
    second.CopyFrom(conv)
    second.name = free_name(f"{conv.name}{SPLIT}", {node.name for node in graph.model.graph.node})
    del second.input[2:]
    conv.input[0], second.input[0] = one, other
    second.input[1] = _add_constant(graph, weights[:, split:], conv.input[1])
    conv.input[1] = _add_constant(graph, weights[:, :split], conv.input[1])
    parts = [f"{output}_{name}" for name in ("first", "second")]
    conv.output[0], second.output[0] = parts
    total = helper.make_node("Add", parts, [output], name=f"{conv.name}{SPLIT_SUM}")
    graph.model.graph.node.remove(concat)
    place = list(graph.model.graph.node).index(conv) + 1
    for node in (total, second):
        graph.model.graph.node.insert(place, node)


def _fold_unshuffle(graph: Graph, conv: NodeProto) -> None:
    """Pixels folded into channels, then a 1 x 1 convolution: one convolution with kernel and stride r.

    The same products are summed, and nothing is copied about.
    """
    found = _unshuffle(graph, conv.input[0])
    if found is None:
        return
    weights = array_of(graph.constants[conv.input[1]])
    conv.input[0] = found.source
    conv.input[1] = _add_constant(graph, weights.reshape(len(weights), -1, found.fold, found.fold), conv.input[1])
    kept = [entry for entry in conv.attribute if entry.name not in ("kernel_shape", "strides")]
    sides = [helper.make_attribute(name, [found.fold, found.fold]) for name in ("kernel_shape", "strides")]
    del conv.attribute[:]
    conv.attribute.extend([*kept, *sides])


def _is_pointwise(graph: Graph, node: NodeProto) -> bool:
    """A 1 x 1 convolution with constant weights, of stride 1 and without padding."""
    weights = _weights(graph, node) if node.op_type == "Conv" else None
    plain = attribute_of(node, "group", 1) == 1 and attribute_of(node, "auto_pad", b"NOTSET") == b"NOTSET"
    still = set(attribute_of(node, "strides", [1])) == {1} and not any(attribute_of(node, "pads", [0]))
    return weights is not None and weights.shape[2:] == (1, 1) and plain and still


def _unshuffle(graph: Graph, name: str) -> _Unshuffle | None:
    """What a value is the pixel unshuffle of; None where it is none, or something else reads what lies between."""
    source, turned = name, False
    while (node := _maker(graph, source)) is not None and len(_readers(graph, source)) == 1:
        if node.op_type == "Transpose" and not turned and list(attribute_of(node, "perm", [])) == _UNSHUFFLE:
            turned = True
        elif node.op_type not in _RESHAPES:
            break
        source = node.input[0]
    fold = _fold(graph.shapes.get(source, ()), graph.shapes.get(name, ()))
    return _Unshuffle(source, fold) if turned and fold else None


def _fold(before: tuple[int | None, ...], after: tuple[int | None, ...]) -> int | None:
    """The r of a pixel unshuffle from (B, C, H, W) to (B, C r r, H / r, W / r)."""
    if len(before) != 4 or len(after) != 4 or None in (*before[1:], *after[1:]):
        return None
    height, folded = before[2] or 0, after[2] or 1
    fold = height // folded
    channels = (before[1] or 0) * fold * fold
    fits = after[1:] == (channels, height // max(fold, 1), (before[3] or 0) // max(fold, 1))
    return fold if fold > 1 and fits else None


def _fold_scale(graph: Graph, scale: NodeProto) -> None:
    """A positive factor after a ReLU goes into the convolution before it: s max(x, 0) = max(s x, 0)."""
    constants = [name for name in scale.input if name in graph.constants]
    inputs = [name for name in scale.input if name not in graph.constants]
    if len(constants) != 1 or len(inputs) != 1:
        return
    factor = array_of(graph.constants[constants[0]])
    relu = _maker(graph, inputs[0])
    if factor.size != 1 or not float(factor.reshape(())) > 0 or relu is None or relu.op_type != "Relu":
        return
    conv = _maker(graph, relu.input[0])
    alone = len(_readers(graph, relu.output[0])) == 1 and len(_readers(graph, relu.input[0])) == 1
    weights = None if conv is None else _weights(graph, conv)
    outputs = {value.name for value in graph.model.graph.output}
    if conv is None or weights is None or not alone or outputs & {*relu.input, *relu.output}:
        return
    conv.input[1] = _add_constant(graph, weights * factor.reshape(()), conv.input[1])
    if len(conv.input) > 2:
        conv.input[2] = _add_constant(
            graph, array_of(graph.constants[conv.input[2]]) * factor.reshape(()), conv.input[2]
        )
    relu.output[0] = scale.output[0]
    graph.model.graph.node.remove(scale)


def _weights(graph: Graph, conv: NodeProto) -> NDArray[np.float32] | None:
    """A convolution's weights (O, C, h, w); None where they, or its bias, are no constants."""
    if conv.op_type != "Conv" or any(name not in graph.constants for name in conv.input[1:]):
        return None
    return array_of(graph.constants[conv.input[1]])


def _add_constant(graph: Graph, values: NDArray[np.float32], like: str) -> str:
    name = free_name(f"{like}_folded", graph.constants)
    tensor = numpy_helper.from_array(np.ascontiguousarray(values, np.float32), name)
    graph.model.graph.initializer.append(tensor)
    graph.constants[name] = tensor
    graph.types[name] = tensor.data_type
    graph.shapes[name] = tuple(tensor.dims)
    return name


def _maker(graph: Graph, name: str) -> NodeProto | None:
    return next((node for node in graph.model.graph.node if name in node.output), None)


def _readers(graph: Graph, name: str) -> list[NodeProto]:
    return [node for node in graph.model.graph.node if name in node.input]

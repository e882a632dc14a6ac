"""Groups of nodes that are known to need float32, in any graph: norms, and attention blocks."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from math import prod

from onnx import NodeProto

from nanosam_cli.core.graphs.graph import Graph
from nanosam_cli.core.graphs.half_plan import MOVES

# Squares and sums over many numbers are what leaves half's range; hand-written norms are made of these.
_NORMS = frozenset(
    (
        *("BatchNormalization", "GroupNormalization", "InstanceNormalization", "LayerNormalization", "LpNormalization"),
        *("Pow", "ReduceL1", "ReduceL2", "ReduceMean", "ReduceSum", "ReduceSumSquare", "Softmax", "Sqrt"),
    )
)
_SCORES = frozenset((*MOVES, "Add", "Div", "Mul", "Sub", "Softmax"))  # between an attention's two products
_PROJECTIONS = frozenset(("Conv", "Gemm", "MatMul"))


def norm_nodes(graph: Graph) -> frozenset[str]:
    """Norms, softmax, powers and sums; and what squares a number by multiplying it with itself."""
    return frozenset(node.name for node in graph.nodes if node.op_type in _NORMS or _is_square(node))


def attention_nodes(graph: Graph) -> frozenset[str]:
    """Around each softmax: back to the projections of queries and keys, on to the one of the result."""
    makers = {name: node for node in graph.nodes for name in node.output}
    readers: dict[str, list[NodeProto]] = {}
    for node in graph.nodes:
        for name in node.input:
            readers.setdefault(name, []).append(node)

    def before(node: NodeProto) -> Iterable[NodeProto]:
        return (makers[name] for name in node.input if name in makers)

    def after(node: NodeProto) -> Iterable[NodeProto]:
        return (reader for name in node.output for reader in readers.get(name, ()))

    found: set[str] = set()
    for softmax in (node for node in graph.nodes if node.op_type == "Softmax"):
        for step in (before, after):
            found |= _reach(graph, softmax, step)
    return frozenset(found)


def _reach(graph: Graph, start: NodeProto, step: Callable[[NodeProto], Iterable[NodeProto]]) -> set[str]:
    """From a node on through scores and products of data, up to products with weights and norms, with these."""
    found, waiting = {start.name}, [start]
    while waiting:
        for node in step(waiting.pop()):
            weighs = node.op_type in _PROJECTIONS
            if node.name in found or not (weighs or node.op_type in _SCORES or node.op_type in _NORMS):
                continue
            found.add(node.name)
            if node.op_type in _SCORES or (weighs and not any(name in graph.constants for name in node.input)):
                waiting.append(node)
    return found


def half_work(graph: Graph, half_nodes: frozenset[str]) -> float:
    """Share of the multiplications that run in half: a measure of speed where no engine can be timed.

    Dynamic sides count as 1, so this compares plans of one graph only.
    """
    work = {node.name: _multiplications(graph, node) for node in graph.nodes}
    everything = sum(work.values())
    return sum(work[name] for name in half_nodes) / everything if everything else 0.0


def _multiplications(graph: Graph, node: NodeProto) -> int:
    if node.op_type not in ("Conv", "ConvTranspose", "Gemm", "MatMul"):
        return 0
    weights = [side or 1 for side in graph.shapes.get(node.input[1], ())]
    shape = graph.shapes.get(node.input[0] if node.op_type == "ConvTranspose" else node.output[0], ())
    places = prod(side or 1 for side in shape)
    if len(weights) < 2:
        return places
    if node.op_type in ("Conv", "ConvTranspose"):  # each place sums the kernel over the other side's channels
        return places * prod(weights[1:])
    transposed = any(attribute.name == "transB" and attribute.i for attribute in node.attribute)
    return places * weights[-1 if transposed else -2]


def _is_square(node: NodeProto) -> bool:
    return node.op_type == "Mul" and node.input[0] == node.input[1]

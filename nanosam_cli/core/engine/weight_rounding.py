"""Weights rounded together, so that what a convolution makes of real photos changes least.

Each weight rounded to the nearest step is off by up to half of one, and as neighbouring pixels are alike, those errors
add up. Here weights are rounded one after the other, and those still to come make good for the error so far, as much as
their inputs have in common on the photos (GPTQ, Frantar et al. 2022, arXiv 2210.17323). It costs nothing at inference.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from math import prod

import numpy as np
import onnx
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from onnx import NodeProto, numpy_helper
from onnxruntime import InferenceSession

from nanosam_cli.core.frame import Array
from nanosam_cli.core.graphs.graph import Graph, array_of, attribute_of

MOST_PHOTOS = 8
SAMPLES = 512  # places of a convolution's input that are looked at in each of them
MOST_HELD = 5e8  # bytes of activations that are held at once; MobileSAM has seven times as many
DAMPING = 0.01  # of the mean square: what so few places tell about rare inputs is not trusted

Wide = NDArray[np.float64]


def second_moments(graph: Graph, photos: Sequence[Array]) -> dict[str, Wide]:
    """(G, D, D) means of products of the D numbers under each convolution's kernel in G groups, by the node's name.

    `photos` are (1, 3, S, S) each. Of convolutions in two dimensions with constant weights and their own padding.
    """
    photos = photos[:MOST_PHOTOS]
    moments: dict[str, Wide] = {}
    for nodes in _portions(graph):
        session = _session(graph.model, {node.input[0] for node in nodes})
        names = [value.name for value in session.get_outputs()]
        generator = np.random.default_rng(0)
        for photo in photos:
            values = {"image": photo, **dict(zip(names, session.run(names, {"image": photo})))}
            for node in nodes:
                seen = _under_kernel(node, graph.constants[node.input[1]].dims, values[node.input[0]], generator)
                moment = seen.swapaxes(1, 2) @ seen / (seen.shape[1] * len(photos))
                moments[node.name] = moments.get(node.name, 0.0) + moment.astype(np.float64)
    return moments


def round_together(whole: onnx.ModelProto, graph: Graph, moments: Mapping[str, Wide], largest: int) -> None:
    """Round anew, in place, the quantised weights of `whole`, which was made of `graph`, to -largest ... largest."""
    constants = {tensor.name: tensor for tensor in whole.graph.initializer}
    makers = {name: node for node in whole.graph.node for name in node.output}
    originals = {node.name: node for node in graph.nodes}
    for node in whole.graph.node:
        dequantize = makers.get(node.input[1]) if node.name in moments else None
        if dequantize is None or dequantize.input[0] not in constants:
            continue
        integers, steps = constants[dequantize.input[0]], array_of(constants[dequantize.input[1]])
        weights, moment = array_of(graph.constants[originals[node.name].input[1]]), moments[node.name]
        groups, size = moment.shape[:2]
        scaled = weights.reshape(groups, -1, size) / steps.reshape(groups, -1, 1).astype(np.float64)
        rounded = rounded_together(scaled, moment, largest).reshape(weights.shape)
        integers.CopyFrom(numpy_helper.from_array(rounded.astype(np.int8), integers.name))


def rounded_together(weights: Wide, moment: Wide, largest: int) -> Wide:
    """(G, O, D) weights in steps and (G, D, D) second moments of their inputs -> (G, O, D) whole numbers."""
    size = moment.shape[-1]
    mean = np.trace(moment, axis1=1, axis2=2) / size
    damping = np.maximum(DAMPING * mean, np.finfo(np.float32).tiny)[:, None, None] * np.eye(size)
    # row k of this factor says how the weights after k make good for an error of weight k
    upper = np.linalg.cholesky(np.linalg.inv(moment + damping)).swapaxes(1, 2)
    left, rounded = weights.copy(), np.empty_like(weights)
    for place in range(size):
        rounded[..., place] = np.clip(np.rint(left[..., place]), -largest, largest)
        error = (left[..., place] - rounded[..., place]) / upper[:, place, place, None]
        left[..., place + 1 :] -= error[..., None] * upper[:, None, place, place + 1 :]
    return rounded


def _portions(graph: Graph) -> Iterator[list[NodeProto]]:
    """Its convolutions, as many at a time as MOST_HELD has room for their inputs."""
    portion: list[NodeProto] = []
    held = 0.0
    for node in graph.nodes:
        if not _is_able(graph, node):
            continue
        size = 4.0 * prod(side or 1 for side in graph.shapes.get(node.input[0], ()))
        if portion and held + size > MOST_HELD:
            yield portion
            portion, held = [], 0.0
        portion.append(node)
        held += size
    if portion:
        yield portion


def _is_able(graph: Graph, node: NodeProto) -> bool:
    if node.op_type != "Conv" or attribute_of(node, "auto_pad", b"NOTSET") != b"NOTSET":
        return False
    weights = graph.constants.get(node.input[1])
    return weights is not None and len(weights.dims) == 4


def _session(model: onnx.ModelProto, names: Collection[str]) -> InferenceSession:
    """One that gives values from within the graph as well."""
    open_model = onnx.ModelProto()
    open_model.CopyFrom(model)
    given = {value.name for value in (*model.graph.input, *model.graph.output)}
    open_model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in sorted(set(names) - given))
    return InferenceSession(open_model.SerializeToString(), providers=["CPUExecutionProvider"])


def _under_kernel(node: NodeProto, shape: Sequence[int], values: Array, generator: np.random.Generator) -> Array:
    """What a kernel of (O, I / G, K, K) sees at places drawn at random: (1, I, H, W) -> (G, N, D = I / G * K * K)."""
    top, left, bottom, right = attribute_of(node, "pads", (0, 0, 0, 0))
    (down, across), (below, beside) = (attribute_of(node, name, (1, 1)) for name in ("strides", "dilations"))
    padded = np.pad(values[0], ((0, 0), (top, bottom), (left, right)))
    extent = (shape[2] - 1) * below + 1, (shape[3] - 1) * beside + 1
    windows = sliding_window_view(padded, extent, (1, 2))[:, ::down, ::across, ::below, ::beside]  # (I, H, W, K, K)
    height, width = windows.shape[1:3]
    places = generator.choice(height * width, min(SAMPLES, height * width), replace=False)
    seen = windows[:, places // width, places % width]  # (I, N, K, K)
    groups = attribute_of(node, "group", 1)
    seen = seen.reshape(groups, shape[1], len(places), shape[2] * shape[3])
    return np.ascontiguousarray(seen.swapaxes(1, 2)).reshape(groups, len(places), -1)

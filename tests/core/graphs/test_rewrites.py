from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

from nanosam_cli.core.engine.ort_optimize import optimized
from nanosam_cli.core.graphs.rewrites import rewrite
from nanosam_cli.core.paths import resource
from nanosam_cli.core.zoo.models import DEFAULT_MODEL
from tests.onnx_graphs import make_model, metadata, random_feeds, run_model

node = helper.make_node
RANDOM = np.random.default_rng(0)


def weights(*shape: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    return RANDOM.standard_normal(shape, np.float32)


def unshuffle(source: str, to: str, channels: int, side: int, fold: int) -> list[onnx.NodeProto]:
    """As torch exports `pixel_unshuffle`."""
    inner = side // fold
    deep, flat = (1, channels, inner, fold, inner, fold), (1, channels * fold * fold, inner, inner)
    made = [
        node("Constant", [], [f"{to}_{name}"], value=onnx.numpy_helper.from_array(np.array(shape)))
        for name, shape in (("deep", deep), ("flat", flat))
    ]
    return [
        *made,
        node("Reshape", [source, f"{to}_deep"], [f"{to}_apart"]),
        node("Transpose", [f"{to}_apart"], [f"{to}_turned"], perm=[0, 1, 3, 5, 2, 4]),
        node("Reshape", [f"{to}_turned", f"{to}_flat"], [to]),
    ]


# nodes, constants -> the operators that are left
CASES: dict[str, tuple[list[onnx.NodeProto], dict[str, Any], Counter[str]]] = {
    "unshuffle and 1 x 1": (
        [*unshuffle("x", "folded", 4, 8, 2), node("Conv", ["folded", "w", "b"], ["y"])],
        {"w": weights(3, 16, 1, 1), "b": weights(3)},
        Counter(Conv=1),
    ),
    "unshuffle and 3 x 3": (
        [*unshuffle("x", "folded", 4, 8, 2), node("Conv", ["folded", "w"], ["y"], pads=[1, 1, 1, 1])],
        {"w": weights(3, 16, 3, 3)},
        Counter(Reshape=2, Transpose=1, Conv=1),
    ),
    "something else reads the folded pixels": (
        [
            *unshuffle("x", "folded", 4, 8, 2),
            node("Conv", ["folded", "w"], ["a"]),
            node("ReduceMax", ["folded"], ["most"]),
            node("Add", ["a", "most"], ["y"]),
        ],
        {"w": weights(3, 16, 1, 1)},
        Counter(Reshape=2, Transpose=1, Conv=1, ReduceMax=1, Add=1),
    ),
    "features beside folded pixels": (
        [
            *unshuffle("x", "folded", 4, 8, 2),
            node("Conv", ["x", "v"], ["features"], strides=[2, 2]),
            node("Concat", ["features", "folded"], ["both"], axis=1),
            node("Conv", ["both", "w", "b"], ["y"]),
        ],
        {"v": weights(5, 4, 1, 1), "w": weights(3, 5 + 16, 1, 1), "b": weights(3)},
        Counter(Conv=3, Add=1),
    ),
    "factor after a ReLU": (
        [
            node("Conv", ["x", "w", "b"], ["a"]),
            node("Relu", ["a"], ["r"]),
            node("Mul", ["r", "s"], ["m"]),
            node("Add", ["m", "t"], ["y"]),
        ],
        {"w": weights(3, 4, 1, 1), "b": weights(3), "s": np.float32([1.5]), "t": np.float32([-0.2])},
        Counter(Conv=1, Relu=1, Add=1),
    ),
    "negative factor": (
        [node("Conv", ["x", "w"], ["a"]), node("Relu", ["a"], ["r"]), node("Mul", ["r", "s"], ["y"])],
        {"w": weights(3, 4, 1, 1), "s": np.float32(-1.5)},
        Counter(Conv=1, Relu=1, Mul=1),
    ),
    "factor a channel": (
        [node("Conv", ["x", "w"], ["a"]), node("Relu", ["a"], ["r"]), node("Mul", ["r", "s"], ["y"])],
        {"w": weights(3, 4, 1, 1), "s": weights(3, 1, 1)},
        Counter(Conv=1, Relu=1, Mul=1),
    ),
    "something else reads the ReLU": (
        [
            node("Conv", ["x", "w"], ["a"]),
            node("Relu", ["a"], ["r"]),
            node("Mul", ["r", "s"], ["m"]),
            node("Add", ["m", "r"], ["y"]),
        ],
        {"w": weights(3, 4, 1, 1), "s": np.float32(1.5)},
        Counter(Conv=1, Relu=1, Mul=1, Add=1),
    ),
    "factor of another activation": (
        [node("Conv", ["x", "w"], ["a"]), node("Sigmoid", ["a"], ["r"]), node("Mul", ["r", "s"], ["y"])],
        {"w": weights(3, 4, 1, 1), "s": np.float32(1.5)},
        Counter(Conv=1, Sigmoid=1, Mul=1),
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_rewrites_change_the_graph_and_not_the_numbers(case: str) -> None:
    nodes, constants, left = CASES[case]
    model = make_model(nodes, {"x": (1, 4, 8, 8)}, {"y": (1, "C", "H", "W")}, constants)
    before = model.SerializeToString()
    found = rewrite(model)
    assert model.SerializeToString() == before
    assert Counter(entry.op_type for entry in found.graph.node) == left
    feeds = random_feeds(model)
    np.testing.assert_allclose(run_model(found, feeds)["y"], run_model(model, feeds)["y"], atol=1e-5)


def test_the_encoder_in_the_box() -> None:
    """Its neck folds pixels and colours, and its backbone has a factor behind many ReLUs."""
    model = onnx.load(resource("models", DEFAULT_MODEL, "encoder.onnx"))
    found = rewrite(optimized(model, "basic"))
    kinds = Counter(entry.op_type for entry in found.graph.node)
    assert not kinds["Transpose"]
    assert not kinds["Mul"]
    assert metadata(found) == metadata(model)
    feeds = random_feeds(model, B=1)
    one, other = (run_model(entry, feeds)["image_embeddings"] for entry in (model, found))
    np.testing.assert_allclose(one, other, atol=1e-4)


@pytest.mark.parametrize(("level", "domains"), [("basic", {""}), ("extended", {"", "com.microsoft"})])
def test_the_optimisers_levels(level: Any, domains: set[str]) -> None:
    """Basic leaves standard operators alone, which the quantiser needs; extended fuses."""
    nodes = [node("Conv", ["x", "w"], ["a"]), node("Relu", ["a"], ["r"]), node("Conv", ["r", "v"], ["y"])]
    constants = {"w": weights(8, 4, 3, 3), "v": weights(3, 8, 1, 1)}
    model = make_model(nodes, {"x": (1, 4, 8, 8)}, {"y": (1, 3, 6, 6)}, constants)
    helper.set_model_props(model, {"nanosam.model": "small"})
    found = optimized(model, level)
    assert {entry.domain for entry in found.graph.node} == domains
    assert metadata(found) == {"nanosam.model": "small"}
    feeds = random_feeds(model)
    np.testing.assert_allclose(run_model(found, feeds)["y"], run_model(model, feeds)["y"], atol=1e-5)

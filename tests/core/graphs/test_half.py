from __future__ import annotations

import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from nanosam_cli.core.errors import ModelError
from nanosam_cli.core.graphs.graph import array_of, read_graph, widened
from nanosam_cli.core.graphs.half_convert import convert_to_bf16, convert_to_fp16, stored_in_half
from nanosam_cli.core.graphs.half_emulate import RANGES, emulate_half
from nanosam_cli.core.graphs.half_plan import BF16, FP16, Half, plan_half
from nanosam_cli.core.graphs.half_writer import half_graph, half_tensor, in_half
from nanosam_cli.core.paths import resource
from nanosam_cli.core.zoo.models import DEFAULT_MODEL
from tests.onnx_graphs import Arrays, elem_types, make_model, metadata, random_feeds, run_model

FLOAT, FLOAT16 = TensorProto.FLOAT, TensorProto.FLOAT16
node = helper.make_node


def bundled(part: str) -> onnx.ModelProto:
    return widened(onnx.load(resource("models", DEFAULT_MODEL, f"{part}.onnx")))


def tiny_vit() -> onnx.ModelProto:
    pytest.importorskip("torch", reason="export needs the extra `train`")
    from tests.tiny_vit_model import tiny_vit_onnx

    return tiny_vit_onnx()


def sam_decoder() -> onnx.ModelProto:
    pytest.importorskip("torch", reason="export needs the extra `train`")
    from tests.tiny_vit_model import sam_decoder_onnx

    return sam_decoder_onnx()


def prompts() -> Arrays:
    """Two boxes, one of them with a point, for any decoder of the contract.

    No border of a box's window falls on the centre of a mask's pixel, where the last bit decides which side it is on.
    """
    random = np.random.default_rng(0)
    return {
        "image_embeddings": random.standard_normal((1, 256, 64, 64), np.float32),
        "point_coords": np.array(
            [[[100, 121], [503, 640], [0, 0]], [[333, 401], [810, 977], [600.5, 700.25]]], np.float32
        ),
        "point_labels": np.array([[2, 3, -1], [2, 3, 1]], np.float32),
        "mask_input": np.zeros((2, 1, 256, 256), np.float32),
        "has_mask_input": np.zeros(2, np.float32),
    }


# what is converted, what it is fed, and how far it may then be off, as a share of the largest number
PARTS: dict[str, tuple[Callable[[], onnx.ModelProto], Callable[[onnx.ModelProto], Arrays], float]] = {
    "encoder in the box": (lambda: bundled("encoder"), lambda model: random_feeds(model, B=1), 2e-2),
    "region decoder": (lambda: bundled("decoder"), lambda _: prompts(), 2e-2),
    "TinyViT": (tiny_vit, lambda model: random_feeds(model, B=2), 2e-2),
    "SAM decoder": (sam_decoder, lambda _: prompts(), 1e-2),
}


@pytest.mark.parametrize("part", PARTS)
def test_every_part_becomes_half_and_still_computes_the_same(part: str) -> None:
    make, feed, tolerance = PARTS[part]
    model = make()
    before = model.SerializeToString()
    feeds = feed(model)
    half = convert_to_fp16(model)
    onnx.checker.check_model(half, full_check=True)
    assert model.SerializeToString() == before  # a copy was converted
    assert half.ByteSize() < 0.52 * model.ByteSize()
    assert metadata(half)["nanosam.precision"] == "fp16"
    types = elem_types(half)
    assert {types[value.name] for value in (*half.graph.input, *half.graph.output)} == {FLOAT}
    heavy = [entry for entry in half.graph.node if entry.op_type in ("Conv", "ConvTranspose", "LayerNormalization")]
    assert heavy
    assert {types[entry.output[0]] for entry in heavy} == {FLOAT16}
    expected, found = run_model(model, feeds), run_model(half, feeds)
    emulated = run_model(emulate_half(model, FP16).model, feeds)
    for name, values in expected.items():
        largest = np.abs(values).max()
        assert 0 < np.abs(emulated[name] - values).max() < tolerance * largest  # it does round
        assert np.abs(found[name] - values).max() < tolerance * largest
    wide = emulated[RANGES]
    assert wide.max() < FP16.largest


@pytest.mark.parametrize("part", PARTS)
def test_every_part_becomes_bfloat16(part: str) -> None:
    """ONNX Runtime's CPU has no bfloat16, so the file is checked and its numbers are the emulation's."""
    make, feed, _ = PARTS[part]
    model = make()
    half = convert_to_bf16(model)
    onnx.checker.check_model(half, full_check=True)
    assert half.opset_import[0].version == 22
    assert metadata(half)["nanosam.precision"] == "bf16"
    types = elem_types(half)
    assert {types[entry.output[0]] for entry in half.graph.node if entry.op_type == "Conv"} == {TensorProto.BFLOAT16}
    emulated, expected = run_model(emulate_half(model, BF16).model, feed(model)), run_model(model, feed(model))
    for name, values in expected.items():
        off = np.abs(emulated[name] - values)
        assert off.max() > 0
        assert np.quantile(off, 0.999) < 0.15 * np.abs(values).max()  # of noise, a few undecided pixels change sides


def test_coordinates_stay_exact() -> None:
    """At 1,000 pixels half has steps of 0.5: a box would move. Sines of phases need float32, too."""
    decoder = sam_decoder()
    graph = half_graph(decoder, FP16)
    plan = plan_half(graph, FP16)
    kept = Counter(entry.op_type for entry in graph.nodes if plan.kept.get(entry.name) == "works on prompt coordinates")
    assert kept == Counter(Add=1, Div=1, Mul=2, Sub=1, MatMul=1, Sin=1, Cos=1)
    feeds = prompts()
    moved = {**feeds, "point_coords": feeds["point_coords"] + np.float32(0.125)}
    half = convert_to_fp16(decoder)
    assert (run_model(half, feeds)["low_res_masks"] != run_model(half, moved)["low_res_masks"]).any()


# what each rule does to a small graph: nodes, constants -> the nodes that stay in float32 and why (a part of it)
RULES: dict[str, tuple[list[onnx.NodeProto], dict[str, Any], dict[str, str]]] = {
    "plain": ([node("Relu", ["x"], ["a"]), node("Exp", ["a"], ["y"])], {}, {}),
    "constant too large": (
        [node("Mul", ["x", "c"], ["a"], "mul"), node("Relu", ["a"], ["y"], "relu")],
        {"c": np.float32(1e6)},
        {"mul": "constant c has no fp16"},
    ),
    "guard that would vanish": (
        [node("Add", ["x", "c"], ["a"], "add"), node("Relu", ["a"], ["y"], "relu")],
        {"c": np.float32(1e-12)},
        {"add": "constant c has no fp16"},
    ),
    "limit that would vanish": (
        [node("Clip", ["x", "c"], ["a"], "max"), node("Relu", ["a"], ["y"], "relu")],
        {"c": np.float32(1e-12)},
        {"max": "constant c has no fp16"},
    ),
    "limit too large is as good as none": (
        [node("Clip", ["x", "", "c"], ["a"], "clip"), node("Relu", ["a"], ["y"], "relu")],
        {"c": np.float32(3e38)},
        {},
    ),
    "infinity is a number of half": (
        [node("Neg", ["x"], ["a"]), node("Where", ["m", "a", "c"], ["y"])],
        {"c": np.float32(-np.inf)},
        {},
    ),
    "an operator without half": (
        [node("Relu", ["x"], ["a"], "relu"), node("BitShiftless", ["a"], ["b"], "odd", domain="odd")],
        {},
        {"odd": "takes no fp16"},
    ),
    "moves follow what they move": (
        [
            node("Relu", ["x"], ["a"], "relu"),
            node("Transpose", ["a"], ["b"], "half move"),
            node("Transpose", ["x"], ["c"], "float move"),
            node("Add", ["b", "c"], ["y"], "add"),
        ],
        {},
        {"float move": "moves float32 values"},
    ),
}


@pytest.mark.parametrize("rule", RULES)
def test_rules(rule: str) -> None:
    nodes, constants, expected = RULES[rule]
    if any("m" in entry.input for entry in nodes):
        nodes = [node("Greater", ["x", "zero"], ["m"]), *nodes]
        constants = {**constants, "zero": np.float32(0)}
    if any(entry.domain for entry in nodes):
        model = make_model([node("Relu", ["x"], ["y"])], {"x": (2, 2)}, {"y": (2, 2)})
        model.opset_import.append(helper.make_opsetid("odd", 1))
        model.graph.node.extend(nodes)
        plan = plan_half(half_graph(model, FP16), FP16)
    else:
        model = make_model(nodes, {"x": (2, 2)}, {"y": (2, 2)}, constants)
        plan = plan_half(half_graph(model, FP16), FP16)
        half = convert_to_fp16(model)
        feeds = {"x": np.array([[0.5, 2.0], [-1.0, 0.0]], np.float32)}
        assert np.allclose(run_model(half, feeds)["y"], run_model(model, feeds)["y"], rtol=2e-3, equal_nan=True)
    assert plan.kept.keys() == expected.keys()
    assert all(words in plan.kept[name] for name, words in expected.items())


def test_shape_arithmetic_stays() -> None:
    """The side of an upscaled picture, computed from its shape: above 2,048 half has no odd numbers."""
    nodes = [
        node("Relu", ["x"], ["a"]),
        node("Shape", ["a"], ["shape"]),
        node("Cast", ["shape"], ["sides"], to=FLOAT),
        node("Mul", ["sides", "scales"], ["scaled"]),
        node("Floor", ["scaled"], ["floored"]),
        node("Cast", ["floored"], ["sizes"], to=TensorProto.INT64),
        node("Resize", ["a", "", "", "sizes"], ["y"], mode="nearest"),
    ]
    model = make_model(
        nodes, {"x": (1, 1, 1, "W")}, {"y": (1, 1, 1, "Z")}, {"scales": np.array([1, 1, 1, 3], np.float32)}
    )
    half = convert_to_fp16(model)
    types = elem_types(half)
    assert [types[name] for name in ("sides", "scaled", "floored")] == [FLOAT] * 3
    assert run_model(half, random_feeds(half, W=1367))["y"].shape[3] == 4101


def test_weights_are_converted_once_and_casts_stand_at_borders_only() -> None:
    nodes = [
        node("MatMul", ["x", "w"], ["a"], "first"),
        node("MatMul", ["a", "w"], ["b"], "second"),
        node("Softmax", ["b"], ["c"], "softmax"),
        node("MatMul", ["c", "w"], ["d"], "third"),
        node("Add", ["d", "a"], ["y"], "sum"),
    ]
    model = make_model(nodes, {"x": (4, 4)}, {"y": (4, 4), "a": (4, 4)}, {"w": np.eye(4, dtype=np.float32)})
    half = convert_to_fp16(model, keep=["softmax"])
    assert [tensor.data_type for tensor in half.graph.initializer] == [FLOAT16]
    # in: x; around the softmax: 2; out: a and y
    assert sum(entry.op_type == "Cast" for entry in half.graph.node) == 5
    assert metadata(half)["nanosam.fp32_nodes"] == "softmax"
    feeds = random_feeds(model)
    for name, values in run_model(model, feeds).items():
        assert np.allclose(run_model(half, feeds)[name], values, atol=5e-3)
    weights = {tensor.name: tensor.data_type for tensor in convert_to_fp16(model, keep=["third"]).graph.initializer}
    assert sorted(weights.values()) == [FLOAT, FLOAT16]  # one copy each for those that need it


def test_weights_behind_identity_and_in_constant_nodes() -> None:
    nodes = [
        node("Constant", [], ["k"], value_float=2.0),
        node("Identity", ["w"], ["v"]),
        node("MatMul", ["x", "v"], ["a"]),
        node("Mul", ["a", "k"], ["y"]),
    ]
    half = convert_to_fp16(make_model(nodes, {"x": (4, 4)}, {"y": (4, 4)}, {"w": np.eye(4, dtype=np.float32)}))
    assert {tensor.data_type for tensor in half.graph.initializer} == {FLOAT16}
    assert Counter(entry.op_type for entry in half.graph.node) == Counter(Cast=2, MatMul=1, Mul=1)


def test_branches_stay() -> None:
    """What a branch reads from outside keeps its name and its precision."""

    def branch(kind: str) -> onnx.GraphProto:
        out = helper.make_tensor_value_info(f"{kind}_out", FLOAT, (2, 2))
        return helper.make_graph([node(kind, ["a"], [f"{kind}_out"])], kind, [], [out])

    nodes = [
        node("Relu", ["x"], ["a"], "relu"),
        node("ReduceSum", ["x"], ["sum"], "reduce", keepdims=0),
        node("Greater", ["sum", "zero"], ["positive"]),
        node("If", ["positive"], ["b"], "if", then_branch=branch("Exp"), else_branch=branch("Neg")),
        node("Mul", ["b", "a"], ["y"], "mul"),
    ]
    model = make_model(nodes, {"x": (2, 2)}, {"y": (2, 2)}, {"zero": np.float32(0)})
    plan = plan_half(half_graph(model, FP16), FP16)
    assert plan.kept.keys() == {"relu", "if"}
    half = convert_to_fp16(model)
    for sign in (1, -1):
        feeds = {"x": np.full((2, 2), sign, np.float32)}
        assert np.allclose(run_model(half, feeds)["y"], run_model(model, feeds)["y"], rtol=1e-3)


def test_nodes_without_names_get_them() -> None:
    nodes = [node("Relu", ["x"], ["a"]), node("Neg", ["a"], ["b"], "same"), node("Abs", ["b"], ["y"], "same")]
    graph = half_graph(make_model(nodes, {"x": (2,)}, {"y": (2,)}), FP16)
    assert [entry.name for entry in graph.nodes] == ["a", "same", "same_1"]


def test_keeping_a_node_that_is_not_there() -> None:
    model = make_model([node("Relu", ["x"], ["y"], "relu_7")], {"x": (2,)}, {"y": (2,)})
    with pytest.raises(ModelError, match="no node called 'relu_6'") as caught:
        convert_to_fp16(model, keep=["relu_6"])
    assert caught.value.hint == "nearest: relu_7"


def test_what_is_no_graph() -> None:
    model = make_model([node("Relu", ["x"], ["y"])], {"x": (2,)}, {"y": (2,)})
    model.graph.node[0].input[0] = "nothing"
    with pytest.raises(ModelError, match="not a valid ONNX graph"):
        convert_to_fp16(model)


def hand_written_norm() -> onnx.ModelProto:
    """A LayerNorm as SAM's `LayerNorm2d` was written: the variance by hand, over 16 channels."""
    nodes = [
        node("ReduceMean", ["x"], ["mean"], axes=[1]),
        node("Sub", ["x", "mean"], ["centred"]),
        node("Mul", ["centred", "centred"], ["square"], "square"),
        node("ReduceMean", ["square"], ["variance"], "variance", axes=[1]),
        node("Add", ["variance", "eps"], ["guarded"]),
        node("Sqrt", ["guarded"], ["deviation"]),
        node("Div", ["centred", "deviation"], ["y"]),
    ]
    return make_model(nodes, {"x": (1, 16)}, {"y": (1, 16)}, {"eps": np.float32(1e-6)})


def test_the_emulation_shows_the_overflow_that_onnx_runtime_hides() -> None:
    model = hand_written_norm()
    feeds = {"x": random_feeds(model)["x"] * 1000}
    expected = run_model(model, feeds)["y"]
    assert np.abs(run_model(convert_to_fp16(model), feeds)["y"] - expected).max() < 0.1  # as if nothing were wrong
    emulation = emulate_half(model, FP16)
    found = run_model(emulation.model, feeds)
    assert np.abs(found["y"] - expected).max() > 0.5
    ranges = dict(zip((check.place for check in emulation.checks), found[RANGES], strict=True))
    assert {name for name, largest in ranges.items() if not largest <= FP16.largest} >= {"square", "variance"}
    rescued = run_model(emulate_half(model, FP16, keep=["square", "variance", "guarded"]).model, feeds)
    assert np.abs(rescued["y"] - expected).max() > 0.5  # Sqrt still takes an infinity: its input is cast
    names = ["square", "variance", "guarded", "deviation"]
    rescued = run_model(emulate_half(model, FP16, keep=names).model, feeds)
    assert np.abs(rescued["y"] - expected).max() < 0.01
    assert rescued[RANGES].max() < FP16.largest


def test_the_emulation_in_bfloat16() -> None:
    model = hand_written_norm()
    feeds = {"x": random_feeds(model)["x"] * 1000}
    assert np.abs(run_model(emulate_half(model, BF16).model, feeds)["y"] - run_model(model, feeds)["y"]).max() < 0.05


MEASURE = """
import resource, sys
from pathlib import Path
import numpy as np
from nanosam_cli.core.inference.backends.onnxruntime import open_file
session = open_file(Path(sys.argv[1]), "cpu", 1)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
session.run({"x": np.ones((1, 16, 256, 256), np.float32)})
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="measures a process as Linux does, in KiB")
def test_a_range_check_does_not_keep_what_it_looks_at(tmp_path: Path) -> None:
    """MobileSAM's encoder took 19 GB: ONNX Runtime put the checks off to the end, and kept every value until then."""
    layers, megabytes = 60, 4  # a value's
    names = [f"v{layer}" for layer in range(layers)]
    nodes = [node("Sin", [name], [after], f"sin{after}") for name, after in zip(["x", *names], [*names, "y"])]
    shape = (1, 16, 256, 256)
    emulation = emulate_half(make_model(nodes, {"x": shape}, {"y": shape}), FP16)
    assert len(emulation.checks) > layers
    onnx.save(emulation.model, tmp_path / "emulated.onnx")
    command = [sys.executable, "-c", MEASURE, str(tmp_path / "emulated.onnx")]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert float(done.stdout) < 0.25 * layers * megabytes


@pytest.mark.parametrize(
    ("half", "value", "expected"),
    [
        (FP16, 1 / 3, 0.333251953125),
        (FP16, 1e6, 65504.0),
        (FP16, -1e6, -65504.0),
        (FP16, np.inf, np.inf),
        (FP16, 2.0**-25, 0.0),  # half of the smallest: to even
        (FP16, 6e-8, 2.0**-24),
        (BF16, 1 / 3, 0.333984375),
        (BF16, 1 + 2.0**-8, 1.0),  # in the middle: to even
        (BF16, 1 + 3 * 2.0**-8, 1 + 2.0**-6),
        (BF16, 3.4e38, 3.3895313892515355e38),
        (BF16, -np.inf, -np.inf),
        (BF16, np.nan, np.nan),
        (BF16, 1e-12, 1.0018652574217413e-12),
    ],
)
def test_rounding(half: Half, value: float, expected: float) -> None:
    values = np.array([value], np.float32)
    assert np.array_equal(in_half(values, half), np.array([expected], np.float32), equal_nan=True)
    tensor = half_tensor(values, half)
    assert tensor.data_type == half.elem_type
    cast = make_model([node("Cast", ["c"], ["y"], to=FLOAT)], {}, {"y": (1,)}, {"c": values})
    tensor.name = "c"
    cast.graph.initializer[0].CopyFrom(tensor)
    assert np.array_equal(run_model(cast, {})["y"], np.array([expected], np.float32), equal_nan=True)


def test_weights_stored_in_half_are_widened_before_they_are_used() -> None:
    """By runtimes when they load the file, by this project when it reads the graph."""
    random = np.random.default_rng(0)
    constants = {
        "w": random.standard_normal((4, 3, 3, 3), np.float32),
        "m": random.standard_normal((6, 5), np.float32),
        "huge": np.full((4, 4, 1, 1), 1e6, np.float32),  # float16 ends at 65,504
        "b": random.standard_normal(4, np.float32),
    }
    nodes = [
        node("Conv", ["image", "w", "b"], ["a"], "first"),
        node("Conv", ["a", "huge"], ["c"], "second"),
        node("MatMul", ["c", "m"], ["out"], "third"),
    ]
    model = make_model(nodes, {"image": (1, 3, 8, 8)}, {"out": (1, 4, 6, 5)}, constants)
    stored = stored_in_half(model)
    kinds = {tensor.name: tensor.data_type for tensor in stored.graph.initializer}
    assert Counter(kinds.values()) == {FLOAT16: 2, FLOAT: 2}
    assert kinds["huge"] == kinds["b"] == FLOAT
    graph = read_graph(stored)
    assert [node.op_type for node in graph.nodes] == ["Conv", "Conv", "MatMul"]
    assert {tensor.data_type for tensor in widened(stored).graph.initializer} == {FLOAT}
    assert "nanosam.weights" not in metadata(widened(stored))
    assert widened(model) is model
    np.testing.assert_array_equal(array_of(graph.constants["w"]), constants["w"].astype(np.float16))
    feeds = random_feeds(model)
    found, expected, read = (run_model(each, feeds)["out"] for each in (stored, model, graph.model))
    np.testing.assert_allclose(found, expected, rtol=0.01, atol=1e-2 * np.abs(expected).max())
    np.testing.assert_array_equal(found, read)
    assert metadata(stored)["nanosam.weights"] == "fp16"
    np.testing.assert_array_equal(run_model(stored_in_half(stored), feeds)["out"], found)  # once is enough

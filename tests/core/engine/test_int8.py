from __future__ import annotations

from collections import Counter
from itertools import pairwise

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper

from nanosam_cli.core.engine import int8
from nanosam_cli.core.engine.int8 import CPU, TENSORRT, Int8Ladder, Scheme, quantized, without
from nanosam_cli.core.graphs.rewrites import SPLIT
from nanosam_cli.core.precision.agreement import Thresholds
from nanosam_cli.core.precision.ladder_step import Candidate, Prove
from nanosam_cli.core.precision.proof import Proof
from tests.core.graphs.test_rewrites import unshuffle
from tests.onnx_graphs import make_model, metadata, run_model

RANDOM = np.random.default_rng(0)
PHOTOS = [RANDOM.standard_normal((1, 3, 16, 16), np.float32) for _ in range(2)]
node = helper.make_node


def weights(*shape: int) -> NDArray[np.float32]:
    return RANDOM.standard_normal(shape, np.float32) / np.float32(np.sqrt(np.prod(shape[1:])))


def small_encoder(outlier: float = 1) -> onnx.ModelProto:
    """Two layers, a residual, and the photo's own colours beside them, as in the neck of this project's encoders.

    `outlier` is how much larger one channel in the middle is, which takes the steps away from the others.
    """
    nodes = [
        node("Conv", ["image", "w1", "b1"], ["a"], "stem", strides=[2, 2], pads=[1, 1, 1, 1]),
        node("Relu", ["a"], ["stem_out"], "stem_relu"),
        node("Conv", ["stem_out", "w2"], ["b"], "body", pads=[1, 1, 1, 1]),
        node("Relu", ["b"], ["body_out"], "body_relu"),
        node("Add", ["stem_out", "body_out"], ["sum"], "residual"),
        *unshuffle("image", "colours", 3, 16, 2),
        node("Concat", ["sum", "colours"], ["all"], "concat", axis=1),
        node("Conv", ["all", "w3"], ["image_embeddings"], "project"),
    ]
    constants = {"w1": weights(8, 3, 3, 3), "b1": weights(8, 1)[:, 0], "w2": weights(8, 8, 3, 3)}
    constants["w2"][0] *= outlier
    constants["w3"] = weights(4, 20, 1, 1)
    constants["w3"][:, 0] /= outlier
    return make_model(nodes, {"image": ("B", 3, 16, 16)}, {"image_embeddings": ("B", 4, 8, 8)}, constants)


def prove_at(model: onnx.ModelProto, least: float, *, fuse_int8: bool = True) -> Prove:
    """Passes where an output's correlation with the original's is `least` or more."""
    expected = [run_model(model, {"image": photo})["image_embeddings"] for photo in PHOTOS]

    def prove(candidate: Candidate) -> Proof:
        found = [
            run_model(candidate.model, {"image": photo}, fuse_int8=fuse_int8)["image_embeddings"] for photo in PHOTOS
        ]
        worst = min(np.corrcoef(one.ravel(), other.ravel())[0, 1] for one, other in zip(expected, found))
        return Proof("run", 2, 2, (), Thresholds(least, least), float(worst), float(worst), "x")

    return prove


@pytest.mark.parametrize(
    ("scheme", "kinds"),
    [(CPU, {TensorProto.UINT8, TensorProto.INT8, TensorProto.INT32}), (TENSORRT, {TensorProto.INT8})],
    ids=["ONNX Runtime", "TensorRT"],
)
def test_all_in_int8(scheme: Scheme, kinds: set[int], capfd: pytest.CaptureFixture[str]) -> None:
    model = small_encoder()
    prove = prove_at(model, 0.995, fuse_int8=scheme is CPU)  # TensorRT is emulated
    step = next(iter(Int8Ladder(model, PHOTOS, scheme, prove, prove).steps()))
    assert step.proof.passed
    assert (step.name, step.precision, step.keep) == ("all in int8, calibrated by MinMax", "int8", ())
    made = step.make()
    assert metadata(made)["nanosam.precision"] == "int8"
    weights_of = {tensor.name: tensor for tensor in made.graph.initializer}
    # weights have a scale for each channel; what Q/DQ is explicit about is all that runtimes need
    dequantized = [entry for entry in made.graph.node if entry.op_type == "DequantizeLinear"]
    assert {weights_of[entry.input[0]].dims[0] for entry in dequantized if entry.input[0] in weights_of} >= {8, 4}
    zeros = {weights_of[entry.input[2]].data_type for entry in dequantized}
    assert zeros <= kinds
    if scheme.symmetric:
        assert all(not any(weights_of[entry.input[2]].raw_data) for entry in dequantized)
    assert capfd.readouterr().out == ""  # the calibrator prints


def test_the_photos_own_colours_stay_in_float32() -> None:
    model = small_encoder()
    step = next(iter(Int8Ladder(model, PHOTOS, CPU, prove_at(model, 0.9), prove_at(model, 0.9)).steps()))
    made = step.make()
    makers = {name: entry for entry in made.graph.node for name in entry.output}
    [colours] = [entry for entry in made.graph.node if entry.name.endswith(SPLIT)]
    assert all(makers.get(name) is None or makers[name].op_type != "DequantizeLinear" for name in colours.input)
    assert 0.5 < step.cheap_work < 1


@pytest.mark.parametrize(
    ("outlier", "share", "remedy"),
    [(1, 0.4, "first layers (1) in fp32"), (300, 0.9, "what bisection found in fp32")],
    ids=["at the beginning", "in the middle"],
)
def test_what_is_sensitive_stays_in_float32(outlier: float, share: float, remedy: str) -> None:
    """The strictest proof that int8 as a whole does not pass, and a part of it does."""
    model = small_encoder(outlier)
    steps = []
    whole = Int8Ladder(model, PHOTOS, CPU, prove_at(model, 2), prove_at(model, 2)).steps()
    best = max(step.proof.mean_iou or 0 for step in (next(whole), next(whole)))
    strict = prove_at(model, best + share * (1 - best))
    for step in Int8Ladder(model, PHOTOS, CPU, strict, strict).steps():
        steps.append(step)
        if step.proof.passed:
            break
    assert [step.name for step in steps] == [
        "all in int8, calibrated by MinMax",
        "all in int8, calibrated by Percentile",
        remedy,
    ]
    last = steps[-1]
    assert last.precision == "int8"
    assert last.keep
    assert "QuantizeLinear" in {entry.op_type for entry in last.make().graph.node}
    assert last.cheap_work < steps[0].cheap_work


def test_the_fewest_first_layers_are_found_where_more_may_be_worse() -> None:
    """Three in float32 are enough and four are not, then it is enough from six on, up to half of twenty."""
    names = ["image", *(f"layer{row}" for row in range(19)), "image_embeddings"]
    chain = [node("Conv", [start, f"w{row}"], [end], end) for row, (start, end) in enumerate(pairwise(names))]
    constants = {f"w{row}": weights(3, 3, 1, 1) for row in range(20)}
    model = make_model(chain, {"image": ("B", 3, 16, 16)}, {"image_embeddings": ("B", 3, 16, 16)}, constants)

    def prove(candidate: Candidate) -> Proof:
        nodes = candidate.model.graph.node
        rounded = {entry.output[0] for entry in nodes if entry.op_type == "DequantizeLinear"}
        kept = sum(entry.op_type == "Conv" and entry.input[0] not in rounded for entry in nodes)
        good = float(kept in {3, *range(6, 21)})
        return Proof("run", 2, 2, (), Thresholds(1, 1), good, good, "x")

    step = next(step for step in Int8Ladder(model, PHOTOS, CPU, prove, prove).steps() if step.proof.passed)
    assert step.name == "first layers (3) in fp32"
    assert step.keep == ("layer0", "layer1", "layer2")


def test_a_calibration_that_would_fill_the_memory_is_left_out_and_that_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """Percentile keeps all numbers of a photo: 7 GB and more of MobileSAM's encoder."""
    model = small_encoder()
    steps = {}
    for room in (100_000, 10_000):  # bytes; the photo has 3,072, each value behind it 1,024 to 5,120
        monkeypatch.setattr(int8, "MOST_KEPT", room)
        ladder = Int8Ladder(model, PHOTOS, CPU, prove_at(model, 2), prove_at(model, 2))
        steps[room] = [step.name for step in ladder.steps()]
    enough, short = steps.values()
    assert enough == ["all in int8, calibrated by MinMax", "all in int8, calibrated by Percentile", "all in fp32"]
    assert short == ["all in int8, calibrated by MinMax (Percentile would keep 0.0 GB and is left out)", "all in fp32"]


def test_the_original_comes_last() -> None:
    model = small_encoder()
    steps = list(Int8Ladder(model, PHOTOS, CPU, prove_at(model, 2), prove_at(model, 2)).steps())
    assert [step.precision for step in steps] == ["int8", "int8", "fp32"]
    assert run_model(steps[-1].make(), {"image": PHOTOS[0]})["image_embeddings"].tolist() == (
        run_model(model, {"image": PHOTOS[0]})["image_embeddings"].tolist()
    )


def test_taking_every_node_back_gives_the_original() -> None:
    """Otherwise bisection would blame the wrong ones."""
    ladder = Int8Ladder(small_encoder(), PHOTOS, CPU, prove_at(small_encoder(), 2), prove_at(small_encoder(), 2))
    prepared = ladder.prepared
    able = [entry.name for entry in prepared.graph.node]
    whole = quantized(prepared, PHOTOS, "MinMax", CPU, [])
    counts = [
        Counter(entry.op_type for entry in without(whole, prepared, able, keep).graph.node)["QuantizeLinear"]
        for keep in ([], able[:2], able)
    ]
    assert counts[0] > counts[1] > counts[2] == 0
    back = without(whole, prepared, able, able)
    onnx.checker.check_model(back, full_check=True)
    for photo in PHOTOS:
        one, other = (run_model(entry, {"image": photo})["image_embeddings"] for entry in (back, prepared))
        np.testing.assert_allclose(one, other, atol=1e-6)

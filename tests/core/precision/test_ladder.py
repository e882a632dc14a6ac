"""The reason for the ladder: an encoder like MobileSAM's whose numbers leave half's range."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch", reason="the network is made with torch, of the extra `train`")

import numpy as np
import onnx
import torch

from nanosam_cli.core.graphs.half_convert import convert_to_half
from nanosam_cli.core.graphs.half_plan import BF16, FP16
from nanosam_cli.core.inference.backends.onnxruntime import open_file
from nanosam_cli.core.modeling.tiny_vit import TinyViTEncoder
from nanosam_cli.core.precision.agreement import Thresholds
from nanosam_cli.core.precision.comparison import compare_outputs, run
from nanosam_cli.core.precision.ladder import Ladder
from nanosam_cli.core.precision.ladder_step import Candidate, Prove, Step
from nanosam_cli.core.precision.proof import Proof
from nanosam_cli.core.precision.ranges import Overflow, RangeWatch
from tests.onnx_graphs import make_model, random_feeds, run_model
from tests.tiny_vit_model import small_tiny_vit, tiny_vit_onnx


def healthy(_: TinyViTEncoder) -> None: ...


def loud_attention(encoder: TinyViTEncoder) -> None:
    """Scores beyond 65,504, as after a training that nobody watched in half."""
    encoder.layers[2].blocks[0].attn.qkv.weight.mul_(3000)  # type: ignore[index, union-attr, operator]


def loud_residuals(encoder: TinyViTEncoder) -> None:
    """Sums between the blocks beyond 65,504: no norm and no attention is at fault."""
    encoder.layers[1].blocks[0].local_conv.bn.weight.mul_(3e6)  # type: ignore[index, union-attr, operator]


def loud_neck(encoder: TinyViTEncoder) -> None:
    """Activations before the neck's first norm whose squares pass 65,504, as in the published MobileSAM."""
    encoder.neck[0].weight.mul_(800)  # type: ignore[union-attr, operator]


def original_norm(encoder: TinyViTEncoder) -> None:
    """The same, with the norm written out as in SAM's own code, which squares them."""
    loud_neck(encoder)
    norm: Any = encoder.neck[1]

    def forward(grid: torch.Tensor) -> torch.Tensor:
        centred = grid - grid.mean(1, keepdim=True)
        grid = centred / torch.sqrt(centred.pow(2).mean(1, keepdim=True) + norm.eps)
        return norm.weight[:, None, None] * grid + norm.bias[:, None, None]  # type: ignore[no-any-return]

    norm.forward = forward


def made(change: Callable[[TinyViTEncoder], None]) -> onnx.ModelProto:
    encoder = small_tiny_vit()
    with torch.no_grad():
        change(encoder)
    return tiny_vit_onnx(encoder)


def prove_on_noise(model: onnx.ModelProto, folder: Path) -> Prove:
    """Outputs against the original's, without masks."""
    feeds = [random_feeds(model, B=1)]
    path = folder / "candidate.onnx"
    onnx.save(model, path)
    with closing(open_file(path, "cpu", 1)) as session:
        expected = run(session, feeds, "expected")

    def prove(candidate: Candidate) -> Proof:
        onnx.save(candidate.model, path)
        with closing(open_file(path, "cpu", 1)) as session:
            watch = RangeWatch(session, candidate.emulation) if candidate.emulation else None
            found = run(watch or session, feeds, "found")
        beyond: tuple[Overflow, ...] = watch.overflows() if watch else ()
        return Proof("emulated", 1, 0, compare_outputs(expected, found), Thresholds(), overflows=beyond)

    return prove


def climb(model: onnx.ModelProto, folder: Path) -> list[Step]:
    """The steps up to the first that passes."""
    prove, steps = prove_on_noise(model, folder), []
    for step in Ladder(model, FP16, prove, prove).steps():
        steps.append(step)
        if step.proof.passed:
            break
    return steps


ALL, NORMS, BLOCKS = "all in fp16", "norms, softmax, powers and sums in fp32", "attention blocks in fp32"
FOUND = "what bisection found in fp32"


@pytest.mark.parametrize(
    ("change", "names"),
    [
        (healthy, [ALL]),
        (loud_neck, [ALL]),  # as this project exports it
        (original_norm, [ALL, NORMS]),
        (loud_attention, [ALL, NORMS, BLOCKS]),
        (loud_residuals, [ALL, NORMS, BLOCKS, FOUND]),
    ],
)
def test_the_ladder_rescues_what_overflows(
    change: Callable[[TinyViTEncoder], None], names: list[str], tmp_path: Path
) -> None:
    model = made(change)
    steps = climb(model, tmp_path)
    assert [step.name for step in steps] == names
    assert [step.proof.passed for step in steps] == [False] * (len(names) - 1) + [True]
    first, last = steps[0], steps[-1]
    assert first.proof.passed or first.proof.overflows
    assert last.proof.outputs[0].cosine > 0.999
    assert last.cheap_work > 0.9  # what is left in fp32 is small
    assert len(last.keep) < 60
    # what is built is what was proved: half the weights, valid, and as far from the original
    built = last.make()
    onnx.checker.check_model(built, full_check=True)
    assert built.ByteSize() < 0.6 * model.ByteSize()
    feeds = random_feeds(model, B=1)
    error = np.abs(run_model(built, feeds)["image_embeddings"] - run_model(model, feeds)["image_embeddings"]).max()
    assert error < 0.02


def test_a_step_says_what_it_was_and_what_it_costs(tmp_path: Path) -> None:
    model = made(loud_attention)
    naive, *_, last = (step.record() for step in climb(model, tmp_path))
    assert naive["passed"] is False
    assert "place(s) overflow, first /layers.2/blocks.0/attn/" in naive["faults"][1]
    assert (naive["precision"], naive["fp32_nodes"], naive["cheap_work"]) == ("fp16", [], 1.0)
    assert last["megabytes"] > naive["megabytes"]
    assert last["cheap_work"] < 1
    assert "/layers.2/blocks.0/attn/Softmax" in last["fp32_nodes"]


def test_the_first_place_that_overflows_is_where_the_fault_is(tmp_path: Path) -> None:
    """What follows is larger, or infinite, and none of its doing."""
    naive = climb(made(original_norm), tmp_path)[0].proof
    assert naive.overflows[0].place == "/neck/neck.1/Pow"
    assert 65504 < naive.overflows[0].largest < 1e7
    assert naive.overflows[-1].largest > naive.overflows[0].largest
    assert "overflow, first /neck/neck.1/Pow with " in naive.faults()[0]


def attention() -> onnx.ModelProto:
    """Norm, scores, softmax and a projection, which is all that the ladder tells apart."""
    node = onnx.helper.make_node
    nodes = [
        node("LayerNormalization", ["x", "one"], ["normed"], "norm"),
        node("MatMul", ["normed", "w"], ["query"], "query"),
        node("Transpose", ["query"], ["key"], "turn", perm=[1, 0]),
        node("MatMul", ["query", "key"], ["scores"], "scores"),
        node("Softmax", ["scores"], ["weights"], "softmax"),
        node("MatMul", ["weights", "x"], ["mixed"], "mix"),
        node("MatMul", ["mixed", "w"], ["y"], "project"),
        node("Relu", ["y"], ["image_embeddings"], "relu"),
    ]
    constants = {"one": np.ones(4, np.float32), "w": np.eye(4, dtype=np.float32)}
    return make_model(nodes, {"x": (4, 4)}, {"image_embeddings": (4, 4)}, constants)


def test_where_nothing_passes_bf16_and_the_original_come_last() -> None:
    """A proof that nobody passes shows every rung."""
    model = attention()

    def refuse(candidate: Candidate) -> Proof:
        return Proof("emulated", 1, 1, (), Thresholds(), 0.0, 0.0, "x")

    steps = list(Ladder(model, FP16, refuse, refuse).steps())
    assert [step.name for step in steps] == [ALL, NORMS, BLOCKS, "all in bf16", "all in fp32"]
    assert [step.precision for step in steps] == ["fp16", "fp16", "fp16", "bf16", "fp32"]
    assert steps[1].keep == ("norm", "softmax")
    assert steps[2].keep == ("norm", "query", "turn", "scores", "softmax", "mix", "project")
    assert steps[-1].keep == ()
    assert steps[-1].make() is model
    assert [step.precision for step in Ladder(model, BF16, refuse, refuse).steps()] == ["bf16"] * 3 + ["fp32"]


def test_bf16_has_the_range(tmp_path: Path) -> None:
    model = made(loud_residuals)
    prove = prove_on_noise(model, tmp_path)
    first = next(iter(Ladder(model, BF16, prove, prove).steps()))
    assert first.proof.passed
    assert first.make().SerializeToString() == convert_to_half(model, BF16).SerializeToString()

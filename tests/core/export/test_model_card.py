from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

import pytest

from nanosam_cli.core.export.model_card import CardFacts, card_text
from nanosam_cli.core.inference.session import TensorInfo

FACTS = CardFacts(
    title="mobile-sam: image encoder",
    kind="encoder",
    file="mine.onnx",
    sha256="ab" * 32,
    made_from="mobile_sam.pt",
    source_sha256="cd" * 32,
    licence="Apache-2.0",
    exporter="nanosam 0.1.0, torch 2.13.0, opset 17",
    precision="fp16",
    image_size=1024,
    inputs=[TensorInfo("image", (None, 3, 1024, 1024), "float32")],
    outputs=[TensorInfo("image_embeddings", (None, 256, 64, 64), "float32")],
    proof={"largest difference of `image_embeddings`": "1.0e-06"},
    remark="The figures are those of an emulation.",
)


def points(count: int | None) -> Sequence[TensorInfo]:
    return [TensorInfo("point_labels", (None, count), "float32")]


def test_everything_is_said() -> None:
    text = card_text(FACTS)
    for words in (
        "# mobile-sam: image encoder\n\n| what | |\n|---|---|\n| file | `mine.onnx`, sha256 `abab",
        "| made from | `mobile_sam.pt`, sha256 `cdcd",
        "| made by | nanosam 0.1.0, torch 2.13.0, opset 17 |",
        "| precision | fp16, float32 in and out |",
        "| licence of the weights | Apache-2.0 |",
        "| inputs | `image (any, 3, 1024, 1024) float32` |",
        "an emulation.\n\n| compared | |\n|---|---|\n| largest difference of `image_embeddings` | 1.0e-06 |",
        "(123.675, 116.28, 103.53)",
        "--encoder mine.onnx --decoder decoder.onnx\n```\n",
    ):
        assert words in text
    prose = [line for line in text.splitlines() if not line.startswith(("|", "$"))]
    assert max(map(len, prose)) <= 120


@pytest.mark.parametrize(
    ("kind", "count", "words"),
    [
        ("decoder", None, r"--encoder encoder\.onnx --decoder mine\.onnx"),
        ("model", None, r"\[\[\[10, 20\], \[300, 280\]\]\].*\[\[2, 3\]\].*InferenceSession\(\"mine\.onnx\"\)"),
        ("model", 4, r"\[300, 280\], \[0, 0\], \[0, 0\]\]\].*\[\[2, 3, -1, -1\]\]"),
    ],
)
def test_how_to_run_it(kind: str, count: int | None, words: str) -> None:
    text = card_text(replace(FACTS, kind=kind, inputs=points(count), remark=""))
    assert re.search(words, text, re.DOTALL)

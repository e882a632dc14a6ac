from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest

from nanosam_cli.core.precision.agreement import Thresholds
from nanosam_cli.core.precision.proof import OutputDifference, Proof
from nanosam_cli.core.precision.ranges import Overflow

GOOD = Proof(
    method="emulated",
    photos=2,
    prompts=20,
    outputs=(OutputDifference("image_embeddings", 0.1, 0.01, 0.999, 0),),
    thresholds=Thresholds(),
    mean_iou=0.99,
    worst_iou=0.95,
    worst_prompt="cat.jpg, box 3",
)


@pytest.mark.parametrize(
    ("change", "faults"),
    [
        ({}, []),
        ({"mean_iou": 0.97}, ["mean mask IoU 0.9700 is below 0.98"]),
        ({"worst_iou": 0.5}, ["worst mask IoU 0.5000 (cat.jpg, box 3) is below 0.9"]),
        ({"mean_iou": math.nan}, ["mean mask IoU nan is below 0.98"]),
        ({"thresholds": Thresholds(mean_iou=0.995)}, ["mean mask IoU 0.9900 is below 0.995"]),
        (
            {"overflows": (Overflow("/mlp/Mul", 1e5), Overflow("/mlp/Add", 7e4))},
            ["2 place(s) overflow, first /mlp/Mul with 1e+05"],
        ),
        (
            {"outputs": (OutputDifference("image_embeddings", math.nan, math.nan, math.nan, 7),)},
            ["image_embeddings has 7 numbers that are not finite"],
        ),
        # a low cosine counts only where no masks could be made
        ({"outputs": (OutputDifference("image_embeddings", 1, 1, 0.5, 0),)}, []),
        (
            {"outputs": (OutputDifference("image_embeddings", 1, 1, 0.5, 0),), "mean_iou": None, "worst_iou": None},
            ["image_embeddings has cosine 0.5000, below 0.99"],
        ),
        ({"mean_iou": None, "worst_iou": None}, []),
    ],
)
def test_faults(change: dict[str, object], faults: list[str]) -> None:
    proof = replace(GOOD, **change)  # type: ignore[arg-type]
    assert proof.faults() == faults
    assert proof.passed is (not faults)


def test_a_record_is_json_even_of_what_is_not_finite() -> None:
    proof = replace(
        GOOD, outputs=(OutputDifference("a", math.nan, math.inf, 0.5, 3),), overflows=(Overflow("b", math.inf),)
    )
    record = json.loads(json.dumps(proof.record(), allow_nan=False))
    assert record["outputs"][0] == {
        "output": "a",
        "max_error": None,
        "mean_error": None,
        "cosine": 0.5,
        "not_finite": 3,
    }
    assert record["overflows"] == [{"place": "b", "largest": None}]
    assert record["passed"] is False


def test_stricter() -> None:
    found = Thresholds(0.98, 0.9, 0.96).stricter()
    assert (found.mean_iou, found.worst_iou, found.cosine) == pytest.approx((0.985, 0.925, 0.97))

"""One step of a ladder: a version of a model, what it is worth, and what it costs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import onnx

from nanosam_cli.core.graphs.half_emulate import Emulation
from nanosam_cli.core.precision.proof import Proof


@dataclass(frozen=True, eq=False)
class Candidate:
    """A graph to be proved: the file's own, or the one that emulates it."""

    model: onnx.ModelProto
    emulation: Emulation | None = None


Prove = Callable[[Candidate], Proof]


@dataclass(frozen=True, eq=False)
class Step:
    """What was tried and found."""

    name: str
    precision: str  # fp16, bf16, int8 or fp32
    keep: tuple[str, ...]  # nodes in float32 that could have been in that precision
    proof: Proof
    megabytes: float  # of the weights
    cheap_work: float  # share of the multiplications that run in that precision
    seconds: float  # that the step took
    make: Callable[[], onnx.ModelProto]  # the graph that an engine is built from
    made_in: float = 0.0  # seconds, where the graph was made before the proof

    @property
    def is_last(self) -> bool:
        """Every ladder ends at the float32 original."""
        return self.precision == "fp32"

    def record(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "name": self.name,
            "precision": self.precision,
            "fp32_nodes": list(self.keep),
            "megabytes": round(self.megabytes, 3),
            "cheap_work": round(self.cheap_work, 4),
            "seconds": round(self.seconds, 2),
            "passed": self.proof.passed,
            "faults": self.proof.faults(),
        }

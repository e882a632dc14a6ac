"""What was found when a file in another precision ran beside the float32 original, and whether that is good enough."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from nanosam_cli.core.precision.agreement import Thresholds
from nanosam_cli.core.precision.ranges import Overflow

# run: the file itself ran; emulated: what it rounds was put into a graph that ran instead; none: no proof was wanted
Method = Literal["run", "emulated", "none"]


@dataclass(frozen=True)
class OutputDifference:
    """One output against the original's, over all runs."""

    output: str
    max_error: float  # largest absolute difference
    mean_error: float
    cosine: float  # the lowest of all runs
    not_finite: int  # NaN and infinities


@dataclass(frozen=True)
class Proof:
    """The findings. Without IoU there was only one file, so that no masks could be made."""

    method: Method
    photos: int
    prompts: int
    outputs: tuple[OutputDifference, ...]
    thresholds: Thresholds
    mean_iou: float | None = None
    worst_iou: float | None = None
    worst_prompt: str | None = None  # where that was
    overflows: tuple[Overflow, ...] = ()  # in the graph's order

    @property
    def passed(self) -> bool:
        return not self.faults()

    def faults(self) -> list[str]:
        """Every reason why it is not good enough."""
        limits, found = self.thresholds, []
        for error in self.outputs:
            if error.not_finite:
                found.append(f"{error.output} has {error.not_finite} numbers that are not finite")
        if self.overflows:
            first = self.overflows[0]
            found.append(f"{len(self.overflows)} place(s) overflow, first {first.place} with {first.largest:.3g}")
        if self.mean_iou is None or self.worst_iou is None:
            found += [
                f"{error.output} has cosine {error.cosine:.4f}, below {limits.cosine}"
                for error in self.outputs
                if not error.cosine >= limits.cosine  # also catches NaN
            ]
            return found
        if not self.mean_iou >= limits.mean_iou:
            found.append(f"mean mask IoU {self.mean_iou:.4f} is below {limits.mean_iou}")
        if not self.worst_iou >= limits.worst_iou:
            found.append(f"worst mask IoU {self.worst_iou:.4f} ({self.worst_prompt}) is below {limits.worst_iou}")
        return found

    def record(self) -> dict[str, Any]:
        """Plain values for JSON; a number that is not finite is None."""
        return {**_plain(asdict(self)), "passed": self.passed, "faults": self.faults()}


UNPROVED = Proof(method="none", photos=0, prompts=0, outputs=(), thresholds=Thresholds())


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_plain(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value

"""Whether numbers stay within half's range: the checks of an emulated graph, read while it runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from nanosam_cli.core.graphs.half_emulate import RANGES, Emulation
from nanosam_cli.core.inference.session import Session, Tensor, host


@dataclass(frozen=True)
class Overflow:
    """A place whose numbers are beyond half's range."""

    place: str  # a node, or a value that goes into half
    largest: float


class RangeWatch:
    """A session of an emulated graph that remembers the largest magnitude at each of its checks.

    Its outputs are those of the original graph. The session stays its owner's to close.
    """

    def __init__(self, session: Session, emulation: Emulation) -> None:
        self.path, self.metadata, self.backend = session.path, session.metadata, session.backend
        self.inputs, self.remarks = session.inputs, session.remarks
        self.outputs = tuple(info for info in session.outputs if info.name != RANGES)
        self._session, self._emulation = session, emulation
        self._largest = np.zeros(len(emulation.checks), np.float32)

    def run(self, feeds: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """All outputs but that of the checks."""
        outputs = self._session.run(feeds)
        if RANGES in outputs:  # else nothing rounds
            self._largest = np.maximum(self._largest, host(outputs.pop(RANGES)))
        return outputs

    def close(self) -> None:
        self._session.close()

    @property
    def largest(self) -> float:
        """The largest magnitude anywhere, in any run."""
        return float(self._largest.max(initial=0.0))

    def overflows(self) -> tuple[Overflow, ...]:
        """The places where half's range was left in any run, in the graph's order: what follows the first may be its
        doing. A place of NaN counts."""
        return tuple(
            Overflow(check.place, float(size))
            for check, size in zip(self._emulation.checks, self._largest, strict=True)
            if not size <= self._emulation.half.largest
        )

"""Times by stage: of the predictor's own stages, and of whatever a caller names."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from time import perf_counter
from typing import Literal


@dataclass
class Timings:
    """Milliseconds spent in each stage. Pass one to the predictor's methods and they add to it."""

    encode_ms: float = 0.0  # resize, normalise, image encoder
    decode_ms: float = 0.0  # prompt, mask decoder
    post_ms: float = 0.0  # choice among masks, masks at the photo's size

    @contextmanager
    def stage(self, name: Literal["encode", "decode", "post"]) -> Iterator[None]:
        start = perf_counter()
        yield
        setattr(self, f"{name}_ms", getattr(self, f"{name}_ms") + (perf_counter() - start) * 1000)


class Stopwatch:
    """Milliseconds by stage."""

    def __init__(self) -> None:
        self.ms: dict[str, float] = {}

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        start = perf_counter()
        yield
        self.ms[stage] = self.ms.get(stage, 0.0) + (perf_counter() - start) * 1000

    def __str__(self) -> str:
        return ", ".join(f"{stage} {ms:.0f} ms" for stage, ms in self.ms.items())

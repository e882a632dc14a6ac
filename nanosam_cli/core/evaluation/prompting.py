"""Prompts made from annotations: boxes, roughened on request, and clicks. Each object has random numbers of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nanosam_cli.core.datasets.annotated_mask import AnnotatedMask
from nanosam_cli.core.errors import UsageError
from nanosam_cli.core.masks import usable_boxes
from nanosam_cli.core.types import Prompt

MAX_NOISE = 0.5  # of a side: from there on a box could turn inside out
_EDGES, _CLICKS = 0, 1  # streams of random numbers: what one draws does not change the other


@dataclass(frozen=True)
class Prompting:
    """What each object is prompted with.

    `points` on the object: its centre first, then random ones. `noise` moves each edge of a box by up to that share of
    the box's side, inwards or outwards. Random numbers depend on `seed` and the object's id alone, so that it does not
    matter where a run was cut off, or which objects it looks at.
    """

    boxes: bool = True
    points: int = 0
    noise: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.boxes and not self.points:
            raise UsageError("no prompt: give boxes, points or both", "--prompt box")
        if not 0 <= self.noise < MAX_NOISE:
            raise UsageError(f"box noise must be from 0 to below {MAX_NOISE}, not {self.noise:g}", "--box-noise 0.1")
        if self.noise and not self.boxes:
            raise UsageError("box noise needs a box prompt", "--prompt box")

    def __str__(self) -> str:
        points = "point" if self.points == 1 else f"points:{self.points}"
        return "+".join(["box"] * self.boxes + [points] * bool(self.points))

    def __call__(self, original_hw: tuple[int, int], truths: Sequence[AnnotatedMask]) -> Prompt:
        """The prompts of one photo's objects. Boxes lie within the photo and are one pixel or more on each side."""
        boxes = points = labels = None
        if self.boxes:
            boxes = usable_boxes(np.array([self._box(truth) for truth in truths]), original_hw)
        if self.points:
            points = np.stack([truth.points(self.points, self._random(truth, _CLICKS)) for truth in truths])
            points = np.clip(points, 0, np.array(original_hw[::-1]) - 0.5, dtype=np.float32)
            labels = np.ones(points.shape[:2], np.float32)
        return Prompt(boxes, points, labels)

    def _box(self, truth: AnnotatedMask) -> NDArray[np.float64]:
        _, _, width, height = truth.target.bbox
        shift = self._random(truth, _EDGES).uniform(-self.noise, self.noise, 4)
        return np.array(truth.target.box) + shift * (width, height, width, height)

    def _random(self, truth: AnnotatedMask, stream: int) -> np.random.Generator:
        return np.random.default_rng([self.seed, stream, truth.target.id % 2**64])  # ids may be negative

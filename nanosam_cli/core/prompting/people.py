"""People as keypoints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

SHOULDERS, HIPS, EARS = (("left_" + name, "right_" + name) for name in ("shoulder", "hip", "ear"))


@dataclass(frozen=True)
class Keypoint:
    """A joint, or another place on a body."""

    x: float  # original pixels
    y: float
    confidence: float = 1.0  # from 0 to 1


@dataclass(frozen=True)
class Person:
    """One person's pose."""

    keypoints: Mapping[str, Keypoint]  # by name; see `parts.KEYPOINTS`
    score: float | None = None  # how sure the estimator was of the person

    def visible(self, original_hw: tuple[int, int], min_confidence: float) -> dict[str, Keypoint]:
        """The keypoints that lie in the photo and are sure enough, with the neck between the shoulders."""
        sure = {
            name: point
            for name, point in self.keypoints.items()
            if point.confidence >= min_confidence and _inside(point, original_hw)
        }
        if "neck" not in sure and all(name in sure for name in SHOULDERS):
            sure["neck"] = middle_of([sure[name] for name in SHOULDERS])
        return sure

    def beyond(self, original_hw: tuple[int, int]) -> dict[str, Keypoint]:
        """The keypoints outside the photo: the body goes on to its border there, and beyond."""
        return {
            name: point
            for name, point in self.keypoints.items()
            if point.confidence > 0 and not _inside(point, original_hw)
        }


def _inside(point: Keypoint, original_hw: tuple[int, int]) -> bool:
    return 0 <= point.x < original_hw[1] and 0 <= point.y < original_hw[0]


def middle_of(points: Sequence[Keypoint]) -> Keypoint:
    """The mean of their places, as sure as the least sure of them."""
    x, y = np.mean([(point.x, point.y) for point in points], axis=0)
    return Keypoint(float(x), float(y), min(point.confidence for point in points))

"""How well masks of two pipelines agree, and what they must reach."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from nanosam_cli.core.masks import Mask, mask_iou


@dataclass(frozen=True)
class Thresholds:
    """What a file must reach, in whatever precision it is."""

    mean_iou: float = 0.98  # of masks from both pipelines, over all prompts
    worst_iou: float = 0.90
    cosine: float = 0.99  # of an output's numbers, where there is no second file to make masks with

    def stricter(self) -> Thresholds:
        """A quarter of the way to perfect: what passes on a few photos should still pass on all."""
        return Thresholds(*(limit + (1 - limit) / 4 for limit in (self.mean_iou, self.worst_iou, self.cosine)))


@dataclass(frozen=True)
class MaskAgreement:
    """IoU between the masks of an original and of what stands in its place."""

    mean: float
    worst: float
    objects: int
    photos: int
    worst_prompt: int = field(default=0, compare=False)  # which of the prompts the worst was

    @classmethod
    def of(cls, found: Sequence[Mask], wanted: Sequence[Mask], photos: int) -> MaskAgreement:
        """Compare masks (H, W) prompt by prompt; there is one at least."""
        ious = [mask_iou(one, other) for one, other in zip(found, wanted, strict=True)]
        worst = int(np.argmin(ious))
        return cls(float(np.mean(ious)), ious[worst], len(ious), photos, worst)

    def reaches(self, limits: Thresholds) -> bool:
        """Whether it is good enough."""
        return self.mean >= limits.mean_iou and self.worst >= limits.worst_iou

    @property
    def title(self) -> str:
        """What was compared."""
        return f"mask IoU, {self.objects} box(es) on {self.photos} photo(s)"

    @property
    def figures(self) -> str:
        """The figures that came of it."""
        return f"mean {self.mean:.4f}, worst {self.worst:.4f}"

"""How published evaluations count: which objects, and which of the decoder's masks. They differ by one or two points.

NVIDIA NanoSAM: `nanosam/tools/eval_coco.py`. EdgeSAM: `evaluation/eval_mIoU.py` and `training/data/coco_dataset.py`.
EfficientViT-SAM: `applications/efficientvit_sam/eval_efficientvit_sam_model.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from nanosam_cli.core.datasets.coco import AnnotatedObject, AnnotatedPhoto
from nanosam_cli.core.inference.predictor import Select


@dataclass(frozen=True)
class EvaluationProtocol:
    """One way to count."""

    name: str
    description: str
    crowd: bool  # whether regions marked as crowds count as objects
    select: Select
    least_area: float = 0.0  # annotated area, square pixels

    def counts(self, target: AnnotatedObject) -> bool:
        """Whether an object is evaluated."""
        return (self.crowd or not target.iscrowd) and target.area >= self.least_area

    def __str__(self) -> str:
        return f"{self.name} ({self.description})"


PROTOCOLS: Mapping[str, EvaluationProtocol] = {
    protocol.name: protocol
    for protocol in (
        EvaluationProtocol("nanosam", "crowd kept, best of all masks", True, "argmax"),
        EvaluationProtocol("edgesam", "no crowd, single mask", False, "single"),
        EvaluationProtocol(
            "efficientvit", "crowd kept, area from 1, best of masks 1 to 3", True, "multimask", least_area=1
        ),
    )
}


def select_objects(
    photos: Sequence[AnnotatedPhoto], protocol: EvaluationProtocol, categories: Sequence[int] | None = None
) -> list[AnnotatedPhoto]:
    """The photos with the objects that count, of some categories where given; photos that have none are left out."""
    selected = [
        replace(
            photo,
            objects=tuple(
                target
                for target in photo.objects
                if protocol.counts(target) and (categories is None or target.category_id in categories)
            ),
        )
        for photo in photos
    ]
    return [photo for photo in selected if photo.objects]

"""Ground-truth prompts in, IoU of each object out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nanosam_cli.core.coco import AnnotatedObject, AnnotatedPhoto
from nanosam_cli.core.image import read_image
from nanosam_cli.core.predictor import Predictor, Select
from nanosam_cli.core.types import Prompt

# COCO's size classes by annotated area in square pixels, each [low, high): no object is in two of them
SIZES: Mapping[str, tuple[float, float]] = {
    "all": (0, float("inf")),
    "small": (0, 32**2),
    "medium": (32**2, 96**2),
    "large": (96**2, float("inf")),
}


@dataclass(frozen=True)
class ObjectResult:
    """One object's result. Names are those of NVIDIA NanoSAM's result files."""

    id: int
    area: float
    category_id: int
    iscrowd: int
    image_id: int
    box: tuple[float, float, float, float]  # x0 y0 x1 y1
    iou: float

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)


def box_prompt(objects: Sequence[AnnotatedObject]) -> Prompt:
    """Each object's annotated box."""
    return Prompt.from_boxes([target.box for target in objects])


def centre_prompt(objects: Sequence[AnnotatedObject]) -> Prompt:
    """One click an object, on the mask's pixel nearest to its centre of mass."""
    return Prompt(
        points=np.array([[_centre(target.mask())] for target in objects], np.float32),
        labels=np.ones((len(objects), 1), np.float32),
    )


def evaluate(
    predictor: Predictor,
    photos: Iterable[AnnotatedPhoto],
    *,
    prompt: Callable[[Sequence[AnnotatedObject]], Prompt] = box_prompt,
    select: Select = "auto",
    crowd: bool = False,
) -> Iterator[list[ObjectResult]]:
    """Segment every object -> results, photo by photo. Crowd regions are left out unless asked for."""
    for photo in photos:
        objects = [target for target in photo.objects if crowd or not target.iscrowd]
        if not objects:
            yield []
            continue
        embedding = predictor.encode_image(read_image(photo.path))
        found = predictor.predict(embedding, prompt(objects), select=select)
        yield [
            ObjectResult(
                id=target.id,
                area=target.area,
                category_id=target.category_id,
                iscrowd=int(target.iscrowd),
                image_id=photo.id,
                box=target.box,
                iou=mask_iou(segmentation.mask, target.mask()),
            )
            for target, segmentation in zip(objects, found, strict=True)
        ]


def mask_iou(one: NDArray[np.bool_], other: NDArray[np.bool_]) -> float:
    """Intersection over union; two empty masks agree (1.0)."""
    union = np.count_nonzero(one | other)
    return float(np.count_nonzero(one & other) / union) if union else 1.0


def mean_iou_by_size(results: Sequence[ObjectResult]) -> dict[str, float]:
    """Mean over objects, for all and for each of COCO's size classes; NaN where a class has none."""
    means = {}
    for name, (low, high) in SIZES.items():
        ious = [result.iou for result in results if low <= result.area < high]
        means[name] = float(np.mean(ious)) if ious else float("nan")
    return means


def _centre(mask: NDArray[np.bool_]) -> tuple[float, float]:
    rows, columns = np.nonzero(mask)
    nearest = np.argmin((rows - rows.mean()) ** 2 + (columns - columns.mean()) ** 2)
    return float(columns[nearest]) + 0.5, float(rows[nearest]) + 0.5

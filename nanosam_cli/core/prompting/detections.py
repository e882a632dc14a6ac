"""Boxes that another model found, and which of them become prompts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from nanosam_cli.core.errors import UsageError
from nanosam_cli.core.messages import did_you_mean, some
from nanosam_cli.core.prompting.request import PromptLabel, Request

Corners = NDArray[np.float64]

CLASS_NAMES = "classes.txt"  # beside YOLO's rows: name k is that of class k, from 0


@dataclass(frozen=True)
class Detection:
    """One box."""

    box: tuple[float, float, float, float]  # x0 y0 x1 y1, original pixels, or shares of the photo's sides
    category_id: int = 1
    name: str | None = None
    score: float | None = None  # None where it was drawn by a person
    relative: bool = False  # whether the box is in shares, as YOLO writes them

    def corners(self, original_hw: tuple[int, int]) -> tuple[float, float, float, float]:
        """x0 y0 x1 y1 in pixels of a photo."""
        height, width = original_hw if self.relative else (1, 1)
        x0, y0, x1, y1 = self.box
        return x0 * width, y0 * height, x1 * width, y1 * height


@dataclass(frozen=True)
class BoxFilter:
    """Which boxes become prompts. UsageError where a number makes no sense."""

    min_score: float | None = None  # boxes without a score are kept
    classes: Sequence[str] = ()  # names or category ids; empty means all
    nms: float | None = None  # of boxes of one class that overlap by more than this IoU the best stays
    top_k: int | None = None  # so many of the best, or of the first where there are no scores

    def __post_init__(self) -> None:
        if self.nms is not None and not 0 <= self.nms <= 1:
            raise UsageError(f"an IoU is from 0 to 1, not {self.nms:g}", "--nms 0.5")
        if self.top_k is not None and self.top_k < 1:
            raise UsageError(f"--top-k must be 1 or more, not {self.top_k}")


@dataclass(frozen=True)
class PhotoDetections:
    """The boxes of one photo: a `Source` of its request."""

    detections: Sequence[Detection]
    choice: BoxFilter = field(default_factory=BoxFilter)
    skipped: Sequence[str] = ()  # what the file has for the photo and is no box

    def request_for(self, image: NDArray[np.uint8]) -> Request:
        """Every box that is chosen is an object."""
        request = boxes_request(self.detections, image.shape[:2], self.choice)
        return Request(request.boxes, tags=request.tags, notes=[*self.skipped, *request.notes])


def boxes_request(detections: Sequence[Detection], original_hw: tuple[int, int], choice: BoxFilter) -> Request:
    """The chosen boxes, clipped to the photo, in their order; which may be none.

    Boxes without area and boxes wholly outside the photo are dropped. What is dropped or clipped for that is counted in
    the request's notes; what was not chosen is not, as that was asked for.
    """
    wanted = [one for one in detections if _is_wanted(one, choice)]
    corners = np.array([one.corners(original_hw) for one in wanted], np.float64).reshape(-1, 4)
    size = np.tile(original_hw[::-1], 2)
    clipped = np.clip(corners, 0, size)
    faults = np.where((corners[:, :2] >= corners[:, 2:]).any(1), "without area", "")
    faults = np.where((clipped[:, :2] >= clipped[:, 2:]).any(1) & (faults == ""), "outside the photo", faults)
    usable = np.flatnonzero(faults == "")
    best = _best(clipped[usable], [wanted[row] for row in usable], choice)
    rows = usable[best]
    notes = [
        f"{count} of {len(wanted)} boxes dropped: {fault}" for fault, count in Counter(faults.tolist()).items() if fault
    ]
    if not len(rows):
        notes.append(f"no box is left of {len(detections)}" if detections else "no box")
    cut = int(np.count_nonzero((corners[rows] != clipped[rows]).any(1)))
    if cut:
        notes.append(f"{cut} of {len(rows)} boxes clipped to the photo")
    tags = [PromptLabel(wanted[row].name, wanted[row].category_id, wanted[row].score) for row in rows]
    return Request(clipped[rows].astype(np.float32), tags=tags, notes=notes)


def known_classes(wanted: Sequence[str], classes: Mapping[int, str]) -> Sequence[str]:
    """What was asked for, where each is a name or a category id of `classes`. UsageError where one is not."""
    known = [*classes.values(), *map(str, classes)]
    for name in wanted:
        if name not in known:
            names = some([classes[key] for key in sorted(classes)], 20)
            raise UsageError(f"unknown class: {name}", did_you_mean(name, known) or f"known are {names}")
    return wanted


def box_ious(box: Corners, others: Corners) -> Corners:
    """(4,) and (P, 4) x0 y0 x1 y1 -> (P,) intersection over union; boxes must have an area."""
    sides = np.minimum(box[2:], others[:, 2:]) - np.maximum(box[:2], others[:, :2])
    shared = np.clip(sides, 0, None).prod(1)
    areas = (others[:, 2:] - others[:, :2]).prod(1) + (box[2:] - box[:2]).prod()
    return np.asarray(shared / (areas - shared))


def _is_wanted(detection: Detection, choice: BoxFilter) -> bool:
    sure = choice.min_score is None or detection.score is None or detection.score >= choice.min_score
    return sure and (not choice.classes or bool({detection.name, str(detection.category_id)} & {*choice.classes}))


def _best(boxes: Corners, detections: Sequence[Detection], choice: BoxFilter) -> list[int]:
    """Rows that survive suppression and `top_k`, in their order."""
    scores = np.array([1.0 if one.score is None else one.score for one in detections])
    classes = np.array([one.category_id for one in detections])
    order = np.argsort(-scores, kind="stable")
    if choice.nms is not None:
        kept: list[int] = []
        while len(order):
            first, order = int(order[0]), order[1:]
            kept.append(first)
            rivals = classes[order] == classes[first]
            order = order[~(rivals & (box_ious(boxes[first], boxes[order]) > choice.nms))]
        order = np.array(kept, int)
    return sorted(int(row) for row in order[: choice.top_k])

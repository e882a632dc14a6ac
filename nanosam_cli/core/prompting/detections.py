"""Boxes that another model found, and which of them become prompts."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nanosam_cli.core.errors import UsageError
from nanosam_cli.core.media.declared_size import DeclaredPhoto, SizeFit
from nanosam_cli.core.messages import did_you_mean, some
from nanosam_cli.core.prompting.by_photo import ByPhoto
from nanosam_cli.core.prompting.request import PromptLabel, Request, padded_points

Corners = NDArray[np.float64]

CLASS_NAMES = "classes.txt"  # beside YOLO's rows: name k is that of class k, from 0


@dataclass(frozen=True)
class Detection:
    """One box, clicks on one object, or both."""

    box: tuple[float, float, float, float] | None  # x0 y0 x1 y1, original pixels, or shares of the photo's sides
    category_id: int = 1
    name: str | None = None
    score: float | None = None  # None where it was drawn by a person
    relative: bool = False  # whether the box is in shares, as YOLO writes them
    clicks: Sequence[tuple[float, float, float]] = ()  # x y label: 1 on the object, 0 beside it
    rings: Sequence[Sequence[float]] = ()  # outlines x y x y ..., in the units of the box, where they were drawn

    def corners(self, original_hw: tuple[int, int]) -> tuple[float, float, float, float]:
        """x0 y0 x1 y1 in pixels of a photo; NaN where there is no box."""
        if self.box is None:
            return math.nan, math.nan, math.nan, math.nan
        height, width = original_hw if self.relative else (1, 1)
        x0, y0, x1, y1 = self.box
        return x0 * width, y0 * height, x1 * width, y1 * height


@dataclass(frozen=True)
class DetectionFile(ByPhoto[Detection]):
    """What a file or a folder of files says of its photos."""

    classes: Mapping[int, str] = field(default_factory=dict)  # names by category id
    classes_counted: bool = False  # whether the ids are ours, because the file has names alone


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
    """The boxes and clicks of one photo: a `Source` of its request."""

    detections: Sequence[Detection]
    choice: BoxFilter = field(default_factory=BoxFilter)
    skipped: Sequence[str] = ()  # what the file has for the photo and is no prompt
    declared: DeclaredPhoto | None = None  # the size of the photo that the boxes were drawn on, where the file says it

    def request_for(self, image: NDArray[np.uint8]) -> Request:
        """Every box and every group of clicks that is chosen is an object.

        InputError where the photo has another size than the file says, which neither a turn nor a scale explains.
        """
        fit = None if self.declared is None else self.declared.fit((image.shape[0], image.shape[1]))
        request = boxes_request(self.detections, image.shape[:2], self.choice, fit)
        return replace(request, notes=[*self.skipped, *request.notes])


def boxes_request(
    detections: Sequence[Detection], original_hw: tuple[int, int], choice: BoxFilter, fit: SizeFit | None = None
) -> Request:
    """The chosen boxes, clipped to the photo, in their order, with their clicks; which may be none.

    Boxes without area, boxes wholly outside the photo and clicks outside it are dropped. What is dropped or clipped for
    that is counted in the request's notes; what was not chosen is not, as that was asked for. `fit` brings boxes and
    clicks to the photo that were drawn on another size.
    """
    wanted = [one for one in detections if _is_wanted(one, choice)]
    corners = np.array([one.corners(original_hw) for one in wanted], np.float64).reshape(-1, 4)
    clicks = [np.array(one.clicks, np.float64).reshape(-1, 3) for one in wanted]
    if fit is not None:
        corners = fit.boxes(corners)
        clicks = [np.concatenate([fit.points(group[:, :2]), group[:, 2:]], axis=1) for group in clicks]
    inside = [group[((group[:, :2] >= 0) & (group[:, :2] < original_hw[::-1])).all(1)] for group in clicks]
    size = np.tile(original_hw[::-1], 2)
    clipped = np.clip(corners, 0, size)
    faults = np.where((corners[:, :2] >= corners[:, 2:]).any(1), "without area", "")
    faults = np.where((clipped[:, :2] >= clipped[:, 2:]).any(1) & (faults == ""), "outside the photo", faults)
    bare = np.array([one.box is None and not (group[:, 2] == 1).any() for one, group in zip(wanted, inside)], bool)
    faults = np.where(bare, "outside the photo", faults)
    usable = np.flatnonzero(faults == "")
    best = _best(clipped[usable], [wanted[row] for row in usable], choice)
    rows = usable[best]
    notes = [] if fit is None else [fit.note]
    notes += [
        f"{count} of {len(wanted)} boxes dropped: {fault}" for fault, count in Counter(faults.tolist()).items() if fault
    ]
    if not len(rows):
        notes.append(f"no box is left of {len(detections)}" if detections else "no box")
    cut = int(np.count_nonzero((corners[rows] != clipped[rows]).any(1) & ~np.isnan(corners[rows]).any(1)))
    if cut:
        notes.append(f"{cut} of {len(rows)} boxes clipped to the photo")
    tags = [PromptLabel(wanted[row].name, wanted[row].category_id, wanted[row].score) for row in rows]
    boxes = clipped[rows].astype(np.float32)
    groups = [inside[row].tolist() for row in rows]
    if not any(groups):
        return Request(boxes, tags=tags, notes=notes)
    points, labels = padded_points(groups)
    return Request(None if np.isnan(boxes).all() else boxes, points, labels, tags=tags, notes=notes)


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


def finite(value: Any) -> float:
    """A number. TypeError or ValueError where it is none, or not finite."""
    number = float(value)
    if not math.isfinite(number):
        raise ValueError(f"{value} is not a finite number")
    return number


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

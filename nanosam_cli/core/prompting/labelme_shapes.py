"""labelme's JSON and X-AnyLabeling's, which is the same with more kinds of shapes.

Formats: labelme's `label_file.py` and `shape.py`; X-AnyLabeling's docs/en/user_guide.md. A shape is known by its
points: one is a click, more have a box round them. Shapes of one label and group are one object.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nanosam_cli.core.errors import InputError, fault
from nanosam_cli.core.ids import whole_number
from nanosam_cli.core.messages import some
from nanosam_cli.core.names import class_name
from nanosam_cli.core.prompting.by_photo import photo_keys
from nanosam_cli.core.prompting.detections import Detection, DetectionFile, finite
from nanosam_cli.core.types import BACKGROUND, FOREGROUND

Box = tuple[float, float, float, float]  # x0 y0 x1 y1
Click = tuple[float, float, float]  # x y label

_FAULTS = (AttributeError, KeyError, TypeError, ValueError, OverflowError)


@dataclass
class _Object:
    """The shapes of one label and group."""

    label: str
    score: float | None
    boxes: list[Box] = field(default_factory=list)
    clicks: list[Click] = field(default_factory=list)
    rings: list[list[float]] = field(default_factory=list)
    outlined: bool = True  # whether all its shapes are outlines

    def detection(self, ids: Mapping[str, int]) -> Detection:
        box = None
        if self.boxes:
            x0, y0, x1, y1 = zip(*self.boxes)
            box = min(x0), min(y0), max(x1), max(y1)
        rings = self.rings if self.outlined else ()
        return Detection(box, ids[self.label], self.label, self.score, clicks=self.clicks, rings=rings)


@dataclass(frozen=True)
class _Page:
    """One file."""

    name: str  # of its photo, as written
    objects: Sequence[_Object]
    size: tuple[int, int] | None
    skipped: Sequence[str]


def labelme_detections(path: Path, contents: Mapping[Path, Any], hint: str) -> DetectionFile:
    """The boxes and clicks of files by their photos. Classes are numbered from 1 in the order of their names.

    InputError where a file is laid out in another way, or two are of one photo.
    """
    pages: dict[str, _Page] = {}
    origins: dict[str, Path] = {}
    for file, content in contents.items():
        try:
            page = _page(file, content)
        except _FAULTS as error:
            raise InputError(f"{file} is not a labelme file: {fault(error)}", hint) from error
        if page.name in pages:
            raise InputError(f"{origins[page.name]} and {file} are both of {page.name}", "give one of them")
        pages[page.name], origins[page.name] = page, file
    keys = photo_keys(pages)
    labels = sorted({one.label for page in pages.values() for one in page.objects})
    ids = {label: number for number, label in enumerate(labels, 1)}
    return DetectionFile(
        path,
        {keys[name]: [one.detection(ids) for one in page.objects] for name, page in pages.items()},
        names={key: name for name, key in keys.items()},
        sizes={keys[name]: page.size for name, page in pages.items() if page.size is not None},
        skipped={keys[name]: "; ".join(page.skipped) for name, page in pages.items() if page.skipped},
        classes={number: label for label, number in ids.items()},
        classes_counted=True,
    )


def _page(file: Path, content: Mapping[str, Any]) -> _Page:
    found: dict[tuple[str, Any], _Object] = {}
    pointless: list[str] = []
    faults: list[str] = []
    for place, shape in enumerate(content["shapes"]):
        kind = str(shape.get("shape_type") or "polygon")  # labelme's own default
        if not shape.get("points"):
            pointless.append(kind)
            continue
        if "label" not in shape:
            faults.append(f"shape {place + 1}: 'label' is missing")
            continue
        try:
            group, label = shape.get("group_id"), class_name(shape["label"])
        except ValueError as error:
            faults.append(f"shape {place + 1}: 'label': {error}")
            continue
        key = (label, ("alone", place) if group is None else str(group))
        one = found.setdefault(key, _Object(label, _score(shape)))
        _add_shape(one, kind, shape)
    if faults and not found:
        raise ValueError(faults[0])
    skipped = [] if not faults else [f"{len(faults)} shapes left out ({some(faults)})"]
    if pointless:
        kinds = ", ".join(sorted(Counter(pointless)))
        skipped.append(f"{len(pointless)} shape{'s' * (len(pointless) > 1)} without points left out ({kinds})")
    return _Page(str(content.get("imagePath") or file.stem), [*found.values()], _size(content), skipped)


def _add_shape(one: _Object, kind: str, shape: Mapping[str, Any]) -> None:
    points = [_point(point) for point in shape["points"]]
    if kind == "polygon" and len(points) > 2:
        one.rings.append([side for point in points for side in point])
    else:
        one.outlined = False
    if kind == "circle" and len(points) == 2:  # its centre and a point on it
        (x, y), edge = points
        radius = math.dist((x, y), edge)
        one.boxes.append((x - radius, y - radius, x + radius, y + radius))
    elif len(points) == 1 or kind == "points":  # labelme's clicks for SAM have a label each
        marks = shape.get("point_labels") or [FOREGROUND] * len(points)
        one.clicks += [(x, y, _mark(mark)) for (x, y), mark in zip(points, marks, strict=True)]
    else:
        xs, ys = zip(*points)
        one.boxes.append((min(xs), min(ys), max(xs), max(ys)))


def _point(point: Any) -> tuple[float, float]:
    if not isinstance(point, list) or len(point) < 2:
        raise ValueError(f"{point!r} is no point x y")
    return finite(point[0]), finite(point[1])


def _mark(value: Any) -> float:
    mark = whole_number(value)
    if mark not in (FOREGROUND, BACKGROUND):
        raise ValueError(f"a click's label is {FOREGROUND} or {BACKGROUND}, not {mark}")
    return float(mark)


def _score(shape: Mapping[str, Any]) -> float | None:
    """X-AnyLabeling keeps that of the model that drew the shape."""
    return None if shape.get("score") is None else finite(shape["score"])


def _size(content: Mapping[str, Any]) -> tuple[int, int] | None:
    sides = content.get("imageHeight"), content.get("imageWidth")
    if None in sides:
        return None
    height, width = map(whole_number, sides)
    return (height, width) if min(height, width) > 0 else None

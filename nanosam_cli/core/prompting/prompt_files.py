"""Prompt files: JSON with boxes and points by photo, or by another name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from nanosam_cli.core.errors import InputError, UsageError
from nanosam_cli.core.messages import quoted
from nanosam_cli.core.prompting.labels import labelled, numbered
from nanosam_cli.core.prompting.request import Request, drawn_request
from nanosam_cli.core.system.documents import read_json
from nanosam_cli.core.types import BACKGROUND, FOREGROUND

_LARGEST = float(np.finfo(np.float32).max)
_LAYOUT = '{"photo.jpg": {"boxes": [[x0, y0, x1, y1], ...], "points": [[x, y, label], ...]}}'


def read_prompts(path: Path) -> dict[str, Request]:
    """Requests by photo name from a JSON file such as `{"photo.jpg": {"boxes": [[x0, y0, x1, y1]], "points": ...}}`.

    `points` is `[[x, y, label], ...]` for one object (the label may be left out), or a list of such lists: one for each
    box, or without boxes one for each object. `labels` is a list of class names, one for each object; they are numbered
    over the whole file, see `numbered`.

    Raises:
        InputError: the file cannot be read or is laid out in another way; the message names the photo.
    """
    content = read_entries(path, "photos", _LAYOUT)
    return numbered({name: _labelled_request(entry, f"{path}, {name}") for name, entry in content.items()})


def _labelled_request(entry: Any, where: str) -> Request:
    """An entry of a prompt file, which may name the classes of its objects."""
    if not isinstance(entry, dict) or "labels" not in entry:
        return parse_request(entry, where)
    request = parse_request({key: value for key, value in entry.items() if key != "labels"}, where)
    names = _list(entry["labels"], f"{where}: labels")
    try:
        if len(names) != request.count:
            raise UsageError(f"{len(names)} for {request.count} objects")
        return labelled(request, names)
    except UsageError as error:
        raise InputError(
            f"{where}: labels: {error}", 'give a name for each object: "labels": ["cat", "dog"]'
        ) from error


def read_entries(path: Path, what: str, layout: str) -> dict[str, Any]:
    """A JSON file with an entry for each of `what`, laid out as in `layout`; InputError where it is not."""
    content = read_json(path, f"expected {layout}", unique=True)
    if not isinstance(content, dict) or not content:
        raise InputError(f"{path} names no {what}", f"expected {layout}")
    return content


def parse_request(entry: Any, where: str) -> Request:
    """One entry of a prompt file. InputError, which says `where`, if it is laid out in another way."""
    if not isinstance(entry, dict) or not entry or not entry.keys() <= {"boxes", "points"}:
        raise InputError(f"{where}: expected boxes or points", f"the layout is {_LAYOUT}")
    boxes, points = (_list(entry.get(key, []), f"{where}: {key}") for key in ("boxes", "points"))
    nested = bool(points) and all(
        isinstance(point, list) and all(isinstance(p, list) for p in point) for point in points
    )
    groups = [[_point(p, where) for p in group] for group in (points if nested else [points] if points else [])]
    rows = [_row(box, (4,), where) for box in boxes]
    if not rows and not any(groups):
        raise InputError(f"{where}: no box and no point", f"the layout is {_LAYOUT}")
    if rows and groups and len(rows) != len(groups):
        raise InputError(
            f"{where}: {len(rows)} boxes, but points for {len(groups)}",
            "give a list of points for each box, [] for none",
        )
    return drawn_request(rows, groups)


def _list(value: Any, where: str) -> list[Any]:
    if not isinstance(value, list):
        raise InputError(f"{where} must be a list", f"the layout is {_LAYOUT}")
    return value


def _point(value: Any, where: str) -> list[float]:
    point = _row(value, (2, 3), where)
    if len(point) == 3 and point[2] not in (FOREGROUND, BACKGROUND):
        raise InputError(
            f"{where}: {quoted(value)} has the label {point[2]:g}",
            f"a label is {FOREGROUND}, on the object, or {BACKGROUND}, beside it",
        )
    return point


def _row(value: Any, lengths: tuple[int, ...], where: str) -> list[float]:
    numbers = isinstance(value, list) and all(isinstance(v, (int, float)) and not isinstance(v, bool) for v in value)
    if not numbers or len(value) not in lengths or not all(abs(v) <= _LARGEST for v in value):  # NaN neither
        wanted = "x0, y0, x1, y1" if lengths == (4,) else "x, y or x, y, label"
        raise InputError(f"{where}: {quoted(value)} is not [{wanted}]", f"the layout is {_LAYOUT}")
    return [float(v) for v in value]

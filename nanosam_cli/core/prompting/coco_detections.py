"""Boxes of COCO results and COCO annotations.

Formats: https://cocodataset.org/#format-results and #format-data. What is missing is worked out where the rest of an
entry tells it, else the entry is left out and counted; what is of another kind than it should be is refused by name.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nanosam_cli.core.datasets.coco_layout import ListedAnnotation, category_names, read_layout
from nanosam_cli.core.errors import InputError, fault
from nanosam_cli.core.ids import read_id, whole_number
from nanosam_cli.core.media.mask_codes import rle_box
from nanosam_cli.core.messages import some
from nanosam_cli.core.names import class_name
from nanosam_cli.core.prompting.by_photo import photo_keys
from nanosam_cli.core.prompting.detections import Detection, DetectionFile, finite

Box = tuple[float, float, float, float]  # x0 y0 x1 y1

_FAULTS = (AttributeError, KeyError, TypeError, ValueError, OverflowError, IndexError)  # of a file's layout


class UnusableError(ValueError):
    """An entry that says too little: it is left out, unless none is better."""


class LeftOut:
    """Entries that cannot be used."""

    def __init__(self, path: Path, hint: str) -> None:
        self._path, self._hint = path, hint
        self._reasons: dict[str, list[str]] = defaultdict(list)

    def add(self, where: str, error: UnusableError) -> None:
        self._reasons[str(error)].append(where)

    def notes(self, used: int) -> list[str]:
        """Said once for the file. InputError with the first where not one entry was `used`."""
        if not self._reasons:
            return []
        if not used:
            reason, places = next(iter(self._reasons.items()))
            raise InputError(f"{self._path}, {places[0]}: {reason}", self._hint)
        count = sum(map(len, self._reasons.values()))
        why = "; ".join(f"{reason} in {some(places)}" for reason, places in self._reasons.items())
        return [f"{count} entr{'y' if count == 1 else 'ies'} of {self._path.name} left out: {why}"]


def coco_results(path: Path, entries: Sequence[Mapping[str, Any]], hint: str) -> DetectionFile:
    """The boxes of a detector's results, or the extents of their masks."""
    found: dict[str, list[Detection]] = defaultdict(list)
    ids: dict[str, set[int | None]] = defaultdict(set)
    sizes: dict[str, tuple[int, int]] = {}
    classes: dict[int, str] = {}
    left_out = LeftOut(path, hint)
    for number, entry in enumerate(entries, 1):
        where = f"entry {number}"
        try:
            name, image_id = photo_of(entry)
            one = _detection(entry, f"{path}, {where}", _name(entry))
        except UnusableError as error:
            left_out.add(where, error)
            continue
        except _FAULTS as error:
            raise InputError(f"{path}, {where}: {fault(error)}", hint) from error
        found[name].append(one)
        ids[name].add(image_id)
        if not entry.get("bbox") and isinstance(entry["segmentation"], Mapping):  # whose size is that of its photo
            sizes[name] = (entry["segmentation"]["size"][0], entry["segmentation"]["size"][1])
        classes[one.category_id] = str(one.category_id) if one.name is None else one.name
    notes = left_out.notes(len(found))
    if not entries:  # a detector that found nothing, in whatever photo
        return DetectionFile(path, {path.stem: []}, nameless=True)
    keys = photo_keys(found)
    return DetectionFile(
        path,
        {keys[name]: rows for name, rows in found.items()},
        names={key: name for name, key in keys.items()},
        image_ids={keys[name]: one for name, (one, *more) in ids.items() if one is not None and not more},
        sizes={keys[name]: size for name, size in sizes.items()},
        notes=notes,
        classes=classes,
    )


def photo_of(entry: Mapping[str, Any]) -> tuple[str, int | None]:
    """What a result calls its photo, and the photo's number where it has one."""
    image_id = None
    if entry.get("image_id") is not None:
        try:
            image_id = whole_number(entry["image_id"])
        except ValueError:
            if not isinstance(entry["image_id"], str):
                raise ValueError(f"image_id {entry['image_id']!r} is neither a number nor a name") from None
    if entry.get("file_name") is not None:
        return str(entry["file_name"]), image_id
    if entry.get("image_id") is None:
        raise UnusableError("'image_id' is missing")
    # as it is written: a name of digits has noughts that a number has not
    return entry["image_id"] if isinstance(entry["image_id"], str) else str(image_id), image_id


def coco_annotations(path: Path, content: Mapping[str, Any], hint: str) -> DetectionFile:
    """The boxes of annotations by the name of their photo; crowds are no boxes to be prompted with."""
    layout = read_layout(path, content)
    classes = category_names(path, layout.categories)
    keys = photo_keys(image.name for image in layout.images.values())
    photos: dict[str, list[Detection]] = {keys[image.name]: [] for image in layout.images.values()}
    crowds: dict[str, int] = defaultdict(int)
    left_out = LeftOut(path, hint)
    for annotation in layout.annotations:
        key, entry = keys[annotation.image.name], annotation.content
        if entry.get("iscrowd"):
            crowds[key] += 1
            continue
        try:
            one = _annotated(path, annotation, classes)
        except UnusableError as error:
            left_out.add(annotation.where, error)
            continue
        except _FAULTS as error:
            raise InputError(f"{path}, {annotation.where}: {fault(error)}", hint) from error
        photos[key].append(one)
    used = sum(map(len, photos.values())) + len(crowds)
    ids: dict[str, int] = {}
    for image in layout.images.values():
        key = keys[image.name]
        if ids.setdefault(key, image.id) != image.id:
            raise InputError(
                f"{path} has {image.name} under the ids {ids[key]} and {image.id}",
                "list each photo once, and give its annotations that id",
            )
    return DetectionFile(
        path,
        photos,
        names={key: name for name, key in keys.items()},
        image_ids=ids,
        sizes={keys[i.name]: i.size for i in layout.images.values() if i.size is not None and min(i.size) > 0},
        skipped={key: f"{count} crowds left out" for key, count in crowds.items()},
        notes=[*layout.notes, *left_out.notes(used)],
        classes=classes,
    )


def _annotated(path: Path, annotation: ListedAnnotation, classes: dict[int, str]) -> Detection:
    """Whose class is named by its number where the file has no name for it."""
    one = _detection(annotation.content, f"{path}, {annotation.where}", None)
    name = classes.setdefault(one.category_id, str(one.category_id))
    return Detection(one.box, one.category_id, name, one.score)


def _name(entry: Mapping[str, Any]) -> str | None:
    """The class's name, which some detectors write beside its number."""
    if entry.get("category_name") is None:
        return None
    try:
        return class_name(entry["category_name"])
    except ValueError as error:
        raise UnusableError(f"'category_name': {error}") from error


def _detection(entry: Mapping[str, Any], where: str, name: str | None) -> Detection:
    box = _box(entry)
    if entry.get("category_id") is None:
        raise UnusableError("'category_id' is missing")
    score = None if entry.get("score") is None else finite(entry["score"])
    return Detection(box, read_id(entry, "category_id", where), name, score)


def _box(entry: Mapping[str, Any]) -> Box:
    """The entry's own box, else the one around its mask."""
    if entry.get("bbox"):
        return _xywh(entry["bbox"])
    mask = entry.get("segmentation")
    if isinstance(mask, Mapping):
        return rle_box(mask)
    sides = [finite(side) for ring in mask or () for side in ring]
    xs, ys = sides[::2], sides[1::2]
    if not ys:
        raise UnusableError("'bbox' is missing")
    return min(xs), min(ys), max(xs), max(ys)


def _xywh(value: Any) -> Box:
    numbers = [float(side) for side in value]
    if len(numbers) != 4:
        raise UnusableError(f"{'not enough' if len(numbers) < 4 else 'too many'} values for a box: {len(numbers)} of 4")
    if not all(map(math.isfinite, numbers)):
        raise UnusableError("a side of 'bbox' is not a finite number")
    x, y, width, height = numbers
    return x, y, x + width, y + height

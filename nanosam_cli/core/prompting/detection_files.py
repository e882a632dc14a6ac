"""Files of detectors and of people who draw boxes: COCO results and annotations, YOLO's text files, labelme's JSON.

Formats: https://cocodataset.org/#format-results and #format-data, https://docs.ultralytics.com/datasets/detect/, and
labelme's `label_file.py`.
"""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from operator import index
from pathlib import Path
from typing import Any

from nanosam_cli.core.errors import InputError, fault
from nanosam_cli.core.media.mask_codes import rle_box
from nanosam_cli.core.prompting.by_photo import ByPhoto, file_name
from nanosam_cli.core.prompting.detections import CLASS_NAMES, Detection
from nanosam_cli.core.system.files import read_input

_KINDS = "COCO results, COCO annotations, YOLO text files and labelme files are read"
_FAULTS = (AttributeError, KeyError, TypeError, ValueError, OverflowError, IndexError)  # of a file's layout
_LABELME_EXTENT = ("rectangle", "polygon", "circle", "linestrip", "mask")  # shapes that have a box


@dataclass(frozen=True)
class DetectionFile(ByPhoto[Detection]):
    """What a file or a folder of files says of its photos."""

    classes: Mapping[int, str] = field(default_factory=dict)  # names by category id
    skipped: Mapping[str, str] = field(default_factory=dict)  # by photo: what is there and is no box


def read_detections(path: Path, class_names: Path | None = None) -> DetectionFile:
    """Read a file, or a folder that has YOLO's or labelme's file for each photo.

    `class_names` is a text file with a name a line, for the classes from 0 on, or a COCO file with categories. Without
    it YOLO's names are those of `classes.txt` in the folder or above it.

    Raises:
        InputError: the place cannot be read, is none of the known formats, or has a class that has no name.
    """
    if path.is_dir():
        files = sorted(file for file in path.iterdir() if file.suffix in (".txt", ".json") and file.name != CLASS_NAMES)
        suffixes = {file.suffix for file in files}
        if len(suffixes) != 1:
            held = "both" if suffixes else "neither"
            raise InputError(f"{path} should hold YOLO's .txt or labelme's .json files, and holds {held}", _KINDS)
        found = _read_yolo(path, files) if suffixes == {".txt"} else _read_labelme(path, files)
    elif path.suffix.lower() == ".txt":
        found = replace(_read_yolo(path, [path]), nameless=True)
    else:
        found = _read_json(path)
    names = class_names or next((place for place in _names_beside(path) if place.is_file()), None)
    return found if names is None else _named(found, _class_names(names), names)


def _read_json(path: Path) -> DetectionFile:
    content = read_json(path)
    if isinstance(content, dict) and "shapes" in content:
        return _read_labelme(path, [path])
    try:
        if isinstance(content, dict) and "annotations" in content:
            return _coco_annotations(path, content)
        if isinstance(content, list):
            return _coco_results(path, content)
    except _FAULTS as error:
        raise InputError(f"{path} is not a COCO file: {fault(error)}", _KINDS) from error
    raise InputError(f"{path} is none of the formats that are known", _KINDS)


def read_json(path: Path, kinds: str = _KINDS) -> Any:
    """The content of a JSON file. InputError, with what `kinds` are read, where it is missing or none."""
    try:
        return json.loads(read_input(path))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is not JSON: {error}", kinds) from error


def _coco_results(path: Path, entries: Sequence[Mapping[str, Any]]) -> DetectionFile:
    photos: dict[str, list[Detection]] = defaultdict(list)
    classes: dict[int, str] = {}
    for number, entry in enumerate(entries, 1):
        try:
            found = _coco_result(entry)
            photo = entry["file_name"] if "file_name" in entry else str(entry["image_id"])
            photos[file_name(photo)].append(found)
        except _FAULTS as error:
            raise InputError(f"{path}, entry {number}: {fault(error)}", _KINDS) from error
        classes[found.category_id] = str(found.category_id if found.name is None else found.name)
    if not entries:  # a detector that found nothing, in whatever photo
        return DetectionFile(path, {path.stem: []}, nameless=True)
    return DetectionFile(path, photos, classes=classes)


def _coco_result(entry: Mapping[str, Any]) -> Detection:
    mask = entry.get("segmentation")
    box = rle_box(mask) if "bbox" not in entry and isinstance(mask, dict) else _xywh(entry["bbox"])
    score = None if entry.get("score") is None else _finite(entry["score"])
    return Detection(box, index(entry["category_id"]), entry.get("category_name"), score)


def _coco_annotations(path: Path, content: Mapping[str, Any]) -> DetectionFile:
    names = {image["id"]: file_name(image["file_name"]) for image in content["images"]}
    classes = {index(entry["id"]): str(entry["name"]) for entry in content.get("categories", [])}
    photos: dict[str, list[Detection]] = {name: [] for name in names.values()}
    crowds: dict[str, int] = defaultdict(int)
    for entry in content["annotations"]:
        name, category = names[entry["image_id"]], index(entry["category_id"])
        if entry.get("iscrowd"):
            crowds[name] += 1
            continue
        classes.setdefault(category, str(category))
        score = None if entry.get("score") is None else _finite(entry["score"])
        photos[name].append(Detection(_xywh(entry["bbox"]), category, classes[category], score))
    skipped = {name: f"{count} crowds left out" for name, count in crowds.items()}
    return DetectionFile(path, photos, classes=classes, skipped=skipped)


def _read_labelme(path: Path, files: Sequence[Path]) -> DetectionFile:
    """Classes are numbered from 1 in the order of their names; shapes of one label and group are one object."""
    found: dict[str, list[tuple[str, tuple[float, float, float, float]]]] = {}
    skipped = {}
    for file in files:
        content = read_json(file)
        try:
            key = file_name(content.get("imagePath") or file.stem)
            shapes = [shape for shape in content["shapes"] if shape["shape_type"] in _LABELME_EXTENT]
            found[key] = _whole_objects(shapes)
            others = [shape["shape_type"] for shape in content["shapes"] if shape not in shapes]
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise InputError(f"{file} is not a labelme file: {fault(error)}", _KINDS) from error
        if others:
            skipped[key] = f"{len(others)} shapes that have no box left out ({', '.join(sorted(set(others)))})"
    names = sorted({name for shapes in found.values() for name, _ in shapes})
    ids = {name: number for number, name in enumerate(names, 1)}
    photos = {key: [Detection(box, ids[name], name) for name, box in shapes] for key, shapes in found.items()}
    return DetectionFile(path, photos, classes={ids[name]: name for name in names}, skipped=skipped)


def _whole_objects(shapes: Sequence[Mapping[str, Any]]) -> list[tuple[str, tuple[float, float, float, float]]]:
    """The label and the box of each object, in the order of their first shapes."""
    boxes: dict[tuple[str, Any], list[tuple[float, float, float, float]]] = {}
    for place, shape in enumerate(shapes):
        group = shape.get("group_id")
        key = (str(shape["label"]), ("alone", place) if group is None else str(group))
        boxes.setdefault(key, []).append(_extent(shape))
    return [(label, _around(parts)) for (label, _), parts in boxes.items()]


def _around(boxes: Sequence[tuple[float, float, float, float]]) -> tuple[float, float, float, float]:
    x0, y0, x1, y1 = zip(*boxes)
    return min(x0), min(y0), max(x1), max(y1)


def _extent(shape: Mapping[str, Any]) -> tuple[float, float, float, float]:
    points = [(_finite(x), _finite(y)) for x, y in shape["points"]]
    if shape["shape_type"] == "circle":  # its centre and a point on it
        (x, y), edge = points
        radius = math.dist((x, y), edge)
        return x - radius, y - radius, x + radius, y + radius
    xs, ys = zip(*points)
    return min(xs), min(ys), max(xs), max(ys)


def _read_yolo(path: Path, files: Sequence[Path]) -> DetectionFile:
    photos = {file.stem: list(_yolo_rows(file)) for file in files}
    last = max((one.category_id for rows in photos.values() for one in rows), default=-1)
    # those between that have no box too, so that results in YOLO's rows keep the numbers
    return DetectionFile(path, photos, classes={number: str(number) for number in range(last + 1)})


def _yolo_rows(file: Path) -> Iterator[Detection]:
    """`class cx cy w h [score]`, or `class x y x y x y ... [score]` for an outline, in shares of the photo's sides."""
    for number, line in enumerate(_lines(file), 1):
        if not line.strip():
            continue
        try:
            category, *sides = line.split()
            yield _yolo_detection(int(category), [_finite(side) for side in sides])
        except ValueError as error:
            raise InputError(
                f"{file}, line {number}: {error}", "a row is `class cx cy w h`, maybe with a score"
            ) from error


def _yolo_detection(category: int, sides: list[float]) -> Detection:
    if len(sides) < 4 or category < 0:
        raise ValueError("not a class from 0 on and a box")
    score = sides.pop() if len(sides) % 2 else None
    if len(sides) == 4:
        x, y, width, height = sides
        box = x - width / 2, y - height / 2, x + width / 2, y + height / 2
    else:
        box = min(sides[::2]), min(sides[1::2]), max(sides[::2]), max(sides[1::2])
    if max(map(abs, box)) > 10:  # far beyond any clipping error
        raise ValueError("the numbers are pixels, not shares of the photo's sides")
    return Detection(box, category, None, score, relative=True)


def _names_beside(path: Path) -> list[Path]:
    """Where YOLO's tools write the names: with the rows, or above their folder."""
    folder = path if path.is_dir() else path.parent
    return [folder / CLASS_NAMES, folder.parent / CLASS_NAMES] if path.suffix.lower() != ".json" else []


def _class_names(file: Path) -> dict[int, str]:
    """Names by category id: those of a COCO file, or a name a line from 0 on."""
    if file.suffix.lower() != ".json":
        return dict(enumerate(line.strip() for line in _lines(file) if line.strip()))
    content = read_json(file)
    try:
        return {index(entry["id"]): str(entry["name"]) for entry in content["categories"]}
    except (KeyError, TypeError) as error:
        raise InputError(
            f"{file} has no COCO categories: {fault(error)}", "give a COCO file, or a name a line"
        ) from error


def _named(found: DetectionFile, names: Mapping[int, str], origin: Path) -> DetectionFile:
    """With the names of the classes that have none."""
    nameless = sorted({one.category_id for rows in found.photos.values() for one in rows if one.name is None})
    unknown = [category for category in nameless if category not in names]
    if unknown:
        raise InputError(
            f"{found.path} has class {unknown[0]}, which is not among the {len(names)} of {origin}",
            "give the names that belong to it: --class-names FILE",
        )
    if not nameless and found.classes:
        raise InputError(f"{found.path} names its classes itself", "leave --class-names out")
    photos = {
        key: [one if one.name is not None else replace(one, name=names[one.category_id]) for one in rows]
        for key, rows in found.photos.items()
    }
    return replace(found, photos=photos, classes={**found.classes, **names})


def _lines(file: Path) -> list[str]:
    try:
        return read_input(file).decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise InputError(f"cannot read {file}: {error}", "give a text file") from error


def _xywh(value: Any) -> tuple[float, float, float, float]:
    x, y, width, height = (_finite(side) for side in value)
    return x, y, x + width, y + height


def _finite(value: Any) -> float:
    number = float(value)
    if not math.isfinite(number):
        raise ValueError(f"{value} is not a finite number")
    return number

"""Files of detectors and of people who draw boxes: COCO results and annotations, YOLO's text files, labelme's JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from nanosam_cli.core.errors import InputError, fault
from nanosam_cli.core.prompting.class_names import read_class_names
from nanosam_cli.core.prompting.coco_detections import coco_annotations, coco_results
from nanosam_cli.core.prompting.detections import CLASS_NAMES, DetectionFile
from nanosam_cli.core.prompting.labelme_shapes import labelme_detections
from nanosam_cli.core.prompting.yolo_rows import yolo_detections
from nanosam_cli.core.system.documents import read_json
from nanosam_cli.core.system.files import read_input_text

_KINDS = "COCO results, COCO annotations, YOLO text files and labelme files are read"
_FAULTS = (AttributeError, KeyError, TypeError, ValueError, OverflowError, IndexError)  # of a file's layout


def read_detections(path: Path, class_names: Path | None = None) -> DetectionFile:
    """Read a file, or a folder that has YOLO's or labelme's file for each photo.

    `class_names` names the classes; see `read_class_names`. Without it YOLO's names are those of `classes.txt` in the
    folder or above it.

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
    return found if names is None else _named(found, read_class_names(names), names)


def _read_json(path: Path) -> DetectionFile:
    content = read_json(path, _KINDS)
    if isinstance(content, dict) and "shapes" in content:
        return labelme_detections(path, {path: content}, _KINDS)
    try:
        if isinstance(content, dict) and "annotations" in content:
            return coco_annotations(path, content, _KINDS)
        if isinstance(content, list):
            return coco_results(path, content, _KINDS)
    except _FAULTS as error:
        raise InputError(f"{path} is not a COCO file: {fault(error)}", _KINDS) from error
    raise InputError(f"{path} is none of the formats that are known", _KINDS)


def _read_labelme(path: Path, files: Sequence[Path]) -> DetectionFile:
    return labelme_detections(path, {file: read_json(file, _KINDS) for file in files}, _KINDS)


def _read_yolo(path: Path, files: Sequence[Path]) -> DetectionFile:
    found = yolo_detections([(file, read_input_text(file).splitlines()) for file in files])
    last = max((one.category_id for rows in found.values() for one in rows), default=-1)
    # those between that have no box too, so that results in YOLO's rows keep the numbers
    names = {number: str(number) for number in range(last + 1)}
    return DetectionFile(path, {file.stem: rows for file, rows in found.items()}, classes=names)


def _names_beside(path: Path) -> list[Path]:
    """Where YOLO's tools write the names: with the rows, or above their folder."""
    folder = path if path.is_dir() else path.parent
    return [folder / CLASS_NAMES, folder.parent / CLASS_NAMES] if path.suffix.lower() != ".json" else []


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

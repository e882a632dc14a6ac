"""What lies beside YOLO's rows and names their classes: `classes.txt`, and `data.yaml` for those who train on them."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from nanosam_cli.core.errors import InputError
from nanosam_cli.core.media.find_photos import STDIN
from nanosam_cli.core.prompting.class_names import read_class_names
from nanosam_cli.core.prompting.detections import CLASS_NAMES
from nanosam_cli.core.segmentation.label_formats import class_names, data_yaml, yolo_names

DATA_YAML = "data.yaml"


def class_files(folder: Path, classes: Mapping[int, str], photos: Sequence[Path]) -> dict[Path, str]:
    """The text of each file that is to be written into a folder; not of one that is there and has these names."""
    texts = {
        folder / CLASS_NAMES: class_names(classes),
        folder / DATA_YAML: data_yaml(classes, _places(folder, photos)),
    }
    return {path: text for path, text in texts.items() if not _has_names(path, classes)}


def _places(folder: Path, photos: Sequence[Path]) -> list[str]:
    """The folders of the photos, as they are reached from the one of the rows."""
    places = dict.fromkeys(photo.parent for photo in photos if photo != STDIN)
    return [Path(os.path.relpath(place, folder)).as_posix() for place in places] or ["."]


def _has_names(path: Path, classes: Mapping[int, str]) -> bool:
    if not path.is_file():
        return False
    if path.name == CLASS_NAMES:
        return path.read_bytes() == class_names(classes).encode()
    try:
        return read_class_names(path) == dict(enumerate(yolo_names(classes)))
    except InputError:
        return False

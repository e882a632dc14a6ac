"""What the labelling page works on: photos, their annotations, and what another model has found in them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nanosam_cli.core.media.image import IMAGE_FORMATS, image_hw, image_orientation, jpeg_bytes, read_image
from nanosam_cli.core.prompting.class_names import read_class_names
from nanosam_cli.core.prompting.detection_files import read_detections
from nanosam_cli.core.prompting.detections import BoxFilter, DetectionFile, PhotoDetections
from nanosam_cli.core.prompting.labels import UNNAMED
from nanosam_cli.core.serving.label.annotations import AnnotationStore
from nanosam_cli.core.serving.label.imported import imported_content
from nanosam_cli.core.serving.label.label_file import LabelFile
from nanosam_cli.core.serving.limits import RequestLimits
from nanosam_cli.core.serving.photos import OpenedPhotos
from nanosam_cli.core.serving.service import ObjectPrompt
from nanosam_cli.core.system.files import write_text
from nanosam_cli.core.system.journal import journal_path
from nanosam_cli.core.types import PADDING, no_boxes

# what every browser shows as this package reads it, and as which kind it is sent
_SHOWN = {"JPEG": "image/jpeg", "PNG": "image/png", "WEBP": "image/webp"}


@dataclass(frozen=True)
class FoundObject:
    """What another model has found."""

    prompt: ObjectPrompt
    category_id: int


@dataclass(frozen=True)
class Findings:
    """A file of detections, matched to the opened photos."""

    file: DetectionFile
    keys: Mapping[Path, str]

    def of(self, path: Path, original_hw: tuple[int, int], categories: Mapping[int, str]) -> list[FoundObject]:
        """What it says of a photo; a class is known by its name, and what has none is of the first class."""
        if path not in self.keys:
            return []
        key = self.keys[path]
        source = PhotoDetections(self.file.photos[key], BoxFilter(), declared=self.file.declared(path, key))
        request = source.request_for(np.broadcast_to(np.uint8(0), (*original_hw, 3)))  # only its size is looked at
        by_name = {name: category for category, name in categories.items()}
        found = []
        for row, tag in enumerate(request.tags):
            box = None
            if request.boxes is not None and not no_boxes(request.boxes[row]):
                x0, y0, x1, y1 = (float(side) for side in request.boxes[row])
                box = (x0, y0, x1, y1)
            points = []
            if request.points is not None and request.labels is not None:
                marks = zip(request.points[row].tolist(), request.labels[row].tolist())
                points = [(x, y, label) for (x, y), label in marks if label != PADDING]
            category = by_name.get(tag.name or "", next(iter(categories)))
            found.append(FoundObject(ObjectPrompt(box, points), category))
        return found


@dataclass(frozen=True)
class Labelling:
    """One run of the page."""

    photos: OpenedPhotos
    store: AnnotationStore
    limits: RequestLimits
    findings: Findings | None = None
    imported: Sequence[str] = ()  # notes of what was imported

    @property
    def notes(self) -> list[str]:
        """What files that were given have and is not used, for people."""
        if self.findings is None:
            return [*self.imported]
        return [*self.imported, *self.findings.file.left_out(self.findings.keys)]

    def original_hw(self, name: str) -> tuple[int, int]:
        """Of a photo as it is shown. NotFoundError, InputError where it cannot be opened."""
        height, width = image_hw(self.photos.find(name))
        self.limits.check_photo(height * width)
        return height, width

    def pixels(self, name: str) -> tuple[bytes, str]:
        """The photo's picture as a browser shows it, upright, and its kind."""
        path = self.photos.find(name)
        data = self.photos.read(name)
        kind = IMAGE_FORMATS.get(path.suffix.lower(), "")
        if kind == "JPEG" or (kind in _SHOWN and image_orientation(data) == 1):  # all turn a JPEG by its EXIF
            return data, _SHOWN[kind]
        self.original_hw(name)
        return jpeg_bytes(read_image(data)), _SHOWN["JPEG"]

    def found(self, name: str, original_hw: tuple[int, int]) -> list[FoundObject]:
        """What the file of detections says of a photo that nobody has labelled yet."""
        if self.findings is None or self.store.is_done(name):
            return []
        return self.findings.of(self.photos.by_name[name], original_hw, self.store.categories)


def parse_classes(text: str) -> list[str]:
    """`cat,dog`, or a file of class names in any form that `read_class_names` reads."""
    if Path(text).is_file():
        return list(read_class_names(Path(text)).values())
    return [name.strip() for name in text.split(",") if name.strip()]


def open_labelling(
    arguments: Sequence[str],
    output: Path,
    classes: Sequence[str] = (),
    detections: Path | None = None,
    limits: RequestLimits | None = None,
    begin_with: Path | None = None,
) -> Labelling:
    """Open photos and their annotation file, to be closed with `store.close`.

    A file that is not there yet begins with the annotations of `begin_with`; see `imported_content`.

    Raises:
        InputError: there are no photos, or a file cannot be used.
        OutputError: the annotations cannot be written, or another process works on them.
    """
    photos = OpenedPhotos(arguments)
    findings = None
    if detections is not None:
        file = read_detections(detections)
        findings = Findings(file, file.match(photos.paths))
        classes = [*classes, *file.classes.values()]
    imported = [] if begin_with is None else _import(begin_with, output, photos)
    store = AnnotationStore(output, photos.names, list(dict.fromkeys(classes)))
    if not store.categories:
        store.add_category(UNNAMED)
    return Labelling(photos, store, limits or RequestLimits(), findings, imported)


def _import(path: Path, output: Path, photos: OpenedPhotos) -> list[str]:
    """Write the file that is begun with, unless it is there; notes for people."""
    if output.exists() or journal_path(output).exists():
        return [f"{output} is gone on with; {path} is not read again"]
    content, notes = imported_content(path, photos)
    LabelFile(path, content, photos.names)  # before it is written: whether it can be worked on
    write_text(output, json.dumps(content) + "\n")
    return notes

"""Annotations as other tools' files: a folder beside the annotation file, by the writers that `segment` has.

An export never overwrites anything: the folder has the first name that is free, and is there whole or not at all.
"""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path, PurePosixPath

import numpy as np

from nanosam_cli.core.errors import InputError
from nanosam_cli.core.media.mask_codes import rle_to_mask
from nanosam_cli.core.prompting.detections import CLASS_NAMES
from nanosam_cli.core.prompting.request import PromptLabel, Request
from nanosam_cli.core.segmentation.class_files import DATA_YAML
from nanosam_cli.core.segmentation.formats import FORMATS, PhotoTarget
from nanosam_cli.core.segmentation.label_formats import class_names, data_yaml
from nanosam_cli.core.segmentation.result import Found, PhotoResult
from nanosam_cli.core.serving.answers import NotFoundError
from nanosam_cli.core.serving.label.label_file import LabelledObject
from nanosam_cli.core.serving.label.labelling import Labelling
from nanosam_cli.core.system.files import output_error
from nanosam_cli.core.timing import Stopwatch
from nanosam_cli.core.types import Segmentation


@dataclass(frozen=True)
class ExportLayout:
    """Where the files of one format lie in the folder."""

    place: str  # of a photo's file, from the photo's `folder` (with a slash, or nothing) and `stem`
    photos: str | None = None  # below which a copy of each photo lies; None: there are none
    finish: Callable[[Path, Mapping[int, str]], None] = lambda folder, classes: None


@dataclass
class Export:
    """What was written."""

    folder: Path
    photos: int = 0
    objects: int = 0
    notes: list[str] = field(default_factory=list)  # of photos that were left out


def export_annotations(labelling: Labelling, kind: str) -> Export:
    """Write every photo that is done. `kind` is one of EXPORTS.

    Raises:
        OutputError: the disk takes no more; nothing is left of it then.
        InputError: two photos would share a file.
    """
    layout, path, classes = EXPORTS[kind], labelling.store.path, labelling.store.categories
    done = [one.name for one in labelling.store.photos() if one.done]
    places = {name: _place(layout, name) for name in done}
    _check_places(places)
    home = path.parent.resolve()  # photos are named from there, whatever links lead to it
    begun = home / f".{path.stem}_{kind}-{secrets.token_hex(4)}"  # hidden until it is whole
    export = Export(begun)
    try:
        begun.mkdir()
        for name in done:
            _add(export, labelling, kind, name, begun / places[name])
        layout.finish(begun, classes)
        export.folder = _rename(begun, home / f"{path.stem}_{kind}")
    except OSError as error:
        raise output_error(export.folder, error) from error
    finally:
        if begun.exists():  # it has failed
            shutil.rmtree(begun, ignore_errors=True)
    return export


def _add(export: Export, labelling: Labelling, kind: str, name: str, file: Path) -> None:
    """One photo's file, and where the format wants it a copy of the photo."""
    try:
        photo = labelling.photos.find(name)
        original_hw = labelling.original_hw(name)
        objects = labelling.store.photo(name, original_hw).objects
    except (NotFoundError, InputError) as error:
        export.notes.append(f"{name} is left out: {error}")
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    write = FORMATS[kind].write
    assert write is not None
    classes = labelling.store.categories
    write(PhotoTarget(file, classes=classes), _result(photo, original_hw, objects, classes))
    copies = EXPORTS[kind].photos
    if copies is not None:
        copy = export.folder / copies / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(photo, copy)
    export.photos += 1
    export.objects += len(objects)


def _result(
    photo: Path, original_hw: tuple[int, int], objects: Sequence[LabelledObject], classes: Mapping[int, str]
) -> PhotoResult:
    """Objects as the writers take them. Of the photo's pixels these formats hold none."""
    image = np.broadcast_to(np.uint8(0), (*original_hw, 3))
    nothing = np.zeros((256, 256), np.float32)
    found = [Found(Segmentation(rle_to_mask(one.rle), 1.0, nothing), row) for row, one in enumerate(objects)]
    tags = [PromptLabel(classes.get(one.category_id), one.category_id) for one in objects]
    return PhotoResult(photo, image, Request(tags=tags), found, Stopwatch())


def _place(layout: ExportLayout, name: str) -> str:
    path = PurePosixPath(name)
    folder = "" if path.parent == PurePosixPath() else f"{path.parent}/"
    return layout.place.format(folder=folder, stem=path.stem)


def _check_places(places: Mapping[str, str]) -> None:
    owners: dict[str, str] = {}
    for name, place in places.items():
        if place in owners:
            raise InputError(f"{owners[place]} and {name} would share the file {place}", "rename one of the photos")
        owners[place] = name


def _rename(begun: Path, wanted: Path) -> Path:
    """Give the folder the first name that is free."""
    for number in count(1):
        place = wanted if number == 1 else wanted.with_name(f"{wanted.name}_{number}")
        if not place.exists():
            begun.rename(place)
            return place
    raise AssertionError("numbers do not end")


def _yolo_names(folder: Path, classes: Mapping[int, str]) -> None:
    (folder / DATA_YAML).write_text(data_yaml(classes, ["images"]), "utf-8")
    (folder / CLASS_NAMES).write_text(class_names(classes), "utf-8")


EXPORTS: Mapping[str, ExportLayout] = {
    "yolo": ExportLayout("labels/{folder}{stem}.txt", photos="images", finish=_yolo_names),
    "labelme": ExportLayout("{folder}{stem}.json"),
    "png": ExportLayout("{folder}{stem}_mask.png"),
}

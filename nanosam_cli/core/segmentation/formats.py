"""The formats of results: one entry each, with what its files are called and how a photo's is written.

The choices of `--format` and its help come from this table, so what it needs is imported when a file is written.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nanosam_cli.core.errors import UsageError

if TYPE_CHECKING:
    from nanosam_cli.core.segmentation.result import PhotoResult

PNG_KEY = "nanosam.objects"  # the text of a PNG that says what its objects are


@dataclass(frozen=True)
class PhotoTarget:
    """Where results go, and how."""

    file: Path
    overwrite: bool = False
    separate: bool = False  # a file an object: the result has one
    simplify: float = 0.0  # pixels, of outlines; see `mask_to_polygons`
    classes: Mapping[int, str] | None = None  # names of category ids
    grey: bool = False  # labels without colours


@dataclass(frozen=True)
class SharedLayout:
    """How all photos share one file: what is kept of each until all are done, and what is made of that."""

    keep: Callable[[PhotoTarget, PhotoResult], Any]  # plain values for JSON
    join: Callable[[Sequence[tuple[Path, int, Any]], Mapping[int, str]], Any]  # (photo, image id, kept), class names


@dataclass(frozen=True)
class OutputFormat:
    """One `--format`: `write` where every photo has a file of its own, `layout` where all share one."""

    name: str
    about: str  # for the help
    ending: str  # of the default name, after the photo's stem
    suffix: str
    write: Callable[[PhotoTarget, PhotoResult], None] | None = None
    layout: SharedLayout | None = None  # see `SharedFile`
    outlines: bool = False  # whether it holds any, which `--simplify` is for
    flat: bool = False  # whether a pixel has one object only, so that overlaps lose some
    class_names: bool = False  # whether a file beside it names the classes

    @property
    def shared(self) -> bool:
        """Whether all photos go into one file."""
        return self.layout is not None


def _labels(target: PhotoTarget, result: PhotoResult) -> None:
    from nanosam_cli.core.media.image import write_png
    from nanosam_cli.core.media.render import PALETTE, label_map

    about = {PNG_KEY: json.dumps(result.objects())}
    if target.separate:
        write_png(target.file, result.masks[0], overwrite=target.overwrite, text=about)
    else:
        labels = label_map(result.masks, result.image.shape[:2])
        palette = None if target.grey else PALETTE
        write_png(target.file, labels, palette, overwrite=target.overwrite, text=about)


def _overlay(target: PhotoTarget, result: PhotoResult) -> None:
    """The photo with its masks, the prompts and the names of the masks that it shows."""
    from nanosam_cli.core.media.image import write_png
    from nanosam_cli.core.media.render import overlay

    request, prompts = result.request, sorted({one.prompt for one in result.found})
    parts = [None if part is None else part[prompts] for part in (request.boxes, request.points, request.labels)]
    names = [request.tag(one.prompt).name for one in result.found]
    picture = overlay(result.image, result.masks, parts[0], parts[1], parts[2], names)
    write_png(target.file, picture, overwrite=target.overwrite, text={PNG_KEY: json.dumps(result.objects())})


def _cutout(target: PhotoTarget, result: PhotoResult) -> None:
    from nanosam_cli.core.media.image import write_png
    from nanosam_cli.core.media.render import cutout, union

    picture = cutout(result.image, union(result.masks, result.image.shape[:2]))
    write_png(target.file, picture, overwrite=target.overwrite, text={PNG_KEY: json.dumps(result.objects())})


def _run_lengths(target: PhotoTarget, result: PhotoResult) -> None:
    from nanosam_cli.core.media.mask_codes import mask_to_rle

    _write_shapes(target, result, mask_to_rle)


def _polygons(target: PhotoTarget, result: PhotoResult) -> None:
    from nanosam_cli.core.media.mask_codes import mask_to_polygons

    _write_shapes(target, result, lambda mask: mask_to_polygons(mask, target.simplify))


def _write_shapes(target: PhotoTarget, result: PhotoResult, encode: Callable[[Any], Any]) -> None:
    from nanosam_cli.core.segmentation.result import SCHEMA_VERSION

    objects = [{**record, "segmentation": encode(mask)} for record, mask in zip(result.objects(), result.masks)]
    size = list(result.image.shape[:2])
    about = {"schema_version": SCHEMA_VERSION, "image": result.photo.name, "size": size}
    _write_json(target, {**about, "objects": objects, "notes": list(result.request.notes)})


def _yolo(target: PhotoTarget, result: PhotoResult) -> None:
    from nanosam_cli.core.segmentation.label_formats import yolo_segments
    from nanosam_cli.core.system.files import write_text

    # durable, because an empty file may be right, and would not be noticed
    write_text(target.file, yolo_segments(result, target.classes or {}, target.simplify), target.overwrite)


def _labelme(target: PhotoTarget, result: PhotoResult) -> None:
    from nanosam_cli.core.media.find_photos import STDIN
    from nanosam_cli.core.segmentation.label_formats import labelme

    photo = result.photo.name if result.photo == STDIN else os.path.relpath(result.photo, target.file.parent)
    _write_json(target, labelme(result, photo, target.simplify))


def _keep_rows(target: PhotoTarget, result: PhotoResult) -> Any:
    from nanosam_cli.core.segmentation.coco_output import result_rows

    return result_rows(result)


def _join_rows(kept: Sequence[tuple[Path, int, Any]], classes: Mapping[int, str]) -> Any:
    from nanosam_cli.core.segmentation.coco_output import join_results

    return join_results(kept, classes)


def _keep_annotations(target: PhotoTarget, result: PhotoResult) -> Any:
    from nanosam_cli.core.segmentation.coco_output import photo_annotations

    return photo_annotations(result, target.simplify)


def _join_data_set(kept: Sequence[tuple[Path, int, Any]], classes: Mapping[int, str]) -> Any:
    from nanosam_cli.core.segmentation.coco_output import join_data_set

    return join_data_set(kept, classes)


def _write_json(target: PhotoTarget, content: Mapping[str, Any]) -> None:
    from nanosam_cli.core.system.files import write_text

    write_text(target.file, json.dumps(content) + "\n", target.overwrite, durable=False)


_COCO_RESULTS = SharedLayout(_keep_rows, _join_rows)
_COCO_DATA_SET = SharedLayout(_keep_annotations, _join_data_set)

FORMATS: Mapping[str, OutputFormat] = {
    entry.name: entry
    for entry in (
        OutputFormat("png", "indexed labels, object k has the value k", "_mask", ".png", _labels, flat=True),
        OutputFormat("overlay", "the photo with its masks", "_overlay", ".png", _overlay),
        OutputFormat("cutout", "transparent around the objects", "_cutout", ".png", _cutout),
        OutputFormat("rle", "COCO's run-length codes", "_rle", ".json", _run_lengths),
        OutputFormat("polygon", "outlines", "_polygon", ".json", _polygons, outlines=True),
        OutputFormat("coco", "COCO results of all photos", "coco", ".json", layout=_COCO_RESULTS),
        OutputFormat("yolo", "YOLO's rows", "", ".txt", _yolo, outlines=True, class_names=True),
        OutputFormat("labelme", "labelme's files", "", ".json", _labelme, outlines=True),
        OutputFormat(
            "coco-dataset",
            "a COCO data set of all photos, as labellers read it",
            "coco-dataset",
            ".json",
            layout=_COCO_DATA_SET,
            outlines=True,
        ),
    )
}


def find_format(name: str) -> OutputFormat:
    """The format called `name`. UsageError where there is none."""
    if name not in FORMATS:
        raise UsageError(f"unknown format: {name}", f"choose one of {', '.join(FORMATS)}")
    return FORMATS[name]

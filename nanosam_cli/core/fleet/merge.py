"""Shards as one file, or one folder, of a format that other tools read: what `segment --format` would have written."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nanosam_cli.core.errors import InputError, OutputError
from nanosam_cli.core.fleet.output import read_manifest, read_rows
from nanosam_cli.core.fleet.rows import result_of
from nanosam_cli.core.segmentation.class_files import class_files
from nanosam_cli.core.segmentation.formats import PhotoTarget, SharedLayout, find_format
from nanosam_cli.core.segmentation.image_ids import number_photos
from nanosam_cli.core.system.files import write_text

FORMATS = ("coco", "coco-dataset", "yolo")


@dataclass(frozen=True)
class Merged:
    """What was written."""

    place: Path
    photos: int
    objects: int
    failed: int  # photos with an error, which no format has a place for

    def __str__(self) -> str:
        failed = f"; {self.failed} photos with an error are left out" if self.failed else ""
        return f"{self.photos} photos, {self.objects} objects -> {self.place}{failed}"


def merge_shards(
    folder: Path,
    format_name: str,
    place: Path,
    *,
    force: bool = False,
    simplify: float = 0.0,
    advance: Callable[[], object] = lambda: None,
) -> Merged:
    """Read every shard and write one file, or for YOLO's rows one folder.

    Raises:
        InputError: the folder holds no job, or one that is not finished; a shard is broken.
        OutputError: `place` is there and `force` is false, or it cannot be written.
    """
    manifest = read_manifest(folder)
    classes = {int(number): name for number, name in manifest["classes"].items()}
    kind = find_format(format_name)
    target = PhotoTarget(place, force, simplify=simplify, classes=classes)
    if kind.layout is not None:
        if place.exists() and not force:  # before the work
            raise OutputError(
                f"{place} exists already", "add `--force` to overwrite it, or give another place with `-o`"
            )
        return _one_file(folder, manifest, target, kind.layout, advance)
    return _yolo_folder(folder, manifest, target, advance)


def _one_file(
    folder: Path, manifest: Mapping[str, Any], target: PhotoTarget, layout: SharedLayout, advance: Callable[[], object]
) -> Merged:
    kept: list[tuple[Path, Any]] = []
    given: dict[Path, int] = {}
    objects = failed = 0
    for row in read_rows(folder, manifest["shards"]):
        advance()
        if row["error"] is not None:
            failed += 1
            continue
        result = result_of(row)
        objects += len(result.found)
        kept.append((result.photo, layout.keep(target, result)))
        if row["image_id"] is not None:
            given[result.photo] = row["image_id"]
    numbers, _ = number_photos([photo for photo, _ in kept], given)
    content = layout.join([(photo, numbers[photo], entry) for photo, entry in kept], target.classes or {})
    write_text(target.file, json.dumps(content) + "\n", target.overwrite)
    return Merged(target.file, len(kept), objects, failed)


def _yolo_folder(
    folder: Path, manifest: Mapping[str, Any], target: PhotoTarget, advance: Callable[[], object]
) -> Merged:
    write = find_format("yolo").write
    assert write is not None
    photos: list[Path] = []
    objects = failed = 0
    for row in read_rows(folder, manifest["shards"]):
        advance()
        if row["error"] is not None:
            failed += 1
            continue
        result = result_of(row)
        if result.photo.is_absolute() or ".." in result.photo.parts:
            raise InputError(f"the id {result.photo} leads out of the folder", "merge as coco")
        file = (target.file / result.photo).with_suffix(".txt")
        write(PhotoTarget(file, target.overwrite, simplify=target.simplify, classes=target.classes), result)
        objects += len(result.found)
        photos.append(target.file / result.photo)
    _write_names(target, photos)
    return Merged(target.file, len(photos), objects, failed)


def _write_names(target: PhotoTarget, photos: Sequence[Path]) -> None:
    for path, text in class_files(target.file, target.classes or {}, photos).items():
        write_text(path, text, target.overwrite)

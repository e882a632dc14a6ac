"""Results as files: names are decided and checked before any work starts, then written photo by photo."""

from __future__ import annotations

import json
import os
import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any

from nanosam_cli.core.annotation_files import CLASS_NAMES, class_names, labelme, yolo_segments
from nanosam_cli.core.errors import OutputError, UsageError
from nanosam_cli.core.files import check_writable, write_text
from nanosam_cli.core.formats import coco_annotation, coco_results, mask_to_polygons, mask_to_rle
from nanosam_cli.core.image import write_png
from nanosam_cli.core.photo_result import SCHEMA_VERSION, Image, PhotoResult, score
from nanosam_cli.core.render import PALETTE, cutout, label_map, overlap, overlay, union
from nanosam_cli.core.request import STDIN, some

_FURTHER_KEYS = ("file_name", "category_name")
PNG_KEY = "nanosam.objects"  # the text of a PNG that says what its objects are


@dataclass(frozen=True)
class Kind:
    """One `--format`: what its files are called."""

    ending: str  # of the default name, after the photo's stem
    suffix: str


FORMATS: Mapping[str, Kind] = {
    "png": Kind("_mask", ".png"),
    "overlay": Kind("_overlay", ".png"),
    "cutout": Kind("_cutout", ".png"),
    "rle": Kind("_rle", ".json"),
    "polygon": Kind("_polygon", ".json"),
    "coco": Kind("coco", ".json"),
    "yolo": Kind("", ".txt"),
    "labelme": Kind("", ".json"),
}
OUTLINES = ("polygon", "yolo", "labelme")  # formats that hold outlines


@dataclass
class Outputs:
    """Where the results of a run go. Made by `plan_outputs`; leaving its `with` block writes what all photos share.

    That is the COCO file, or the names of YOLO's classes. It is written after an error or Ctrl-C too, with the photos
    that were done: hours of work stay.
    """

    format: str
    targets: Mapping[Path, Path]  # photo -> file; with `separate`, objects put their number before the suffix
    image_ids: Mapping[Path, int]  # for COCO
    classes: Mapping[int, str] = field(default_factory=dict)  # names of category ids, for YOLO
    separate: bool = False
    force: bool = False
    simplify: float = 0.0  # pixels, of outlines; see `mask_to_polygons`
    _annotations: list[dict[str, Any]] = field(default_factory=list)

    def write(self, result: PhotoResult) -> None:
        """Write one photo's files and note their names in the result; a COCO file is written at the end."""
        with result.watch("write"):
            target = self.targets[result.photo]
            result.files = [target]
            if self.format == "coco":
                self._annotations += self._coco(result)
            elif not self.separate:
                self._write_file(target, result)
            else:
                result.files = [target.with_name(f"{target.stem}_{o.name}{target.suffix}") for o in result.found]
                for file, one in zip(result.files, result.found):
                    self._write_file(file, replace(result, found=[one]))

    def loses(self, result: PhotoResult) -> bool:
        """Whether masks overlap in a label PNG, which can give a pixel to one object only."""
        return self.format == "png" and not self.separate and overlap(result.masks)

    def __enter__(self) -> Outputs:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        first = next(iter(self.targets.values()))
        if self.format == "yolo":
            write_text(first.with_name(CLASS_NAMES), class_names(self.classes), self.force)
        if self.format != "coco" or (error is not None and not self._annotations):
            return
        results = coco_results(self._annotations) if self._annotations else []  # nothing found is a result too
        # loadRes ignores further keys; without the name nobody could tell which photo an invented id stands for
        further = [{key: full[key] for key in _FURTHER_KEYS if key in full} for full in self._annotations]
        named = [{**result, **more} for result, more in zip(results, further)]
        write_text(first, json.dumps(named) + "\n", self.force)

    def _write_file(self, file: Path, result: PhotoResult) -> None:
        image, masks = result.image, result.masks
        about = {PNG_KEY: json.dumps(result.objects())}
        if self.format == "png" and self.separate:
            write_png(file, masks[0], overwrite=self.force, text=about)
        elif self.format == "png":
            write_png(file, label_map(masks, image.shape[:2]), PALETTE, overwrite=self.force, text=about)
        elif self.format == "overlay":
            write_png(file, _draw(result), overwrite=self.force, text=about)
        elif self.format == "cutout":
            write_png(file, cutout(image, union(masks, image.shape[:2])), overwrite=self.force, text=about)
        elif self.format == "yolo":
            write_text(file, yolo_segments(result, self.classes, self.simplify), self.force)
        elif self.format == "labelme":
            photo = result.photo.name if result.photo == STDIN else os.path.relpath(result.photo, file.parent)
            write_text(file, json.dumps(labelme(result, photo, self.simplify)) + "\n", self.force)
        else:
            write_text(file, json.dumps(self._shapes(result)) + "\n", self.force)

    def _shapes(self, result: PhotoResult) -> dict[str, Any]:
        encode = mask_to_rle if self.format == "rle" else partial(mask_to_polygons, simplify=self.simplify)
        objects = [{**record, "segmentation": encode(mask)} for record, mask in zip(result.objects(), result.masks)]
        size = list(result.image.shape[:2])
        return {"schema_version": SCHEMA_VERSION, "image": result.photo.name, "size": size, "objects": objects}

    def _coco(self, result: PhotoResult) -> list[dict[str, Any]]:
        image_id, first = self.image_ids[result.photo], len(self._annotations) + 1
        entries = []
        for row, one in enumerate(result.found):
            tag = result.request.tag(one.prompt)
            entry = coco_annotation(one.segmentation, first + row, image_id, tag.category_id)
            name = {} if tag.name is None else {"category_name": tag.name}
            entries.append({**entry, "score": score(one, result.request), "file_name": result.photo.name, **name})
        return entries


def _draw(result: PhotoResult) -> Image:
    """The overlay, with the prompts and the names of the masks that it shows."""
    request, prompts = result.request, sorted({one.prompt for one in result.found})
    parts = [None if part is None else part[prompts] for part in (request.boxes, request.points, request.labels)]
    boxes, points, labels = parts
    names = [request.tag(one.prompt).name for one in result.found]
    return overlay(result.image, result.masks, boxes, points, labels, names)


def plan_outputs(
    photos: Sequence[Path],
    format: str = "png",
    output: str | None = None,
    separate: bool = False,
    force: bool = False,
    classes: Mapping[int, str] | None = None,
    simplify: float | None = None,
) -> Outputs:
    """Decide every file name and check them all, so that no work is lost to a name.

    `output` is a directory where it is one, ends with a slash, or has to hold several files; else a file. Without it,
    files go to the working directory. `classes` names the category ids that objects may have. `simplify`, in
    pixels, is for outlines.

    Raises:
        UsageError: options do not go together, two photos would write one file, a photo would be overwritten, or the
            suffix does not fit.
        OutputError: files exist and `force` is false, or a place cannot be written.
    """
    if format not in FORMATS:
        raise UsageError(f"unknown format: {format}", f"choose one of {', '.join(FORMATS)}")
    if format == "coco" and separate:
        raise UsageError("--format coco writes one file for all photos, so it takes no --separate")
    if simplify is not None and format not in OUTLINES:
        raise UsageError(
            f"--format {format} has no outlines, so it takes no --simplify", f"--format {' or '.join(OUTLINES)}"
        )
    kind = FORMATS[format]
    single = len(photos) == 1 or format == "coco"
    directory = output is None or not single or output.endswith(("/", os.sep)) or Path(output).is_dir()
    place = Path(output or "")
    names = _names(photos, format)
    targets = {photo: place / names[photo] if directory else place for photo in photos}
    if not directory and place.suffix.lower() != kind.suffix:
        raise UsageError(
            f"--format {format} writes {kind.suffix} files, not {place.suffix or 'one without a suffix'}: {place}",
            f"-o {place.with_suffix(kind.suffix)}, or another --format",
        )
    if format != "coco":
        _check_clashes(targets)
    shared = {file.with_name(CLASS_NAMES) for file in targets.values()} if format == "yolo" else set()
    files = sorted({*targets.values(), *shared})
    inputs = {photo.resolve() for photo in photos}
    for file in files:
        if file.resolve() in inputs:
            raise UsageError(f"{file} would overwrite a photo that is read", "give another place with `-o`")
    existing = [] if force else [old for file in files for old in _existing(file, separate and file not in shared)]
    if existing:
        count = "" if len(existing) == 1 else f"{len(existing)} files: "
        raise OutputError(
            f"{count}{some(existing)} exist{'s' if len(existing) == 1 else ''} already; nothing was done",
            "add `--force` to overwrite, or give another place with `-o`",
        )
    for parent in {file.parent for file in files}:
        check_writable(parent)
    return Outputs(format, targets, _image_ids(photos), classes or {}, separate, force, simplify or 0.0)


def _names(photos: Sequence[Path], format: str) -> dict[Path, str]:
    """File names by the photos' stems, or by their whole names where stems are alike: a.jpg_mask.png, a.png_mask.png.

    Not so without an ending, because YOLO and labelme know a photo's file by its stem.
    """
    kind = FORMATS[format]
    if format == "coco":
        return dict.fromkeys(photos, f"{kind.ending}{kind.suffix}")
    starts = {photo: "stdin" if photo == STDIN else photo.stem for photo in photos}
    count = Counter(starts.values())
    alike = {photo for photo, start in starts.items() if count[start] > 1 and photo != STDIN}
    if kind.ending:
        starts |= {photo: photo.name for photo in alike}
    return {photo: f"{start}{kind.ending}{kind.suffix}" for photo, start in starts.items()}


def _check_clashes(targets: Mapping[Path, Path]) -> None:
    sources = defaultdict(list)
    for photo, target in targets.items():
        sources[target].append(photo)
    for target, photos in sources.items():
        if len(photos) > 1:
            raise UsageError(
                f"{some(photos)} would all be written to {target}",
                "rename one of them, or run them apart, each with its own `-o FOLDER/`",
            )


def _existing(file: Path, separate: bool) -> list[Path]:
    if not separate:
        return [file] if file.exists() or file.is_symlink() else []
    numbered = re.compile(rf"{re.escape(file.stem)}_\d+(-\d+)?{re.escape(file.suffix)}")
    return sorted(old for old in file.parent.glob("*") if numbered.fullmatch(old.name))


def _image_ids(photos: Sequence[Path]) -> dict[Path, int]:
    """COCO's own ids where all names are numbers, as in its data sets; else 1, 2, ... in the order of the photos."""
    numbers = [int(photo.stem) for photo in photos if photo.stem.isascii() and photo.stem.isdigit()]
    unique = len(set(numbers)) == len(photos)
    return dict(zip(photos, numbers if unique else range(1, len(photos) + 1)))

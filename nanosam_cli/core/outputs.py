"""Results as files: names are decided and checked before any work starts, then written photo by photo."""

from __future__ import annotations

import json
import os
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from time import perf_counter
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nanosam_cli.core.errors import OutputError, UsageError
from nanosam_cli.core.files import write_text
from nanosam_cli.core.formats import coco_annotation, coco_results, mask_to_polygons, mask_to_rle
from nanosam_cli.core.image import write_png
from nanosam_cli.core.render import PALETTE, cutout, label_map, overlap, overlay
from nanosam_cli.core.request import STDIN, Request, some
from nanosam_cli.core.types import Segmentation

SCHEMA_VERSION = 1

Image = NDArray[np.uint8]  # (H, W, 3) RGB


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
}


@dataclass(frozen=True)
class Found:
    """One mask of a photo, with its place among the results."""

    segmentation: Segmentation
    prompt: int  # which of the request's objects, from 0
    reading: int | None = None  # which reading of an ambiguous prompt, from 1, where all were asked for

    @property
    def name(self) -> str:
        """For a file of its own: `1`, or `1-2` for the second reading."""
        return f"{self.prompt + 1}" if self.reading is None else f"{self.prompt + 1}-{self.reading}"


def found_masks(masks: Sequence[Segmentation | Sequence[Segmentation]]) -> list[Found]:
    """One mask for each prompt, or all readings of each, as the predictor gives them."""
    found: list[Found] = []
    for prompt, result in enumerate(masks):
        if isinstance(result, Segmentation):
            found.append(Found(result, prompt))
        else:
            found.extend(Found(segmentation, prompt, reading) for reading, segmentation in enumerate(result, 1))
    return found


class Stopwatch:
    """Milliseconds by stage."""

    def __init__(self) -> None:
        self.ms: dict[str, float] = {}

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        start = perf_counter()
        yield
        self.ms[stage] = self.ms.get(stage, 0.0) + (perf_counter() - start) * 1000

    def __str__(self) -> str:
        return ", ".join(f"{stage} {ms:.0f} ms" for stage, ms in self.ms.items())


@dataclass
class PhotoResult:
    """One photo's masks. `watch` and `files` fill up on the way."""

    photo: Path
    image: Image
    request: Request
    found: Sequence[Found]
    watch: Stopwatch
    files: Sequence[Path] = ()

    @property
    def masks(self) -> list[NDArray[np.bool_]]:
        return [one.segmentation.mask for one in self.found]

    def objects(self) -> list[dict[str, Any]]:
        """For JSON: `label` is the object's value in a label PNG, `object` counts the prompts, `box` is the prompt's
        x0 y0 x1 y1, `bbox` the mask's x y width height, `index` which of the decoder's masks it is."""
        boxes = self.request.boxes
        return [
            {
                "label": label,
                "object": one.prompt + 1,
                "box": None if boxes is None else [float(side) for side in boxes[one.prompt]],
                "bbox": None if one.segmentation.bbox is None else list(one.segmentation.bbox),
                "area": one.segmentation.area,
                "predicted_iou": one.segmentation.predicted_iou,
                "index": one.segmentation.index,
            }
            for label, one in enumerate(self.found, 1)
        ]

    def record(self) -> dict[str, Any]:
        """What `--json` says; size is height, width, as in COCO's run-length code."""
        return {
            "schema_version": SCHEMA_VERSION,
            "image": str(self.photo),
            "size": list(self.image.shape[:2]),
            "objects": self.objects(),
            "timings_ms": {stage: round(ms, 3) for stage, ms in self.watch.ms.items()},
            "output": [str(file) for file in self.files],
        }


@dataclass
class Tally:
    """What a run over many photos came to."""

    photos: int
    done: int = 0
    objects: int = 0
    failed: list[str] = field(default_factory=list)
    _ms: dict[str, float] = field(default_factory=dict)

    def add(self, result: PhotoResult) -> None:
        self.done += 1
        self.objects += len(result.found)
        for stage, ms in result.watch.ms.items():
            self._ms[stage] = self._ms.get(stage, 0.0) + ms

    def __str__(self) -> str:
        stages = ", ".join(f"{stage} {ms / self.done:.0f} ms" for stage, ms in self._ms.items())
        return f"{self.done} of {self.photos} photos done, {self.objects} objects{stages and f'; a photo: {stages}'}"


@dataclass
class Outputs:
    """Where the results of a run go. Made by `plan_outputs`; leaving its `with` block writes the one COCO file.

    The COCO file is written after an error or Ctrl-C too, with the photos that were done: hours of work stay.
    """

    format: str
    targets: Mapping[Path, Path]  # photo -> file; with `separate`, objects put their number before the suffix
    image_ids: Mapping[Path, int]  # for COCO
    separate: bool = False
    force: bool = False
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
        if self.format != "coco" or (error is not None and not self._annotations):
            return
        results = coco_results(self._annotations)
        # loadRes ignores further keys; without the name nobody could tell which photo an invented id stands for
        named = [{**result, "file_name": full["file_name"]} for result, full in zip(results, self._annotations)]
        write_text(next(iter(self.targets.values())), json.dumps(named) + "\n", self.force)

    def _write_file(self, file: Path, result: PhotoResult) -> None:
        image, masks = result.image, result.masks
        if self.format == "png" and self.separate:
            write_png(file, masks[0], overwrite=self.force)
        elif self.format == "png":
            write_png(file, label_map(masks, image.shape[:2]), PALETTE, overwrite=self.force)
        elif self.format == "overlay":
            write_png(file, _draw(result), overwrite=self.force)
        elif self.format == "cutout":
            write_png(file, cutout(image, np.logical_or.reduce(masks)), overwrite=self.force)
        else:
            write_text(file, json.dumps(self._shapes(result)) + "\n", self.force)

    def _shapes(self, result: PhotoResult) -> dict[str, Any]:
        encode = mask_to_rle if self.format == "rle" else mask_to_polygons
        objects = [{**record, "segmentation": encode(mask)} for record, mask in zip(result.objects(), result.masks)]
        size = list(result.image.shape[:2])
        return {"schema_version": SCHEMA_VERSION, "image": result.photo.name, "size": size, "objects": objects}

    def _coco(self, result: PhotoResult) -> list[dict[str, Any]]:
        image_id, first = self.image_ids[result.photo], len(self._annotations) + 1
        entries = [coco_annotation(one.segmentation, first + row, image_id) for row, one in enumerate(result.found)]
        return [{**entry, "file_name": result.photo.name} for entry in entries]


def _draw(result: PhotoResult) -> Image:
    """The overlay, with the prompts of the masks that it shows."""
    request, prompts = result.request, sorted({one.prompt for one in result.found})
    parts = (None if part is None else part[prompts] for part in (request.boxes, request.points, request.labels))
    return overlay(result.image, result.masks, *parts)


def plan_outputs(
    photos: Sequence[Path], format: str = "png", output: str | None = None, separate: bool = False, force: bool = False
) -> Outputs:
    """Decide every file name and check them all, so that no work is lost to a name.

    `output` is a directory where it is one, ends with a slash, or has to hold several files; else a file. Without it,
    files go to the working directory.

    Raises:
        UsageError: two photos would write one file, a photo would be overwritten, or the suffix does not fit.
        OutputError: files exist and `force` is false, or a place cannot be written.
    """
    if format not in FORMATS:
        raise UsageError(f"unknown format: {format}", f"choose one of {', '.join(FORMATS)}")
    if format == "coco" and separate:
        raise UsageError("--format coco writes one file for all photos, so it takes no --separate")
    kind = FORMATS[format]
    single = len(photos) == 1 or format == "coco"
    directory = output is None or not single or output.endswith(("/", os.sep)) or Path(output).is_dir()
    place = Path(output or "")
    targets = {photo: place / _name(photo, format) if directory else place for photo in photos}
    if not directory and place.suffix.lower() != kind.suffix:
        raise UsageError(
            f"--format {format} writes {kind.suffix} files, not {place.suffix or 'one without a suffix'}: {place}",
            f"-o {place.with_suffix(kind.suffix)}, or another --format",
        )
    if format != "coco":
        _check_clashes(targets)
    files = sorted(set(targets.values()))
    inputs = {photo.resolve() for photo in photos}
    for file in files:
        if file.resolve() in inputs:
            raise UsageError(f"{file} would overwrite a photo that is read", "give another place with `-o`")
    existing = [] if force else [old for file in files for old in _existing(file, separate)]
    if existing:
        count = "" if len(existing) == 1 else f"{len(existing)} files: "
        raise OutputError(
            f"{count}{some(existing)} exist{'s' if len(existing) == 1 else ''} already; nothing was done",
            "add `--force` to overwrite, or give another place with `-o`",
        )
    for parent in {file.parent for file in files}:
        _check_writable(parent)
    return Outputs(format, targets, _image_ids(photos), separate, force)


def _name(photo: Path, format: str) -> str:
    kind = FORMATS[format]
    stem = "" if format == "coco" else "stdin" if photo == STDIN else photo.stem
    return f"{stem}{kind.ending}{kind.suffix}"


def _check_clashes(targets: Mapping[Path, Path]) -> None:
    sources = defaultdict(list)
    for photo, target in targets.items():
        sources[target].append(photo)
    for target, photos in sources.items():
        if len(photos) > 1:
            raise UsageError(
                f"{some(photos)} would all be written to {target}", "run them one by one, each with its `-o`"
            )


def _existing(file: Path, separate: bool) -> list[Path]:
    if not separate:
        return [file] if file.exists() or file.is_symlink() else []
    numbered = re.compile(rf"{re.escape(file.stem)}_\d+(-\d+)?{re.escape(file.suffix)}")
    return sorted(old for old in file.parent.glob("*") if numbered.fullmatch(old.name))


def _check_writable(directory: Path) -> None:
    """Missing directories are made when the first file is written, so the nearest one that exists counts."""
    nearest = next((parent for parent in (directory, *directory.parents) if parent.exists()), Path())
    if not nearest.is_dir():
        raise OutputError(
            f"cannot write into {directory}: {nearest} is not a directory", "give another place with `-o`"
        )
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise OutputError(f"cannot write into {directory}: permission denied", "give another place with `-o`")


def _image_ids(photos: Sequence[Path]) -> dict[Path, int]:
    """COCO's own ids where all names are numbers, as in its data sets; else 1, 2, ... in the order of the photos."""
    numbers = [int(photo.stem) for photo in photos if photo.stem.isascii() and photo.stem.isdigit()]
    unique = len(set(numbers)) == len(photos)
    return dict(zip(photos, numbers if unique else range(1, len(photos) + 1)))

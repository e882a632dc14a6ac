"""An evaluation as a job: written down as it goes, resumed after a kill.

Beside `results.json` lie `results.jsonl` while the run goes on (one line a photo), `results.meta.json` (how it was
made) and, on request, `results.masks.json` (COCO results). The final files are made from the journal alone, in the
order of the annotation file, so a resumed run leaves the same bytes as one that was never killed.
"""

from __future__ import annotations

import json
import platform
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from types import TracebackType
from typing import Any

from nanosam_cli.core.datasets.coco import AnnotatedPhoto
from nanosam_cli.core.datasets.photo_files import PhotoFiles
from nanosam_cli.core.errors import InputError, OutputError, UsageError
from nanosam_cli.core.evaluation.loop import EvaluatedPhoto, Examine, evaluate
from nanosam_cli.core.evaluation.plan import EvaluationPlan
from nanosam_cli.core.evaluation.results import (
    SCHEMA_VERSION,
    ObjectResult,
    Results,
    masks_path,
    meta_path,
    read_results,
    write_results,
)
from nanosam_cli.core.evaluation.segmenters import Segmenter
from nanosam_cli.core.media.mask_codes import mask_to_rle
from nanosam_cli.core.schema import Whole
from nanosam_cli.core.system.files import atomic_write
from nanosam_cli.core.system.journal import Journal, check_choice, check_free, check_same, journal_path

_PACKAGES = ("numpy", "pillow", "pycocotools")  # what images are read and masks are decoded with


@dataclass(frozen=True)
class _PhotoRecord:
    """A line of the journal."""

    image_id: int
    objects: tuple[ObjectResult, ...]
    empty: Whole
    masks: tuple[Mapping[str, Any], ...] = ()


@dataclass
class EvaluationRun:
    """A planned run that was started or taken up again by `start_run`. Ends with its `with` block."""

    plan: EvaluationPlan
    output: Path
    journal: Journal | None  # None where the results are there already
    overwrite: bool = False
    examine: Examine | None = None  # else each object is prompted once
    failed: list[tuple[Path, InputError]] = field(default_factory=list)
    mended: list[tuple[Path, str]] = field(default_factory=list)  # annotations that were of another size, and how
    _done: set[int] = field(default_factory=set)  # image ids
    _sum: float = 0.0  # of IoU
    _count: int = 0

    def __post_init__(self) -> None:
        for record in self.journal.records() if self.journal else ():
            self._add(record["image_id"], [row["iou"] for row in record["objects"]])

    @property
    def total(self) -> int:
        """Photos to be done in all."""
        return len(self.plan.photos) - len(self.plan.missing)

    @property
    def done(self) -> int:
        """Photos that are done."""
        return len(self._done) if self.journal else self.total

    def steps(self, segmenter: Segmenter, files: PhotoFiles) -> Iterator[float]:
        """Work photo by photo; yields the mean IoU of all objects so far."""
        if self.journal is None:
            return
        absent = {photo.id for photo in self.plan.missing}
        left = [photo for photo in self.plan.photos if photo.id not in self._done | absent]
        for result in evaluate(
            segmenter,
            left,
            prompting=self.plan.prompting,
            examine=self.examine,
            read=files.read,
            orientation=files.orientation,
            failed=self._note_failure,
        ):
            if result.note:
                self.mended.append((result.photo.path, result.note))
            self.journal.write(_record(result, masks=self.plan.settings["save_masks"]))
            self._add(result.photo.id, [found.iou for found in result.results])
            yield self._sum / max(self._count, 1)

    def finish(self, *, keep_failed: bool = True) -> Results:
        """Write the final files. The journal goes, unless photos failed and are to be tried again by `--resume`."""
        if self.journal is None:
            return read_results(self.output)
        records = {record["image_id"]: record for record in self.journal.records()}
        ordered = [records[photo.id] for photo in self.plan.photos if photo.id in records]
        objects = [ObjectResult.from_dict(row) for record in ordered for row in record["objects"]]
        if self.plan.settings["save_masks"]:
            _write_masks(masks_path(self.output), ordered, self.overwrite)
        write_results(self.output, objects, self._meta(ordered, len(objects)), self.overwrite)
        if not (self.failed and keep_failed):
            self.journal.remove()
        return read_results(self.output)

    def _note_failure(self, photo: AnnotatedPhoto, error: InputError) -> None:
        self.failed.append((photo.path, error))

    def _add(self, image_id: int, ious: Sequence[float]) -> None:
        self._done.add(image_id)
        self._sum += sum(ious)
        self._count += len(ious)

    def _meta(self, records: Sequence[Mapping[str, Any]], objects: int) -> dict[str, Any]:
        annotations = self.plan.annotations
        return {
            "schema_version": SCHEMA_VERSION,
            "model": self.plan.settings["model"]["name"],
            "settings": self.plan.settings,
            "counts": {
                "photos": len(records),
                "objects": objects,
                "missing_photos": len(self.plan.missing),
                "failed_photos": len(self.failed),
                "boxes_without_area": self.plan.boxes_without_area,
                "empty_masks": sum(record["empty"] for record in records),
                "annotations_without_mask": annotations.without_mask,
            },
            "data": {
                "annotations": str(annotations.path.absolute()),
                "images": str(self.plan.images.absolute()),
                "categories": {str(key): name for key, name in annotations.categories.items()},
            },
            "versions": {"python": platform.python_version(), **{name: version(name) for name in _PACKAGES}},
        }

    def __enter__(self) -> EvaluationRun:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.journal is None:
            return
        if error is not None and not self._done:
            self.journal.remove()  # nothing is lost, and nothing is in the way of another try
        self.journal.__exit__(kind, error, trace)


def start_run(
    plan: EvaluationPlan, output: Path, *, resume: bool = False, force: bool = False, examine: Examine | None = None
) -> EvaluationRun:
    """Check the places that are written to and open the journal.

    With `resume`, go on with a run of the same settings; one that is finished is left as it is, and where there is none
    it starts. With `force`, start anew whatever is there.

    Raises:
        UsageError: the output is no JSON file, or both `resume` and `force` are asked for.
        OutputError: results are there already, or the place cannot be written.
        InputError: the run that is there has other settings.
    """
    path = journal_path(output)
    check_choice(resume, force)
    if output.suffix.lower() != ".json":
        raise UsageError(f"results are a .json file, not {output}", f"-o {output.with_suffix('.json')}")
    if resume and output.exists() and not path.exists():
        check_same(meta_path(output), read_results(output).settings, plan.settings)
        return EvaluationRun(plan, output, None, examine=examine)
    if not resume and not force:
        check_free(path)
        for old in (output, meta_path(output), masks_path(output)):
            if old.exists():
                raise OutputError(f"{old} exists already", "add `--force` to overwrite it, or give another place")
    journal = Journal(path, plan.settings, resume=resume, kind=_PhotoRecord)
    return EvaluationRun(plan, output, journal, overwrite=resume or force, examine=examine)


def _record(result: EvaluatedPhoto, masks: bool) -> dict[str, Any]:
    record = {
        "image_id": result.photo.id,
        "objects": [found.to_dict() for found in result.results],
        "empty": result.empty,
    }
    if masks:
        record["masks"] = [
            {
                "annotation_id": found.id,
                "image_id": found.image_id,
                "category_id": found.category_id,
                "segmentation": mask_to_rle(mask.mask),
                "score": mask.score,
            }
            for found, mask in zip(result.results, result.masks)
        ]
    return record


def _write_masks(path: Path, records: Sequence[Mapping[str, Any]], overwrite: bool) -> None:
    """COCO results, as `pycocotools.COCO.loadRes` reads them. No bbox: from it loadRes would take a wrong area."""
    rows = [json.dumps(mask) for record in records for mask in record["masks"]]
    with atomic_write(path, overwrite) as temporary:
        temporary.write_text("[" + ",\n ".join(rows) + "]\n", encoding="utf-8")

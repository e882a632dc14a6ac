"""What came of a photo: its masks, what is known of each, and how long it took."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nanosam_cli.core.masks import Mask
from nanosam_cli.core.media.packed import PackedMasks, PackedSegmentation
from nanosam_cli.core.messages import some
from nanosam_cli.core.prompting.request import Request
from nanosam_cli.core.segmentation.zoom import Zoomed
from nanosam_cli.core.timing import Stopwatch
from nanosam_cli.core.types import Image, Segmentation, no_boxes

SCHEMA_VERSION = 1
EMPTY = "the mask is empty"


@dataclass(frozen=True)
class Found:
    """One mask of a photo, with its place among the results."""

    segmentation: Segmentation | PackedSegmentation
    prompt: int  # which of the request's objects, from 0
    reading: int | None = None  # which reading of an ambiguous prompt, from 1, where all were asked for

    @property
    def name(self) -> str:
        """For a file of its own: `1`, or `1-2` for the second reading."""
        return f"{self.prompt + 1}" if self.reading is None else f"{self.prompt + 1}-{self.reading}"


def packed_masks(masks: Sequence[Segmentation | Sequence[Segmentation]], first: int = 0) -> list[Found]:
    """The same as `found_masks`, without logits, in a thousandth of the memory."""
    return [replace(one, segmentation=_packed(one.segmentation)) for one in found_masks(masks, first)]


def _packed(one: Segmentation | PackedSegmentation) -> PackedSegmentation:
    return PackedSegmentation.of(one) if isinstance(one, Segmentation) else one


def found_masks(masks: Sequence[Segmentation | Sequence[Segmentation]], first: int = 0) -> list[Found]:
    """One mask for each prompt, or all readings of each, as the predictor gives them; `first` is the first prompt."""
    found: list[Found] = []
    for prompt, result in enumerate(masks, first):
        if isinstance(result, Segmentation):
            found.append(Found(result, prompt))
        else:
            found.extend(Found(segmentation, prompt, reading) for reading, segmentation in enumerate(result, 1))
    return found


def without_overlap(found: Sequence[Found], request: Request) -> list[Found]:
    """The same objects in their order, each pixel left to the best of those that have it.

    The best is the one with the highest score of the model that gave the prompt, else with the highest predicted IoU.
    """
    kept = list(found)
    taken: NDArray[np.bool_] | None = None
    for place in sorted(range(len(kept)), key=lambda place: -score(kept[place], request)):
        packed = _packed(kept[place].segmentation)
        mask = packed.mask
        taken = np.zeros_like(mask) if taken is None else taken
        kept[place] = replace(kept[place], segmentation=packed.with_mask(mask & ~taken))
        taken |= mask
    return kept


def empty_note(found: Sequence[Found]) -> list[str]:
    """Says which masks have no pixel; nothing where none is so."""
    names = [one.name for one in found if not one.segmentation.area]
    if not names:
        return []
    return [f"{EMPTY}: object{'s' * (len(names) > 1)} {some(names)}"]


def score(found: Found, request: Request) -> float:
    """How sure the model that gave the prompt was of the object; where no model did, the predicted IoU of its mask."""
    given = request.tag(found.prompt).score
    return found.segmentation.predicted_iou if given is None else given


@dataclass
class PhotoResult:
    """One photo's masks. `watch` and `files` fill up on the way."""

    photo: Path
    image: Image
    request: Request
    found: Sequence[Found]
    watch: Stopwatch
    zoomed: Zoomed | None = None  # where objects were looked at from near, if that was asked
    files: Sequence[Path] = ()

    @property
    def masks(self) -> Sequence[Mask]:
        """(H, W) each, made as they are asked for."""
        return PackedMasks([one.segmentation for one in self.found])

    def objects(self) -> list[dict[str, Any]]:
        """For JSON: `label` is the object's value in a label PNG, `object` counts the prompts, `class` and `score` are
        those of the model that gave the prompt, `box` is the prompt's x0 y0 x1 y1, `bbox` the mask's x y width height,
        `index` which of the decoder's masks it is; where objects were looked at from near, `window` is x0 y0 x1 y1 of
        what was encoded for it, null the whole photo."""
        boxes = self.request.boxes
        return [
            {
                "label": label,
                "object": one.prompt + 1,
                "class": self.request.tag(one.prompt).name,
                "score": self.request.tag(one.prompt).score,
                "box": None if boxes is None or no_boxes(boxes[one.prompt]) else [float(s) for s in boxes[one.prompt]],
                "bbox": None if one.segmentation.bbox is None else list(one.segmentation.bbox),
                "area": one.segmentation.area,
                "predicted_iou": one.segmentation.predicted_iou,
                "index": one.segmentation.index,
                **({} if self.zoomed is None else {"window": self.zoomed.windows[one.prompt]}),
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
            "notes": list(self.request.notes),
            **({} if self.zoomed is None else {"encodings": self.zoomed.encodings}),
            "timings_ms": {stage: round(ms, 3) for stage, ms in self.watch.ms.items()},
            "output": [str(file) for file in self.files],
        }


@dataclass
class Tally:
    """What a run over many photos came to."""

    photos: int
    done: int = 0
    objects: int = 0
    encodings: int = 0  # of photos whose objects were looked at from near
    failed: list[str] = field(default_factory=list)
    _ms: dict[str, float] = field(default_factory=dict)

    def add(self, result: PhotoResult) -> None:
        self.done += 1
        self.objects += len(result.found)
        self.encodings += result.zoomed.encodings if result.zoomed else 0
        for stage, ms in result.watch.ms.items():
            self._ms[stage] = self._ms.get(stage, 0.0) + ms

    def __str__(self) -> str:
        stages = ", ".join(f"{stage} {ms / self.done:.0f} ms" for stage, ms in self._ms.items())
        runs = f", the encoder ran {self.encodings} times" if self.encodings else ""
        return (
            f"{self.done} of {self.photos} photos done, {self.objects} objects{runs}{stages and f'; a photo: {stages}'}"
        )

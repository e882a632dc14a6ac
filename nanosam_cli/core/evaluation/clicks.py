"""Corrections as people make them, simulated: a click where the mask is most wrong, the mask fed back, and again.

The click is the field's (RITM, Sofiiuk et al. 2021, arXiv 2102.06583; SAM, section 4): in the largest region that is
missing or too much, the pixel that lies deepest. Every object of a photo is corrected at once, over one embedding.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nanosam_cli.core.datasets.annotated_mask import AnnotatedMask
from nanosam_cli.core.datasets.coco import AnnotatedPhoto, Annotations
from nanosam_cli.core.datasets.photo_files import PhotoFiles
from nanosam_cli.core.errors import UsageError
from nanosam_cli.core.evaluation.loop import EvaluatedPhoto, object_result
from nanosam_cli.core.evaluation.plan import EvaluationPlan, ObjectFilter, plan_evaluation
from nanosam_cli.core.evaluation.prompting import Prompting
from nanosam_cli.core.evaluation.protocols import EvaluationProtocol
from nanosam_cli.core.evaluation.segmenters import Ready, ScoredMask, Segmenter
from nanosam_cli.core.frame import Frame
from nanosam_cli.core.inference.decoder_inputs import mask_to_logits
from nanosam_cli.core.masks import Mask, mask_iou, mask_window, usable_boxes
from nanosam_cli.core.regions import largest_region, moved, opened, squared_depths
from nanosam_cli.core.types import BACKGROUND, FOREGROUND, PADDING, Prompt

Array = NDArray[np.float32]
Start = Literal["click", "box"]

PROTOCOL = EvaluationProtocol("clicks", "no crowd, the mask that SAM advises", False, "auto")
MOST_CLICKS = 100
ROUGHNESS = 0.06  # of the box's shorter side: what a rough mask is opened and moved by
MASK_STEPS = ("own mask", "own mask + box", "rough mask", "rough mask + box", "the rough mask itself")
_DIRECTIONS = 2  # stream of random numbers, besides those of `Prompting`


class Click(NamedTuple):
    """Where a mask is to be corrected."""

    x: int  # pixel
    y: int
    label: int  # FOREGROUND where a part is missing, BACKGROUND where there is too much

    @property
    def xy(self) -> tuple[float, float]:
        """The pixel's middle."""
        return self.x + 0.5, self.y + 0.5


class Said(NamedTuple):
    """One step of a dialogue about several objects."""

    masks: Sequence[ScoredMask]
    newest: Sequence[Click | None]  # what each was clicked, None where its mask was right already


@dataclass(frozen=True)
class Corrections:
    """Corrects each object `clicks` times, from the first click or from the annotated box on."""

    start: Start = "click"
    clicks: int = 10

    def __post_init__(self) -> None:
        if not 1 <= self.clicks <= MOST_CLICKS:
            raise UsageError(f"--clicks is from 1 to {MOST_CLICKS}, not {self.clicks}", "--clicks 10")

    @property
    def steps(self) -> list[str]:
        """What each of the masks was made from."""
        clicks = ["1 click", *(f"{count} clicks" for count in range(2, self.clicks + 1))]
        return ["box", *clicks] if self.start == "box" else clicks

    @property
    def prompting(self) -> Prompting:
        """The largest prompt that is given."""
        return Prompting(self.start == "box", self.clicks)

    def settings(self) -> dict[str, Any]:
        """What decides the results."""
        return {"prompt": "clicks", "start": self.start, "clicks": self.clicks, "steps": self.steps}

    def __call__(self, photo: AnnotatedPhoto, truths: Sequence[AnnotatedMask], segment: Ready) -> EvaluatedPhoto:
        """Talk about every object that has a pixel. `ious` are of each step's mask, `obeyed` of each click."""
        asked = [truth for truth in truths if truth.area]
        if not asked:
            return EvaluatedPhoto(photo, [], [], len(truths))
        ious: list[list[float]] = [[] for _ in asked]
        obeyed: list[list[bool]] = [[] for _ in asked]
        masks: Sequence[ScoredMask] = ()
        for said in self.dialogue(photo, asked, segment):
            masks = said.masks
            for row, truth in enumerate(asked):
                ious[row].append(truth.iou(masks[row].mask))
                if click := said.newest[row]:
                    obeyed[row].append(bool(masks[row].mask[click.y, click.x]) == (click.label == FOREGROUND))
        results = [
            replace(object_result(photo, truth, values[-1]), ious=tuple(values), obeyed=tuple(heard))
            for truth, values, heard in zip(asked, ious, obeyed)
        ]
        return EvaluatedPhoto(photo, results, masks, len(truths) - len(asked))

    def dialogue(self, photo: AnnotatedPhoto, asked: Sequence[AnnotatedMask], segment: Ready) -> Iterator[Said]:
        """The masks after the box, where it starts with one, and after each click."""
        boxes = _boxes(photo, asked) if self.start == "box" else None
        clicks: list[list[Click]] = [[] for _ in asked]
        nobody: list[Click | None] = [None for _ in asked]
        nothing = ScoredMask(np.zeros(photo.original_hw, bool), 0.0)
        masks = [nothing for _ in asked] if boxes is None else list(segment(Prompt(boxes)))
        if boxes is not None:
            yield Said(list(masks), nobody)
        for step in range(1, self.clicks + 1):
            newest = [
                correct(truth, found.mask, made) if len(made) == step - 1 else None
                for truth, found, made in zip(asked, masks, clicks)
            ]
            for made, click in zip(clicks, newest):
                made.extend([click] if click else [])
            fed_back = None if step == 1 and boxes is None else [found.logits for found in masks]
            answers = segment(_prompt(boxes, clicks, step, fed_back))
            # nobody clicks on a mask that is right: it stays
            masks = [answer if click else found for answer, found, click in zip(answers, masks, newest)]
            yield Said(masks, newest)


def correct(truth: AnnotatedMask, mask: Mask, before: Sequence[Click] = ()) -> Click | None:
    """The next click on a mask (H, W): the deepest pixel of the largest wrong region; None where nothing is wrong.

    A pixel is not clicked twice, unless its region has no other. Of equally large regions the missing one is taken.
    """
    shown = mask_window(mask)
    windows = [window for window in (truth.window if truth.area else None, shown) if window is not None]
    if not windows:
        return None
    top, left = (min(window[axis].start for window in windows) for axis in (0, 1))
    bottom, right = (max(window[axis].stop for window in windows) for axis in (0, 1))
    predicted = mask[top:bottom, left:right]
    wanted = np.zeros_like(predicted)
    rows, columns = truth.window
    wanted[rows.start - top : rows.stop - top, columns.start - left : columns.stop - left] = truth.mask
    missing, missing_area = largest_region(wanted & ~predicted)
    surplus, surplus_area = largest_region(predicted & ~wanted)
    if not missing_area and not surplus_area:
        return None
    region = missing if missing_area >= surplus_area else surplus
    depths = squared_depths(region)
    for click in before:
        if top <= click.y < bottom and left <= click.x < right:
            depths[click.y - top, click.x - left] = 0
    if not depths.any():
        depths = squared_depths(region)
    y, x = np.unravel_index(int(depths.argmax()), depths.shape)
    return Click(int(x) + left, int(y) + top, FOREGROUND if region is missing else BACKGROUND)


def _prompt(
    boxes: Array | None, clicks: Sequence[Sequence[Click]], step: int, logits: Sequence[Array | None] | None
) -> Prompt:
    """All clicks so far, padded where an object has fewer, and the last masks."""
    points = np.zeros((len(clicks), step, 2), np.float32)
    labels = np.full((len(clicks), step), PADDING, np.float32)
    for row, made in enumerate(clicks):
        points[row, : len(made)] = [click.xy for click in made] or np.zeros((0, 2))
        labels[row, : len(made)] = [click.label for click in made]
    given = [one for one in logits or () if one is not None]
    masks = np.stack(given) if given and len(given) == len(clicks) else None
    return Prompt(boxes, points, labels, masks)


def _boxes(photo: AnnotatedPhoto, truths: Sequence[AnnotatedMask]) -> Array:
    return usable_boxes(np.array([truth.target.box for truth in truths]), photo.original_hw)


@dataclass(frozen=True)
class MaskPrompts:
    """Gives each object's own mask back, and a rough one: each alone and with the box. `segmenter` says where masks
    lie in its prompts."""

    segmenter: Segmenter
    seed: int = 0

    @property
    def prompting(self) -> Prompting:
        """The largest prompt that is given."""
        return Prompting(seed=self.seed)

    def settings(self) -> dict[str, Any]:
        """What decides the results."""
        return {"prompt": "mask", "seed": self.seed, "roughness": ROUGHNESS, "steps": list(MASK_STEPS)}

    def __call__(self, photo: AnnotatedPhoto, truths: Sequence[AnnotatedMask], segment: Ready) -> EvaluatedPhoto:
        """`ious` in the order of MASK_STEPS; `iou` is that of the rough mask with the box."""
        asked = [truth for truth in truths if truth.area]
        if not asked:
            return EvaluatedPhoto(photo, [], [], len(truths))
        frame = self.segmenter.mask_frame(photo.original_hw)
        assert frame is not None  # see `plan_clicks`
        boxes = _boxes(photo, asked)
        own = [whole_mask(truth, photo.original_hw) for truth in asked]
        rough = [rough_mask(mask, self._direction(truth)) for truth, mask in zip(asked, own)]
        answers = [
            segment(Prompt(with_box, mask_logits=_logits(masks, frame)))
            for masks in (own, rough)
            for with_box in (None, boxes)
        ]
        results = []
        for row, truth in enumerate(asked):
            ious = (*(truth.iou(found[row].mask) for found in answers), mask_iou(own[row], rough[row]))
            results.append(replace(object_result(photo, truth, ious[3]), ious=ious))
        return EvaluatedPhoto(photo, results, answers[3], len(truths) - len(asked))

    def _direction(self, truth: AnnotatedMask) -> tuple[int, int]:
        """Down and right, each -1 or 1, of the object and the seed alone."""
        random = np.random.default_rng([self.seed, _DIRECTIONS, truth.target.id % 2**64])
        down, right = random.choice((-1, 1), 2)
        return int(down), int(right)


def whole_mask(truth: AnnotatedMask, original_hw: tuple[int, int]) -> Mask:
    """The annotated mask (H, W)."""
    mask = np.zeros(original_hw, bool)
    mask[truth.window] = truth.mask
    return mask


def rough_mask(mask: Mask, direction: tuple[int, int]) -> Mask:
    """A mask (H, W) opened by ROUGHNESS of its box's shorter side, and moved by as much down and right (-1 or 1 each).

    Where opening leaves nothing it is only moved; where moving leaves nothing in the photo it stays.
    """
    window = mask_window(mask)
    if window is None:
        return mask
    radius = ROUGHNESS * min(side.stop - side.start for side in window)
    smooth = np.zeros_like(mask)
    smooth[window] = opened(mask[window], radius)
    base = smooth if smooth.any() else mask
    shifted = moved(base, round(radius) * direction[0], round(radius) * direction[1])
    return shifted if shifted.any() else base


def _logits(masks: Sequence[Mask], frame: Frame) -> Array:
    return np.stack([mask_to_logits(mask, frame) for mask in masks])


def plan_clicks(
    annotations: Annotations,
    files: PhotoFiles,
    segmenter: Segmenter,
    choice: ObjectFilter,
    examine: Corrections | MaskPrompts,
) -> EvaluationPlan:
    """As `plan_evaluation`, for prompts that answer to the masks before them.

    UsageError besides, where a baseline is asked to take masks.
    """
    if isinstance(examine, MaskPrompts) and segmenter.mask_frame((1, 1)) is None:
        raise UsageError(f"{segmenter.describe()['name']} takes no masks", "--prompt clicks")
    plan = plan_evaluation(annotations, files, segmenter, choice, examine.prompting)
    return replace(plan, settings={**plan.settings, **examine.settings()})


def is_dialogue(settings: Mapping[str, Any]) -> bool:
    """Whether a record is that of corrections."""
    return settings.get("prompt") == "clicks" and bool(settings.get("steps")) and bool(settings.get("start"))

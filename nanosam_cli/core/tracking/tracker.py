"""Objects followed through a video: one encoder run a frame, one decoder call for all of them, and a state for each.

    tracker = Tracker(predictor)
    tracker.init(predictor.encode_image(first), Prompt.from_boxes([[10, 20, 300, 280]]))
    for image in rest:
        for found in tracker.update(predictor.encode_image(image)):
            print(found.number, found.state, found.segmentation.bbox)

Each object's appearance is learnt online from the embedding (`appearance`); it proposes boxes, the decoder draws masks
for them, and the mask that both agree on is taken, learnt from and scored (`target`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from nanosam_cli.core.errors import InputError, UsageError
from nanosam_cli.core.frame import Array, Frame
from nanosam_cli.core.inference.predictor import Predictor
from nanosam_cli.core.timing import Timings
from nanosam_cli.core.tracking.cells import CellSpace, mask_box
from nanosam_cli.core.tracking.single_thread_blas import one_thread
from nanosam_cli.core.tracking.target import Answer, Proposal, Target, TrackerSettings, TrackState
from nanosam_cli.core.types import ImageEmbedding, Prompt, Segmentation

ALIKE = 0.35  # correlation of two frames' cells below which the scene was cut
OUTSIDE = -5.0  # logits of an empty mask
LEAST = 1e-3  # a logit that is just inside


@dataclass(frozen=True, eq=False)
class Tracked:
    """One object in one frame. Where it is lost its mask is empty."""

    number: int  # the object's, from 1
    segmentation: Segmentation
    state: TrackState
    score: float  # how sure the tracker is, 0 to 1

    @property
    def box(self) -> tuple[int, int, int, int] | None:
        """x0 y0 x1 y1 of the mask in original pixels, or None where it is empty."""
        bbox = self.segmentation.bbox
        return None if bbox is None else (bbox[0], bbox[1], bbox[0] + bbox[2], bbox[1] + bbox[3])


class Tracker:
    """Follows objects from the frame in which they are prompted. The predictor stays its owner's to close.

    Memory does not grow with the number of frames. Objects learn of each other only through the masks: no pixel
    belongs to two of them.
    """

    def __init__(self, predictor: Predictor, settings: TrackerSettings | None = None) -> None:
        self.settings = settings or TrackerSettings()
        self.cut = False  # whether the scene changed between the last two frames
        self._predictor = predictor
        self._targets: dict[int, Target] = {}
        self._space: CellSpace | None = None
        self._last: Array | None = None

    @property
    def numbers(self) -> list[int]:
        """The numbers of the objects that are followed."""
        return list(self._targets)

    def reset(self) -> None:
        """Forget all objects; the next `init` starts anew."""
        self._targets.clear()
        self._space = self._last = None

    def state(self) -> dict[str, Any]:
        """Everything that it knows, for `restore`: plain values and arrays, nested."""
        space = None
        if self._space is not None:
            space = {**asdict(self._space.frame), "mean": self._space.mean, "axes": self._space.axes}
        targets = {str(number): target.memory() for number, target in self._targets.items()}
        return {"space": space, "last": self._last, "targets": targets}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from where a tracker of the same settings and model was. KeyError or TypeError where it is no state."""
        space = state["space"]
        self._space = None
        if space is not None:
            frame = Frame(tuple(space["original_hw"]), space["input_size"], space["coordinate_size"])
            self._space = CellSpace(frame, space["mean"], space["axes"])
        self._last = state["last"]
        self._targets = {int(name): Target.restored(one, self.settings) for name, one in state["targets"].items()}

    @one_thread()
    def init(
        self,
        embedding: ImageEmbedding,
        prompt: Prompt,
        numbers: Sequence[int] | None = None,
        timings: Timings | None = None,
    ) -> list[Tracked]:
        """Follow one more object for each of the P prompts, from this frame on.

        A mask prompt is taken as the object's true mask; from boxes and points the decoder makes it. `numbers` name the
        objects, else they are counted on; a number that is in use starts that object anew.

        Raises:
            UsageError: see `check_prompt`, or a number is given twice or is below 1.
            InputError: the prompt gives no mask, or the frame has another size than those before.
        """
        first = max(self._targets, default=0) + 1
        named = list(range(first, first + len(prompt)) if numbers is None else numbers)
        if len(set(named)) != len(prompt) or min(named, default=1) < 1:
            raise UsageError(f"{len(prompt)} objects cannot have the numbers {', '.join(map(str, named))}")
        logits, ious = self._predictor.predict_logits(embedding, prompt, timings=timings)
        if prompt.mask_logits is not None:
            logits, ious = prompt.mask_logits, np.ones(len(prompt), np.float32)
        if self._space is None:
            self._space = CellSpace.of(embedding, self.settings.dimensions)
        scene = self._scene(embedding)
        found = []
        for number, mask, iou, alone in zip(named, _exclusive(logits), ious, logits):
            if mask_box(mask > 0) is None:
                why = "the prompt gives an empty mask" if mask_box(alone > 0) is None else "others' masks cover its own"
                raise InputError(f"object {number}: {why}", "give a box or a mask of the object")
            self._targets[number] = Target(number, scene, _share(mask), self.settings)
            found.append(self._tracked(embedding, number, mask, TrackState.tracked, float(iou), float(iou)))
        self._last = scene
        return found

    @one_thread()
    def update(self, embedding: ImageEmbedding, timings: Timings | None = None) -> list[Tracked]:
        """The next frame: every object in the order of their numbers.

        InputError where the frame has another size than those before.
        """
        if not self._targets or self._space is None:
            return []
        scene = self._scene(embedding)
        self.cut = self._last is not None and correlation(scene[::2, ::2], self._last[::2, ::2]) < ALIKE
        self._last = scene
        targets = [self._targets[number] for number in sorted(self._targets)]
        proposals = [target.propose(scene, self.cut) for target in targets]
        answers = self._ask(embedding, targets, proposals, timings)
        masks = _exclusive(np.stack([answer.logits for answer in answers]))
        found = []
        for target, answer, mask in zip(targets, answers, masks):
            state = target.settle(scene, Answer(**{**vars(answer), "logits": mask}))
            shown = np.full_like(mask, OUTSIDE) if state is TrackState.lost else mask
            found.append(self._tracked(embedding, target.number, shown, state, answer.predicted_iou, answer.score))
        return found

    def apart(self, embedding: ImageEmbedding, found: Sequence[Tracked]) -> list[Tracked]:
        """One frame's objects that come from several calls, so that no pixel belongs to two of them."""
        masks = _exclusive(np.stack([one.segmentation.low_res_logits for one in found]))
        return [
            self._tracked(embedding, one.number, mask, one.state, one.segmentation.predicted_iou, one.score)
            for one, mask in zip(found, masks)
        ]

    def _scene(self, embedding: ImageEmbedding) -> Array:
        assert self._space is not None
        if embedding.frame != self._space.frame:
            sizes = (f"{width}x{height}" for height, width in (embedding.original_hw, self._space.frame.original_hw))
            raise InputError("a frame of {} pixels follows one of {}".format(*sizes), "give frames of one size")
        return self._space.project(embedding)

    def _ask(
        self,
        embedding: ImageEmbedding,
        targets: Sequence[Target],
        proposals: Sequence[Sequence[Proposal]],
        timings: Timings | None,
    ) -> list[Answer]:
        """One decoder call for all boxes of all objects."""
        assert self._space is not None
        boxes = self._space.to_pixels(np.stack([proposal.box for each in proposals for proposal in each]))
        logits, ious = self._predictor.predict_logits(
            embedding, Prompt(boxes=_inside(boxes, embedding.original_hw)), timings=timings
        )
        ends = np.cumsum([len(each) for each in proposals])
        return [
            target.choose(each, logits[end - len(each) : end], ious[end - len(each) : end])
            for target, each, end in zip(targets, proposals, ends)
        ]

    def _tracked(
        self, embedding: ImageEmbedding, number: int, logits: Array, state: TrackState, iou: float, score: float
    ) -> Tracked:
        mask = embedding.frame.mask_to_original(logits, 0.0)
        return Tracked(number, Segmentation(mask, iou, logits), state, score)


def correlation(one: Array, other: Array) -> float:
    """The correlation of two frames' cells (h, w, D), each about its mean: 1 for the same frame, about 0 for others."""
    a, b = (cells - cells.mean(axis=(0, 1)) for cells in (one, other))
    return float((a * b).sum() / np.sqrt(max((a * a).sum() * (b * b).sum(), 1e-12)))


def _share(logits: Array) -> Array:
    """(256, 256) logits -> how much of each part is the object, 0 to 1."""
    return np.asarray(1 / (1 + np.exp(-np.clip(2 * logits, -20, 20))), np.float32)


def _exclusive(logits: Array) -> Array:
    """(P, 256, 256) -> the same, but no pixel above 0 in two: a mask is as sure as it is surer than the others.

    Of masks that are equally sure the first has the pixel.
    """
    if len(logits) < 2:
        return logits
    ordered = np.sort(logits, axis=0)
    rival = np.where(logits == ordered[-1], ordered[-2], ordered[-1])
    surer = np.minimum(logits, logits - np.maximum(rival, 0))
    tied = (ordered[-1] > 0) & (ordered[-1] == ordered[-2])
    first = np.arange(len(logits))[:, None, None] == logits.argmax(axis=0)
    return np.asarray(np.where(tied & first, LEAST, surer), np.float32)


def _inside(boxes: Array, original_hw: tuple[int, int]) -> Array:
    """(P, 4) boxes that have some area within the picture, whatever they were."""
    height, width = original_hw
    limits = np.array([width, height], np.float32)
    low = np.clip(boxes[:, :2], 0, np.maximum(limits - 2, 0))
    high = np.clip(boxes[:, 2:], np.minimum(low + 2, limits), limits)
    return np.concatenate([low, high], axis=1).astype(np.float32)

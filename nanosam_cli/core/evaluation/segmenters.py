"""What can be evaluated: models, and baselines that need none, all behind one protocol."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from nanosam_cli.core.datasets.coco import AnnotatedPhoto
from nanosam_cli.core.datasets.fit_annotations import checked_size
from nanosam_cli.core.errors import UsageError
from nanosam_cli.core.evaluation.prompting import Prompting
from nanosam_cli.core.frame import Array
from nanosam_cli.core.inference.predictor import Predictor, PreparedImage, Select
from nanosam_cli.core.loading.choice import ModelChoice
from nanosam_cli.core.loading.load import open_predictor
from nanosam_cli.core.masks import Mask
from nanosam_cli.core.messages import Note
from nanosam_cli.core.types import Prompt

ReadImage = Callable[[Path], NDArray[np.uint8]]  # an `AnnotatedPhoto.path` -> (H, W, 3) uint8 RGB


class ScoredMask(NamedTuple):
    """One object's mask (H, W), and how sure the segmenter is of it."""

    mask: Mask
    score: float


Ready = Callable[[Prompt], Sequence[ScoredMask]]  # a mask for each prompt, in their order


class Segmenter(Protocol):
    """Photos and prompts to masks, in two steps so that the first overlaps with the photo before."""

    def prepare(self, photo: AnnotatedPhoto, read: ReadImage) -> Ready:
        """What can be done before it is this photo's turn; runs in a thread of its own.

        InputError where the photo cannot be read, OtherSizeError where it is not of the size that was annotated.
        """
        ...

    def check(self, prompting: Prompting) -> None:
        """UsageError where it does not take such prompts, before any work is done."""
        ...

    def describe(self) -> dict[str, Any]:
        """What it is, for the record of an evaluation. Plain values for JSON, the same for the same segmenter."""
        ...


class ModelSegmenter:
    """A model. The predictor stays its owner's to close."""

    def __init__(self, predictor: Predictor, select: Select = "auto", name: str | None = None) -> None:
        self._predictor = predictor
        self._select = select
        self._name = name

    def prepare(self, photo: AnnotatedPhoto, read: ReadImage) -> Ready:
        image = checked_size(photo, read(photo.path))
        return partial(self._segment, self._predictor.prepare_image(image))

    def _segment(self, image: PreparedImage, prompt: Prompt) -> list[ScoredMask]:
        embedding = self._predictor.encode_image(image)
        found = self._predictor.predict(embedding, prompt, select=self._select)
        return [ScoredMask(segmentation.mask, segmentation.predicted_iou) for segmentation in found]

    def check(self, prompting: Prompting) -> None:
        most, points = self._predictor.contract.points, prompting.points + (2 if prompting.boxes else 1)
        if most is not None and points > most:
            raise UsageError(f"this mask decoder takes {most} points an object (a box counts as two), not {points}")

    def describe(self) -> dict[str, Any]:
        encoder = self._predictor.encoder
        name = self._name or encoder.metadata.get("nanosam.model") or encoder.path.stem
        return {"name": name, **self._predictor.describe()}


class ShapeSegmenter:
    """A baseline: the prompt's box itself as the mask, or the ellipse in it. It never looks at the photo."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._draw = BASELINES[name]

    def prepare(self, photo: AnnotatedPhoto, read: ReadImage) -> Ready:
        return partial(self._segment, photo.original_hw)

    def _segment(self, original_hw: tuple[int, int], prompt: Prompt) -> list[ScoredMask]:
        assert prompt.boxes is not None
        return [ScoredMask(self._draw(box, original_hw), 1.0) for box in prompt.boxes]

    def check(self, prompting: Prompting) -> None:
        if not prompting.boxes:
            raise UsageError(f"the baseline {self._name} needs a box prompt", "--prompt box")

    def describe(self) -> dict[str, Any]:
        return {"name": self._name}


def box_mask(box: Array, original_hw: tuple[int, int]) -> Mask:
    """The pixels (H, W) whose centres lie in the box x0 y0 x1 y1; where there are none, the nearest one."""
    (left, right), (top, bottom) = (_pixels(box[axis], box[axis + 2], original_hw[1 - axis]) for axis in (0, 1))
    mask = np.zeros(original_hw, bool)
    mask[top:bottom, left:right] = True
    return mask


def ellipse_mask(box: Array, original_hw: tuple[int, int]) -> Mask:
    """The pixels (H, W) whose centres lie in the box's inscribed ellipse; of a tiny one that has none, the box's."""
    x0, y0, x1, y1 = box.astype(float)
    u = (np.arange(original_hw[1]) + 0.5 - (x0 + x1) / 2) / ((x1 - x0) / 2)
    v = (np.arange(original_hw[0]) + 0.5 - (y0 + y1) / 2) / ((y1 - y0) / 2)
    mask = np.asarray((v**2)[:, None] + u**2 <= 1)
    return mask if mask.any() else box_mask(box, original_hw)


def _pixels(low: float, high: float, length: int) -> tuple[int, int]:
    """First and last but one of the pixels whose centres are in [low, high), one of them at least."""
    first, stop = int(np.ceil(low - 0.5)), int(np.ceil(high - 0.5))
    if first >= stop:
        first = min(int((low + high) / 2), length - 1)
        stop = first + 1
    return first, stop


BASELINES: Mapping[str, Callable[[Array, tuple[int, int]], Mask]] = {"box": box_mask, "ellipse": ellipse_mask}


@contextmanager
def open_segmenter(choice: ModelChoice, *, select: Select = "auto", note: Note = lambda _: None) -> Iterator[Segmenter]:
    """A baseline by its name, else the model that was chosen; closed at the end of the `with` block."""
    if choice.model is not None and choice.model in BASELINES:
        if choice.has_files:
            raise UsageError(f"the baseline {choice.model} runs no model files", "leave --encoder and --decoder out")
        yield ShapeSegmenter(choice.model)
        return
    with open_predictor(choice, note) as predictor:
        yield ModelSegmenter(predictor, select, None if choice.has_files else choice.name)

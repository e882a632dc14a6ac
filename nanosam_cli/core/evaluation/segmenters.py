"""What can be evaluated: models, and baselines that need none, all behind one protocol."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property, partial
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from nanosam_cli.core.datasets.coco import AnnotatedPhoto
from nanosam_cli.core.datasets.fit_annotations import checked_size
from nanosam_cli.core.errors import UsageError
from nanosam_cli.core.evaluation.prompting import Prompting
from nanosam_cli.core.frame import Array, Frame
from nanosam_cli.core.inference.predictor import Predictor, PreparedImage, Select
from nanosam_cli.core.loading.choice import ModelChoice
from nanosam_cli.core.loading.load import open_predictor
from nanosam_cli.core.masks import Mask
from nanosam_cli.core.messages import Note
from nanosam_cli.core.prompting.request import Request
from nanosam_cli.core.segmentation.zoom import segment_zoomed
from nanosam_cli.core.types import FOREGROUND, PADDING, Image, ImageEmbedding, Prompt, Segmentation

ReadImage = Callable[[Path], NDArray[np.uint8]]  # an `AnnotatedPhoto.path` -> (H, W, 3) uint8 RGB


class ScoredMask(NamedTuple):
    """One object's mask (H, W), and how sure the segmenter is of it."""

    mask: Mask
    score: float
    logits: Array | None = None  # (256, 256), what a model takes as the next prompt's mask


Ready = Callable[[Prompt], Sequence[ScoredMask]]  # a mask for each prompt, in their order; may be asked again


class Segmenter(Protocol):
    """Photos and prompts to masks, in two steps so that the first overlaps with the photo before."""

    encodings: int  # runs of an image encoder so far

    def prepare(self, photo: AnnotatedPhoto, read: ReadImage) -> Ready:
        """What can be done before it is this photo's turn; runs in a thread of its own.

        InputError where the photo cannot be read, OtherSizeError where it is not of the size that was annotated.
        """
        ...

    def check(self, prompting: Prompting) -> None:
        """UsageError where it does not take such prompts, before any work is done."""
        ...

    def mask_frame(self, original_hw: tuple[int, int]) -> Frame | None:
        """Where masks that it is given lie; None where it takes none."""
        ...

    def describe(self) -> dict[str, Any]:
        """What it is, for the record of an evaluation. Plain values for JSON, the same for the same segmenter."""
        ...


class ModelSegmenter:
    """A model, with `zoom` one that looks closer at each object. The predictor stays its owner's to close."""

    def __init__(
        self, predictor: Predictor, select: Select = "auto", name: str | None = None, zoom: bool = False
    ) -> None:
        self._predictor = predictor
        self._select = select
        self._name = name
        self._zoom = zoom
        self.encodings = 0

    def prepare(self, photo: AnnotatedPhoto, read: ReadImage) -> Ready:
        image = checked_size(photo, read(photo.path))
        if self._zoom:
            return partial(self._segment_zoomed, image)
        return _ModelPhoto(self, self._predictor.prepare_image(image))

    def encode(self, image: PreparedImage) -> ImageEmbedding:
        """Once more, and counted."""
        self.encodings += 1
        return self._predictor.encode_image(image)

    def segment(self, embedding: ImageEmbedding, prompt: Prompt) -> list[ScoredMask]:
        """A mask for each prompt."""
        return [_scored(one) for one in self._predictor.predict(embedding, prompt, select=self._select)]

    def _segment_zoomed(self, image: Image, prompt: Prompt) -> list[ScoredMask]:
        request = Request(prompt.boxes, prompt.points, prompt.labels)
        zoomed = segment_zoomed(self._predictor, image, request, select=self._select)
        self.encodings += zoomed.encodings
        return [_scored(one) for one in zoomed.found]

    def check(self, prompting: Prompting) -> None:
        corners = prompting.boxes or self._zoom  # which gives clicks the box of what was found first
        most, points = self._predictor.contract.points, prompting.points + (2 if corners else 1)
        if most is not None and points > most:
            raise UsageError(f"this mask decoder takes {most} points an object (a box counts as two), not {points}")

    def mask_frame(self, original_hw: tuple[int, int]) -> Frame:
        contract = self._predictor.contract
        return Frame(original_hw, contract.image_size, contract.coordinate_size)

    def describe(self) -> dict[str, Any]:
        encoder = self._predictor.encoder
        name = self._name or encoder.metadata.get("nanosam.model") or encoder.path.stem
        return {"name": name, **({"zoom": True} if self._zoom else {}), **self._predictor.describe()}


class _ModelPhoto:
    """One photo, encoded when it is first asked about, and then at hand for every further prompt."""

    def __init__(self, model: ModelSegmenter, image: PreparedImage) -> None:
        self._model, self._image = model, image

    @cached_property
    def _embedding(self) -> ImageEmbedding:
        return self._model.encode(self._image)

    def __call__(self, prompt: Prompt) -> list[ScoredMask]:
        return self._model.segment(self._embedding, prompt)


def _scored(one: Segmentation) -> ScoredMask:
    return ScoredMask(one.mask, one.predicted_iou, one.low_res_logits)


class ShapeSegmenter:
    """A baseline: the prompt's box itself as the mask, or the ellipse in it. It never looks at the photo."""

    encodings = 0

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

    def mask_frame(self, original_hw: tuple[int, int]) -> None:
        return None

    def describe(self) -> dict[str, Any]:
        return {"name": self._name}


class DiscSegmenter:
    """A baseline: the box where one is given, and each click's disc added to it or taken away, in their order."""

    encodings = 0

    def prepare(self, photo: AnnotatedPhoto, read: ReadImage) -> Ready:
        return partial(self._segment, photo.original_hw)

    def _segment(self, original_hw: tuple[int, int], prompt: Prompt) -> list[ScoredMask]:
        assert prompt.points is not None or prompt.boxes is not None
        found = []
        for row in range(len(prompt)):
            mask = np.zeros(original_hw, bool) if prompt.boxes is None else box_mask(prompt.boxes[row], original_hw)
            if prompt.points is not None and prompt.labels is not None:
                for point, label in zip(prompt.points[row], prompt.labels[row]):
                    if label != PADDING:
                        mask[disc_mask(point, original_hw)] = label == FOREGROUND
            found.append(ScoredMask(mask, 1.0))
        return found

    def check(self, prompting: Prompting) -> None:
        if not prompting.points:
            raise UsageError(f"the baseline {DISC} needs a click", "--prompt point")

    def mask_frame(self, original_hw: tuple[int, int]) -> None:
        return None

    def describe(self) -> dict[str, Any]:
        return {"name": DISC}


def disc_mask(point: Array, original_hw: tuple[int, int]) -> Mask:
    """The pixels (H, W) whose centres are within DISC_RADIUS of a point x y, and the one that it lies in."""
    x, y = point.astype(float)
    across, down = ((np.arange(length) + 0.5 - place) ** 2 for length, place in zip(original_hw[::-1], (x, y)))
    mask = np.asarray(down[:, None] + across <= (DISC_RADIUS * max(original_hw)) ** 2)
    mask[int(y), int(x)] = True
    return mask


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


DISC = "disc"  # of clicks, which BASELINES do without
DISC_RADIUS = 1 / 16  # of the photo's longest side
BASELINES: Mapping[str, Callable[[Array, tuple[int, int]], Mask]] = {"box": box_mask, "ellipse": ellipse_mask}


@contextmanager
def open_segmenter(
    choice: ModelChoice, *, select: Select = "auto", zoom: bool = False, note: Note = lambda _: None
) -> Iterator[Segmenter]:
    """A baseline by its name, else the model that was chosen; closed at the end of the `with` block."""
    if choice.model is not None and choice.model in (*BASELINES, DISC):
        if choice.has_files:
            raise UsageError(f"the baseline {choice.model} runs no model files", "leave --encoder and --decoder out")
        if zoom:
            raise UsageError(f"the baseline {choice.model} looks at no photo", "leave --zoom out")
        yield DiscSegmenter() if choice.model == DISC else ShapeSegmenter(choice.model)
        return
    with open_predictor(choice, note) as predictor:
        yield ModelSegmenter(predictor, select, None if choice.has_files else choice.name, zoom)

"""What can be evaluated on clips: the tracker, and the baseline that copies the first mask, behind one protocol."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Literal, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from nanosam_cli.core.errors import UsageError
from nanosam_cli.core.inference.decoder_inputs import mask_to_logits
from nanosam_cli.core.inference.predictor import Predictor
from nanosam_cli.core.loading.choice import ModelChoice
from nanosam_cli.core.loading.load import open_predictor
from nanosam_cli.core.masks import Mask, mask_window, usable_boxes
from nanosam_cli.core.messages import Note
from nanosam_cli.core.tracking.target import TrackerSettings, TrackState
from nanosam_cli.core.tracking.tracker import Tracked, Tracker
from nanosam_cli.core.types import Prompt

COPY = "copy"  # the baseline's name among the models

PromptKind = Literal["mask", "box"]


class Followed(NamedTuple):
    """One object in one frame."""

    mask: Mask  # (H, W)
    state: TrackState


class Follower(Protocol):
    """Objects given in a clip's first frame, and found in the others one by one."""

    name: str

    def start(self, image: NDArray[np.uint8], masks: NDArray[np.bool_]) -> Sequence[Followed]:
        """A new clip: its first frame and the objects' masks (P, H, W), none of them empty."""
        ...

    def step(self, image: NDArray[np.uint8]) -> Sequence[Followed]:
        """The next frame: the objects in the order in which they were given."""
        ...


class TrackerFollower:
    """This project's tracker. The predictor stays its owner's to close."""

    def __init__(
        self,
        predictor: Predictor,
        prompt: PromptKind = "mask",
        settings: TrackerSettings | None = None,
        name: str = "tracker",
    ) -> None:
        self.name = name
        self._predictor = predictor
        self._prompt = prompt
        self._tracker = Tracker(predictor, settings)

    def start(self, image: NDArray[np.uint8], masks: NDArray[np.bool_]) -> list[Followed]:
        self._tracker.reset()
        embedding = self._predictor.encode_image(image)
        if self._prompt == "box":
            prompt = Prompt(boxes=usable_boxes(np.array([box_of(mask) for mask in masks]), embedding.original_hw))
        else:
            prompt = Prompt(mask_logits=np.stack([mask_to_logits(mask, embedding.frame) for mask in masks]))
        return _followed(self._tracker.init(embedding, prompt))

    def step(self, image: NDArray[np.uint8]) -> list[Followed]:
        return _followed(self._tracker.update(self._predictor.encode_image(image)))


class CopyFollower:
    """The floor: the first masks again and again."""

    name = COPY

    def start(self, image: NDArray[np.uint8], masks: NDArray[np.bool_]) -> list[Followed]:
        self._given = [Followed(mask, TrackState.tracked) for mask in masks]
        return self._given

    def step(self, image: NDArray[np.uint8]) -> list[Followed]:
        return self._given


@contextmanager
def open_follower(
    choice: ModelChoice, *, prompt: PromptKind = "mask", note: Note = lambda _: None
) -> Iterator[Follower]:
    """The baseline by its name, else the tracker on the model that was chosen; closed at the end of the block."""
    if choice.model == COPY:
        if choice.has_files or prompt == "box":
            raise UsageError("the baseline copy takes the first mask and no model", "leave the other options out")
        yield CopyFollower()
        return
    with open_predictor(choice, note) as predictor:
        yield TrackerFollower(predictor, prompt, name=choice.name)


def box_of(mask: Mask) -> tuple[int, int, int, int]:
    """x0 y0 x1 y1 of a mask that is not empty."""
    window = mask_window(mask)
    assert window is not None
    rows, columns = window
    return columns.start, rows.start, columns.stop, rows.stop


def _followed(found: Sequence[Tracked]) -> list[Followed]:
    return [Followed(one.segmentation.mask, one.state) for one in found]

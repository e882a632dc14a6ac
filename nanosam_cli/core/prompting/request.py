"""What is asked of one run: which photos, and what to segment in each, from options, prompt files and mask files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from nanosam_cli.core.errors import UsageError
from nanosam_cli.core.frame import Frame
from nanosam_cli.core.inference.decoder_inputs import check_mask_size, check_prompt, mask_to_logits
from nanosam_cli.core.masks import Mask
from nanosam_cli.core.media.mask_files import read_masks
from nanosam_cli.core.types import BACKGROUND, FOREGROUND, PADDING, Prompt

Box = Sequence[float]  # x0 y0 x1 y1, original pixels
Point = Sequence[float]  # x y label, original pixels

PLACES = "--box, --point, --mask, --prompts, --detections, --text, --pose or --everything"

_EXAMPLE = "nanosam segment photo.jpg --box 10,20,300,400"


@dataclass(frozen=True)
class PromptLabel:
    """What the model that gave a prompt says of its object."""

    name: str | None = None  # a class, a phrase, or a part of a person
    category_id: int = 1  # the number that COCO files and YOLO's have for it
    score: float | None = None  # how sure that model was, from 0 to 1


@dataclass(frozen=True, eq=False)
class Request:
    """What to segment in one photo, before its geometry is known. Boxes, points and masks count the same P objects."""

    boxes: NDArray[np.float32] | None = None  # (P, 4) x0 y0 x1 y1, original pixels
    points: NDArray[np.float32] | None = None  # (P, N, 2) x y, original pixels
    labels: NDArray[np.float32] | None = None  # (P, N) 1 foreground, 0 background, -1 padding
    masks: Sequence[Mask] | NDArray[np.bool_] | None = None  # P of (H, W), the photo's size
    tags: Sequence[PromptLabel] = ()  # one an object, or none at all
    notes: Sequence[str] = ()  # what was asked for and is not in it, for people and for the results' files

    @property
    def count(self) -> int:
        """How many objects it asks for."""
        return next((len(part) for part in (self.boxes, self.points, self.masks) if part is not None), 0)

    def tag(self, prompt: int) -> PromptLabel:
        """What is known of an object beside its place."""
        return self.tags[prompt] if self.tags else PromptLabel()

    def request_for(self, image: NDArray[np.uint8]) -> Request:
        """Give itself: a `PromptSource` that needs no look at the photo."""
        return self

    def check(self, original_hw: tuple[int, int]) -> None:
        """What is wrong with it for a photo of so many pixels, before anything is computed for that.

        UsageError as of `check_prompt`; InputError where a mask has another size.
        """
        if self.masks is not None and len(self.masks):
            check_mask_size(self.masks[0], original_hw)
        if self.masks is None or self.boxes is not None or self.points is not None:
            check_prompt(Prompt(self.boxes, self.points, self.labels), original_hw)

    def prompt(self, frame: Frame) -> Prompt:
        """The prompt for a photo. UsageError where nothing was asked; InputError where a mask has another size."""
        logits = None if self.masks is None else np.stack([mask_to_logits(mask, frame) for mask in self.masks])
        return Prompt(self.boxes, self.points, self.labels, logits)

    def prompts(self, frame: Frame, most: int) -> Iterator[Prompt]:
        """The same in parts of at most so many objects: the logits of a part alone are in memory."""
        for start in range(0, self.count, most):
            rows = slice(start, start + most)
            boxes, points, labels = (None if part is None else part[rows] for part in self._places)
            masks = None if self.masks is None else self.masks[rows]
            yield Request(boxes, points, labels, masks).prompt(frame)

    @property
    def _places(self) -> tuple[NDArray[np.float32] | None, ...]:
        return self.boxes, self.points, self.labels


class PromptSource(Protocol):
    """What to segment in a photo, which may depend on what is seen in it."""

    def request_for(self, image: NDArray[np.uint8]) -> Request:
        """The request for a photo (H, W, 3) uint8 RGB."""
        ...


def make_request(
    boxes: Sequence[Box], points: Sequence[Point], *, each_point: bool = False, masks: Path | None = None
) -> Request:
    """The request of one command line.

    Every box is an object, and every value of the mask file. Points describe one object, with the box or the mask if
    there is one; with `each_point` every foreground point is an object, and background points belong to all of them.

    Raises:
        UsageError: nothing is asked, or it is not clear which object a point belongs to.
        InputError: the mask file cannot be read.
    """
    objects = None if masks is None else read_masks(masks)
    if not boxes and not points and objects is None:
        raise UsageError(f"no prompt: say what to segment with {PLACES}", _EXAMPLE)
    if each_point and (boxes or objects is not None):
        raise UsageError("--each-point makes every point an object of its own, so it takes no --box and no --mask")
    count = len(boxes) or (1 if objects is None else len(objects))
    if points and count > 1:
        raise UsageError(
            f"it is not clear which of the {count} objects the points belong to",
            "give one box with its points, or use --prompts FILE.json, where each box can have its own points",
        )
    if objects is not None and boxes and len(boxes) != len(objects):
        raise UsageError(f"{masks} holds {len(objects)} objects, but there are {len(boxes)} boxes", "give one box each")
    request = drawn_request(boxes, _each(points) if each_point else [points] if points else [])
    return replace(request, masks=objects)


@np.errstate(over="ignore")  # a number beyond float32 becomes infinite, and is refused as that
def drawn_request(boxes: Sequence[Box], groups: Sequence[Sequence[Point]]) -> Request:
    """Boxes and, for each object, its points."""
    corners = np.array(boxes, np.float32) if boxes else None
    return Request(corners, *padded_points(groups)) if any(groups) else Request(corners)


def padded_points(groups: Sequence[Sequence[Point]]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The points (P, N, 2) x y and labels (P, N) of P objects, lists that are shorter filled up with padding.

    A point without a label is on its object.
    """
    longest = max(map(len, groups), default=0)
    points = np.zeros((len(groups), longest, 2), np.float32)
    labels = np.full((len(groups), longest), PADDING, np.float32)
    for row, group in enumerate(groups):
        for column, point in enumerate(group):
            points[row, column] = point[:2]
            labels[row, column] = point[2] if len(point) > 2 else FOREGROUND
    return points, labels


def _each(points: Sequence[Point]) -> list[list[Point]]:
    background = [point for point in points if point[2] == BACKGROUND]
    objects = [[point, *background] for point in points if point[2] != BACKGROUND]
    if not objects:
        raise UsageError("every point is background, so there is no object", "give a point with label 1: --point x,y")
    return objects

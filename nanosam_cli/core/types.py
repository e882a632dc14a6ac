"""The nouns: prompts go in, embeddings are held, segmentations come out. Original pixels unless a name says other."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from nanosam_cli.core.errors import UsageError
from nanosam_cli.core.frame import Frame
from nanosam_cli.core.masks import mask_window
from nanosam_cli.core.showing import draw_mask, mask_thumbnail, show_figures

FOREGROUND, BACKGROUND = 1, 0  # point labels of a prompt
PADDING, BOX_TOP_LEFT, BOX_BOTTOM_RIGHT = -1, 2, 3  # further labels of the mask decoder's file contract

Image = NDArray[np.uint8]  # (H, W, 3) RGB

ENCODER, DECODER = "encoder", "decoder"  # the parts of a model that runs


@dataclass(frozen=True, eq=False)  # arrays have no single truth value to compare by
class Prompt:
    """P prompts for P objects. Any part may be missing, but each prompt needs a box, a point or a mask.

    Points are padded with label -1 where prompts have fewer than N, boxes with rows of NaN where some have none.
    """

    boxes: NDArray[np.float32] | None = None  # (P, 4) x0 y0 x1 y1, original pixels; NaN: no box
    points: NDArray[np.float32] | None = None  # (P, N, 2) x y, original pixels
    labels: NDArray[np.float32] | None = None  # (P, N) 1 foreground, 0 background, -1 padding
    mask_logits: NDArray[np.float32] | None = None  # (P, 256, 256) low-resolution logits in the model's square

    def __post_init__(self) -> None:
        parts = [part for part in (self.boxes, self.points, self.mask_logits) if part is not None]
        if not parts:
            raise UsageError("no prompt given", "give a box, a point or a mask")
        boxes = self.boxes
        if boxes is not None and boxes.ndim == 2 and len(parts) > 1:
            boxes = np.where(no_boxes(boxes), np.float32(0), boxes)
        self._check("boxes", boxes, (None, 4))
        self._check("points", self.points, (None, None, 2))
        self._check("labels", self.labels, (None, None))
        self._check("mask_logits", self.mask_logits, (None, 256, 256))
        if len({len(part) for part in parts}) > 1:
            raise UsageError("boxes, points and masks of one prompt must have the same number of objects")
        if (self.points is None) != (self.labels is None) or (
            self.points is not None and self.labels is not None and self.points.shape[:2] != self.labels.shape
        ):
            raise UsageError("points (P, N, 2) need labels of shape (P, N)")

    @staticmethod
    def _check(name: str, value: NDArray[np.float32] | None, shape: tuple[int | None, ...]) -> None:
        if value is None:
            return
        if value.ndim != len(shape) or any(want is not None and want != got for want, got in zip(shape, value.shape)):
            wanted = ", ".join("any" if side is None else str(side) for side in shape)
            raise UsageError(f"{name} must have shape ({wanted}), not {value.shape}")
        if not np.isfinite(value).all():
            raise UsageError(f"{name} must be finite numbers")

    def __len__(self) -> int:
        return next(len(part) for part in (self.boxes, self.points, self.mask_logits) if part is not None)

    def __getitem__(self, rows: slice | list[int]) -> Prompt:
        """Some of the prompts, for the decoder's batches."""
        parts = (self.boxes, self.points, self.labels, self.mask_logits)
        return Prompt(*(None if part is None else part[rows] for part in parts))

    @staticmethod
    def from_boxes(boxes: Sequence[Sequence[float]] | NDArray[np.floating]) -> Prompt:
        """(P, 4) boxes x0 y0 x1 y1. An empty list is P = 0."""
        array = _numbers("boxes", boxes)
        return Prompt(boxes=array if array.size else array.reshape(0, 4))

    @staticmethod
    def from_points(points: Sequence[Sequence[float]], labels: Sequence[int] | None = None) -> Prompt:
        """N points of one object."""
        array = _numbers("points", points)[None]
        marks = np.ones(array.shape[:2], np.float32) if labels is None else _numbers("labels", labels)[None]
        return Prompt(points=array, labels=marks)


def _numbers(name: str, value: object) -> NDArray[np.float32]:
    try:
        return np.asarray(value, np.float32)
    except (TypeError, ValueError):  # ragged rows, or words
        raise UsageError(f"{name} must be rows of numbers of one length") from None


def no_boxes(boxes: NDArray[np.floating]) -> NDArray[np.bool_]:
    """(P, 4) -> (P, 1) which prompts have points or a mask and no box, where others have one."""
    return np.asarray(np.isnan(boxes).all(axis=-1, keepdims=True))


class DeviceArray(Protocol):
    """An array where a backend made it, on the host or on a device."""

    def numpy(self) -> NDArray[np.float32]:
        """A copy on the host."""
        ...


@dataclass(frozen=True, eq=False)
class ImageEmbedding:
    """One photo's features, made once and used for every prompt. It belongs to its holder: no runtime overwrites it."""

    features: NDArray[np.float32] | DeviceArray  # (1, 256, 64, 64)
    frame: Frame

    @property
    def original_hw(self) -> tuple[int, int]:
        return self.frame.original_hw

    @property
    def input_hw(self) -> tuple[int, int]:
        return self.frame.input_hw

    def numpy(self) -> NDArray[np.float32]:
        """The features copied to the host, (1, 256, 64, 64)."""
        return np.array(self.features) if isinstance(self.features, np.ndarray) else self.features.numpy()


@dataclass(frozen=True, eq=False)
class Segmentation:
    """One object's mask."""

    mask: NDArray[np.bool_]  # (H, W), original pixels
    predicted_iou: float
    low_res_logits: NDArray[np.float32] = field(repr=False)  # (256, 256), the next prompt's mask for this embedding
    index: int = 0  # which of the decoder's K masks this is

    def plot(self, image: Image | None = None, ax: Any = None) -> Any:
        """Draw the mask, over its photo (H, W, 3) uint8 RGB where that is given -> matplotlib's Axes.

        `ax` is where to draw; else a new figure. MissingExtraError where matplotlib is not installed.
        """
        return draw_mask(self.mask, f"{self.area} pixels, IoU {self.predicted_iou:.2f} predicted", image, ax)

    def show(self, image: Image | None = None) -> None:
        """`plot`, and open a window or print the picture in a notebook."""
        self.plot(image)
        show_figures()

    def _repr_png_(self) -> bytes:
        """What a notebook shows of a result: the mask, white on black."""
        return mask_thumbnail(self.mask)

    @property
    def area(self) -> int:
        """Pixels of the mask."""
        return int(np.count_nonzero(self.mask))

    @property
    def bbox(self) -> tuple[int, int, int, int] | None:
        """x y width height of the mask in original pixels (COCO's order), or None where the mask is empty."""
        window = mask_window(self.mask)
        if window is None:
            return None
        rows, columns = window
        return columns.start, rows.start, columns.stop - columns.start, rows.stop - rows.start


class Segmentations(list[Segmentation]):
    """The segmentations of some prompts, in their order, and which prompts they are of."""

    def __init__(self, found: Iterable[Segmentation], kept: Sequence[int], skipped: Mapping[int, str]) -> None:
        super().__init__(found)
        self.kept = kept  # of each segmentation, the place of its prompt
        self.skipped = skipped  # places of prompts that no photo of this size can have, and why

"""What decoders share in training: prompts over a batch of photos, and masks on windows."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

CELL = 16.0  # frame units an embedding cell: 1024 / 64
LOW_RES = 4.0  # frame units a low-resolution mask pixel: 1024 / 256
MASKS = 4  # 0 for clear prompts, 1 to 3 for a single point's different readings (SAM's K)


class Prompts(NamedTuple):
    """P prompts over B photos, in the mask decoder's file contract plus `owner`."""

    owner: Tensor  # (P,) row of the photo
    point_coords: Tensor  # (P, N, 2) frame units
    point_labels: Tensor  # (P, N)
    mask_input: Tensor  # (P, 1, h, w)
    has_mask_input: Tensor  # (P,)

    def rows(self, chosen: Tensor) -> Prompts:
        """Some of the prompts."""
        return Prompts(*(part[chosen] for part in self))


class WindowPrediction(NamedTuple):
    """Masks on windows of the square: losses are taken there, so that each object weighs the same."""

    logits: Tensor  # (P, K, G, G)
    ious: Tensor  # (P, K)
    windows: Tensor  # (P, 4) x0 y0 x1 y1, frame units
    point_boxes: Tensor | None  # (P, N, 4) the box regressed at each point, frame units

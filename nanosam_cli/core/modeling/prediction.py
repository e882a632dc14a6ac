"""What decoders share in training: prompts over a batch of photos, and masks on windows."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

CELL = 16.0  # frame units an embedding cell: 1024 / 64
LOW_RES = 4.0  # frame units a low-resolution mask pixel: 1024 / 256
MASKS = 4  # 0 for clear prompts, 1 to 3 for a single point's different readings (SAM's K)
NORM_EPS = 1e-4  # keeps lengths off 0 in a division: torch's 1e-12 is 0 in half precision


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


class ClickReading(NamedTuple):
    """What was found under the clicks of P prompts, at each of S scales."""

    logits: Tensor  # (P, S, g, g) coarse masks
    scores: Tensor  # (P, S) logits of the IoU that each box is believed to have with the true one
    windows: Tensor  # (P, S, 4) x0 y0 x1 y1, frame units
    boxes: Tensor  # (P, S, 4) frame units
    centres: Tensor  # (P, 2) the clicks' middle, frame units

    def best(self) -> tuple[Tensor, Tensor, Tensor]:
        """Box (P, 4), coarse logits (P, 1, g, g) and window (P, 4) of the reading with the best score."""
        best = (self.scores >= self.scores.amax(dim=1, keepdim=True)).to(self.scores.dtype)
        best = (best / best.sum(dim=1, keepdim=True))[:, :, None]  # (P, S, 1), one-hot: no gather in the graph
        logits = (self.logits * best[:, :, :, None]).sum(dim=1, keepdim=True)
        return (self.boxes * best).sum(dim=1), logits, (self.windows * best).sum(dim=1)


class WindowPrediction(NamedTuple):
    """Masks on windows of the square: losses are taken there, so that each object weighs the same."""

    logits: Tensor  # (P, K, G, G)
    ious: Tensor  # (P, K)
    windows: Tensor  # (P, 4) x0 y0 x1 y1, frame units
    reading: ClickReading | None  # what a decoder that guesses boxes found under the clicks
    low_res: Tensor | None = None  # (P, K, h, w) the whole square, of a decoder that listens
    ignored: Tensor | None = None  # (P, K) what its clicks lacked in logits before they were given their way

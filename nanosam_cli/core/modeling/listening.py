"""What makes a region decoder hear more than the first box: given masks, and clicks, where outlines are made.

Everything here begins at nothing, so that the weights of a decoder without it give the same masks from boxes, bit by
bit, and only learn to listen. In the order of their use: clicks and the given mask are drawn where outlines are made,
as discs of a fixed size on the photo; logits begin at the mask that was given; clicks move them; outlines follow edges
of the photo at the resolution of the masks; and a click that is still not obeyed is given its way.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nanosam_cli.core.modeling.encoder import EMBEDDING_CHANNELS
from nanosam_cli.core.modeling.prediction import LOW_RES
from nanosam_cli.core.modeling.resample import paste_matrices

DISC = 10.0  # frame units, a click's standard deviation; never less than a point of the grid it is drawn on
MOST_GIVEN = 7.0  # logits of a given mask, as `prompts.mask_to_logits` writes them
EDGES = 2  # kinds of edges that outlines follow
OBEYED = 1.0  # logit that a click is sure to get
SPOT = (0.75, 2.5)  # low-resolution pixels: least and most standard deviation of what a click that was not obeyed moves
SPOT_SHARE = 1 / 8  # the same as share of the box's shorter side
ROUNDS = 3  # in which clicks beside each other come to terms


class Listening(nn.Module):
    """The learned part; `width` channels has the finest map on the window."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.draw = nn.Sequential(nn.Conv2d(1 + 2, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, width, 3, padding=1))
        self.mask_scale = nn.Parameter(torch.tensor(0.65))  # of the given mask's logits: heard where there is one alone
        self.click_scale = nn.Parameter(torch.tensor(0.0))
        self.edges = nn.Conv2d(EMBEDDING_CHANNELS, EDGES * 16, 1)  # folded 4 x 4: unfolded to 256 x 256
        self.slopes = nn.Conv2d(width, EDGES, 1)
        for last in (self.draw[2], self.slopes):
            assert isinstance(last, nn.Conv2d)
            assert last.bias is not None
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)

    def prepare(self, image_embeddings: Tensor) -> Tensor:
        """Edges that outlines may follow, of embeddings (B, 256, h, w): (B, EDGES, 4h, 4w)."""
        return F.pixel_shuffle(self.edges(image_embeddings), 4)

    def begin(self, prior: Tensor, given: Tensor, begun: Tensor, discs: Tensor) -> Tensor:
        """What the logits start from on the window (P, 1, G, G): `prior`, or the `given` mask where `begun`
        (P, 1, 1, 1) is 1, moved by the clicks' `discs` (P, 2, G, G)."""
        start = (1 - begun) * prior + begun * (self.mask_scale * given)
        return start + self.click_scale * (discs[:, :1] - discs[:, 1:])

    def outlines(self, edges: Tensor, slopes: Tensor, given: Tensor) -> Tensor:
        """What is added to the masks at their own resolution (P, 1, h, w): along the photo's edges (1 or P, E, h, w),
        as strongly as `slopes` (P, E, h, w) say, and the given mask (P, 1, h, w), which the grid had to leave out."""
        return (edges * slopes).sum(dim=1, keepdim=True) + self.mask_scale * given


def click_discs(windows: Tensor, side: int, coords: Tensor, labels: Tensor) -> Tensor:
    """Foreground and background clicks (P, N, 2) as discs of one size on windows (P, 4): (P, 2, side, side)."""
    steps = (torch.arange(side, device=windows.device, dtype=torch.float32) + 0.5) / side
    sides = windows[:, 2:] - windows[:, :2]  # (P, 2)
    spread = (sides / side).clamp(min=DISC)
    places = windows[:, :2, None] + sides[:, :, None] * steps  # (P, 2, side)
    away = ((coords[:, :, :, None] - places[:, None]) / spread[:, None, :, None]).square()  # (P, N, 2, side)
    squared = (away[:, :, 0, None, :] + away[:, :, 1, :, None]).clamp(max=100)  # (P, N, side, side)
    drawn = []
    for label in (1, 0):
        elsewhere = (labels != label).to(squared.dtype)[:, :, None, None] * 100
        drawn.append((-(squared + elsewhere).amin(dim=1) / 2).exp())
    return torch.stack(drawn, dim=1)


class ClickPlaces(NamedTuple):
    """Clicks on the low-resolution masks, one axis at a time."""

    down: Tensor  # (P, N, h) weights that read a mask's row at each click
    across: Tensor  # (P, N, w)
    high: Tensor  # (P, N, h) a bump around each
    wide: Tensor  # (P, N, w)
    counts: (
        Tensor  # (P, N) 1 foreground, -1 background, 0 for no click, or one that a later one on its spot contradicts
    )

    @classmethod
    def of(cls, boxes: Tensor, coords: Tensor, labels: Tensor, low_res_hw: tuple[int, int]) -> ClickPlaces:
        """Of points (P, N, 2) in frame units and their labels (P, N)."""
        place = coords / LOW_RES - 0.5  # in pixels whose centres are whole numbers
        spread = ((boxes[:, 2:] - boxes[:, :2]).amin(dim=1) * (SPOT_SHARE / LOW_RES)).clamp(*SPOT)[:, None, None]
        down, across = (_taps(place[:, :, axis], low_res_hw[1 - axis]) for axis in (1, 0))
        high, wide = (_bump(place[:, :, axis], low_res_hw[1 - axis], spread) for axis in (1, 0))
        sign = (labels == 1).to(place.dtype) - (labels == 0).to(place.dtype)
        one = cls(down, across, high, wide, sign)
        order = torch.arange(coords.shape[1], device=coords.device)
        later = (order[None, :] > order[:, None]).to(place.dtype)
        against = (sign[:, :, None] * sign[:, None, :] < 0).to(place.dtype)
        overruled = ((one.reach() > 0.5).to(place.dtype) * later * against).amax(dim=2)
        return one._replace(counts=sign * (1 - overruled))

    def reach(self) -> Tensor:
        """(P, N, N) what is left of the second one's bump at the first."""
        return (self.down @ self.high.transpose(1, 2)) * (self.across @ self.wide.transpose(1, 2))

    def read(self, rows: Tensor, columns: Tensor | None = None) -> Tensor:
        """Values at the clicks (P, K, N) of masks (P, K, h, w), or of those that are the product of `rows`
        (P, K, h, g) and `columns` (P, w, g)."""
        across = self.across if columns is None else self.across @ columns  # (P, N, w or g)
        return ((self.down[:, None] @ rows) * across[:, None]).sum(dim=3)

    def settle(self, found: Tensor) -> tuple[Tensor, Tensor]:
        """Of values at the clicks (P, K, N): how high each one's bump must be for all to have the sign they asked for,
        (P, K, N), and the mean of what each prompt's clicks lacked, (P, K)."""
        counts, reach = self.counts[:, None], self.reach().transpose(1, 2)[:, None]
        lacking = gap = (counts.abs() * OBEYED - counts * found).clamp(min=0)
        heights = torch.zeros_like(found)
        for _ in range(ROUNDS):
            heights = heights + counts * gap
            now = found + (heights[:, :, None] @ reach)[:, :, 0]
            gap = (counts.abs() * OBEYED - counts * now).clamp(min=0)
        return heights, lacking.sum(dim=2) / self.counts.abs().sum(dim=1, keepdim=True).clamp(min=1)


def lay_over(
    logits: Tensor, windows: Tensor, base: Tensor, outside: float, clicks: ClickPlaces
) -> tuple[Tensor, Tensor]:
    """Logits (P, K, G, G) on windows (P, 4) in low-resolution pixels, `outside` beyond them and `base` (P, 1, h, w)
    added, in which every click is obeyed -> (P, K, h, w), and what the clicks lacked before (P, K).

    Bumps and window are one product: they cost next to nothing.
    """
    rows, columns = paste_matrices(windows, (base.shape[-2], base.shape[-1]), (logits.shape[-2], logits.shape[-1]))
    laid = rows[:, None] @ (logits - outside)  # (P, K, h, G)
    base = base + outside
    heights, ignored = clicks.settle(clicks.read(laid, columns) + clicks.read(base))
    bumps = clicks.high.transpose(1, 2)[:, None] * heights[:, :, None]  # (P, K, h, N)
    left = torch.cat([laid, bumps], dim=3)
    right = torch.cat([columns.transpose(1, 2), clicks.wide], dim=1)[:, None]  # (P, 1, G + N, w)
    return left @ right + base, ignored


def _taps(place: Tensor, length: int) -> Tensor:
    """Weights of bilinear interpolation at places (P, N) of one axis: (P, N, length)."""
    pixels = torch.arange(length, device=place.device, dtype=torch.float32)
    return (1 - (place.clamp(0, length - 1)[:, :, None] - pixels).abs()).clamp(min=0)


def _bump(place: Tensor, length: int, spread: Tensor) -> Tensor:
    """One axis of a Gaussian at places (P, N): (P, N, length)."""
    pixels = torch.arange(length, device=place.device, dtype=torch.float32)
    return (-((place[:, :, None] - pixels) / spread).square().clamp(max=100) / 2).exp()

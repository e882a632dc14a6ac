"""Pillow's BILINEAR resizing of a part of a picture, as two small matrix products on whatever device it lies on."""

from __future__ import annotations

from math import ceil, floor

import torch
from torch import Tensor

Box = tuple[float, float, float, float]  # x0 y0 x1 y1


def resize(picture: Tensor, box: Box, out_hw: tuple[int, int]) -> Tensor:
    """(n, H, W) or (3, H, W) -> (n, h, w) uint8 of what is in `box`.

    Equal to Pillow's but for the rounding of its weights and places: a value in some hundreds differs, by 1.
    """
    across = AxisFilter(box[0], box[2], out_hw[1], picture.shape[2], picture.device)
    down = AxisFilter(box[1], box[3], out_hw[0], picture.shape[1], picture.device)
    return apply(picture[:, down.first : down.last, across.first : across.last], down, across)


def apply(part: Tensor, down: AxisFilter, across: AxisFilter) -> Tensor:
    """(n, rows, columns) of the pixels that both filters ask for -> (n, h, w) uint8. Pillow rounds in between too."""
    wide = (part.float() @ across.weights.T + 0.5).floor()
    return (down.weights @ wide + 0.5).to(torch.uint8)


class AxisFilter:
    """What each of `count` new pixels takes of the pixels of one axis: a triangle, wide enough to miss none."""

    first: int  # of the old pixels that are asked for
    last: int  # one past them
    weights: Tensor  # (count, last - first)

    def __init__(self, low: float, high: float, count: int, length: int, device: torch.device) -> None:
        """`low` to `high` of an axis of `length` pixels."""
        step = (high - low) / count
        reach = max(step, 1.0)
        self.first, self.last = max(0, floor(low - reach)), min(length, ceil(high + reach))
        centres = low + (torch.arange(count, dtype=torch.float64, device=device) + 0.5) * step
        places = torch.arange(self.first, self.last, dtype=torch.float64, device=device) + 0.5
        weights = (1 - (places - centres[:, None]).abs() / reach).clamp(min=0)
        self.weights = (weights / weights.sum(dim=1, keepdim=True)).float()

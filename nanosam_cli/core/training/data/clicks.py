"""How objects are prompted: boxes and points on their masks, from numbers that were drawn before.

Nothing here is random, and no number of draws depends on a mask, so that masks may be anywhere and come all at once.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from nanosam_cli.core.training.recipe import PromptSection
from nanosam_cli.core.types import BACKGROUND, BOX_BOTTOM_RIGHT, BOX_TOP_LEFT, FOREGROUND, PADDING

MORE_POINTS = (0.7, 0.2, 0.1)  # how often a prompt of points has none, one or two besides the first
TRIES = 8  # places that are looked at for a background click


class PromptNumbers(NamedTuple):
    """What P prompts are made of. Uniform in [0, 1) but for `errors`."""

    kind: Tensor  # (P,)
    rough: Tensor  # (P,)
    more: Tensor  # (P,)
    points: Tensor  # (P, 3, 2) which pixel of the mask, and whether the middle one
    outside: Tensor  # (P, 2) whether a further point is a background one
    places: Tensor  # (P, 2, TRIES, 2) where those are looked for
    errors: Tensor  # (P, 4) normal, of a box's sides

    @classmethod
    def draw(cls, rng: np.random.Generator, count: int) -> PromptNumbers:
        """Those of `count` prompts; each has its own, whatever becomes of the others."""

        def uniform(*shape: int) -> Tensor:
            return torch.from_numpy(rng.random((count, *shape)))

        errors = torch.from_numpy(rng.normal(size=(count, 4)))
        return cls(uniform(), uniform(), uniform(), uniform(3, 2), uniform(2), uniform(2, TRIES, 2), errors)

    @classmethod
    def join(cls, parts: list[PromptNumbers], device: torch.device) -> PromptNumbers:
        """All prompts of several."""
        return cls(*(torch.cat(columns).to(device) for columns in zip(*parts)))

    def rows(self, chosen: Tensor) -> PromptNumbers:
        """Some of the prompts."""
        return PromptNumbers(*(column[chosen] for column in self))


def make_prompts(section: PromptSection, masks: Tensor, boxes: Tensor, numbers: PromptNumbers) -> tuple[Tensor, Tensor]:
    """Prompts of masks (P, C, C) uint8 and boxes (P, 4) -> (P, 3, 2) crop pixels, (P, 3) labels: a point, then a box's
    corners or more points.

    Every object has its point, labelled as padding where the prompt is a box alone.
    """
    surface = Surface(masks)
    by_points = numbers.kind < section.point
    has_point = numbers.kind < section.point + section.box_and_point
    rough = torch.where(numbers.rough < section.rough_boxes, 5.0, 1.0)
    rough[numbers.rough >= 1 - section.exact_boxes] = 0
    corners = jitter_boxes(boxes, section.box_jitter * rough[:, None], numbers.errors).reshape(-1, 2, 2)
    coords = [surface.pick(numbers.points[:, 0])]
    labels = [torch.where(has_point, FOREGROUND, PADDING)]
    for slot, corner_label in enumerate((BOX_TOP_LEFT, BOX_BOTTOM_RIGHT)):
        clicked, on_object = further_points(
            surface, masks, boxes, numbers.points[:, 1 + slot], numbers.outside[:, slot], numbers.places[:, slot]
        )
        used = numbers.more >= sum(MORE_POINTS[: slot + 1])
        label = torch.where(used, torch.where(on_object, FOREGROUND, BACKGROUND), PADDING)
        coords.append(torch.where(by_points[:, None], clicked * used[:, None], corners[:, slot]))
        labels.append(torch.where(by_points, label, corner_label))
    return torch.stack(coords, dim=1), torch.stack(labels, dim=1).float()


class Surface:
    """The pixels of masks (P, C, C) that can be clicked: more than half object, or the most that there are."""

    def __init__(self, masks: Tensor) -> None:
        self._on = masks >= masks.amax(dim=(1, 2), keepdim=True).clamp(max=128)
        counted = self._on.float()  # whose sums are exact
        self._in_row = counted.sum(dim=2)  # (P, C)
        self._up_to_row = self._in_row.cumsum(dim=1)
        self._middle = self._middles(counted.sum(dim=1))

    def pick(self, numbers: Tensor) -> Tensor:
        """(P, 2) numbers in [0, 1) -> x y of a pixel centre on each (P, 2) float32: half the time anywhere, else the
        one nearest to its middle, where people click."""
        place = (numbers[:, :1] * self._up_to_row[:, -1:]).long()  # among its pixels, row by row
        row = (self._up_to_row <= place).sum(dim=1, keepdim=True)
        place = place - (self._up_to_row - self._in_row).gather(1, row)
        line = self._on[torch.arange(len(row), device=row.device), row[:, 0]]  # (P, C)
        column = (line.cumsum(dim=1) <= place).sum(dim=1, keepdim=True)
        anywhere = torch.cat([column, row], dim=1)
        return torch.where(numbers[:, 1:] < 0.5, self._middle, anywhere).float() + 0.5

    def _middles(self, in_column: Tensor) -> Tensor:
        side = self._on.shape[-1]
        steps = torch.arange(side, device=self._on.device, dtype=torch.float32)
        count = self._up_to_row[:, -1:]
        across, down = ((counts * steps).sum(dim=1, keepdim=True) / count for counts in (in_column, self._in_row))
        distance = (steps - down).square()[:, :, None] + (steps - across).square()[:, None, :]
        nearest = distance.masked_fill_(~self._on, torch.inf).flatten(1).argmin(dim=1)
        return torch.stack([nearest % side, nearest // side], dim=1)


def further_points(
    surface: Surface, masks: Tensor, boxes: Tensor, points: Tensor, outside: Tensor, places: Tensor
) -> tuple[Tensor, Tensor]:
    """Another click on each object, (P, 2) x y and whether it is on it: half the time, else beside it, at most half a
    box away; on it too where the (P, TRIES, 2) `places` that are looked at are all object."""
    side = masks.shape[-1]
    reach = (boxes[:, 2:] - boxes[:, :2]) / 2
    low, high = (boxes[:, :2] - reach).clamp(min=0), (boxes[:, 2:] + reach).clamp(max=side) - 1
    found = (low[:, None] + places * (high - low)[:, None]).long().clamp(0, side - 1)  # (P, TRIES, 2)
    rows = torch.arange(len(masks), device=masks.device)
    free = masks[rows[:, None], found[:, :, 1], found[:, :, 0]] == 0  # (P, TRIES)
    beside = found[rows, free.int().argmax(dim=1)].float() + 0.5
    on_object = (outside < 0.5) | ~free.any(dim=1)
    return torch.where(on_object[:, None], surface.pick(points), beside), on_object


def jitter_boxes(boxes: Tensor, shares: Tensor, errors: Tensor) -> Tensor:
    """Move each side of boxes (P, 4) by `errors` (P, 4) times a share (P, 1) of its width or height; at least half the
    box is left."""
    sides = (boxes[:, 2:] - boxes[:, :2]).repeat(1, 2)
    return (boxes + (errors * shares).clamp(-0.25, 0.25) * sides).float()

"""Masks as people and other models give them: moved, turned, bent, opened, closed, coarse; made from annotated ones."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from nanosam_cli.core.modeling.resample import crop_windows, paste_windows

EXACT = 0.3  # share of masks that are given as they are
SIDE = 64  # points of the window in which a mask is changed
ROOM = 0.3  # of the box, around it
MOVED, TURNED, SCALED, BENT = (
    0.1,
    15.0,
    0.15,
    0.07,
)  # at most: of the box, degrees, share, standard deviation of the box
BENDS = 4  # cells of the field that bends, along each side
OPENED = (1, 4)  # points of radius, least and most; 1.5 % and 6 % of the box
CELLS = 16  # of a blob, along the window
CORNERS = (6, 14)  # of a polygon, least and most
SURE = (3.0, 7.0)  # logits


def rough_masks(shares: Tensor, boxes: Tensor, generator: torch.Generator) -> Tensor:
    """Share of object in each cell (P, 1, h, w), and boxes (P, 4) in cells -> logits of rough masks (P, 1, h, w)."""
    count = len(shares)
    if not count:
        return shares
    sides = (boxes[:, 2:] - boxes[:, :2]).clamp(min=1)
    windows = torch.cat([boxes[:, :2] - ROOM * sides, boxes[:, 2:] + ROOM * sides], dim=1)
    seen = _displaced(crop_windows(shares, windows, SIDE), generator)
    kind = torch.randint(5, (count,), generator=generator)
    radius = torch.randint(OPENED[0], OPENED[1] + 1, (count,), generator=generator)
    changed = [_change(seen[row : row + 1], int(kind[row]), int(radius[row]), generator) for row in range(count)]
    sure = SURE[0] + (SURE[1] - SURE[0]) * torch.rand(count, 1, 1, 1, generator=generator)
    rough = torch.cat(changed)
    hw = (shares.shape[-2], shares.shape[-1])
    pasted = paste_windows((2 * rough - 1) * sure, windows, hw, 0) + _outside(windows, hw) * -sure
    exact = torch.rand(count, generator=generator) < EXACT
    unseen = (pasted > 0).flatten(1).sum(dim=1) == 0  # too small a thing for what was done to it
    as_it_is = (exact | unseen)[:, None, None, None]
    return torch.where(as_it_is, (2 * shares - 1) * sure, pasted)


def _outside(windows: Tensor, hw: tuple[int, int]) -> Tensor:
    """(P, 1, h, w) 1 beyond the windows."""
    inside = paste_windows(torch.ones(len(windows), 1, 2, 2), windows, hw, 0)
    return 1 - inside


def _displaced(seen: Tensor, generator: torch.Generator) -> Tensor:
    """(P, 1, S, S) moved, turned, scaled and bent, each mask by as much of the most as is drawn for it."""
    count, side = len(seen), seen.shape[-1]
    box = 2 / (1 + 2 * ROOM)  # its side, in units of grid_sample's window, which is 2 long
    strength = torch.rand(count, 1, generator=generator)
    shift, turn, scale = (torch.rand(count, n, generator=generator) * 2 - 1 for n in (2, 1, 1))
    angle = (strength * turn * math.radians(TURNED))[:, 0]
    factor = (1 + strength * scale * SCALED)[:, 0]
    turned = torch.stack([angle.cos() * factor, -angle.sin(), angle.sin(), angle.cos() * factor], dim=1)
    moved = shift * strength * MOVED * box
    theta = torch.cat([turned.reshape(-1, 2, 2), moved[:, :, None]], dim=2)
    grid = F.affine_grid(theta, [count, 1, side, side], align_corners=False)
    field = torch.randn(count, 2, BENDS, BENDS, generator=generator) * (strength * BENT * box)[:, :, None, None]
    bent = F.interpolate(field, (side, side), mode="bicubic", align_corners=False)
    return F.grid_sample(seen, grid + bent.permute(0, 2, 3, 1), align_corners=False)


def _change(seen: Tensor, kind: int, radius: int, generator: torch.Generator) -> Tensor:
    """One mask (1, 1, S, S): left alone, opened, closed, as a blob of cells, or as a polygon."""
    if kind == 1:
        return _grown(-_grown(-seen, radius), radius)
    if kind == 2:
        return -_grown(-_grown(seen, radius), radius)
    if kind == 3:
        cells = F.adaptive_avg_pool2d(seen, CELLS)
        return (F.interpolate(cells, seen.shape[-2:], mode="nearest") > 0.5).float()
    if kind == 4:
        return _polygon(seen, int(torch.randint(CORNERS[0], CORNERS[1] + 1, (1,), generator=generator)))
    return seen


def _grown(masks: Tensor, radius: int) -> Tensor:
    return F.max_pool2d(masks, 2 * radius + 1, 1, radius)


def _polygon(seen: Tensor, corners: int) -> Tensor:
    """Straight lines between the farthest points of a mask in so many directions from its middle."""
    side = seen.shape[-1]
    filled = seen[0, 0] > 0.5
    if not filled.any():
        return seen
    rows, columns = torch.nonzero(filled, as_tuple=True)
    middle = rows.float().mean(), columns.float().mean()
    steps = torch.arange(side, dtype=torch.float32)
    down, across = torch.meshgrid(steps - middle[0], steps - middle[1], indexing="ij")
    sector = (torch.atan2(down, across) / (2 * math.pi) + 0.5) * corners  # in [0, corners]
    nearest = sector.round().long() % corners
    distance = (down.square() + across.square()).sqrt()
    reach = torch.zeros(corners).scatter_reduce(0, nearest[filled], distance[filled], "amax", include_self=True)
    first = sector.floor().long() % corners
    share = sector - sector.floor()
    one, other = reach[first].clamp(min=0.5), reach[(first + 1) % corners].clamp(min=0.5)
    # on the straight line between two corners the inverse distance is a mix of theirs, by the sines of the angles
    step = 2 * math.pi / corners
    inverse = (torch.sin(step * (1 - share)) / one + torch.sin(step * share) / other) / math.sin(step)
    return (distance * inverse <= 1).float()[None, None]

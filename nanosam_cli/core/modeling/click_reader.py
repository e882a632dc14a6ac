"""From clicks to a box: what lies under a point, looked at through three windows of different size.

A box says how far an object reaches, a click does not. Around the click the embedding is read at three scales with the
same weights, so that a head near the camera and one far away are the same problem. Each reading is a coarse mask, the
box of the object, and how well that box is believed to fit; the best one gives the region decoder its box.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nanosam_cli.core.modeling.encoder import EMBEDDING_CHANNELS, conv_norm
from nanosam_cli.core.modeling.prediction import CELL, LOW_RES, NORM_EPS, ClickReading
from nanosam_cli.core.modeling.resample import crop_windows

WINDOW_SIDES = (128.0, 384.0, 1152.0)  # frame units; the last one sees the whole photo from near its middle
READINGS = len(WINDOW_SIDES)
GRID = 16  # points a window's side
CLICKS_ROOM = 1.5  # a window is at least so many times as wide as its clicks lie apart


class ClickReader(nn.Module):
    """Embedding and clicks -> a `ClickReading`; one that `sees_masks` looks at the mask that clicks correct too."""

    def __init__(self, *, context: int = 48, width: int = 32, sees_masks: bool = False) -> None:
        super().__init__()
        wide, deep = 2 * width, 3 * width
        self.context = nn.Conv2d(EMBEDDING_CHANNELS, context, 1)
        self.enter = conv_norm(context + _CLICK_CHANNELS, width, 3)
        self.down1 = nn.Sequential(conv_norm(width, wide, 3, 2), conv_norm(wide, wide, 3))
        self.down2 = nn.Sequential(conv_norm(wide, deep, 3, 2), conv_norm(deep, deep, 3))
        self.up1 = nn.ConvTranspose2d(deep, wide, 2, 2)
        self.merge1 = conv_norm(wide, wide, 3)
        self.up2 = nn.ConvTranspose2d(wide, width, 2, 2)
        self.merge2 = conv_norm(width, width, 3)
        self.mask = nn.Conv2d(width, 1, 1)
        self.see: nn.Conv2d | None = None
        if sees_masks:
            self.see = nn.Conv2d(1, width, 3, padding=1, bias=False)
            nn.init.zeros_(self.see.weight)  # it begins as one that sees none
        flat = deep * (GRID // 4) ** 2 + 2 * GRID
        self.reach = nn.Sequential(nn.Linear(flat, 96), nn.ReLU(inplace=True), nn.Linear(96, 4 + 1))

    def forward(self, context: Tensor, coords: Tensor, labels: Tensor, mask: Tensor | None = None) -> ClickReading:
        """`context` (1 or P, C, h, w) of `self.context`, points (P, N, 2) in frame units, labels (P, N), logits of
        given masks (P, 1, h, w), 0 where there is none."""
        windows, centres = _windows(coords, labels)  # (P, S, 4), (P, 2)
        regions = []
        for scale in range(READINGS):
            region = crop_windows(context, windows[:, scale] / CELL, GRID)
            clicks = _click_maps(windows[:, scale], coords, labels, scale).to(region.dtype)
            regions.append(torch.cat([region, _similarity(region, clicks), clicks], dim=1))
        fine = self.enter(torch.stack(regions, dim=1).flatten(0, 1))  # (P * S, width, G, G)
        if self.see is not None and mask is not None:
            given = [crop_windows(mask, windows[:, scale] / LOW_RES, GRID) for scale in range(READINGS)]
            fine = fine + self.see((torch.stack(given, dim=1).flatten(0, 1) / 4).tanh())
        middle = self.down1(fine)
        coarse = self.down2(middle)  # (P * S, deep, G / 4, G / 4)
        middle = self.merge1(middle + self.up1(coarse))
        logits = self.mask(self.merge2(fine + self.up2(middle))).float()  # (P * S, 1, G, G)

        profile = torch.cat([logits.amax(dim=2), logits.amax(dim=3)], dim=2)[:, 0]  # (P * S, 2 G): how far it reaches
        told = torch.cat([coarse.flatten(1), profile.detach().clamp(-8, 8).to(coarse.dtype)], dim=1)
        found = self.reach(told).float().reshape(-1, READINGS, 5)
        sides = (windows[:, :, 2:] - windows[:, :, :2]).repeat(1, 1, 2)  # (P, S, 4)
        distances = found[:, :, :4].clamp(-5, 2).exp() * sides / 4  # to the four sides
        sign = distances.new_tensor([-1.0, -1.0, 1.0, 1.0])
        boxes = centres[:, None].repeat(1, 1, 2) + sign * distances
        return ClickReading(logits.reshape(-1, READINGS, GRID, GRID), found[:, :, 4], windows, boxes, centres)


_CLICK_CHANNELS = 1 + 2 + 1  # similarity; foreground and background clicks; size of the window


def _windows(coords: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Three squares around the foreground clicks (P, 3, 4) and their middle (P, 2); around the first point where a
    prompt has no foreground click, which nobody reads then."""
    foreground = (labels == 1).to(coords.dtype)[:, :, None]  # (P, N, 1)
    lowest = (coords + (1 - foreground) * 1e6).amin(dim=1)
    highest = (coords - (1 - foreground) * 1e6).amax(dim=1)
    any_click = foreground.amax(dim=1)  # (P, 1)
    lowest = any_click * lowest + (1 - any_click) * coords[:, 0]
    highest = any_click * highest + (1 - any_click) * coords[:, 0]
    centres = (lowest + highest) / 2
    apart = (highest - lowest).amax(dim=1, keepdim=True) * CLICKS_ROOM  # (P, 1)
    halves = torch.maximum(apart, apart.new_tensor(WINDOW_SIDES)[None])[:, :, None] / 2  # (P, S, 1)
    return torch.cat([centres[:, None] - halves, centres[:, None] + halves], dim=2), centres


def _click_maps(windows: Tensor, coords: Tensor, labels: Tensor, scale: int) -> Tensor:
    """Bumps two points wide at the clicks, and which window this is: (P, 3, G, G)."""
    steps = (torch.arange(GRID, device=coords.device, dtype=torch.float32) + 0.5) / GRID
    spots = (coords - windows[:, None, :2]) / (windows[:, None, 2:] - windows[:, None, :2])  # (P, N, 2) in [0, 1]
    across = ((spots[:, :, 0, None] - steps) * GRID).square()[:, :, None, :]
    down = ((spots[:, :, 1, None] - steps) * GRID).square()[:, :, :, None]
    bumps = (-(across + down) / 2).exp()  # (P, N, G, G)
    foreground, background = ((labels == label).to(bumps.dtype) for label in (1, 0))
    # a prompt without a click is read as if its first point were one: training learns from every object that way
    no_click = 1 - foreground.amax(dim=1, keepdim=True)
    first = (torch.arange(labels.shape[1], device=labels.device) == 0).to(bumps.dtype)
    foreground = foreground + no_click * first
    maps = [(bumps * drawn[:, :, None, None]).amax(dim=1) for drawn in (foreground, background)]
    return torch.stack([*maps, torch.full_like(maps[0], scale - 1.0)], dim=1)


def _similarity(region: Tensor, clicks: Tensor) -> Tensor:
    """Cosine of each point's features with those at the foreground clicks: (P, 1, G, G)."""
    weights = clicks[:, :1].flatten(2)  # (P, 1, G * G)
    cells = F.normalize(region.flatten(2).float(), dim=1, eps=NORM_EPS)  # (P, C, G * G)
    mean = F.normalize(cells @ weights.float().transpose(1, 2), dim=1, eps=NORM_EPS)  # (P, C, 1)
    return (mean.transpose(1, 2) @ cells).reshape(-1, 1, GRID, GRID).to(region.dtype) * 2

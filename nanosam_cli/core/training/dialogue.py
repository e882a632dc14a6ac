"""Prompts as they come up while people correct a mask: a first one, then clicks on what the student's own mask has
wrong, that mask fed back each time. Each prompt of a batch is somewhere on that way."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from nanosam_cli.core.frame import COORDINATE_SIZE
from nanosam_cli.core.modeling.prediction import LOW_RES, Prompts, WindowPrediction
from nanosam_cli.core.modeling.resample import crop_windows
from nanosam_cli.core.training.recipe import PromptSection
from nanosam_cli.core.training.rough_masks import rough_masks
from nanosam_cli.core.types import BACKGROUND, BOX_TOP_LEFT, FOREGROUND, PADDING

SIDE = 96  # points of the window on which a mask is compared with the annotated one
ROUNDS_POWER = 1.5  # early rounds come more often than late ones
DEEPEST = 0.7  # share of clicks on the deepest pixel; the others anywhere that is wrong, deep ones more often

Predict = Callable[[Prompts], WindowPrediction]


def low_res_shares(truth: Tensor, low_res_hw: tuple[int, int]) -> Tensor:
    """Annotated masks (P, 1, C, C) in [0, 1] -> share of object in each low-resolution pixel (P, 1, h, w)."""
    return F.adaptive_avg_pool2d(truth, low_res_hw)


def give_masks(
    prompts: Prompts, truth: Tensor, boxes: Tensor, section: PromptSection, generator: torch.Generator
) -> Prompts:
    """Rough masks for some of the prompts that are a box alone: beside it, or in its place."""
    plain = (prompts.point_labels == BOX_TOP_LEFT).any(dim=1) & ~(prompts.point_labels == FOREGROUND).any(dim=1)
    rows = torch.nonzero(plain)[:, 0].cpu()
    rows = rows[torch.randperm(len(rows), generator=generator)]
    beside, instead = (round(len(truth) * share) for share in (section.box_and_mask, section.mask))
    given = rows[: beside + instead].to(truth.device)
    if not len(given):
        return prompts
    shares = low_res_shares(truth[given], (prompts.mask_input.shape[-2], prompts.mask_input.shape[-1]))
    masks, has_mask, labels = prompts.mask_input.clone(), prompts.has_mask_input.clone(), prompts.point_labels.clone()
    masks[given] = rough_masks(shares.cpu(), (boxes[given] / LOW_RES).cpu(), generator).to(masks.device)
    has_mask[given] = 1
    labels[given[beside:]] = PADDING
    return prompts._replace(mask_input=masks, has_mask_input=has_mask, point_labels=labels)


def draw_rounds(count: int, section: PromptSection, generator: torch.Generator) -> Tensor:
    """(P,) corrections that each prompt has behind it."""
    most = section.corrections
    corrected = torch.rand(count, generator=generator) < section.refine
    drawn = (torch.rand(count, generator=generator) ** ROUNDS_POWER * most).long() + 1
    return torch.where(corrected, drawn.clamp(max=most), 0)


@torch.no_grad()
def corrected(
    prompts: Prompts,
    predict: Predict,
    truth: Tensor,
    boxes: Tensor,
    ambiguous: Tensor,
    rounds: Tensor,
    image_size: int,
    generator: torch.Generator,
) -> Prompts:
    """The prompts after so many `rounds` (P,) of clicks on the student's own masks, and its last mask fed back."""
    for number in range(1, int(rounds.max()) + 1 if len(rounds) else 1):
        rows = torch.nonzero(rounds >= number)[:, 0].to(truth.device)
        found = predict(prompts.rows(rows))
        assert found.low_res is not None
        single = ambiguous[rows] & (number == 1)
        shown = torch.where(single, 1 + found.ious[:, 1:].argmax(dim=1), 0)
        low_res = found.low_res[torch.arange(len(rows), device=rows.device), shown][:, None].float()
        coords, labels = next_clicks(low_res, found.windows, truth[rows], boxes[rows], image_size, generator)
        prompts = _with_clicks(prompts, rows, coords, labels, low_res)
    return prompts


def next_clicks(
    low_res: Tensor, windows: Tensor, truth: Tensor, boxes: Tensor, image_size: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Of masks (R, 1, h, w), their windows (R, 4), annotated masks (R, 1, C, C) and boxes (R, 4), frame units: where
    each is wrong, (R, 2) frame units, and labels (R,), PADDING where it is right."""
    both = torch.cat([torch.minimum(windows[:, :2], boxes[:, :2]), torch.maximum(windows[:, 2:], boxes[:, 2:])], dim=1)
    wanted = crop_windows(truth, both * (image_size / COORDINATE_SIZE), SIDE) > 0.5
    predicted = crop_windows(low_res, both / LOW_RES, SIDE) > 0
    wrong = torch.cat([wanted & ~predicted, predicted & ~wanted])
    missing, surplus = depths(wrong.float()).chunk(2)
    depth = torch.maximum(missing, surplus).flatten(1).cpu()  # (R, SIDE * SIDE)
    anywhere = torch.rand(len(depth), 1, generator=generator) >= DEEPEST
    noise = torch.rand(depth.shape, generator=generator)
    # the deepest, of equals any; or one drawn by depth (Efraimidis and Spirakis 2006: the largest u ** (1 / weight))
    scores = torch.where(anywhere, noise.log() / depth.clamp(min=1e-6), depth + 0.5 * noise)
    scores = scores.masked_fill(depth == 0, -torch.inf)
    picks = scores.argmax(dim=1)
    right = depth.amax(dim=1) == 0
    place = torch.stack([picks % SIDE, picks // SIDE], dim=1).to(both.device).add(0.5) / SIDE
    coords = both[:, :2] + place * (both[:, 2:] - both[:, :2])
    is_missing = wanted.flatten(1).gather(1, picks[:, None].to(both.device))[:, 0]
    labels = torch.where(is_missing, FOREGROUND, BACKGROUND)
    return coords, torch.where(right.to(both.device), PADDING, labels).float()


def depths(masks: Tensor) -> Tensor:
    """Masks (P, 1, S, S) of 0 and 1 -> how often each pixel outlasts shrinking by one: by turns along the axes and
    along the diagonals too, which is near to the distance from the edge. Beyond the border is outside."""
    total, left = masks.clone(), F.pad(masks, (1, 1, 1, 1))
    turn = 0
    while left.any():
        square = -F.max_pool2d(-left, 3, 1, 1)
        if turn % 2:
            left = square
        else:
            left = torch.minimum(-F.max_pool2d(-left, (3, 1), 1, (1, 0)), -F.max_pool2d(-left, (1, 3), 1, (0, 1)))
        left = F.pad(left[:, :, 1:-1, 1:-1], (1, 1, 1, 1))
        total = total + left[:, :, 1:-1, 1:-1]
        turn += 1
    return total


def _with_clicks(prompts: Prompts, rows: Tensor, coords: Tensor, labels: Tensor, low_res: Tensor) -> Prompts:
    """One more click for some of the prompts, and their last mask (R, 1, h, w); padding for the others."""
    count = len(prompts.owner)
    more_coords = prompts.point_coords.new_zeros(count, 1, 2)
    more_labels = prompts.point_labels.new_full((count, 1), PADDING)
    more_coords[rows, 0], more_labels[rows, 0] = coords, labels
    masks, has_mask = prompts.mask_input.clone(), prompts.has_mask_input.clone()
    masks[rows], has_mask[rows] = low_res, 1
    return Prompts(
        prompts.owner,
        torch.cat([prompts.point_coords, more_coords], dim=1),
        torch.cat([prompts.point_labels, more_labels], dim=1),
        masks,
        has_mask,
    )

"""What a training step asks of the decoder, and how it is judged: prompts, windows, targets, corrections."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from nanosam_cli.core.frame import COORDINATE_SIZE
from nanosam_cli.core.modeling.prediction import LOW_RES, ClickReading, Prompts, WindowPrediction
from nanosam_cli.core.modeling.resample import crop_windows, paste_windows
from nanosam_cli.core.training import losses
from nanosam_cli.core.training.data.datasets import Batch
from nanosam_cli.core.training.recipe import LossSection

FOCUS_MARGIN = 0.15  # of the box, on each side of the window on which whole-square decoders are trained
LEAST_POINTS = 2.5  # of a reading's grid that an object must be long for its mask to be asked for
OUTSIDE_LOGIT = -5.0  # of a mask that is shown again as prompt


def first_prompts(batch: Batch, image_size: int) -> Prompts:
    """The batch's prompts, no mask given."""
    low = round(batch.masks.shape[-1] * COORDINATE_SIZE / image_size / LOW_RES)
    count = len(batch.owner)
    empty = batch.boxes.new_zeros(count, 1, low, low)
    return Prompts(batch.owner, batch.point_coords, batch.point_labels, empty, batch.boxes.new_zeros(count))


def focus_windows(boxes: Tensor) -> Tensor:
    """(P, 4) windows a little larger than the true boxes."""
    margin = FOCUS_MARGIN * (boxes[:, 2:] - boxes[:, :2]) + LOW_RES
    return torch.cat([boxes[:, :2] - margin, boxes[:, 2:] + margin], dim=1)


def window_targets(truth: Tensor, windows: Tensor, side: int, image_size: int) -> tuple[Tensor, Tensor]:
    """True masks (P, 1, C, C) on windows (P, 4), frame units -> (P, 1, side, side), both in [0, 1], and the share of
    each object that its window holds (P,)."""
    pixels = windows * (image_size / COORDINATE_SIZE)
    target = crop_windows(truth, pixels, side)
    window_area = (pixels[:, 2:] - pixels[:, :2]).prod(dim=1)
    held = target.mean(dim=(1, 2, 3)) * window_area
    return target, (held / truth.sum(dim=(1, 2, 3)).clamp(min=1)).clamp(max=1)


def prompt_losses(
    prediction: WindowPrediction, target: Tensor, covered: Tensor, batch: Batch, weights: LossSection
) -> tuple[Tensor, Tensor]:
    """-> loss of each prompt (P,), true IoU of each mask (P, K)."""
    by_mask = losses.mask_loss(prediction.logits, target, bce=weights.bce, dice=weights.dice)
    ious = losses.window_iou(prediction.logits, target, covered)
    total = losses.choose_masks(by_mask, batch.ambiguous)
    total = total + weights.iou * (prediction.ious.float() - ious).square().mean(dim=1)
    return total, ious


def reading_loss(reading: ClickReading, truth: Tensor, boxes: Tensor, image_size: int) -> Tensor:
    """What was read under each object's click, against true masks (P, 1, C, C) and boxes (P, 4) -> (P,).

    Masks and boxes are asked of the scales that can show the object (all of it, and larger than a few points); every
    scale must know how well its box fits.
    """
    prompts, scales, side = reading.logits.shape[:3]
    boxes = boxes[:, None].expand(-1, scales, -1)  # (P, S, 4)
    per_scale = [window_targets(truth, reading.windows[:, scale], side, image_size) for scale in range(scales)]
    target, covered = (torch.stack(parts, dim=1) for parts in zip(*per_scale))  # (P, S, 1, g, g), (P, S)
    by_mask = losses.mask_loss(reading.logits.flatten(0, 1)[:, None], target.flatten(0, 1), bce=1, dice=1)
    reach = losses.reach_loss(reading.boxes, boxes, reading.centres[:, None])

    longest = (boxes[..., 2:] - boxes[..., :2]).amax(dim=2)
    points = longest / (reading.windows[..., 2] - reading.windows[..., 0]) * side  # that the object is long
    fit = covered * (points / LEAST_POINTS).clamp(max=1)
    shown = ((fit > 0.7) | (fit >= fit.amax(dim=1, keepdim=True))).float()
    seen = (by_mask.reshape(prompts, scales) + reach) * shown

    ious = losses.paired_box_iou(reading.boxes.detach(), boxes)
    scores = F.binary_cross_entropy_with_logits(reading.scores, ious, reduction="none")
    return seen.sum(dim=1) / shown.sum(dim=1) + scores.mean(dim=1)


def refined_rows(count: int, share: float, seed: int) -> Tensor:
    """Which prompts go a second round."""
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    return order[: round(count * share)]


def corrected_prompts(
    prompts: Prompts,
    prediction: WindowPrediction,
    target: Tensor,
    ambiguous: Tensor,
    rows: Tensor,
    generator: torch.Generator,
) -> Prompts:
    """Second round: the mask that would be shown, as mask prompt, and one click where it is wrong."""
    shown = torch.where(ambiguous, 1 + prediction.ious[:, 1:].argmax(dim=1), 0)[rows]
    logits = prediction.logits.detach()[rows, shown][:, None]  # (R, 1, G, G)
    windows, truth = prediction.windows[rows], target[rows] > 0.5
    wrong = ((logits > 0) != truth).flatten(1).float()
    none = (wrong.sum(dim=1) == 0).float()[:, None]
    side = logits.shape[-1]
    picks = torch.multinomial((wrong + none).cpu(), 1, generator=generator).to(windows.device)  # (R, 1)
    share = torch.cat([picks % side, picks // side], dim=1).add(0.5) / side  # x y within the window
    click = windows[:, :2] + share * (windows[:, 2:] - windows[:, :2])
    label = (
        truth.flatten(1).gather(1, picks).to(prompts.point_labels.dtype)
    )  # 1 where a part is missing, 0 where too much
    before = prompts.rows(rows)
    low_res_hw = (before.mask_input.shape[-2], before.mask_input.shape[-1])
    return Prompts(
        before.owner,
        torch.cat([before.point_coords, click[:, None]], dim=1),
        torch.cat([before.point_labels, label], dim=1),
        paste_windows(logits.float(), windows / LOW_RES, low_res_hw, OUTSIDE_LOGIT),
        torch.ones_like(before.has_mask_input),
    )

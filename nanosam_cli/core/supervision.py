"""What a training step asks of the decoder, and how it is judged: prompts, windows, targets, corrections."""

from __future__ import annotations

import torch
from torch import Tensor

from nanosam_cli.core import losses
from nanosam_cli.core.datasets import Batch
from nanosam_cli.core.frame import COORDINATE_SIZE
from nanosam_cli.core.modeling.prediction import LOW_RES, Prompts, WindowPrediction
from nanosam_cli.core.modeling.resample import crop_windows, paste_windows
from nanosam_cli.core.recipe import LossSection

FOCUS_MARGIN = 0.15  # of the box, on each side of the window on which whole-square decoders are trained
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


def window_targets(batch: Batch, windows: Tensor, side: int, image_size: int) -> tuple[Tensor, Tensor]:
    """True masks on the windows (P, 1, side, side) in [0, 1], and the share of each object that its window holds."""
    pixels = windows * (image_size / COORDINATE_SIZE)
    truth = batch.masks.float() / 255
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
    if prediction.point_boxes is not None:
        clicked = batch.point_labels[:, 0] == 1
        boxes = losses.point_box_loss(prediction.point_boxes[:, 0], batch.boxes, batch.point_coords[:, 0])
        total = total + weights.box * boxes * clicked
    return total, ious


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

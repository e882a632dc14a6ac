"""Losses of mask training, each a value per prompt, so that every object weighs the same whatever its size."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def mask_loss(logits: Tensor, target: Tensor, *, bce: float, dice: float) -> Tensor:
    """(P, K, G, G) logits against (P, 1, G, G) soft targets in [0, 1] -> (P, K).

    Binary cross-entropy and Dice (Milletari et al. 2016, arXiv 1606.04797), both as means over the window.
    """
    target = target.expand_as(logits)
    cross = F.binary_cross_entropy_with_logits(logits, target, reduction="none").mean(dim=(2, 3))
    probability = logits.sigmoid()
    shared = (probability * target).sum(dim=(2, 3))
    total = (probability + target).sum(dim=(2, 3))
    return bce * cross + dice * (1 - (2 * shared + 1) / (total + 1))


@torch.no_grad()
def window_iou(logits: Tensor, target: Tensor, covered: Tensor) -> Tensor:
    """True IoU of thresholded masks on their windows, (P, K).

    `covered` (P,) is the share of the object's area that lies in the window: the rest counts against the union.
    """
    predicted, truth = logits > 0, target > 0.5
    shared = (predicted & truth).sum(dim=(2, 3)).float()
    inside = truth.sum(dim=(2, 3)).float()
    missed = inside / covered[:, None].clamp(min=0.05) - inside  # outside the window, in its points
    return shared / ((predicted | truth).sum(dim=(2, 3)) + missed).clamp(min=1)


def box_loss(predicted: Tensor, target: Tensor) -> Tensor:
    """Generalised IoU loss of boxes (P, 4) x0 y0 x1 y1 -> (P,). Rezatofighi et al. 2019, arXiv 1902.09630."""
    low, high = torch.maximum(predicted[:, :2], target[:, :2]), torch.minimum(predicted[:, 2:], target[:, 2:])
    shared = (high - low).clamp(min=0).prod(dim=1)
    areas = (predicted[:, 2:] - predicted[:, :2]).prod(dim=1) + (target[:, 2:] - target[:, :2]).prod(dim=1)
    union = (areas - shared).clamp(min=1)
    hull_low, hull_high = torch.minimum(predicted[:, :2], target[:, :2]), torch.maximum(predicted[:, 2:], target[:, 2:])
    hull = (hull_high - hull_low).prod(dim=1).clamp(min=1)
    return 1 - shared / union + (hull - union) / hull


def choose_masks(losses: Tensor, ambiguous: Tensor) -> Tensor:
    """(P, 4) losses -> (P,): mask 0 for clear prompts; for ambiguous ones the best of masks 1 to 3, as SAM trains them
    (Kirillov et al. 2023, arXiv 2304.02643, section 3), and mask 0 with a smaller weight so that it stays usable."""
    several = losses[:, 1:].amin(dim=1) + 0.3 * losses[:, 0]
    return torch.where(ambiguous, several, losses[:, 0])

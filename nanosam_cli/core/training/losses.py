"""Losses: of masks, each a value per prompt, so that every object weighs the same whatever its size; of embeddings."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

LEAST_SPREAD = 0.3  # of a channel, as share of the middle one's


def feature_loss(student: Tensor, teacher: Tensor, kind: str, per_channel: bool) -> Tensor:
    """Embeddings (B, C, h, w) -> a scalar: huber (as NVIDIA NanoSAM's training has it, delta 1), l1 or mse.

    With `per_channel` both are measured in units of the teacher's own spread in each channel, so that channels of small
    values count as much as those of large ones (the idea of channel-wise distillation, Shu et al. 2021, arXiv
    2011.13256). Channels that hardly vary do not: a dozen of MobileSAM's 256 are constant but for 1e-4.
    """
    student, teacher = student.float(), teacher.float()
    if per_channel:
        spread = teacher.std(dim=(0, 2, 3), keepdim=True)
        spread = torch.maximum(spread, LEAST_SPREAD * spread.median()).clamp(min=1e-6)
        student, teacher = student / spread, teacher / spread
    if kind == "huber":
        return F.huber_loss(student, teacher)
    return F.l1_loss(student, teacher) if kind == "l1" else F.mse_loss(student, teacher)


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


def reach_loss(predicted: Tensor, target: Tensor, points_xy: Tensor) -> Tensor:
    """Boxes (..., 4) x0 y0 x1 y1 that were guessed from points (..., 2), against the true ones -> (...).

    Difference of the logarithms of the distances from the point to the four sides: a box that is ten times too small
    costs the same at every size. Overlap alone (GIoU was tried) hardly pulls at a small box in a large object. A tenth
    of the object is added to every distance, so that a click on its edge does not outweigh all others.
    """
    floor = 0.1 * (target[..., 2:] - target[..., :2]).amax(dim=-1, keepdim=True)
    return (_log_reach(predicted, points_xy, floor) - _log_reach(target, points_xy, floor)).abs().mean(dim=-1)


def _log_reach(boxes: Tensor, points_xy: Tensor, floor: Tensor) -> Tensor:
    return (torch.cat([points_xy - boxes[..., :2], boxes[..., 2:] - points_xy], dim=-1).clamp(min=0) + floor).log()


def paired_box_iou(boxes: Tensor, others: Tensor) -> Tensor:
    """IoU of boxes (..., 4) x0 y0 x1 y1, pair by pair -> (...)."""
    shared = torch.minimum(boxes[..., 2:], others[..., 2:]) - torch.maximum(boxes[..., :2], others[..., :2])
    shared = shared.clamp(min=0).prod(dim=-1)
    areas = [(box[..., 2:] - box[..., :2]).clamp(min=0).prod(dim=-1) for box in (boxes, others)]
    return shared / (areas[0] + areas[1] - shared).clamp(min=1e-6)


def choose_masks(losses: Tensor, ambiguous: Tensor) -> Tensor:
    """(P, 4) losses -> (P,): mask 0 for clear prompts; for ambiguous ones the best of masks 1 to 3, as SAM trains them
    (Kirillov et al. 2023, arXiv 2304.02643, section 3), and mask 0 with a smaller weight so that it stays usable."""
    several = losses[:, 1:].amin(dim=1) + 0.3 * losses[:, 0]
    return torch.where(ambiguous, several, losses[:, 0])

"""Separable resampling between a grid and windows of it, as pairs of small matrices.

Windows are axis-aligned, so cropping a window out of a feature map and pasting a mask back are each two matrix
products: exact, antialiased, differentiable in the features, and made of MatMul alone, which every runtime has.
"""

from __future__ import annotations

import torch
from torch import Tensor


def crop_matrix(low: Tensor, high: Tensor, target: int, source: int) -> Tensor:
    """(P,) window borders in source pixels -> (P, target, source) weights that sample the window on `target` points.

    A triangle filter as wide as the sampling step (never narrower than a pixel); what lies outside counts as zero.
    """
    step = (high - low)[:, None] / target  # (P, 1)
    centres = low[:, None] + (torch.arange(target, device=low.device, dtype=torch.float32) + 0.5) * step  # (P, target)
    pixels = torch.arange(source, device=low.device, dtype=torch.float32) + 0.5  # (source,)
    width = step.clamp(min=1)[:, :, None]  # (P, 1, 1)
    return (1 - (centres[:, :, None] - pixels).abs() / width).clamp(min=0) / width


def paste_matrix(low: Tensor, high: Tensor, target: int, source: int) -> Tensor:
    """(P,) window borders in target pixels -> (P, target, source) weights that lay `source` points over the window.

    The inverse of `crop_matrix` for one axis: rows of target pixels outside the window are zero.
    """
    step = ((high - low) / source)[:, None, None]  # target pixels a source point, (P, 1, 1)
    pixels = torch.arange(target, device=low.device, dtype=torch.float32) + 0.5
    centres = torch.arange(source, device=low.device, dtype=torch.float32) + 0.5
    positions = (pixels[None, :, None] - low[:, None, None]) / step  # (P, target, 1) in source points
    inside = ((positions > 0) & (positions < source)).to(low.dtype)
    # outermost points reach to the window's edge, so that a mask that touches it is not faded out
    positions = positions.clamp(min=0.5, max=source - 0.5)
    width = (0.5 / step).clamp(min=1)  # half of what area averages take: those shrink objects of a few pixels
    weights = (1 - (positions - centres).abs() / width).clamp(min=0)
    return inside * weights / weights.sum(dim=2, keepdim=True).clamp(min=1e-6)


def crop_windows(grid: Tensor, windows: Tensor, target: int) -> Tensor:
    """Sample windows (P, 4) x0 y0 x1 y1 in pixels of `grid` (1 or P, C, H, W) -> (P, C, target, target)."""
    rows = crop_matrix(windows[:, 1], windows[:, 3], target, grid.shape[-2]).to(grid.dtype)
    columns = crop_matrix(windows[:, 0], windows[:, 2], target, grid.shape[-1]).to(grid.dtype)
    return (rows[:, None] @ grid) @ columns[:, None].transpose(2, 3)


def inside_windows(windows: Tensor, target_hw: tuple[int, int]) -> Tensor:
    """Of windows (P, 4) in target pixels: 1 at the pixels whose centres lie in them, (P, 1, H, W)."""
    inside = []
    for low, high, length in (
        (windows[:, 1], windows[:, 3], target_hw[0]),
        (windows[:, 0], windows[:, 2], target_hw[1]),
    ):
        pixels = torch.arange(length, device=windows.device, dtype=torch.float32) + 0.5
        inside.append(((pixels > low[:, None]) & (pixels < high[:, None])).to(windows.dtype))
    return inside[0][:, None, :, None] * inside[1][:, None, None, :]


def paste_matrices(windows: Tensor, target_hw: tuple[int, int], source_hw: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Of windows (P, 4) in target pixels: the two matrices (P, target, source) that lay a grid over them."""
    return (
        paste_matrix(windows[:, 1], windows[:, 3], target_hw[0], source_hw[0]),
        paste_matrix(windows[:, 0], windows[:, 2], target_hw[1], source_hw[1]),
    )


def paste_windows(logits: Tensor, windows: Tensor, target_hw: tuple[int, int], outside: float) -> Tensor:
    """Lay (P, K, h, w) over windows (P, 4) in target pixels -> (P, K, H, W), `outside` beyond the window."""
    rows, columns = paste_matrices(windows, target_hw, (logits.shape[-2], logits.shape[-1]))
    return (rows[:, None] @ (logits - outside)) @ columns[:, None].transpose(2, 3) + outside

"""Encoder, decoder and the way back to the photo in one module, for people who want one file."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nanosam_cli.core.frame import COORDINATE_SIZE

# Names of segment-anything's own ONNX export (`scripts/export_onnx_model.py`), which has the image encoder outside.
WHOLE_INPUTS = ("image", "point_coords", "point_labels", "orig_im_size")
WHOLE_OUTPUTS = ("masks", "iou_predictions", "low_res_masks")


class WholeModel(nn.Module):
    """A photo and P prompts to masks of the photo's size. There is no mask prompt."""

    def __init__(self, encoder: nn.Module, decoder: nn.Module, image_size: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.decoder = decoder
        self.image_size = image_size

    def forward(
        self,
        image: Tensor,  # (1, 3, S, S) normalised and padded as for the encoder
        point_coords: Tensor,  # (P, N, 2) frame units
        point_labels: Tensor,  # (P, N)
        orig_im_size: Tensor,  # (2,) height and width of the photo, float as in segment-anything
    ) -> tuple[Tensor, Tensor, Tensor]:
        """-> `masks` (P, K, H, W) logits, `iou_predictions` (P, K), `low_res_masks` (P, K, 256, 256)."""
        prompts = point_labels.shape[0]
        low_res = COORDINATE_SIZE // 4
        no_mask = torch.zeros(prompts, 1, low_res, low_res, dtype=torch.float32)
        has_mask = torch.zeros(prompts, dtype=torch.float32)
        ious, masks = self.decoder(self.encoder(image), point_coords, point_labels, no_mask, has_mask)
        return masks_to_original(masks, orig_im_size, self.image_size), ious, masks


def masks_to_original(low_res: Tensor, original_hw: Tensor, image_size: int) -> Tensor:
    """Logits (P, K, h, w) over the whole square -> (P, K, H, W) over the photo: `Frame.masks_to_original` in a graph.

    Its rounding too: whole numbers give what `int(side * scale + 0.5)` gives, for photos of up to 8,192 pixels a side.
    """
    size = original_hw.to(torch.int64)
    longest = size.max()
    resized = _divide(2 * size * image_size + longest, 2 * longest).clamp(min=1)
    covered = _divide(2 * resized * COORDINATE_SIZE + image_size, torch.tensor(2 * image_size)).clamp(min=1)
    square = F.interpolate(low_res, (COORDINATE_SIZE, COORDINATE_SIZE), mode="bilinear", align_corners=False)
    cropped = square[:, :, : covered[0], : covered[1]]
    original = (size[0], size[1])
    return F.interpolate(cropped, original, mode="bilinear", align_corners=False)  # type: ignore[arg-type]


def _divide(numerator: Tensor, denominator: Tensor) -> Tensor:
    """Whole numbers, rounded down; none is negative."""
    return torch.div(numerator, denominator, rounding_mode="trunc")

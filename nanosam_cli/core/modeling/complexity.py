"""What a student costs: parameters and multiply-accumulates, counted on shapes alone."""

from __future__ import annotations

import torch
from torch.utils.flop_counter import FlopCounterMode

from nanosam_cli.core.modeling.encoder import ImageEncoder


def encoder_cost(backbone: str, image_size: int) -> tuple[int, float]:
    """Parameters, and 1e9 multiply-accumulates a photo, of a backbone with the default neck."""
    with torch.device("meta"), FlopCounterMode(display=False) as counter, torch.no_grad():
        encoder = ImageEncoder(backbone, image_size).eval()
        encoder(torch.empty(1, 3, image_size, image_size))
    parameters = sum(parameter.numel() for parameter in encoder.parameters())
    return parameters, counter.get_total_flops() / 2e9

"""Checkpoints to export: a trained one, and MobileSAM's with small random weights. Needs torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from nanosam_cli.core.modeling.mobile_sam import ENCODER_PREFIX, MobileSam
from tests.tiny_vit_model import shrunk_tiny_vit


def mobile_sam_weights() -> dict[str, Any]:
    """Of an encoder as small as `shrunk_tiny_vit` makes it, so whoever reads them needs that block around too."""
    torch.manual_seed(0)
    with shrunk_tiny_vit():
        model = MobileSam()
    encoder = {ENCODER_PREFIX + name: weight for name, weight in model.encoder.state_dict().items()}
    return {**encoder, **model.decoder.state_dict()}


def save_mobile_sam(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(mobile_sam_weights(), path)
    return path

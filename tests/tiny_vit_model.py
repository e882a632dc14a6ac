"""MobileSAM's encoder and SAM's decoder as ONNX, small enough for tests. Needs torch."""

from __future__ import annotations

from unittest import mock

import onnx
import torch

from nanosam_cli.core.export import proof_inputs, to_onnx
from nanosam_cli.core.modeling import tiny_vit
from nanosam_cli.core.modeling.sam_decoder import SamDecoder

SIDE = 64  # pixels of the small encoder's input


def small_tiny_vit() -> tiny_vit.TinyViTEncoder:
    """All kinds of blocks, a twentieth of the width, random weights."""
    torch.manual_seed(0)
    with (
        mock.patch.object(tiny_vit, "WIDTHS", (8, 16, 16, 24)),
        mock.patch.object(tiny_vit, "DEPTHS", (1, 1, 1, 1)),
        mock.patch.object(tiny_vit, "HEADS", (None, 2, 2, 3)),
        mock.patch.object(tiny_vit, "WINDOWS", (None, 4, 3, 4)),
    ):
        return tiny_vit.TinyViTEncoder().eval()


def tiny_vit_onnx(module: tiny_vit.TinyViTEncoder | None = None) -> onnx.ModelProto:
    """`image` (B, 3, 64, 64) -> `image_embeddings` (B, 256, 4, 4)."""
    return to_onnx("encoder", module or small_tiny_vit(), (torch.zeros(2, 3, SIDE, SIDE),))


def sam_decoder_onnx() -> onnx.ModelProto:
    torch.manual_seed(0)
    return to_onnx("decoder", SamDecoder().eval(), proof_inputs("decoder", 1024)[-1])

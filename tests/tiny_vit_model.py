"""MobileSAM's encoder and SAM's decoder as ONNX, small enough for tests. Needs torch."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from unittest import mock

import onnx
import torch

from nanosam_cli.core.export.export import to_onnx
from nanosam_cli.core.export.options import OPSET
from nanosam_cli.core.export.parts import decoder_part, encoder_part
from nanosam_cli.core.modeling import tiny_vit
from nanosam_cli.core.modeling.sam_decoder import SamDecoder

SIDE = 64  # pixels of the small encoder's input


def small_tiny_vit() -> tiny_vit.TinyViTEncoder:
    """All kinds of blocks, a twentieth of the width, random weights."""
    torch.manual_seed(0)
    with shrunk_tiny_vit():
        return tiny_vit.TinyViTEncoder().eval()


@contextmanager
def shrunk_tiny_vit() -> Iterator[None]:
    """Encoders that are made in here are small."""
    with (
        mock.patch.object(tiny_vit, "WIDTHS", (8, 16, 16, 24)),
        mock.patch.object(tiny_vit, "DEPTHS", (1, 1, 1, 1)),
        mock.patch.object(tiny_vit, "HEADS", (None, 2, 2, 3)),
        mock.patch.object(tiny_vit, "WINDOWS", (None, 4, 3, 4)),
    ):
        yield


def tiny_vit_onnx(module: tiny_vit.TinyViTEncoder | None = None) -> onnx.ModelProto:
    """`image` (B, 3, 64, 64) -> `image_embeddings` (B, 256, 4, 4)."""
    return to_onnx(encoder_part(module or small_tiny_vit(), SIDE), OPSET)


@cache
def sam_decoder_onnx() -> onnx.ModelProto:
    torch.manual_seed(0)
    return to_onnx(decoder_part(SamDecoder().eval()), OPSET)

"""Encoder and decoder together, as a recipe describes them."""

from __future__ import annotations

from torch import nn

from nanosam_cli.core.modeling.encoder import ImageEncoder
from nanosam_cli.core.modeling.region_decoder import RegionDecoder
from nanosam_cli.core.modeling.sam_decoder import SamDecoder
from nanosam_cli.core.recipe import ModelSection


class PromptableModel(nn.Module):
    """An image encoder and a mask decoder that are trained together and exported apart."""

    def __init__(self, section: ModelSection) -> None:
        super().__init__()
        self.encoder = ImageEncoder(
            section.backbone,
            section.image_size,
            width=section.neck_width,
            finest=section.finest_stride,
            pretrained=section.pretrained,
        )
        self.decoder: RegionDecoder | SamDecoder = (
            RegionDecoder() if section.decoder == "region" else SamDecoder(dense_boxes=True)
        )

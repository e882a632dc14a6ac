"""Encoder and decoder together, as a recipe describes them."""

from __future__ import annotations

from torch import nn

from nanosam_cli.core.modeling.design import LISTENING, TEACHERS_DECODER, ModelSection
from nanosam_cli.core.modeling.encoder import ImageEncoder
from nanosam_cli.core.modeling.region_decoder import RegionDecoder
from nanosam_cli.core.modeling.sam_decoder import SamDecoder


class PromptableModel(nn.Module):
    """An image encoder and a mask decoder that are trained together and exported apart.

    Without `download` a pretrained backbone starts at random all the same: its weights come from a checkpoint then.
    """

    def __init__(self, section: ModelSection, *, download: bool = True) -> None:
        super().__init__()
        self.encoder = ImageEncoder(
            section.backbone,
            section.image_size,
            width=section.neck_width,
            finest=section.finest_stride,
            pretrained=section.pretrained and download,
            neck=section.neck,
        )
        self.decoder = _create_decoder(section.decoder)


def _create_decoder(name: str) -> RegionDecoder | SamDecoder | None:
    """None where the teacher's decoder is taken as it is."""
    if name == TEACHERS_DECODER:
        return None
    if name == LISTENING:
        return RegionDecoder(listens=True)
    return RegionDecoder() if name == "region" else SamDecoder(dense_boxes=name == "sam")

"""What a model is made of: the section of a recipe that its checkpoints keep."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from nanosam_cli.core.schema import OneOf, Range

TEACHERS_DECODER = "teacher"
LISTENING = "listening"  # a region decoder that begins at given masks and follows clicks


@dataclass(frozen=True)
class ModelSection:
    """What is trained."""

    name: str  # goes into the files' metadata
    backbone: str  # a timm name
    pretrained: bool  # start from timm's ImageNet weights (needs network; without, said aloud and random)
    image_size: Annotated[int, OneOf((512, 1024))]  # side of the square input, pixels
    neck_width: Annotated[int, Range(16, 4096)]
    finest_stride: Annotated[int, OneOf((4, 8, 16))]  # finest backbone map that the neck uses
    # region: this project's; listening: the same, which begins at given masks and follows clicks; sam: SAM's with a
    # dense box prompt; plain-sam: SAM's, which takes MobileSAM's weights; teacher: the encoder alone is trained, for
    # the teacher's own decoder
    decoder: Annotated[str, OneOf(("region", "sam", "plain-sam", TEACHERS_DECODER, LISTENING))]
    neck: Annotated[str, OneOf(("pyramid", "nanosam"))] = "pyramid"  # nanosam: NVIDIA NanoSAM's

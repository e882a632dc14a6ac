"""The student image encoder: any backbone that gives a feature pyramid, and a light neck to SAM's embedding."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nanosam_cli.core.modeling.backbones import create_backbone

EMBEDDING_CHANNELS = 256
EMBEDDING_SIDE = 64
COLOUR_GRID = 4  # 256 colours across the whole square, as fine as the low-resolution masks


def conv_norm(inputs: int, outputs: int, kernel: int = 1, stride: int = 1, activation: bool = True) -> nn.Sequential:
    """Convolution, BatchNorm (folded into it at export) and ReLU."""
    layers: list[nn.Module] = [
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False),
        nn.BatchNorm2d(outputs),
    ]
    return nn.Sequential(*layers, nn.ReLU(inplace=True)) if activation else nn.Sequential(*layers)


class PyramidNeck(nn.Module):
    """Feature maps of several strides -> one map at the embedding's stride.

    Coarser maps are upsampled and added top-down (FPN, Lin et al. 2017, arXiv 1612.03144); finer ones are folded into
    channels (space to depth), so that their detail reaches the decoder through the 64 x 64 embedding. So are the
    photo's own colours, COLOUR_GRID x COLOUR_GRID a cell: what contrast and edges need is then there from the start.
    """

    def __init__(self, channels: list[int], strides: list[int], embedding_stride: int, width: int) -> None:
        super().__init__()
        self.folds = [max(1, embedding_stride // stride) for stride in strides]
        self.laterals = nn.ModuleList(
            nn.Conv2d(count * fold * fold, width, 1) for count, fold in zip(channels, self.folds, strict=True)
        )
        self.smooth = conv_norm(width, width, 3)
        self.fold_image = embedding_stride // COLOUR_GRID
        self.project = conv_norm(width + 3 * COLOUR_GRID**2, EMBEDDING_CHANNELS, activation=False)

    def forward(self, image: Tensor, features: list[Tensor]) -> Tensor:
        """The photo and its maps from fine to coarse -> (B, 256, H / stride, W / stride)."""
        merged: Tensor | None = None
        for lateral, fold, feature in reversed(list(zip(self.laterals, self.folds, features, strict=True))):
            level = lateral(F.pixel_unshuffle(feature, fold) if fold > 1 else feature)
            if merged is not None:
                if merged.shape[-1] != level.shape[-1]:
                    merged = F.interpolate(merged, scale_factor=2.0, mode="nearest")
                level = level + merged
            merged = F.relu(level)
        assert merged is not None
        colours = F.pixel_unshuffle(F.avg_pool2d(image, self.fold_image), COLOUR_GRID)
        smooth = self.smooth(merged)
        out: Tensor = self.project(torch.cat([smooth, colours.to(smooth.dtype)], dim=1))
        return out


class NanosamNeck(nn.Module):
    """NVIDIA NanoSAM's: the coarsest map through three convolutions, upsampled once, projected, plus a learned map of
    position (nanosam/models/timm_image_encoder.py of NVIDIA-AI-IOT/nanosam)."""

    def __init__(self, channels: list[int], strides: list[int], embedding_stride: int, width: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for inputs in (channels[-1], width, width):
            layers += [nn.Conv2d(inputs, width, 3, padding=1), nn.GELU()]
        for _ in range((strides[-1] // embedding_stride).bit_length() - 1):  # each doubles the sides
            layers += [nn.ConvTranspose2d(width, width, 3, 2, 1, 1), nn.GELU()]
        self.up = nn.Sequential(*layers)
        self.project = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1), nn.GELU(), nn.Conv2d(width, EMBEDDING_CHANNELS, 1)
        )
        self.position = nn.Parameter(1e-5 * torch.randn(1, EMBEDDING_CHANNELS, EMBEDDING_SIDE, EMBEDDING_SIDE))

    def forward(self, image: Tensor, features: list[Tensor]) -> Tensor:
        """The photo (not looked at) and its maps from fine to coarse -> (B, 256, H / stride, W / stride)."""
        out: Tensor = self.project(self.up(features[-1]))
        return out + self.position[:, :, : out.shape[2], : out.shape[3]]


class ImageEncoder(nn.Module):
    """`image` (B, 3, S, S), normalised RGB -> `image_embeddings` (B, 256, 64, 64) at S = `image_size`.

    Fully convolutional: training may pass smaller crops, whose embedding keeps the same stride.
    """

    def __init__(
        self,
        backbone: str,
        image_size: int,
        *,
        width: int = 128,
        finest: int = 4,
        pretrained: bool = False,
        neck: str = "pyramid",
    ) -> None:
        super().__init__()
        self.image_size = image_size
        self.stride = image_size // EMBEDDING_SIDE
        made = create_backbone(backbone, finest=finest, pretrained=pretrained)
        self.backbone, self.not_pretrained = made.module, made.not_pretrained
        kind = PyramidNeck if neck == "pyramid" else NanosamNeck
        self.neck = kind(made.channels, made.strides, self.stride, width)

    def forward(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, 256, H / stride, W / stride)."""
        out: Tensor = self.neck(image, list(self.backbone(image)))
        return out

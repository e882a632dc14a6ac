"""MobileSAM's image encoder: TinyViT-5M (Wu et al. 2022, arXiv 2207.10666) kept at stride 16, and SAM's neck.

Parameter names are those of MobileSAM's state-dict (`image_encoder.*`), so its weights load with `strict=True`. Feature
maps stay (B, H, W, C) between attention blocks, where windows and LayerNorm want them.
"""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nanosam_cli.core.modeling.encoder import EMBEDDING_CHANNELS, EMBEDDING_SIDE
from nanosam_cli.core.modeling.sam_decoder import LayerNorm2d

WIDTHS = (64, 128, 160, 320)
DEPTHS = (2, 2, 6, 2)
HEADS = (None, 4, 5, 10)  # the first stage is convolutional
WINDOWS = (None, 7, 14, 7)
STRIDES = (2, 2, 1)  # between stages; MobileSAM does not shrink the last one
EXPANSION = 4


def conv_bn(inputs: int, outputs: int, kernel: int = 1, stride: int = 1, groups: int = 1) -> nn.Sequential:
    """Convolution `c` and BatchNorm `bn`."""
    convolution = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(OrderedDict(c=convolution, bn=nn.BatchNorm2d(outputs)))


class MBConv(nn.Module):
    """Inverted bottleneck with a depthwise convolution and a residual."""

    def __init__(self, width: int) -> None:
        super().__init__()
        hidden = EXPANSION * width
        self.conv1 = conv_bn(width, hidden)
        self.conv2 = conv_bn(hidden, hidden, 3, groups=hidden)
        self.conv3 = conv_bn(hidden, width)

    def forward(self, grid: Tensor) -> Tensor:
        """(B, C, H, W) -> the same."""
        inner = F.gelu(self.conv2(F.gelu(self.conv1(grid))))
        return F.gelu(grid + self.conv3(inner))


class PatchMerging(nn.Module):
    """From one stage to the next: wider, and half the side at stride 2."""

    def __init__(self, width: int, wider: int, stride: int) -> None:
        super().__init__()
        self.conv1 = conv_bn(width, wider)
        self.conv2 = conv_bn(wider, wider, 3, stride, groups=wider)
        self.conv3 = conv_bn(wider, wider)

    def forward(self, grid: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, wider, H / stride, W / stride)."""
        out: Tensor = self.conv3(F.gelu(self.conv2(F.gelu(self.conv1(grid)))))
        return out


class WindowAttention(nn.Module):
    """Self-attention within a window, with a learned bias for each distance between two cells."""

    def __init__(self, width: int, heads: int, window: int) -> None:
        super().__init__()
        self.heads = heads
        self.scale = (width // heads) ** -0.5
        self.norm = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)
        self.attention_biases = nn.Parameter(torch.zeros(heads, window * window))
        places = torch.cartesian_prod(torch.arange(window), torch.arange(window))  # (N, 2) row, column
        apart = (places[:, None] - places).abs()  # (N, N, 2)
        self.register_buffer("bias_index", apart[..., 0] * window + apart[..., 1], persistent=False)
        self.bias_index: Tensor

    def forward(self, tokens: Tensor) -> Tensor:
        """(windows, N, C) -> the same."""
        # each head's query, key and value lie side by side
        split = self.qkv(self.norm(tokens)).unflatten(2, (self.heads, 3, -1))  # (windows, N, heads, 3, C / heads)
        query, key, value = split.permute(3, 0, 2, 1, 4).unbind(0)  # (windows, heads, N, C / heads)
        scores = (query @ key.transpose(2, 3)) * self.scale + self.attention_biases[:, self.bias_index]
        out: Tensor = self.proj((scores.softmax(dim=3) @ value).transpose(1, 2).flatten(2))
        return out


class NormedMLP(nn.Module):
    """LayerNorm and a two-layer perceptron."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.fc1 = nn.Linear(width, EXPANSION * width)
        self.fc2 = nn.Linear(EXPANSION * width, width)

    def forward(self, tokens: Tensor) -> Tensor:
        """(..., C) -> the same."""
        out: Tensor = self.fc2(F.gelu(self.fc1(self.norm(tokens))))
        return out


class TinyViTBlock(nn.Module):
    """Window attention, a depthwise convolution across the windows' borders, a perceptron."""

    def __init__(self, width: int, heads: int, window: int) -> None:
        super().__init__()
        self.window = window
        self.attn = WindowAttention(width, heads, window)
        self.local_conv = conv_bn(width, width, 3, groups=width)
        self.mlp = NormedMLP(width)

    def forward(self, grid: Tensor) -> Tensor:
        """(B, C, H, W) -> the same."""
        cells = grid.permute(0, 2, 3, 1)  # (B, H, W, C)
        cells = cells + self._attend(cells)
        mixed: Tensor = self.local_conv(cells.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        out: Tensor = self.mlp(mixed)
        return (mixed + out).permute(0, 3, 1, 2)

    def _attend(self, cells: Tensor) -> Tensor:
        """Cut into windows, padded with zeros at the bottom and right, and put together again."""
        side = self.window
        # plain numbers, so that an exported graph computes no shapes: only the batch stays free
        height, width, channels = map(int, cells.shape[1:])
        down, across = -(-height // side), -(-width // side)
        padded = F.pad(cells, (0, 0, 0, across * side - width, 0, down * side - height))
        windows = padded.reshape(-1, down, side, across, side, channels).transpose(2, 3)
        attended: Tensor = self.attn(windows.reshape(-1, side * side, channels))
        whole = attended.reshape(-1, down, across, side, side, channels).transpose(2, 3)
        return whole.reshape(-1, down * side, across * side, channels)[:, :height, :width]


class Stage(nn.Module):
    """Blocks of one width, then the way to the next."""

    def __init__(self, blocks: list[nn.Module], downsample: nn.Module | None) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.downsample = downsample

    def forward(self, grid: Tensor) -> Tensor:
        """(B, C, H, W) -> the next stage's input."""
        for block in self.blocks:
            grid = block(grid)
        return grid if self.downsample is None else self.downsample(grid)


class PatchEmbedding(nn.Module):
    """Two convolutions of stride 2."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.seq = nn.Sequential(conv_bn(3, width // 2, 3, 2), nn.GELU(), conv_bn(width // 2, width, 3, 2))

    def forward(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, C, H / 4, W / 4)."""
        out: Tensor = self.seq(image)
        return out


class TinyViTEncoder(nn.Module):
    """`image` (B, 3, 1024, 1024), normalised RGB -> `image_embeddings` (B, 256, 64, 64)."""

    image_size = 16 * EMBEDDING_SIDE

    def __init__(self) -> None:
        super().__init__()
        self.patch_embed = PatchEmbedding(WIDTHS[0])
        self.layers = nn.ModuleList(_stage(level) for level in range(len(WIDTHS)))
        # the classifier that TinyViT was trained with: never run, but in MobileSAM's file
        self.norm_head = nn.LayerNorm(WIDTHS[-1])
        self.head = nn.Linear(WIDTHS[-1], 1000)
        self.neck = nn.Sequential(
            nn.Conv2d(WIDTHS[-1], EMBEDDING_CHANNELS, 1, bias=False),
            LayerNorm2d(EMBEDDING_CHANNELS, eps=1e-6),
            nn.Conv2d(EMBEDDING_CHANNELS, EMBEDDING_CHANNELS, 3, padding=1, bias=False),
            LayerNorm2d(EMBEDDING_CHANNELS, eps=1e-6),
        )

    def forward(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, 256, H / 16, W / 16)."""
        grid = self.patch_embed(image)
        for layer in self.layers:
            grid = layer(grid)
        out: Tensor = self.neck(grid)
        return out


def _stage(level: int) -> Stage:
    width, heads, window = WIDTHS[level], HEADS[level], WINDOWS[level]
    blocks: list[nn.Module] = [
        MBConv(width) if heads is None or window is None else TinyViTBlock(width, heads, window)
        for _ in range(DEPTHS[level])
    ]
    last = level == len(WIDTHS) - 1
    return Stage(blocks, None if last else PatchMerging(width, WIDTHS[level + 1], STRIDES[level]))

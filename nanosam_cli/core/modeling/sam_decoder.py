"""SAM's prompt encoder and mask decoder as one exportable module (Kirillov et al. 2023, arXiv 2304.02643, appendix A).

Parameter names are those of SAM's and MobileSAM's state-dicts (`prompt_encoder.*`, `mask_decoder.*`), so their weights
load with `strict=True` when `dense_boxes` is off.
"""

from __future__ import annotations

import math
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nanosam_cli.core.modeling.encoder import EMBEDDING_CHANNELS, EMBEDDING_SIDE
from nanosam_cli.core.modeling.prediction import CELL, LOW_RES, MASKS, Prompts, WindowPrediction
from nanosam_cli.core.modeling.resample import crop_windows

WINDOW_SIDE = 64  # points a side on which training compares masks


class LayerNorm2d(nn.LayerNorm):
    """LayerNorm over channels of (B, C, H, W), through the channels-last operator, so that an exported graph has a real
    LayerNormalization whose statistics a runtime keeps in float32 (hand-written variance overflows float16)."""

    def forward(self, grid: Tensor) -> Tensor:
        """(B, C, H, W) -> the same."""
        return super().forward(grid.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class PositionEmbedding(nn.Module):
    """Random Fourier features of positions in [0, 1] (Tancik et al. 2020, arXiv 2006.10739)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("positional_encoding_gaussian_matrix", torch.randn(2, channels // 2))
        self.positional_encoding_gaussian_matrix: Tensor

    def forward(self, positions: Tensor) -> Tensor:
        """(..., 2) x y in [0, 1] -> (..., C)."""
        phases = 2 * math.pi * ((2 * positions - 1) @ self.positional_encoding_gaussian_matrix)
        return torch.cat([phases.sin(), phases.cos()], dim=-1)

    def grid(self, height: int, width: int) -> Tensor:
        """The embedding of every cell's centre, (1, C, h, w), in units of the whole 64 x 64 grid."""
        device = self.positional_encoding_gaussian_matrix.device
        y = (torch.arange(height, device=device, dtype=torch.float32) + 0.5) / EMBEDDING_SIDE
        x = (torch.arange(width, device=device, dtype=torch.float32) + 0.5) / EMBEDDING_SIDE
        positions = torch.stack([x.expand(height, -1), y[:, None].expand(-1, width)], dim=-1)
        embedded: Tensor = self(positions)
        return embedded.permute(2, 0, 1)[None]


class PromptEncoder(nn.Module):
    """Points, box corners and masks -> sparse tokens (P, N, C) and a dense map (P, C, h, w)."""

    def __init__(self, channels: int = EMBEDDING_CHANNELS, mask_channels: int = 16) -> None:
        super().__init__()
        self.pe_layer = PositionEmbedding(channels)
        self.point_embeddings = nn.ModuleList(nn.Embedding(1, channels) for _ in range(4))
        self.not_a_point_embed = nn.Embedding(1, channels)
        self.mask_downscaling = nn.Sequential(
            nn.Conv2d(1, mask_channels // 4, 2, 2),
            LayerNorm2d(mask_channels // 4, eps=1e-6),
            nn.GELU(),
            nn.Conv2d(mask_channels // 4, mask_channels, 2, 2),
            LayerNorm2d(mask_channels, eps=1e-6),
            nn.GELU(),
            nn.Conv2d(mask_channels, channels, 1),
        )
        self.no_mask_embed = nn.Embedding(1, channels)

    def forward(self, coords: Tensor, labels: Tensor, mask_input: Tensor, has_mask: Tensor) -> tuple[Tensor, Tensor]:
        """Contract of the decoder file: coordinates in the 1024 frame, labels -1 to 3."""
        tokens = self.pe_layer((coords + 0.5) / (CELL * EMBEDDING_SIDE))  # SAM places points at pixel centres
        tokens = tokens * (labels != -1).to(tokens.dtype)[:, :, None]
        for label, kind in enumerate([self.not_a_point_embed, *self.point_embeddings], start=-1):
            weight = cast(nn.Embedding, kind).weight
            tokens = tokens + weight * (labels == label).to(tokens.dtype)[:, :, None]
        share = has_mask.reshape(-1, 1, 1, 1).to(tokens.dtype)
        dense = share * self.mask_downscaling(mask_input)
        return tokens, dense + (1 - share) * self.no_mask_embed.weight.reshape(1, -1, 1, 1)


class Attention(nn.Module):
    """Multi-head attention whose inner width may be narrower than the tokens."""

    def __init__(self, channels: int, heads: int, downsample: int = 1) -> None:
        super().__init__()
        self.heads = heads
        inner = channels // downsample
        self.scale = (inner // heads) ** -0.5
        self.q_proj = nn.Linear(channels, inner)
        self.k_proj = nn.Linear(channels, inner)
        self.v_proj = nn.Linear(channels, inner)
        self.out_proj = nn.Linear(inner, channels)

    def forward(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """(P, Q, C), (P, M, C), (P, M, C) -> (P, Q, C)."""
        q, k, v = (
            part.unflatten(2, (self.heads, -1)).transpose(1, 2)  # (P, heads, tokens, inner / heads)
            for part in (self.q_proj(query), self.k_proj(key), self.v_proj(value))
        )
        scores = (q @ k.transpose(2, 3)) * self.scale
        mixed: Tensor = self.out_proj((scores.softmax(dim=3) @ v).transpose(1, 2).flatten(2))
        return mixed


class TokenMLP(nn.Module):
    """The transformer's two-layer perceptron."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.lin1 = nn.Linear(channels, hidden)
        self.lin2 = nn.Linear(hidden, channels)

    def forward(self, tokens: Tensor) -> Tensor:
        """(P, N, C) -> the same."""
        out: Tensor = self.lin2(F.relu(self.lin1(tokens)))
        return out


class TwoWayBlock(nn.Module):
    """Tokens attend to each other and to the image; then the image attends to the tokens."""

    def __init__(self, channels: int, heads: int, hidden: int, first: bool) -> None:
        super().__init__()
        self.self_attn = Attention(channels, heads)
        self.norm1 = nn.LayerNorm(channels)
        self.cross_attn_token_to_image = Attention(channels, heads, downsample=2)
        self.norm2 = nn.LayerNorm(channels)
        self.mlp = TokenMLP(channels, hidden)
        self.norm3 = nn.LayerNorm(channels)
        self.norm4 = nn.LayerNorm(channels)
        self.cross_attn_image_to_token = Attention(channels, heads, downsample=2)
        self.first = first

    def forward(self, tokens: Tensor, image: Tensor, token_pe: Tensor, image_pe: Tensor) -> tuple[Tensor, Tensor]:
        """(P, N, C), (P, M, C) and their position embeddings -> both, updated."""
        if self.first:  # nothing to keep yet: the position embedding itself is the query
            tokens = self.self_attn(tokens, tokens, tokens)
        else:
            query = tokens + token_pe
            tokens = tokens + self.self_attn(query, query, tokens)
        tokens = self.norm1(tokens)
        tokens = self.norm2(tokens + self.cross_attn_token_to_image(tokens + token_pe, image + image_pe, image))
        tokens = self.norm3(tokens + self.mlp(tokens))
        image = self.norm4(image + self.cross_attn_image_to_token(image + image_pe, tokens + token_pe, tokens))
        return tokens, image


class TwoWayTransformer(nn.Module):
    """Two such blocks and a last look of the tokens at the image."""

    def __init__(self, channels: int, depth: int = 2, heads: int = 8, hidden: int = 2048) -> None:
        super().__init__()
        self.layers = nn.ModuleList(TwoWayBlock(channels, heads, hidden, first=level == 0) for level in range(depth))
        self.final_attn_token_to_image = Attention(channels, heads, downsample=2)
        self.norm_final_attn = nn.LayerNorm(channels)

    def forward(self, image: Tensor, image_pe: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """(P, M, C), (1, M, C), (P, N, C) -> tokens (P, N, C), image (P, M, C)."""
        token_pe = tokens
        for layer in self.layers:
            tokens, image = layer(tokens, image, token_pe, image_pe)
        looked = self.final_attn_token_to_image(tokens + token_pe, image + image_pe, image)
        return self.norm_final_attn(tokens + looked), image


class HeadMLP(nn.Module):
    """Three linear layers with ReLU between."""

    def __init__(self, inputs: int, hidden: int, outputs: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in [(inputs, hidden), (hidden, hidden), (hidden, outputs)])

    def forward(self, tokens: Tensor) -> Tensor:
        """(P, inputs) -> (P, outputs)."""
        for layer in self.layers[:-1]:
            tokens = F.relu(layer(tokens))
        out: Tensor = self.layers[-1](tokens)
        return out


class MaskDecoder(nn.Module):
    """Image features and prompt tokens -> K masks by hypernetworks, and their predicted IoU."""

    def __init__(self, channels: int = EMBEDDING_CHANNELS) -> None:
        super().__init__()
        self.transformer = TwoWayTransformer(channels)
        self.iou_token = nn.Embedding(1, channels)
        self.mask_tokens = nn.Embedding(MASKS, channels)
        self.output_upscaling = nn.Sequential(
            nn.ConvTranspose2d(channels, channels // 4, 2, 2),
            LayerNorm2d(channels // 4, eps=1e-6),
            nn.GELU(),
            nn.ConvTranspose2d(channels // 4, channels // 8, 2, 2),
            nn.GELU(),
        )
        self.output_hypernetworks_mlps = nn.ModuleList(HeadMLP(channels, channels, channels // 8) for _ in range(MASKS))
        self.iou_prediction_head = HeadMLP(channels, 256, MASKS)

    def forward(self, image: Tensor, image_pe: Tensor, sparse: Tensor, dense: Tensor) -> tuple[Tensor, Tensor]:
        """(1 or P, C, h, w), (1, C, h, w), (P, N, C), (P, C, h, w) -> (P, K), (P, K, 4h, 4w)."""
        own = torch.cat([self.iou_token.weight, self.mask_tokens.weight])
        tokens = torch.cat([own[None].expand(sparse.shape[0], -1, -1), sparse], dim=1)
        features = image + dense
        height, width = features.shape[-2:]
        tokens, cells = self.transformer(
            features.flatten(2).transpose(1, 2), image_pe.flatten(2).transpose(1, 2), tokens
        )
        grid = cells.transpose(1, 2).unflatten(2, (height, width))
        upscaled = self.output_upscaling(grid).flatten(2)  # (P, C / 8, 16hw)
        weights = torch.stack([mlp(tokens[:, 1 + k]) for k, mlp in enumerate(self.output_hypernetworks_mlps)], dim=1)
        return self.iou_prediction_head(tokens[:, 0]), (weights @ upscaled).unflatten(2, (4 * height, 4 * width))


class DenseBoxPrompt(nn.Module):
    """A box drawn onto the embedding: where each cell lies relative to it, through a small perceptron.

    SAM's two corner tokens must learn from attention what this says outright; from little data that is the difference
    between learning and not. Prompts without a box get zeros.
    """

    def __init__(self, channels: int = EMBEDDING_CHANNELS, hidden: int = 64) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(8, hidden), nn.GELU(), nn.Linear(hidden, channels))
        self.prior_scale = nn.Parameter(torch.tensor(2.0))

    def forward(self, coords: Tensor, labels: Tensor, height: int, width: int) -> tuple[Tensor, Tensor]:
        """(P, N, 2), (P, N) -> features (P, C, h, w) to add to the embedding, prior logits (P, 1, 4h, 4w)."""
        has_box = (labels == 2).to(coords.dtype).amax(dim=1)[:, None, None, None]
        dense = self.layers(self._describe(coords, labels, height, width, CELL)).permute(0, 3, 1, 2)
        place = self._describe(coords, labels, 4 * height, 4 * width, LOW_RES)
        ellipse = 1 - place[..., 2:4].sum(dim=3)[:, None]
        return dense * has_box, self.prior_scale * ellipse.clamp(min=-6) * has_box

    @staticmethod
    def _describe(coords: Tensor, labels: Tensor, height: int, width: int, unit: float) -> Tensor:
        """(P, h, w, 8): u v, their squares, soft inside, distance to the border, log width and height."""
        low = (coords * (labels == 2).to(coords.dtype)[:, :, None]).sum(dim=1)  # (P, 2)
        high = (coords * (labels == 3).to(coords.dtype)[:, :, None]).sum(dim=1)
        half = ((high - low) / 2).clamp(min=LOW_RES / 2)
        centre = (low + high) / 2
        x = (torch.arange(width, device=coords.device, dtype=torch.float32) + 0.5) * unit
        y = (torch.arange(height, device=coords.device, dtype=torch.float32) + 0.5) * unit
        u = ((x - centre[:, :1]) / half[:, :1])[:, None, :].expand(-1, height, -1)
        v = ((y - centre[:, 1:]) / half[:, 1:])[:, :, None].expand(-1, -1, width)
        place = torch.stack([u, v], dim=3).clamp(-3, 3)
        border = 1 - place.abs().amax(dim=3, keepdim=True)
        size = (half / 64).log()[:, None, None].expand(-1, height, width, -1)
        return torch.cat([place, place.square(), (border * 8).sigmoid(), border, size], dim=3)


class SamDecoder(nn.Module):
    """The decoder file of the contract, with SAM's architecture and, if asked for, the dense box prompt."""

    def __init__(self, *, dense_boxes: bool = False) -> None:
        super().__init__()
        self.prompt_encoder = PromptEncoder()
        self.mask_decoder = MaskDecoder()
        self.box_prompt = DenseBoxPrompt() if dense_boxes else None

    def forward(
        self,
        image_embeddings: Tensor,  # (1, 256, h, w), or (P, 256, h, w) in training
        point_coords: Tensor,  # (P, N, 2) frame units
        point_labels: Tensor,  # (P, N)
        mask_input: Tensor,  # (P, 1, 4h, 4w)
        has_mask_input: Tensor,  # (P,)
    ) -> tuple[Tensor, Tensor]:
        """-> `iou_predictions` (P, 4), `low_res_masks` (P, 4, 4h, 4w)."""
        sparse, dense = self.prompt_encoder(point_coords, point_labels, mask_input, has_mask_input)
        height, width = image_embeddings.shape[-2:]
        prior: Tensor | None = None
        if self.box_prompt is not None:
            drawn, prior = self.box_prompt(point_coords, point_labels, height, width)
            dense = dense + drawn
        ious, masks = self.mask_decoder(
            image_embeddings, self.prompt_encoder.pe_layer.grid(height, width), sparse, dense
        )
        return ious, masks if prior is None else masks + prior

    def predict_windows(self, image_embeddings: Tensor, prompts: Prompts, focus: Tensor) -> WindowPrediction:
        """For training: P prompts over B photos' embeddings; masks are compared on the windows `focus`."""
        ious, masks = self(image_embeddings[prompts.owner], *prompts[1:])
        return WindowPrediction(crop_windows(masks.float(), focus / LOW_RES, WINDOW_SIDE), ious.float(), focus, None)

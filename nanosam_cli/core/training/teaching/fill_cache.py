"""Filling a cache with embeddings of the crops that a run will show: a teacher's, or those of a frozen encoder."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn

from nanosam_cli.core.modeling.encoder import EMBEDDING_CHANNELS, EMBEDDING_SIDE
from nanosam_cli.core.training.data.datasets import TrainingCrops
from nanosam_cli.core.training.distributed import Ranks
from nanosam_cli.core.training.recipe import HOST_KEYS, Recipe
from nanosam_cli.core.training.run_log import Report, RunNote
from nanosam_cli.core.training.teaching.embedding_cache import EmbeddingCache


class Embedder(Protocol):
    """Whose embeddings are kept."""

    sha256: str

    def embed(self, images: Tensor) -> Tensor:
        """(B, 3, C, C) normalised -> (B, 256, h, w)."""
        ...


class FrozenEncoder:
    """A model's own encoder, which keeps its weights."""

    def __init__(self, encoder: nn.Module, half: torch.dtype | None) -> None:
        self._encoder, self._half = encoder, half
        digest = sha256()
        for name, tensor in sorted(encoder.state_dict().items()):
            digest.update(name.encode() + tensor.detach().cpu().contiguous().numpy().tobytes())
        self.sha256 = digest.hexdigest()

    @torch.no_grad()
    def embed(self, images: Tensor) -> Tensor:
        """As a step without kept embeddings would see them."""
        self._encoder.eval()
        images = images.contiguous(memory_format=torch.channels_last)
        with torch.autocast(images.device.type, self._half or torch.bfloat16, enabled=self._half is not None):
            embeddings: Tensor = self._encoder(images)
        return embeddings.float()


def fill_cache(
    dataset: TrainingCrops, recipe: Recipe, root: Path, teacher: Embedder, ranks: Ranks, report: Report
) -> EmbeddingCache:
    """Make the embeddings that are not there yet, shared among the processes; `report` is told their size before."""
    assert recipe.cache_steps is not None
    identity = {
        "teacher": teacher.sha256,
        "photos": [source.sha256 for source in dataset.sources],
        "data": {key: value for key, value in recipe.to_dict()["data"].items() if key not in HOST_KEYS},
        "masks": recipe.prompts is not None,
        **{"image_size": recipe.model.image_size, "batch": recipe.optimiser.batch, "micro_batch": recipe.micro_batch},
        "seed": recipe.run.seed,
    }
    cache = EmbeddingCache(root, identity, recipe.cache_steps)
    missing = cache.missing()
    cells = (recipe.data.crop * EMBEDDING_SIDE // recipe.model.image_size, EMBEDDING_SIDE)  # of crops, of whole photos
    counts = [(len(dataset.all_samples_of(step)), dataset.is_full(step)) for step in missing]
    size = sum(count * EMBEDDING_CHANNELS * cells[full] ** 2 * 2 for count, full in counts)
    if missing:
        if ranks.first:
            cache.reserve(size)
        crops = sum(count for count, _ in counts)
        whose = "embeddings" if recipe.embeddings else "teacher's embeddings"
        report(RunNote(f"{whose} of {crops} crops: {size / 1e9:.2f} GB in {cache.folder}"))
    for step in missing[ranks.rank :: ranks.ranks]:
        views = dataset.teacher_views([dataset.draw(index).crop for index in dataset.all_samples_of(step)])
        parts = torch.split(views, recipe.micro_batch)
        cache.write(step, torch.cat([teacher.embed(part.to(ranks.device)).cpu() for part in parts]))
    ranks.wait()
    return cache

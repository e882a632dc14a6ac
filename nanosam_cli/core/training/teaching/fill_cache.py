"""Filling the cache of a teacher's embeddings for the crops that a run will show."""

from __future__ import annotations

from pathlib import Path

import torch

from nanosam_cli.core.modeling.encoder import EMBEDDING_CHANNELS, EMBEDDING_SIDE
from nanosam_cli.core.training.data.datasets import TrainingCrops
from nanosam_cli.core.training.distributed import Ranks
from nanosam_cli.core.training.recipe import HOST_KEYS, Recipe
from nanosam_cli.core.training.run_log import Report, RunNote
from nanosam_cli.core.training.teaching.embedding_cache import EmbeddingCache
from nanosam_cli.core.training.teaching.teacher import Teacher


def fill_cache(
    dataset: TrainingCrops, recipe: Recipe, root: Path, teacher: Teacher, ranks: Ranks, report: Report
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
        report(RunNote(f"teacher's embeddings of {crops} crops: {size / 1e9:.2f} GB in {cache.folder}"))
    for step in missing[ranks.rank :: ranks.ranks]:
        views = dataset.teacher_views([dataset.draw(index).crop for index in dataset.all_samples_of(step)])
        parts = torch.split(views, recipe.micro_batch)
        cache.write(step, torch.cat([teacher.embed(part.to(ranks.device)).cpu() for part in parts]))
    ranks.wait()
    return cache

"""Recipes that go on from another one's weights: one command runs them one after the other."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from nanosam_cli.core.errors import RecipeError
from nanosam_cli.core.training.recipe import Recipe, find_recipe, load_recipe

WEIGHTS_FILE = "weights.safetensors"  # that a finished run leaves


class TrainingStage(NamedTuple):
    """One run, and its folder."""

    recipe: Recipe
    folder: Path

    @property
    def weights(self) -> Path:
        """What the next one begins with; there once this one is finished."""
        return self.folder / WEIGHTS_FILE


def plan_stages(recipe: Recipe, folder: Path) -> list[TrainingStage]:
    """The runs that make up a recipe, the first one first, each in a folder within its successor's.

    Earlier ones have the photos, threads and device of the last one. RecipeError where recipes wait for each other.
    """
    stages: list[TrainingStage] = []
    seen: list[str] = []
    while recipe.init and recipe.init.after:
        if recipe.init.after in seen:
            raise RecipeError(f"init.after: {' -> '.join([*seen, recipe.init.after])} never begins", "leave one out")
        seen.append(recipe.init.after)
        before = _on_this_machine(load_recipe(find_recipe(recipe.init.after)), recipe)
        first = folder / before.model.name
        begun = replace(recipe.init, encoder=str(first / WEIGHTS_FILE), decoder=str(first / WEIGHTS_FILE))
        stages.insert(0, TrainingStage(replace(recipe, init=begun), folder))
        recipe, folder = before, first
    return [TrainingStage(recipe, folder), *stages]


def _on_this_machine(recipe: Recipe, like: Recipe) -> Recipe:
    data = replace(recipe.data, root=like.data.root, workers=like.data.workers)
    run = replace(recipe.run, device=like.run.device, threads=like.run.threads, tensorboard=like.run.tensorboard)
    return replace(recipe, data=data, run=run)

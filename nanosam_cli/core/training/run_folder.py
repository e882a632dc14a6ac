"""Whose the files in a run's folder are: a run writes over those of its own alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from nanosam_cli.core.errors import OutputError
from nanosam_cli.core.messages import some
from nanosam_cli.core.system.documents import parse_json
from nanosam_cli.core.training.recipe import Recipe

RECIPE = "recipe.json"
# what a run writes; of the second, none is worth more than the first steps of a run
_OF_VALUE = ("last.safetensors", "best.safetensors", "step-*.safetensors", "weights.safetensors", "export/*.onnx")
_OTHERS = (RECIPE, "log.csv", "evaluation.jsonl", "unreadable.jsonl", "loss.png", "masks.png", "export/*.md")


def check_own(folder: Path, recipe: Recipe) -> None:
    """OutputError where a run that starts anew in a folder would write over what is not its own.

    Its own is what a run of the same recipe left that was killed before its first checkpoint. One of another recipe
    must not have left weights either.
    """
    there = _found(folder, _OTHERS + _OF_VALUE)
    if not there:
        return
    before = _read_recipe(folder / RECIPE)
    elsewhere = "choose another folder with `-o`, or move them away"
    if before is None:
        raise OutputError(f"{folder} holds files that no run of this program left: {some(there)}", elsewhere)
    weights = _found(folder, _OF_VALUE)
    if weights and before != json.loads(json.dumps(recipe.to_dict())):
        raise OutputError(f"{folder} holds what a run of another recipe left: {some(weights)}", elsewhere)


def _found(folder: Path, patterns: tuple[str, ...]) -> list[str]:
    return [str(path.relative_to(folder)) for pattern in patterns for path in sorted(folder.glob(pattern))]


def _read_recipe(path: Path) -> dict[str, Any] | None:
    """The recipe in a run's record; None where the file is missing, or something else."""
    try:
        record = parse_json(path.read_bytes())
    except (FileNotFoundError, ValueError):
        return None
    is_ours = isinstance(record, dict) and isinstance(record.get("recipe"), dict) and "data_sha256" in record
    return dict(record["recipe"]) if is_ours else None

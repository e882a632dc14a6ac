"""Recipes that begin with what another one gives."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="training needs the extra `train`")

import itertools

import torch

from nanosam_cli.core.errors import RecipeError
from nanosam_cli.core.modeling.checkpoint import load_state
from nanosam_cli.core.training.recipe import find_recipe, load_recipe
from nanosam_cli.core.training.stages import plan_stages
from tests.command_line import run_nanosam

QUICK = find_recipe("quick").read_text(encoding="utf-8")


def write(path: Path, name: str, *lines: str) -> Path:
    """The recipe `quick`, under another name, for two steps."""
    text = QUICK.replace('name = "quick"', f'name = "{name}"')
    path.write_text("\n".join([text, *lines]), encoding="utf-8")
    return path


def test_earlier_runs_come_first_on_the_same_machine(tmp_path: Path) -> None:
    write(tmp_path / "one.toml", "one")
    write(tmp_path / "two.toml", "two", "[init]", 'after = "one.toml"')
    last = load_recipe(
        write(tmp_path / "three.toml", "three", "[init]", 'after = "two.toml"'), ["run.threads=1", "data.root=/photos"]
    )
    stages = plan_stages(last, Path("runs"))
    assert [stage.recipe.model.name for stage in stages] == ["one", "two", "three"]
    assert [str(stage.folder) for stage in stages] == ["runs/two/one", "runs/two", "runs"]
    assert all((stage.recipe.run.threads, stage.recipe.data.root) == (1, "/photos") for stage in stages)
    for before, stage in itertools.pairwise(stages):
        assert stage.recipe.init is not None
        assert (stage.recipe.init.encoder, stage.recipe.init.decoder) == (str(before.weights), str(before.weights))


def test_where_the_first_run_lies_is_not_what_is_learned(tmp_path: Path) -> None:
    write(tmp_path / "one.toml", "one")
    last = load_recipe(write(tmp_path / "two.toml", "two", "[init]", 'after = "one.toml"'))
    here, there = (plan_stages(last, Path(place))[-1].recipe for place in ("here", "there"))
    assert here != there
    assert here.fingerprint() == there.fingerprint() == last.fingerprint()
    assert here.init is not None
    assert here.fingerprint() != replace(here, init=replace(here.init, after="other.toml")).fingerprint()


def test_recipes_that_wait_for_each_other_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "one.toml", "one", "[init]", 'after = "two.toml"')
    two = write(tmp_path / "two.toml", "two", "[init]", 'after = "one.toml"')
    with pytest.raises(RecipeError, match="never begins"):
        plan_stages(load_recipe(two), tmp_path)


def test_other_weights_beside_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "two.toml", "two", "[init]", 'after = "quick"', 'encoder = "x.safetensors"')
    with pytest.raises(RecipeError, match=r"init\.after: brings encoder and decoder"):
        load_recipe(path)


@pytest.mark.slow
def test_one_command_runs_both_and_goes_on_after_the_first(tmp_path: Path) -> None:
    write(tmp_path / "one.toml", "one")
    steps = ("--set", "optimiser.steps=2", "--set", "run.threads=1", "--set", "data.workers=0")
    text = (tmp_path / "one.toml").read_text(encoding="utf-8")
    (tmp_path / "one.toml").write_text(text.replace("steps = ", "steps = 2  # ", 1), encoding="utf-8")
    two = write(tmp_path / "two.toml", "two", "[init]", 'after = "one.toml"')
    rate = ("--set", "optimiser.learning_rate=0")
    ran = run_nanosam("distill", two, *steps, *rate, "-o", tmp_path / "run")
    assert ran.code == 0, ran.err
    assert "begins with what the recipe one gives" in ran.err
    first = load_state(tmp_path / "run" / "one" / "weights.safetensors").part("ema.module.")
    last = load_state(tmp_path / "run" / "weights.safetensors").part("ema.module.")
    kernels = [name for name, tensor in first.items() if tensor.ndim == 4]
    assert kernels
    assert all(torch.allclose(first[name].float(), last[name].float(), atol=1e-6) for name in kernels)
    again = run_nanosam("distill", two, *steps, *rate, "-o", tmp_path / "run", "--resume")
    assert again.code == 0, again.err
    assert "all its 2 steps are done" in again.err
    assert "begins with what" not in again.err

"""A run writes over files of its own alone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="training needs the extra `train`")

from nanosam_cli.core.errors import OutputError
from nanosam_cli.core.training.distillation import train
from nanosam_cli.core.training.run_folder import check_own
from tests.training_data import save_shapes, tiny_recipe


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("root")
    save_shapes(folder / "shapes")
    return folder


@pytest.mark.parametrize(
    "name", ["log.csv", "recipe.json", "loss.png", "masks.png", "best.safetensors", "step-0000100.safetensors"]
)
def test_a_folder_with_somebodys_file_is_refused_by_name(root: Path, tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text('{"title": "mine"}')
    (tmp_path / "notes.txt").write_text("no run writes that")
    with pytest.raises(OutputError, match=rf"holds files that no run of this program left: {name}$") as caught:
        train(tiny_recipe(root, steps=1), tmp_path)
    assert caught.value.hint == "choose another folder with `-o`, or move them away"
    assert (tmp_path / name).read_text() == '{"title": "mine"}'
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([name, "notes.txt"])


def test_a_run_of_another_recipe_loses_no_weights(root: Path, tmp_path: Path) -> None:
    """Its own recipe goes on anew where it was killed before its first checkpoint, and so does another then."""
    recipe = tiny_recipe(root, steps=1)
    train(recipe, tmp_path)
    (tmp_path / "last.safetensors").unlink()
    check_own(tmp_path, recipe)
    other = tiny_recipe(root, steps=2)
    with pytest.raises(OutputError, match=r"holds what a run of another recipe left: weights\.safetensors"):
        check_own(tmp_path, other)
    (tmp_path / "weights.safetensors").unlink()
    for path in tmp_path.glob("export/*"):
        path.unlink()
    check_own(tmp_path, other)
    record = json.loads((tmp_path / "recipe.json").read_text())
    del record["data_sha256"]
    (tmp_path / "recipe.json").write_text(json.dumps(record))
    with pytest.raises(OutputError, match=r"no run of this program left: recipe\.json, log\.csv, evaluation\.jsonl"):
        check_own(tmp_path, other)

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

pytest.importorskip("torch", reason="training needs the extra `train`")

from nanosam_cli.core.errors import MissingExtraError
from nanosam_cli.core.training.distillation import train
from tests.training_data import save_shapes, tiny_recipe


class Writer:
    """What the package's own does, kept in memory."""

    made: list[Writer] = []  # noqa: RUF012 every run's, in their order

    def __init__(self, folder: Path, purge_step: int) -> None:
        self.folder, self.purge_step, self.closed = folder, purge_step, False
        self.scalars: list[tuple[str, float, int]] = []
        self.made.append(self)

    def add_scalar(self, name: str, value: float, step: int) -> None:
        self.scalars.append((name, value, step))

    def close(self) -> None:
        self.closed = True


def test_a_run_and_its_resumption(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package: Any = ModuleType("torch.utils.tensorboard")
    package.SummaryWriter = Writer
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", package)
    save_shapes(tmp_path / "shapes")
    recipe = tiny_recipe(tmp_path, steps=2, evaluate_on="shapes", overrides=["run.tensorboard=true"])
    train(recipe, tmp_path / "run")
    [writer] = Writer.made
    assert writer.folder == tmp_path / "run" / "tensorboard"
    assert writer.closed
    assert writer.purge_step == 1
    assert [step for name, _, step in writer.scalars if name == "loss"] == [1, 2]
    assert [(name, step) for name, _, step in writer.scalars if name == "mean_iou/all"] == [("mean_iou/all", 2)]
    train(recipe, tmp_path / "run", resume=True)
    assert Writer.made[1].purge_step == 3


def test_without_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    save_shapes(tmp_path / "shapes")
    with pytest.raises(MissingExtraError, match="tensorboard"):
        train(tiny_recipe(tmp_path, overrides=["run.tensorboard=true"]), tmp_path / "run")

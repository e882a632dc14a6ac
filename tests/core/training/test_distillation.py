from __future__ import annotations

import csv
import os
import signal
from dataclasses import replace
from math import nan
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="training needs the extra `train`")

import torch

from nanosam_cli.core.errors import BackendError, InputError, NanosamError, OutputError, RecipeError
from nanosam_cli.core.modeling.checkpoint import load_state
from nanosam_cli.core.system import machine
from nanosam_cli.core.training import distillation
from nanosam_cli.core.training.data.datasets import TrainingCrops
from nanosam_cli.core.training.distillation import learning_rate, train
from nanosam_cli.core.training.distributed import Ranks
from nanosam_cli.core.training.recipe import load_recipe
from nanosam_cli.core.training.run_log import EvaluationReport, Event, RunNote, StepReport
from nanosam_cli.core.training.training_step import Learned, TrainingStep
from tests.training_data import save_shapes, tiny_recipe


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    save_shapes(folder / "shapes")
    return folder


@pytest.fixture(scope="module")
def whole(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of four steps that nothing stopped, to compare with and to read."""
    folder = tmp_path_factory.mktemp("runs") / "whole"
    train(tiny_recipe(root), folder)
    return folder


def _losses(folder: Path) -> list[str]:
    with (folder / "log.csv").open(newline="") as file:
        return [row["loss"] for row in csv.DictReader(file)]


def test_other_runs_start_from_the_weights_alone(root: Path, whole: Path) -> None:
    last, alone = whole / "last.safetensors", whole / "weights.safetensors"
    assert alone.stat().st_size < last.stat().st_size / 4
    started = tiny_recipe(root, overrides=[f"init={{encoder = '{alone}', decoder = '{alone}'}}"])
    model = distillation.prepare(started, Ranks(torch.device("cpu")), None, fresh=True).model
    for name, tensor in load_state(last).part("ema.module.").items():
        torch.testing.assert_close(model.state_dict()[name].float(), tensor.float(), rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize(
    ("precision", "features", "warned"),
    [
        ("bf16", {"bf16": False}, True),
        ("bf16", {"bf16": True}, False),
        ("bf16", None, False),  # a machine that does not tell
        ("fp32", {"bf16": False}, False),
    ],
)
def test_bf16_without_its_instructions_is_said_to_be_slow(
    root: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    precision: str,
    features: dict[str, bool] | None,
    warned: bool,
) -> None:
    monkeypatch.setattr(machine, "cpu_features", lambda: features)
    told: list[Event] = []
    overrides = [f"optimiser.precision={precision}", "run.device=cpu"]
    train(tiny_recipe(root, steps=1, overrides=overrides), tmp_path, report=told.append)
    warnings = [event.text for event in told if isinstance(event, RunNote) and event.warning]
    assert any("no bf16 instructions" in text for text in warnings) == warned


class Killed(BaseException):
    """As a signal would end the process: nothing catches it."""


@pytest.mark.parametrize("decoder", ["region", "sam"])
def test_a_killed_run_goes_on_with_the_same_losses(root: Path, tmp_path: Path, decoder: str) -> None:
    recipe = tiny_recipe(root, decoder=decoder)
    train(recipe, tmp_path / "whole")

    def kill(event: Event) -> None:
        if isinstance(event, StepReport) and event.step == 3:  # one step past the checkpoint: that step is done again
            raise Killed

    with pytest.raises(Killed):
        train(recipe, tmp_path / "killed", report=kill)
    assert distillation.steps_done(tmp_path / "killed") == 2
    train(recipe, tmp_path / "killed", resume=True)

    assert _losses(tmp_path / "killed") == _losses(tmp_path / "whole")
    assert len(_losses(tmp_path / "whole")) == 4
    whole, resumed = (load_state(tmp_path / name / distillation.CHECKPOINT) for name in ("whole", "killed"))
    assert whole.tensors.keys() == resumed.tensors.keys()
    assert all(torch.equal(whole.tensors[name], resumed.tensors[name]) for name in whole.tensors)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_keeps_the_step_under_way(
    root: Path, whole: Path, tmp_path: Path, number: signal.Signals
) -> None:
    """A worker that makes crops does not change them."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)  # as the program has it: both interrupt
    recipe = tiny_recipe(root, workers=1)
    told: list[str] = []

    def interrupt(event: Event) -> None:
        if isinstance(event, StepReport) and event.step == 3:
            os.kill(os.getpid(), number)
        if isinstance(event, RunNote):
            told.append(event.text)

    try:
        with pytest.raises(KeyboardInterrupt):
            train(recipe, tmp_path / "cut", report=interrupt)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert distillation.steps_done(tmp_path / "cut") == 3  # a checkpoint is due every second step
    assert told[-1] == f"step 3 of 4 is kept in {tmp_path / 'cut'}: --resume goes on"
    train(recipe, tmp_path / "cut", resume=True)
    assert _losses(tmp_path / "cut") == _losses(whole)


def test_ctrl_c_twice_ends_a_run_at_once(root: Path, tmp_path: Path) -> None:
    def interrupt(event: Event) -> None:
        if isinstance(event, StepReport) and event.step == 1:
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        train(tiny_recipe(root), tmp_path, report=interrupt)
    assert distillation.steps_done(tmp_path) == 0
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_ctrl_c_after_the_last_step_interrupts_as_ever(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def finish(*_: object) -> list[RunNote]:
        os.kill(os.getpid(), signal.SIGINT)
        raise AssertionError("the signal was swallowed")

    monkeypatch.setattr(distillation.outcome, "finish", finish)
    with pytest.raises(KeyboardInterrupt):
        train(tiny_recipe(root, steps=1), tmp_path)
    assert distillation.steps_done(tmp_path) == 1


def test_an_ignored_signal_stays_ignored(root: Path, tmp_path: Path) -> None:
    """As under `nohup`, or in the background of a shell."""

    def interrupt(event: Event) -> None:
        if isinstance(event, StepReport):
            os.kill(os.getpid(), signal.SIGINT)

    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        train(tiny_recipe(root, steps=2), tmp_path, report=interrupt)
    finally:
        signal.signal(signal.SIGINT, before)
    assert distillation.steps_done(tmp_path) == 2


def test_more_steps_need_a_restart(root: Path, whole: Path) -> None:
    with pytest.raises(OutputError, match=r"other values of optimiser\.steps") as refused:
        train(tiny_recipe(root, steps=6), whole, resume=True)
    assert "--set optimiser.restarts=[4] --set optimiser.restart_rate=RATE" in str(refused.value.hint)


def test_workers_change_nothing(root: Path, tmp_path: Path) -> None:
    train(tiny_recipe(root, steps=2), tmp_path / "alone")
    train(tiny_recipe(root, steps=2, workers=1), tmp_path / "helped")
    assert _losses(tmp_path / "alone") == _losses(tmp_path / "helped")


def test_training_learns(root: Path) -> None:
    """The same batch again and again: its loss must fall well below where it began."""
    recipe = tiny_recipe(root, steps=30)
    dataset = TrainingCrops(recipe)
    batch = dataset.batch([0, 1], prompts=4)
    ranks = Ranks(torch.device("cpu"))
    training = distillation.prepare(recipe, ranks, None, fresh=True)
    steps = [distillation.train_step(training, [batch], recipe, 1, 3e-3, ranks) for _ in range(30)]
    losses = [float(learned.loss) for learned, _ in steps]
    assert losses[-1] < 0.7 * losses[0]


def test_evaluation_is_reported_and_kept(root: Path, tmp_path: Path) -> None:
    events: list[Event] = []
    train(tiny_recipe(root, steps=1, evaluate_on="shapes"), tmp_path, report=events.append)
    [evaluation] = [event for event in events if isinstance(event, EvaluationReport)]
    assert 0.3 < evaluation.mean_iou["all"] <= 1  # the untrained model still has its ellipse
    assert '"step": 1' in (tmp_path / "evaluation.jsonl").read_text()


def test_a_run_is_not_overwritten(root: Path, whole: Path) -> None:
    with pytest.raises(OutputError, match="holds a run already"):
        train(tiny_recipe(root), whole)


def test_a_checkpoint_of_another_recipe_is_refused(root: Path, whole: Path) -> None:
    with pytest.raises(OutputError, match=r"another recipe, with other values of optimiser\.steps$"):
        train(tiny_recipe(root, steps=2), whole, resume=True)


def test_a_run_that_ended_goes_on_where_a_longer_recipe_restarts(root: Path, tmp_path: Path) -> None:
    longer = tiny_recipe(root, steps=5, overrides=["optimiser.restarts=[3]", "optimiser.restart_rate=2e-3"])
    train(longer, tmp_path / "whole")
    train(tiny_recipe(root, steps=3), tmp_path / "ended")
    train(longer, tmp_path / "ended", resume=True)
    assert _losses(tmp_path / "ended") == _losses(tmp_path / "whole")
    whole, ended = (load_state(tmp_path / name / distillation.CHECKPOINT) for name in ("whole", "ended"))
    assert all(torch.equal(whole.tensors[name], ended.tensors[name]) for name in whole.tensors)
    assert '"steps": 5' in (tmp_path / "ended" / "recipe.json").read_text()

    elsewhere = tiny_recipe(root, steps=9, overrides=["optimiser.restarts=[4]", "optimiser.restart_rate=2e-3"])
    with pytest.raises(OutputError, match=r"other values of optimiser\.restarts, optimiser\.steps$"):
        train(elsewhere, tmp_path / "ended", resume=True)


def test_a_broken_checkpoint_is_refused(root: Path, tmp_path: Path) -> None:
    (tmp_path / distillation.CHECKPOINT).write_bytes(b"\x80\x04not safetensors")
    with pytest.raises(InputError, match="not a whole safetensors file"):
        train(tiny_recipe(root), tmp_path, resume=True)


def test_a_loss_that_is_not_finite_stops_the_run(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nothing = torch.zeros(())
    monkeypatch.setattr(
        TrainingStep, "forward", lambda *_: Learned(nothing.clone().requires_grad_() * nan, *[nothing] * 3)
    )
    with pytest.raises(NanosamError, match="the loss is nan at step 1"):
        train(tiny_recipe(root), tmp_path)
    kept = load_state(tmp_path / "faulty-batch-0.safetensors")
    assert kept.metadata == {"step": 1}
    assert kept.tensors["images"].shape == (2, 3, 64, 64)


def test_missing_data_and_unknown_backbones(root: Path, tmp_path: Path) -> None:
    recipe = tiny_recipe(root)
    with pytest.raises(InputError, match="no such annotation file"):
        train(load_recipe(root / "tiny.toml", [f"data.root={tmp_path}"]), tmp_path / "a")
    with pytest.raises(RecipeError, match="unknown backbone 'resnet19'") as caught:
        train(load_recipe(root / "tiny.toml", ["model.backbone=resnet19"]), tmp_path / "b")
    assert "resnet18" in str(caught.value.hint)
    assert recipe.model.backbone == "test_resnet"


@pytest.mark.skipif(torch.cuda.is_available(), reason="a CUDA device is here")
def test_a_gpu_that_is_not_there(root: Path, tmp_path: Path) -> None:
    with pytest.raises(BackendError, match="no CUDA device"):
        train(load_recipe(root / "tiny.toml", ["run.device=cuda"]), tmp_path)


def test_learning_rate_warms_up_and_decays(root: Path) -> None:
    section = tiny_recipe(root, steps=100).optimiser
    rates = [learning_rate(step, section) for step in (1, 2, 51, 100)]
    assert rates[0] == pytest.approx(section.learning_rate / 2)
    assert rates[1] == section.learning_rate
    assert rates[2] == pytest.approx(section.learning_rate * 0.505, rel=0.02)
    assert rates[3] == pytest.approx(section.learning_rate * 0.01)


def test_learning_rate_rises_again_at_restarts_that_come(root: Path) -> None:
    plain = tiny_recipe(root, steps=100).optimiser
    section = replace(plain, restarts=(40, 70, 400), restart_rate=plain.learning_rate / 2)
    lowest = [learning_rate(step, section) for step in (40, 70, 100)]
    assert lowest == pytest.approx([plain.learning_rate * 0.01, *[plain.learning_rate / 2 * 0.01] * 2])
    highest = [learning_rate(step, section) for step in (41, 71)]
    assert highest == pytest.approx([plain.learning_rate / 2] * 2, rel=0.02)
    assert learning_rate(55, section) == pytest.approx(plain.learning_rate / 2 * 0.505)
    shorter = replace(section, steps=30)
    assert [learning_rate(step, shorter) for step in (3, 17, 30)] == [
        learning_rate(step, replace(plain, steps=30)) for step in (3, 17, 30)
    ]

"""`nanosam distill` and `nanosam export`: from a recipe to files that segment."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("torch", reason="training needs the extra `train`")

from nanosam_cli.core.paths import resource
from tests.command_line import run_nanosam
from tests.training_data import save_shapes, tiny_recipe

PATIENCE = 300  # seconds until a child that has done nothing is given up, on however busy a machine


@pytest.fixture(autouse=True)
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    save_shapes(tmp_path / "shapes")
    tiny_recipe(tmp_path, steps=2)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_from_recipe_to_mask() -> None:
    trained = run_nanosam("distill", "tiny.toml", "--set", "run.evaluate_on=shapes")
    assert trained.code == 0, trained.err
    assert trained.out.strip() == str(Path("runs/tiny/last.safetensors"))
    assert "mIoU all 0." in trained.err
    assert sorted(path.name for path in Path("runs/tiny").iterdir()) == [
        *("best.safetensors", "evaluation.jsonl", "last.safetensors"),
        *("log.csv", "loss.png", "masks.png", "recipe.json", "weights.safetensors"),
    ]
    with Image.open("runs/tiny/loss.png") as plot:
        assert plot.size[0] > 500
    assert json.loads(Path("runs/tiny/recipe.json").read_text())["photos_per_source"] == {"shapes": 3}

    exported = run_nanosam("export", "all", "runs/tiny/last.safetensors", "-o", "files", "--json")
    assert exported.code == 0, exported.err
    records = [json.loads(line) for line in exported.out.splitlines()]
    assert [record["part"] for record in records] == ["encoder", "decoder"]
    assert all(record["schema_version"] == 1 for record in records)

    pair = ("--encoder", "files/encoder.onnx", "--decoder", "files/decoder.onnx")
    segmented = run_nanosam("segment", "shapes/images/0.png", "--box", "10,12,50,42", *pair)
    assert segmented.code == 0, segmented.err
    assert np.asarray(Image.open("0_mask.png")).shape == (100, 120)


def test_resume_says_what_is_done() -> None:
    assert run_nanosam("distill", "tiny.toml").code == 0
    again = run_nanosam("distill", "tiny.toml")
    assert again.code == 1
    assert "holds a run already" in again.words
    assert run_nanosam("distill", "tiny.toml", "--resume").code == 0  # nothing is left to do


def test_resume_says_where_a_run_stands() -> None:
    ran = run_nanosam("distill", "tiny.toml", "--resume")
    assert ran.code == 0, ran.err
    assert "runs/tiny holds no checkpoint: the run starts at step 1" in ran.words
    assert "runs/tiny is finished: all its 2 steps are done" in run_nanosam("distill", "tiny.toml", "--resume").words


def test_a_warmup_longer_than_the_run_is_said() -> None:
    ran = run_nanosam("distill", "tiny.toml", "--set", "optimiser.warmup=9")
    assert ran.code == 0, ran.err
    assert "optimiser.warmup is longer than the run, 9 of 2 steps" in ran.words


KILLED = """
import os, signal
from nanosam_cli.app import main
from nanosam_cli.core.training import distillation

step = distillation.train_step
def dying(training, batches, recipe, number, rate, ranks):
    if number == 4:
        os.kill(os.getpid(), signal.SIGKILL)
    return step(training, batches, recipe, number, rate, ranks)

distillation.train_step = dying
main()
"""


@pytest.mark.skipif(os.name != "posix", reason="SIGKILL is POSIX's")
def test_a_run_that_was_killed_is_resumed(root: Path) -> None:
    """A step past the checkpoint of the second."""
    tiny_recipe(root, steps=5)
    ran = subprocess.run([sys.executable, "-c", KILLED, "distill", "tiny.toml", "-q"])
    assert ran.returncode == -signal.SIGKILL
    resumed = run_nanosam("distill", "tiny.toml", "--resume")
    assert resumed.code == 0, resumed.err
    assert logged_steps() == [1, 2, 3, 4, 5]


def logged_steps() -> list[int]:
    return [int(line.split(",")[0]) for line in Path("runs/tiny/log.csv").read_text().splitlines()[1:] if line]


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="SIGKILL is POSIX's")
def test_kill_and_resume(root: Path) -> None:
    tiny_recipe(root, steps=400, checkpoint_every=2)
    process = subprocess.Popen(
        [sys.executable, "-c", "from nanosam_cli.app import main; main()", "distill", "tiny.toml", "-q"]
    )
    checkpoint = Path("runs/tiny/last.safetensors")
    try:
        deadline = time.monotonic() + PATIENCE
        while not checkpoint.exists() and time.monotonic() < deadline:
            time.sleep(0.05)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert checkpoint.exists()
    tiny_recipe(root, steps=400, checkpoint_every=100)
    resumed = subprocess.Popen(
        [sys.executable, "-c", "from nanosam_cli.app import main; main()", "distill", "tiny.toml", "-q", "--resume"]
    )
    before = checkpoint.stat().st_mtime_ns
    try:
        deadline = time.monotonic() + PATIENCE
        while checkpoint.stat().st_mtime_ns == before and time.monotonic() < deadline:
            time.sleep(0.05)
    finally:
        resumed.send_signal(signal.SIGKILL)
        resumed.wait()
    steps = logged_steps()
    assert steps == list(range(1, len(steps) + 1))  # no step is missing, none is there twice
    assert len(steps) >= 100


def test_list() -> None:
    listed = run_nanosam("distill", "--list")
    assert listed.code == 0
    assert all(name in listed.out for name in ("nanosam-lite2", "quick", "nanosam-resnet18", "nanosam-hgnetv2-b1"))
    assert "11517760" in listed.out  # ResNet18's parameters


@pytest.mark.slow
def test_quick() -> None:
    """The recipe as it is, but for fewer steps: from nothing to a model that is better than the boxes' ellipses."""
    evaluation = distill_quick(steps=60)
    assert evaluation["all"] > 0.75  # the ellipses have 0.718, the teacher 0.906


def test_quick_in_two_steps() -> None:
    """Too few to learn anything; the rest of the way is the same."""
    evaluation = distill_quick(steps=2)
    assert 0 < evaluation["all"] < 0.75


def distill_quick(steps: int) -> dict[str, float]:
    """The recipe's last evaluation; its files segment."""
    fewer = (f"optimiser.steps={steps}", "optimiser.warmup=3", "run.evaluate_every=0", "run.threads=1")
    ran = run_nanosam("distill", "quick", *(word for change in fewer for word in ("--set", change)))
    assert ran.code == 0, ran.err
    evaluation: dict[str, float]
    [evaluation] = [json.loads(line) for line in Path("runs/quick/evaluation.jsonl").read_text().splitlines()]
    assert evaluation.keys() == {"step", "all", "medium", "large"}  # the example photos have no small objects
    assert not re.search(r"\bnan\b", ran.err)
    files = ("--encoder", "runs/quick/export/encoder.onnx", "--decoder", "runs/quick/export/decoder.onnx")
    segmented = run_nanosam("segment", resource("examples", "cat.jpg"), "--box", "0,0,399,300", *files)
    assert segmented.code == 0, segmented.err
    return evaluation


@pytest.mark.parametrize(
    ("line", "code", "words"),
    [
        ("distill", 2, "no recipe given"),
        ("distill nanosam-b1", 2, "did you mean nanosam-b0"),
        ("distill nothing.toml", 1, "no such recipe: nothing.toml"),
        ("distill tiny.toml --set optimiser.stepps=1", 1, "did you mean steps?"),
        ("distill tiny.toml --set optimiser.steps=abc", 1, "tiny.toml with --set has 1 fault(s)"),
        ("distill tiny.toml --set model.backbone=resnet81", 1, "nearest: "),
        ("distill tiny.toml --set init.encoder=nothing.pt", 1, "no such checkpoint: nothing.pt"),
        ("distill tiny.toml --set init.encoder=encoder.onnx", 1, "holds no weights to start from"),
        ("distill quick --set data.root=elsewhere", 1, "no such folder of photos"),
        ("distill quick --set teacher.encoder=nanosam-lite1", 2, "did you mean nanosam-lite2"),
        ("distill quick --set optimiser.precision=fp16 --set run.device=cpu", 1, "fp16 needs CUDA"),
        ("distill tiny.toml --set data.root=elsewhere", 1, "no such annotation file: elsewhere"),
        ("export all nothing.safetensors", 1, "no such checkpoint"),
        ("export all tiny.toml", 1, "not a whole safetensors file"),
        ("export teeth nothing.safetensors", 2, "teeth"),
    ],
)
def test_bad_inputs(line: str, code: int, words: str) -> None:
    ran = run_nanosam(*line.split())
    assert ran.code == code
    assert words in ran.words
    assert not Path("runs").exists()


@pytest.mark.parametrize("line", ["distill tiny.toml", "export all runs/tiny/last.safetensors"])
def test_without_torch(line: str) -> None:
    code = "import sys; sys.modules['torch'] = None; from nanosam_cli.app import main; main()"
    ran = subprocess.run([sys.executable, "-c", code, *line.split()], capture_output=True, text=True)
    assert ran.returncode == 1
    assert "pip install 'nanosam-cli[train]'" in ran.stderr

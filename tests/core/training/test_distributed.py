"""Two processes with gloo on CPU, as torchrun starts them."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="training needs the extra `train`")

import torch

from nanosam_cli.core.errors import BackendError, RecipeError
from nanosam_cli.core.training import distributed
from nanosam_cli.core.training.distillation import train
from nanosam_cli.core.training.distributed import Ranks, choose_device, is_first, join, was_restarted
from nanosam_cli.core.training.run_log import Event, RunNote, read_evaluations, read_steps
from tests.training_data import save_shapes, tiny_recipe

# The worker that dies does so once, as by the system for want of memory, a step past the first checkpoint.
PROGRAM = """
import os, signal, sys
from pathlib import Path
from nanosam_cli.core.training import distillation
from nanosam_cli.core.training.distributed import was_restarted
from nanosam_cli.core.training.recipe import load_recipe

step = distillation.train_step
def dying(training, batches, recipe, number, rate, ranks):
    if number == 3 and os.environ["RANK"] == "1" and not was_restarted():
        os.kill(os.getpid(), signal.SIGKILL)
    return step(training, batches, recipe, number, rate, ranks)

distillation.train_step = dying
root, folder, *overrides = sys.argv[1:]
if was_restarted():
    Path(folder, "../restarted").touch()
distillation.train(load_recipe(Path(root) / "tiny.toml", overrides), Path(folder))
"""


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="SIGKILL is POSIX's")
def test_two_processes_do_as_one_and_outlive_a_killed_worker(tmp_path: Path) -> None:
    save_shapes(tmp_path / "shapes")
    overrides = ["optimiser.batch=4", "optimiser.micro_batch=2", 'optimiser.freeze=["batchnorm"]', "run.threads=1"]
    overrides += ['run.evaluate_on="shapes"', "data.resident=true"]
    recipe = tiny_recipe(tmp_path, overrides=overrides)
    train(recipe, tmp_path / "one")
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "--max-restarts=1"]
    arguments = [str(program), str(tmp_path), str(tmp_path / "two"), *overrides]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(sys.path),
        "PYTHONWARNINGS": "ignore",
        "GLOO_SOCKET_IFNAME": "lo",
    }
    ran = subprocess.run(
        [*torchrun, *arguments], capture_output=True, text=True, env=environment, cwd=tmp_path, timeout=300
    )
    assert ran.returncode == 0, ran.stderr[-3000:]
    assert (tmp_path / "restarted").exists()
    one, two = (read_steps(tmp_path / name) for name in ("one", "two"))
    assert [row["step"] for row in two] == ["1", "2", "3", "4"]
    for row, other in zip(one, two):
        assert float(row["loss"]) == pytest.approx(float(other["loss"]), abs=1e-5)
        assert float(row["iou"]) == pytest.approx(float(other["iou"]), abs=1e-4)
    evaluated, again = (read_evaluations(tmp_path / name)[-1]["all"] for name in ("one", "two"))
    assert evaluated == pytest.approx(again, abs=1e-3)
    left, right = ({path.name for path in (tmp_path / name).glob("[!.]*")} for name in ("one", "two"))
    assert left == right


SECOND = """
import sys
from pathlib import Path
from nanosam_cli.core.training.distillation import train
from nanosam_cli.core.training.recipe import load_recipe

root, folder, *overrides = sys.argv[1:]
train(load_recipe(Path(root) / "tiny.toml", overrides), Path(folder))
"""


def test_two_processes_take_the_steps_of_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """This process is the first, in the environment that torchrun would give it."""
    save_shapes(tmp_path / "shapes")
    overrides = ["optimiser.batch=4", "optimiser.micro_batch=2", 'optimiser.freeze=["batchnorm"]']
    recipe = tiny_recipe(tmp_path, steps=2, overrides=overrides)
    train(recipe, tmp_path / "one")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {"TORCHELASTIC_RUN_ID": "test", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2"}
    for name, value in {**shared, "GLOO_SOCKET_IFNAME": "lo", "RANK": "0", "LOCAL_RANK": "0"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(distributed, "PATIENCE", timedelta(minutes=5))
    told: list[Event] = []
    arguments = [str(tmp_path), str(tmp_path / "two"), *overrides]
    second = {**os.environ, "RANK": "1", "LOCAL_RANK": "1"}
    with subprocess.Popen([sys.executable, "-W", "ignore", "-c", SECOND, *arguments], env=second) as process:
        train(recipe, tmp_path / "two", report=told.append)
        assert process.wait(300) == 0
    notes = [event.text for event in told if isinstance(event, RunNote)]
    assert notes[0].startswith("2 process(es) on cpu x 1 micro-batch(es) of 2: 4 crops a step")
    one, two = (read_steps(tmp_path / name) for name in ("one", "two"))
    assert len(one) == len(two) == 2
    for row, other in zip(one, two):
        assert float(row["loss"]) == pytest.approx(float(other["loss"]), abs=1e-5)


def test_alone_without_torchrun(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("TORCHELASTIC_RUN_ID", "RANK", "TORCHELASTIC_RESTART_COUNT"):
        monkeypatch.delenv(name, raising=False)
    with join("cpu") as ranks:
        assert ranks == Ranks(torch.device("cpu"))
        assert ranks.first
        assert float(ranks.mean(torch.tensor(3.0))) == 3
    assert is_first()
    assert not was_restarted()
    monkeypatch.setenv("RANK", "1")
    assert not is_first()


def test_micro_batches_that_cannot_be_shared(tmp_path: Path) -> None:
    from nanosam_cli.core.training.distillation import prepare

    save_shapes(tmp_path / "shapes")
    with pytest.raises(RecipeError, match="1 micro-batches a step cannot be shared by 2 processes") as caught:
        prepare(tiny_recipe(tmp_path), Ranks(torch.device("cpu"), rank=0, ranks=2), None, fresh=True)
    assert caught.value.hint == "--set optimiser.micro_batch=1"


def test_devices_are_shared_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", lambda _: None)
    assert [choose_device("auto", local) for local in range(2)] == [torch.device("cuda", local) for local in range(2)]
    assert choose_device("cpu", 7) == torch.device("cpu")
    with pytest.raises(BackendError, match=r"process 3 on this machine finds 2 CUDA device\(s\)"):
        choose_device("cuda", 2)

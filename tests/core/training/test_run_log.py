from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest

from nanosam_cli.core.errors import InputError
from nanosam_cli.core.training.run_log import (
    EvaluationReport,
    RunLog,
    StepClock,
    StepReport,
    read_evaluations,
    read_steps,
)


def _write(folder: Path, steps: range, keep: int) -> None:
    with closing(RunLog(folder, keep)) as log:
        for step in steps:
            log.add(StepReport(step, 1 / step, 0.5, 1e-3, 10, 0.1))
            log.add(EvaluationReport(step, {"all": step / 10}))


def test_a_resumed_log_has_every_step_once(tmp_path: Path) -> None:
    _write(tmp_path, range(1, 6), keep=0)
    _write(tmp_path, range(4, 8), keep=3)
    assert [row["step"] for row in read_steps(tmp_path)] == [str(step) for step in range(1, 8)]
    assert [record["step"] for record in read_evaluations(tmp_path)] == list(range(1, 8))


def test_a_new_run_starts_a_new_log(tmp_path: Path) -> None:
    _write(tmp_path, range(1, 6), keep=0)
    _write(tmp_path, range(1, 3), keep=0)
    assert len(read_steps(tmp_path)) == len(read_evaluations(tmp_path)) == 2


def test_half_written_lines_are_left_out(tmp_path: Path) -> None:
    _write(tmp_path, range(1, 3), keep=0)
    for name, half in (("log.csv", "3,0.2"), ("evaluation.jsonl", '{"step": 3, "al')):
        with (tmp_path / name).open("a") as file:
            file.write(half)
    assert [row["step"] for row in read_steps(tmp_path)] == ["1", "2"]
    assert [record["step"] for record in read_evaluations(tmp_path)] == [1, 2]


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("evaluation.jsonl", b"[]\n"),
        ("evaluation.jsonl", b'{"step": 1}\n'),
        ("evaluation.jsonl", b'{"step": "one", "all": 0.5}\n'),
        ("evaluation.jsonl", b"\xff\n"),
        ("evaluation.jsonl", b"[" * 100_000 + b"\n"),
        ("log.csv", b"a,b\n1,2\n"),
        ("log.csv", b"step,loss\none,2\n"),
        ("log.csv", b"step,loss\n" + b"1" * 200_000 + b",2\n"),
        ("log.csv", b"\xff\xfe\n1\n"),
    ],
)
def test_lines_that_no_run_wrote(tmp_path: Path, name: str, data: bytes) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(InputError, match=f"{name} holds other lines than those of a run"):
        RunLog(tmp_path, 5)


def test_no_log_is_an_empty_log(tmp_path: Path) -> None:
    assert read_steps(tmp_path) == []
    assert read_evaluations(tmp_path) == []


def test_the_stopwatch_splits_a_step() -> None:
    clock = StepClock()
    clock.waited()
    seconds, waiting = clock.worked()
    assert seconds > 0
    assert 0 <= waiting <= 1

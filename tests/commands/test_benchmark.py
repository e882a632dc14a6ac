"""`nanosam benchmark` from the command line, on tiny models. No time is asserted: only what is said of it."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from nanosam_cli.core.benchmark import measure
from nanosam_cli.core.benchmark.measure import STAGES
from nanosam_cli.core.system import machine
from tests.command_line import Ran, run_nanosam

Run = Callable[..., Ran]


@pytest.fixture(autouse=True)
def _quick(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(measure, "WARM_UP", 0)
    monkeypatch.setattr(measure, "COLD_STARTS", 1)
    monkeypatch.setattr(os, "getloadavg", lambda: (0.0, 0.0, 0.0), raising=False)
    Image.new("RGB", (4, 3)).save("photo.png")


@pytest.fixture
def own(own_files: tuple[Path, Path]) -> str:
    return f"own={own_files[0]},{own_files[1]}"


def run_benchmark(*arguments: object) -> Ran:
    return run_nanosam("benchmark", *arguments, "--image", "photo.png", "--repeats", "1")


def test_table(own: str) -> None:
    ran = run_benchmark(own)
    assert (ran.code, ran.err) == (0, "")
    for words in (*STAGES.values(), "images/s", "cold start", "peak memory", "ONNX Runtime", "4x3 photo", "own"):
        assert words in ran.out
    assert "vs" not in ran.out


def test_side_by_side_with_results(own: str, own_files: tuple[Path, Path]) -> None:
    Path("r.json").write_text('[{"area": 5, "iou": 0.25}]')
    Path("r.meta.json").write_text('{"model": "own"}')
    encoder, decoder = own_files
    files = ("--image_encoder", encoder, "--mask_decoder", decoder)
    ran = run_benchmark(own, *files, "--results", "r.json", "--results", f"{encoder}=r.json", "--markdown")
    assert (ran.code, ran.err) == (0, "")
    lines = ran.out.splitlines()
    assert lines[0] == "| model | encoder ms | decoder ms | further box ms | full pipeline ms | mIoU all | S | M | L |"
    assert [line.split(" | ")[0] for line in lines[2:4]] == ["| own", f"| {encoder}"]
    assert all(line.endswith(" | 0.250 | 0.250 | - | - |") for line in lines[2:4])


def test_json_save_and_compare(own: str) -> None:
    assert run_benchmark(own, "-o", "one.json", "-q").code == 0
    ran = run_benchmark(own, "-o", "two.json", "--json", "--threads", "1")
    assert ran.err == "saved as two.json\n"
    assert ran.out.count("\n") == 1
    printed, written = json.loads(ran.out), json.loads(Path("two.json").read_text())
    assert printed == written
    assert list(printed) == ["schema_version", "machine", "settings", "load", "conditions", "models"]
    assert str(Path.cwd()) not in ran.out  # a published run tells nobody where its user keeps files
    assert list(printed["models"][0]["timings"]) == list(STAGES)

    ran = run_nanosam("benchmark", "--compare", "one.json", "two.json")
    assert ran.code == 0
    assert "own (one)" in ran.out
    assert "vs own (one)" in ran.out
    assert "the runs differ in threads: None (one.json), 1 (two.json)" in ran.words
    record = json.loads(run_nanosam("benchmark", "--compare", "one.json", "two.json", "--json").out)
    assert [model["name"] for model in record["models"]] == ["own (one)", "own (two)"]
    assert run_nanosam("benchmark", "--compare", "one.json", "--markdown").out.startswith("| model |")


def test_other_machines_are_refused(own: str) -> None:
    run_benchmark(own, "-o", "here.json")
    other: dict[str, Any] = json.loads(Path("here.json").read_text())
    other["machine"]["cpu"] = "Abacus 9000"
    Path("there.json").write_text(json.dumps(other))
    ran = run_nanosam("benchmark", "--compare", "here.json", "there.json")
    assert (ran.code, ran.out) == (1, "")
    assert "here.json and there.json are from different machines" in ran.words
    assert "Abacus 9000 (there.json)" in ran.words


def test_a_busy_machine_is_told(own: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getloadavg", lambda: (99.0, 0.0, 0.0), raising=False)
    monkeypatch.setattr(machine, "usable_cores", lambda: 4)
    ran = run_benchmark(own)
    assert ran.code == 0
    assert "warning: this machine is busy (load average 99.0 on 4 cores)" in ran.words


def test_an_existing_file_is_refused_before_anything_is_measured(own: str, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("run.json").write_text("mine")
    with monkeypatch.context() as patch:
        patch.setattr(measure, "benchmark", None)
        ran = run_benchmark(own, "-o", "run.json")
    assert ran.code == 1
    assert "run.json exists already" in ran.words
    assert Path("run.json").read_text() == "mine"
    assert run_benchmark(own, "-o", "run.json", "--force").code == 0


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        ("nanosam-lite1", 2, "unknown model: nanosam-lite1 did you mean nanosam-lite2?"),
        ("mine=", 2, "'mine=' is not NAME=ENCODER,DECODER nanosam benchmark mine=enc.onnx,dec.onnx"),
        ("=a,b", 2, "is not NAME=ENCODER,DECODER"),
        ("mine=a.onnx", 2, "is not NAME=ENCODER,DECODER"),
        ("mine=a.onnx,b.onnx", 1, "model file a.onnx does not exist"),
        ("mine=a.onnx,b.onnx -o photo.png/run.json", 1, "photo.png is not a directory"),
        ("--encoder a.onnx", 2, "--encoder and --decoder go together"),
        ("mine=a.onnx,b.onnx mine=c.onnx,d.onnx", 2, "two models have the same name: mine, mine"),
        ("mine=a.onnx,b.onnx --results none.json", 2, "none.json does not say whose it is"),
        ("mine=a.onnx,b.onnx --results mine=none.json", 1, "cannot read none.json"),
        ("mine=a.onnx,b.onnx --image none.png", 1, "no such file: none.png"),
        ("--compare", 2, "no runs to compare"),
        ("--compare none.json", 1, "cannot read none.json"),
        ("--compare photo.png", 1, "photo.png is not a run"),
        ("--compare a.json -o b.json", 2, "--compare only reads saved runs"),
        ("--repeats 0", 2, "Example: nanosam benchmark"),
    ],
)
def test_what_is_refused(arguments: str, code: int, words: str) -> None:
    ran = run_nanosam("benchmark", *arguments.split())
    assert (ran.code, ran.out) == (code, "")
    assert words in ran.words

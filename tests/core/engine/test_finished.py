"""`nanosam build-engine` that was killed: the same command keeps finished engines, and clears halves of them."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nanosam_cli.core import paths
from nanosam_cli.core.inference.sidecar import read_sidecar, sidecar_path
from nanosam_cli.core.zoo.models import DEFAULT_MODEL
from tests.command_line import Ran, run_nanosam

ENCODER, DECODER = Path("out/encoder.onnxruntime.onnx"), Path("out/decoder.onnxruntime.onnx")
BOTH = "encoder.onnx decoder.onnx --fp32 --backend onnxruntime --validate photos -o out"

# killed when the decoder's side-car, or the decoder itself, is written
_KILLED = """
import os, signal, sys
import nanosam_cli.core.engine.build as module
moment, write = sys.argv.pop(1), module.write_text
def killed(path, *arguments):
    of_decoder = path.name.startswith("decoder")
    if moment == "after the side-car" or not of_decoder:
        write(path, *arguments)
    if of_decoder:
        os.kill(os.getpid(), signal.SIGKILL)
module.write_text = killed
from nanosam_cli.app import main
main()
"""


@pytest.fixture(autouse=True)
def _place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own_files: tuple[Path, Path]) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NANOSAM_HOME", str(tmp_path / "home"))
    for file in own_files:
        shutil.copy(file, tmp_path)
    Path("photos").mkdir()
    save_photo(0)


def save_photo(number: int) -> None:
    noise = np.random.default_rng(number).integers(0, 256, (60, 80, 3), np.uint8)
    Image.fromarray(noise).save(f"photos/{number}.png")


def build(line: str) -> Ran:
    return run_nanosam("build-engine", *line.split())


def kill(moment: str, line: str = BOTH) -> None:
    program = [sys.executable, "-c", _KILLED, moment, "build-engine", *line.split()]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
    assert subprocess.run(program, env=environment, capture_output=True).returncode == -signal.SIGKILL


def visible(folder: str) -> list[str]:
    return sorted(path.name for path in Path(folder).iterdir() if not path.name.startswith("."))


@pytest.mark.parametrize("moment", [pytest.param("before the side-car", marks=pytest.mark.slow), "after the side-car"])
def test_the_same_command_goes_on(moment: str) -> None:
    kill(moment)
    half = ["decoder.onnxruntime.engine.json"] * (moment == "after the side-car")
    assert visible("out") == [*half, "encoder.onnxruntime.engine.json", "encoder.onnxruntime.onnx"]
    before = [path.stat().st_mtime_ns for path in (ENCODER, sidecar_path(ENCODER))]
    ran = build(f"{BOTH} --json")
    assert ran.code == 0, ran.err
    said = "out/decoder.onnxruntime.engine.json was left by a run that was killed, without its engine: removed"
    assert (said in ran.err) is bool(half)
    records = [json.loads(line) for line in ran.out.splitlines()]
    assert [(record["path"], record["status"]) for record in records] == [
        (str(ENCODER), "proved by running"),
        (str(DECODER), "proved by running"),
    ]
    assert "encoder, " not in ran.err  # no step of its ladder
    assert [path.stat().st_mtime_ns for path in (ENCODER, sidecar_path(ENCODER))] == before
    assert read_sidecar(DECODER).engine_sha256 == records[1]["engine_sha256"]
    finished = build(BOTH)
    assert finished.code == 1
    assert f"all is built by this very command: {ENCODER} exists already add `--force`" in finished.words


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (BOTH.replace("--fp32", "--int8"), 'precision_asked was "fp32", is "int8"'),
        (f"{BOTH} --mean-iou 0.5", "proof mean_iou was 0.98, is 0.5"),
        (f"{BOTH} --no-proof", "proof was true, is false"),
        (f"{BOTH} --workspace 64", "workspace was null, is 64"),
    ],
)
def test_an_engine_of_other_settings_is_refused_by_name(line: str, words: str) -> None:
    assert build(BOTH.replace("decoder.onnx ", "")).code == 0
    ran = build(line.replace("encoder.onnx decoder.onnx", "encoder.onnx"))
    assert ran.code == 1
    assert f"{ENCODER} exists already, built with other settings: " in ran.words
    assert words in ran.words


def test_other_photos_and_another_original_are_refused_by_name() -> None:
    kill("before the side-car")
    save_photo(1)
    ran = build(BOTH)
    assert (ran.code, "other settings: proof photos was" in ran.words) == (1, True)
    Path("photos/1.png").unlink()
    shutil.copy("decoder.onnx", "kept.onnx")
    with Path("decoder.onnx").open("ab") as file:
        file.write(b"\x72\x04\n\x00\x12\x00")  # one more entry of metadata
    ran = build(BOTH)
    assert (ran.code, "other settings: proof with was" in ran.words) == (1, True)
    shutil.copy("kept.onnx", "decoder.onnx")
    with ENCODER.open("ab") as file:
        file.write(b"\0")
    ran = build(BOTH)
    assert ran.code == 1
    assert f"{ENCODER} exists already, and is broken: engine {ENCODER} is not the file" in ran.words


def test_only_where_this_program_keeps_engines_one_without_a_side_car_is_cleared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "package" / "data" / "models" / DEFAULT_MODEL
    package.mkdir(parents=True)
    for name in ("encoder.onnx", "decoder.onnx"):
        shutil.copy(name, package)
    monkeypatch.setattr(paths, "_PACKAGE", tmp_path / "package")
    line = "--fp32 --backend onnxruntime --validate photos"
    folder = tmp_path / "home" / "engines" / DEFAULT_MODEL / "onnxruntime"
    for place, options in ((Path("mine"), f"{line} -o mine"), (folder, line)):
        place.mkdir(parents=True)
        (place / "encoder.onnx").write_bytes(b"somebody's")
        ran = build(options)
        said = f"{place / 'encoder.onnx'} was left by a run that was killed, without its side-car: removed"
        assert (said in ran.err, ran.code) == (place == folder, 0 if place == folder else 1), ran.err
    assert Path("mine/encoder.onnx").read_bytes() == b"somebody's"
    assert read_sidecar(folder / "encoder.onnx").status == "proved by running"


def test_a_second_build_at_the_same_place_is_told_at_once() -> None:
    from nanosam_cli.core.system.lock import only_run

    with only_run(DECODER):
        ran = build(BOTH)
    assert ran.code == 1
    assert f"another run is at work on {DECODER}" in ran.words
    assert not Path("out").exists() or visible("out") == []

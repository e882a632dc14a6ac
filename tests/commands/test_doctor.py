"""`nanosam doctor` from the command line."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from PIL import Image

from nanosam_cli.core import paths
from nanosam_cli.core.zoo.models import DEFAULT_MODEL
from tests.command_line import run_nanosam


@pytest.fixture
def box(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, own_files: tuple[Path, Path]) -> Path:
    monkeypatch.setattr(paths, "_PACKAGE", tmp_path / "package")
    monkeypatch.setenv("NANOSAM_HOME", str(tmp_path / "home"))
    folder = tmp_path / "package" / "data" / "models" / DEFAULT_MODEL
    folder.mkdir(parents=True)
    for file in own_files:
        shutil.copy(file, folder)
    shutil.copy(folder / "encoder.onnx", folder / "encoder-int8.onnx")
    return folder


def test_table(box: Path) -> None:
    ran = run_nanosam("doctor")
    assert (ran.code, ran.err) == (0, "")
    for words in ("Python", "CPU features", "onnxruntime", "tensorrt_rtx", "NANOSAM_HOME", "default model"):
        assert words in ran.out


@pytest.fixture
def plain(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The package as it is, on a machine without a GPU and with nothing downloaded."""
    monkeypatch.setenv("NANOSAM_HOME", str(tmp_path / "home"))
    monkeypatch.setattr("nanosam_cli.core.doctor.examine.machine.read_gpus", list)
    monkeypatch.setattr("nanosam_cli.core.doctor.examine.shutil.which", lambda _: None)


@pytest.mark.usefixtures("plain")
def test_last_line() -> None:
    """Extras and models that are not here are no fault each, but -v says what to type."""
    ran = run_nanosam("doctor")
    table, _, rest = ran.out.rpartition("┘\n")
    assert table
    (line,) = rest.splitlines()
    assert line.startswith("the base install is fine; ")
    assert "models not downloaded: mobile-sam, nanosam-resnet18, " in line
    assert "mobile-sam checkpoint is missing: nanosam download mobile-sam\n" in run_nanosam("doctor", "-v").out


@pytest.mark.usefixtures("plain")
def test_what_is_to_be_mended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NANOSAM_DEVISE", "cpu")
    *_, mend, last = run_nanosam("doctor").out.splitlines()
    assert mend == "NANOSAM_DEVISE is broken: did you mean NANOSAM_DEVICE?"
    assert last.startswith("the default model runs; the rest is listed above")


def test_json(box: Path) -> None:
    ran = run_nanosam("doctor", "--json")
    assert ran.code == 0
    record = json.loads(ran.out)
    assert (record["schema_version"], record["ok"]) == (1, True)
    assert {check["status"] for check in record["checks"]} <= {"ok", "missing", "broken"}
    assert all(list(check) == ["section", "name", "status", "detail", "fix"] for check in record["checks"])


@pytest.mark.parametrize("json_option", [(), ("--json",)])
def test_the_default_model_cannot_run(box: Path, json_option: tuple[str, ...]) -> None:
    (box / "encoder.onnx").unlink()
    ran = run_nanosam("doctor", *json_option)
    assert ran.code == 1
    assert "error: the default model cannot run: the encoder of model nanosam-lite2 is missing" in ran.words
    assert ran.words.endswith("pip install --force-reinstall nanosam-cli")
    if json_option:
        assert json.loads(ran.out)["ok"] is False
    else:  # the whole command on one line
        assert "default model is missing: pip install --force-reinstall nanosam-cli" in ran.out.splitlines()


def test_engines_that_are_broken_are_named(box: Path, tmp_path: Path) -> None:
    """Each against its side-car: whole, another file, without an engine, without a side-car."""
    Image.new("RGB", (40, 30)).save(tmp_path / "grey.png")
    line = ("--fp32", "--backend", "onnxruntime", "--no-proof", "--validate", tmp_path)
    assert run_nanosam("build-engine", *line).code == 0
    folder = tmp_path / "home" / "engines" / DEFAULT_MODEL / "onnxruntime"
    engine, sidecar = folder / "encoder.onnx", folder / "encoder.engine.json"

    def found() -> list[tuple[str, str, str]]:
        checks = [json.loads(line) for line in run_nanosam("doctor", "--json").out.splitlines()]
        checks = checks if "section" in checks[0] else checks[0]["checks"]
        return [(check["name"], check["status"], check["detail"]) for check in checks if check["section"] == "engines"]

    names = [f"{DEFAULT_MODEL} {part}, onnxruntime" for part in ("encoder", "decoder")]
    assert found() == [(name, "ok", "fp32, not proved") for name in names]
    whole = engine.read_bytes()
    engine.write_bytes(whole[:-1])
    (_, status, detail), other = found()
    assert (status, other[1]) == ("broken", "ok")
    assert "encoder.onnx is not the file that encoder.engine.json describes; commands pass it over" in detail
    assert "build-engine" in run_nanosam("doctor", "-v").out
    engine.unlink()
    assert found()[0][1:] == ("broken", f"engine {engine} does not exist; commands pass it over")
    engine.write_bytes(whole)
    sidecar.unlink()
    (_, status, detail), _ = found()
    assert status == "broken"
    assert "has no encoder.engine.json beside it" in detail

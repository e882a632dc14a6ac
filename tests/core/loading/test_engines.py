"""Which file a named model is opened from."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import onnxruntime
import pytest

from nanosam_cli.core.errors import BackendError, ModelError
from nanosam_cli.core.inference.sidecar import EngineTarget, Flavour, SideCar, sidecar_path
from nanosam_cli.core.loading import engines
from nanosam_cli.core.loading.engines import engine_folder, engine_name, model_paths
from nanosam_cli.core.loading.load import load_predictor
from nanosam_cli.core.loading.part_files import model_files
from nanosam_cli.core.system.files import file_sha256
from nanosam_cli.core.system.machine import Gpu
from nanosam_cli.core.types import DECODER, ENCODER
from nanosam_cli.core.zoo.models import DEFAULT_MODEL, INT8_ENCODER, file_path, find_model
from tests.command_line import run_nanosam

SPEC = find_model(DEFAULT_MODEL)
ORIGINALS = dict(zip((ENCODER, DECODER), model_files(SPEC)))
ORIN = Gpu("Orin", None, 30_000, None, None, None, "8.7")


@pytest.fixture(autouse=True)
def _own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NANOSAM_HOME", str(tmp_path))
    monkeypatch.setattr(engines, "gpu_here", lambda: None)


def engine(flavour: Flavour, part: str, asked: str = "fp32", **target: str) -> Path:
    """An engine as `build-engine` leaves it; ONNX Runtime's is a copy of the original."""
    path = engine_folder(SPEC, flavour) / engine_name(part, flavour)
    path.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(ORIGINALS[part], path)
    version = onnxruntime.__version__ if flavour == "onnxruntime" else "10.3.0"
    sidecar = SideCar(
        engine=path.name,
        engine_sha256=file_sha256(path),
        engine_bytes=path.stat().st_size,
        onnx=f"{part}.onnx",
        onnx_sha256=file_sha256(ORIGINALS[part]),
        part=part,
        target=replace(EngineTarget(flavour, version, "Linux x86_64"), **target),  # type: ignore[arg-type]
        precision_asked=asked,
        precision_built="fp32",
        status="proved by running",
        inputs=(),
        outputs=(),
        metadata={},
        rebuild=f"nanosam build-engine {SPEC.name} --backend {flavour} --force",
    )
    sidecar_path(path).write_text(sidecar.text(), encoding="utf-8")
    return path


def chosen(backend: str | None = None, device: str | None = None) -> tuple[list[Path], list[str]]:
    """The files, and what was said."""
    notes: list[str] = []
    files = model_paths(SPEC, backend, device, notes.append)
    return list(files), notes


INT8 = file_path(SPEC, INT8_ENCODER)
PLAIN = [INT8, ORIGINALS[DECODER]]  # on a CPU


def test_without_engines_it_is_the_models_own_files() -> None:
    for backend in (None, "auto", "onnxruntime"):
        assert chosen(backend) == (PLAIN, [])
    assert chosen("openvino") == (PLAIN, [])
    assert chosen("openvino", "gpu") == (list(ORIGINALS.values()), [])


def test_an_engine_for_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    built = engine("onnxruntime", ENCODER)
    mixed = [built, ORIGINALS[DECODER]]
    assert chosen() == (mixed, [])
    assert chosen("onnxruntime") == (mixed, [])
    assert chosen(device="cpu") == (mixed, [])
    assert chosen(device="cuda") == (list(ORIGINALS.values()), [])
    monkeypatch.setattr(engines, "_cuda_provider", lambda: True)
    assert chosen() == (list(ORIGINALS.values()), [])  # a GPU is faster with the original than a CPU with an engine
    assert chosen(device="cpu") == (mixed, [])
    with load_predictor(device="cpu") as predictor:
        assert predictor.encoder.path == built


def test_fp16_that_became_fp32_does_not_slow_a_cpu_down() -> None:
    built = engine("onnxruntime", ENCODER, asked="fp16")
    files, (note,) = chosen()
    assert files == PLAIN
    assert note == f"{built} became fp32, not fp16 as asked; the model's int8 encoder is faster, and runs"


def test_an_engine_for_the_gpu_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    engine("onnxruntime", ENCODER)
    rtx = engine("tensorrt-rtx", ENCODER)
    assert chosen()[0][0].parent.name == "onnxruntime"  # there is no GPU, and nobody is told about that each time
    monkeypatch.setattr(engines, "gpu_here", lambda: ORIN)
    monkeypatch.setattr(engines, "checked", lambda path, flavour: (engines.read_sidecar(path), None))
    assert chosen()[0][0] == rtx
    assert chosen("onnxruntime")[0][0].parent.name == "onnxruntime"
    plain = engine("tensorrt", ENCODER)
    assert chosen()[0] == [plain, ORIGINALS[DECODER]]
    assert chosen(device="cpu")[0][0].parent.name == "onnxruntime"


def test_an_engine_that_does_not_fit_is_passed_over_and_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "gpu_here", lambda: ORIN)

    def refuse(path: Path, flavour: Flavour) -> None:
        raise ModelError("built for TensorRT 10.3, this is 10.13", "nanosam build-engine")

    monkeypatch.setattr(engines, "checked", refuse)
    engine("tensorrt", ENCODER)
    files, notes = chosen()
    assert files == PLAIN
    assert notes == ["built for TensorRT 10.3, this is 10.13; it is not used (nanosam build-engine)"]


def test_another_version_of_onnx_runtime() -> None:
    engine("onnxruntime", ENCODER, version="1.0")
    files, [note] = chosen()
    assert files == PLAIN
    assert f"was built by ONNX Runtime 1.0, this is {onnxruntime.__version__}" in note


def test_a_model_that_was_trained_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = engine("onnxruntime", ENCODER)
    content = json.loads(sidecar_path(path).read_text())
    assert content["onnx_sha256"] == file_sha256(ORIGINALS[ENCODER])
    newer = tmp_path / "encoder.onnx"
    newer.write_bytes(ORIGINALS[ENCODER].read_bytes() + b"\x00")
    monkeypatch.setattr(
        engines, "part_file", lambda spec, part, note: newer if part == ENCODER else file_path(spec, part)
    )
    files, [note] = chosen()
    assert files[0] == INT8
    assert "was built from another encoder.onnx" in note


@pytest.mark.parametrize("backend", ["tensorrt", "tensorrt-rtx"])
def test_a_backend_of_engines_alone(backend: Flavour, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ModelError, match=f"there is no {backend} engine of {DEFAULT_MODEL}'s encoder") as caught:
        chosen(backend)
    assert caught.value.hint == f"nanosam build-engine {DEFAULT_MODEL} --fp16 --backend {backend}"
    monkeypatch.setenv("NANOSAM_BACKEND", backend)
    with pytest.raises(ModelError):
        chosen()
    built = [engine(backend, part) for part in ORIGINALS]
    assert chosen() == (built, [])  # whether they fit is told when they are opened
    with pytest.raises((BackendError, ModelError)):  # which depends on what is installed
        load_predictor()


@pytest.mark.parametrize("command", ["segment", "benchmark"])
def test_commands_tell_what_is_passed_over(command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = engine("onnxruntime", ENCODER)
    sidecar_path(path).unlink()
    photo = Path(__file__).parents[3] / "examples" / "cat.jpg"
    lines = {
        "segment": ["segment", photo, "--box", "10,20,300,280", "-v"],
        "benchmark": ["benchmark", "--repeats", "1", "--image", photo],
    }
    ran = run_nanosam(*lines[command])
    assert ran.code == 0, ran.err
    assert "has no encoder.engine.json beside it" in ran.words
    assert f"it is not used (nanosam build-engine {DEFAULT_MODEL} --backend onnxruntime --force)" in ran.words


@pytest.mark.skipif(os.name != "posix", reason="modes are those of POSIX")
@pytest.mark.parametrize("level", range(6), ids=["engine", "side-car", "backend", "model", "engines", "cache"])
def test_an_engine_that_others_could_have_put_there_is_not_used(tmp_path: Path, level: int) -> None:
    path = engine("onnxruntime", ENCODER)
    place = [path, sidecar_path(path), *path.parents][level]
    place.chmod(place.stat().st_mode | 0o002)
    notes: list[str] = []
    used, _ = model_paths(SPEC, None, "cpu", notes.append)
    assert used != path
    assert f"engine {path} may be another's: {place} can be written by everybody; it is not used" in notes[0]
    place.chmod(place.stat().st_mode & ~0o002)
    assert model_paths(SPEC, None, "cpu", notes.append)[0] == path
    assert len(notes) == 1


@pytest.mark.skipif(os.name != "posix", reason="modes are those of POSIX")
def test_a_backend_that_runs_engines_alone_refuses_one_of_others() -> None:
    path = engine("tensorrt", ENCODER)
    path.chmod(0o666)
    with pytest.raises(ModelError, match="may be another's") as caught:
        model_paths(SPEC, "tensorrt", None, lambda _: None)
    assert "chmod -R o-w" in (caught.value.hint or "")

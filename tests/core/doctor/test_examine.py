"""The checks, each on a machine that has, lacks or breaks what is looked at."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from importlib import metadata
from pathlib import Path

import pytest

from nanosam_cli.core import paths
from nanosam_cli.core.doctor import examine, model_files
from nanosam_cli.core.doctor.check import Check
from nanosam_cli.core.doctor.model_files import cache_checks, model_checks
from nanosam_cli.core.inference.session import Backend
from nanosam_cli.core.inference.sidecar import sidecar_path
from nanosam_cli.core.system import machine
from nanosam_cli.core.system.files import file_sha256
from nanosam_cli.core.system.machine import Gpu
from nanosam_cli.core.zoo.models import DEFAULT_MODEL, MODELS, find_model
from tests.core.inference.test_sidecar import DATA, SIDECAR

Files = tuple[Path, Path]


@pytest.fixture(autouse=True)
def home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("NANOSAM_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def box(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, own_files: Files) -> Path:
    """The folder of the model in the box, with files that work."""
    monkeypatch.setattr(paths, "_PACKAGE", tmp_path / "package")
    folder = tmp_path / "package" / "data" / "models" / DEFAULT_MODEL
    folder.mkdir(parents=True)
    for file in own_files:
        shutil.copy(file, folder)
    shutil.copy(folder / "encoder.onnx", folder / "encoder-int8.onnx")
    return folder


def publish(monkeypatch: pytest.MonkeyPatch, **hashes: str) -> None:
    """Write the hashes of the default model's parts into the zoo."""
    spec = find_model(DEFAULT_MODEL)
    parts = {name: replace(spec.parts[name], sha256=hashes.get(name)) for name in ("encoder", "decoder")}
    monkeypatch.setattr(model_files, "MODELS", {spec.name: replace(spec, parts=parts)})


# the default model


def test_the_default_model_runs(box: Path) -> None:
    check = examine.default_model_check()
    assert check.status == "ok"
    assert f"{DEFAULT_MODEL} on ONNX Runtime" in check.detail
    assert "640x480 mask" in check.detail


def test_the_default_model_is_missing(box: Path) -> None:
    (box / "decoder.onnx").unlink()
    check = examine.default_model_check()
    assert (check.status, check.fix) == ("missing", "pip install --force-reinstall nanosam-cli")
    assert "decoder.onnx" in check.detail


@pytest.mark.parametrize(
    ("variable", "value", "words"),
    [
        ("NANOSAM_DEVICE", "vpu", "unknown device in NANOSAM_DEVICE: vpu"),
        ("NANOSAM_BACKEND", "abacus", "unknown backend in NANOSAM_BACKEND: abacus"),
    ],
)
def test_settings_that_stop_the_default_model(
    box: Path, monkeypatch: pytest.MonkeyPatch, variable: str, value: str, words: str
) -> None:
    monkeypatch.setenv(variable, value)
    check = examine.default_model_check()
    assert check.status == "broken"
    assert words in check.detail
    assert check.fix


def test_examine_finds_the_deciding_check(box: Path) -> None:
    checks, decisive = examine.examine()
    assert decisive in checks
    assert {check.section for check in checks} >= {"system", "GPU", "packages", "backends", "models", "cache"}
    assert all(check.detail for check in checks)


# model files


def test_model_files(box: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    publish(monkeypatch, encoder=file_sha256(box / "encoder.onnx"))
    encoder, decoder = model_checks()
    assert encoder.status == decoder.status == "ok"
    assert "sha256 as published, model fake, part encoder, image_size 128" in encoder.detail
    assert f"sha256 {file_sha256(box / 'decoder.onnx')[:12]}..., none is published" in decoder.detail


def test_model_files_that_are_not_right(box: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    publish(monkeypatch, encoder="0" * 64)
    (box / "decoder.onnx").write_bytes(b"\x08\x07 not an onnx file")
    encoder, decoder = model_checks()
    assert (encoder.status, decoder.status) == ("broken", "broken")
    assert "encoder.onnx is not the published file" in encoder.detail
    assert encoder.fix == "pip install --force-reinstall nanosam-cli"
    assert "not a whole ONNX file" in decoder.detail


def test_every_part_of_every_model_is_looked_at(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(paths, "_PACKAGE", tmp_path)
    checks = list(model_checks())
    assert [check.name for check in checks] == [
        f"{spec.name} {part}" for spec in MODELS.values() for part in spec.parts
    ]
    assert {check.status for check in checks} == {"missing"}
    assert all(check.fix for check in checks)


# cache


def test_an_empty_cache(home: Path) -> None:
    (check,) = cache_checks()
    assert check.status == "ok"
    assert "does not exist yet" in check.detail
    assert not home.exists()


def test_what_the_cache_holds(home: Path) -> None:
    (home / "models" / "m").mkdir(parents=True)
    (home / "list.txt").write_bytes(bytes(200_000))
    content = {"good.onnx": b"good", "bad.onnx": b"bad"}
    for name, data in content.items():
        (home / "models" / "m" / name).write_bytes(data)
        digest = hashlib.sha256(b"good").hexdigest()
        (home / "models" / "m" / f"{name}.sha256").write_text(f"{digest}  {name}\n")
    (home / "models" / "m" / "gone.onnx.sha256").write_text("")
    found = {check.name: (check.status, check.detail) for check in cache_checks()}
    assert found == {
        "directory": ("ok", f"{home}, 6 files, 0.2 MB"),
        "list.txt": ("ok", "0.2 MB"),
        "models": ("ok", "5 files, 0.0 MB"),
        "models/m/bad.onnx": ("broken", "its sha256 is not the one in bad.onnx.sha256"),
        "models/m/gone.onnx": ("missing", "its hash is recorded in gone.onnx.sha256, but it is gone"),
        "models/m/good.onnx": ("ok", "sha256 as in good.onnx.sha256"),
    }


def test_a_cache_that_cannot_be(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("NANOSAM_HOME", str(tmp_path / "file" / "home"))
    (check,) = cache_checks()
    assert check.status == "broken"
    assert "NANOSAM_HOME" in (check.fix or "")


# backends and GPU


def test_backends() -> None:
    check = examine.backend_check(examine.BACKENDS[0])
    assert (check.name, check.status) == ("onnxruntime", "ok")
    assert "CPUExecutionProvider" in check.detail
    assert "reads .onnx" in check.detail


def test_a_backend_that_is_not_there() -> None:
    check = examine.backend_check(
        Backend("abacus", (".abacus",), "nanosam_cli.core.inference.backends.abacus", "pip install abacus")
    )
    assert (check.status, check.fix) == ("missing", "pip install abacus")


def test_openvino_is_optional(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its extra is named where it is missing, and nothing is broken without it."""
    (backend,) = (entry for entry in examine.BACKENDS if entry.name == "openvino")
    monkeypatch.setitem(sys.modules, "openvino", None)
    monkeypatch.delitem(sys.modules, backend.module, raising=False)
    check = examine.backend_check(backend)
    assert (check.name, check.status, check.fix) == ("openvino", "missing", "pip install 'nanosam-cli[openvino]'")
    assert examine.to_mend([check]) == []


@pytest.mark.parametrize(("recorded", "status"), [(5, "broken"), (7, "ok")])
def test_two_builds_of_onnx_runtime(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, recorded: int, status: str
) -> None:
    """The file that is there is of whichever was installed last; its size tells whose it is."""
    library = tmp_path / "onnxruntime_pybind11_state.so"
    library.write_bytes(b"12345")

    class Recorded:
        name, size = library.name, recorded

        def locate(self) -> Path:
            return library

    class Plain:
        files = (Recorded(),)

    def version(name: str) -> str:
        if name != "onnxruntime-gpu":
            raise metadata.PackageNotFoundError
        return "1.32.0"

    monkeypatch.setattr(metadata, "distribution", lambda _: Plain())
    monkeypatch.setattr(metadata, "version", version)
    (check,) = examine.build_checks()
    assert (check.name, check.status) == ("onnxruntime-gpu", status)
    assert (check.fix is None) == (status == "ok")


@pytest.mark.parametrize(
    ("board", "fix"), [(None, "pip install tensorrt"), ("NVIDIA Jetson Orin Nano", "sudo apt install nvidia-jetpack")]
)
def test_tensorrt_is_not_there(monkeypatch: pytest.MonkeyPatch, board: str | None, fix: str) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    monkeypatch.setattr(machine, "board", lambda: board)
    check = examine.tensorrt_check("tensorrt")
    assert check.status == "missing"
    assert (check.fix or "").startswith(fix)


@pytest.mark.parametrize(
    ("distributions", "detail"), [({"tensorrt_rtx": ["tensorrt-rtx"]}, "1.7.1"), ({}, "of unknown version")]
)
def test_tensorrt_is_there(monkeypatch: pytest.MonkeyPatch, distributions: dict[str, list[str]], detail: str) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: object())
    monkeypatch.setattr(metadata, "packages_distributions", lambda: distributions)
    monkeypatch.setattr(metadata, "version", {"tensorrt-rtx": "1.7.1"}.__getitem__)
    assert examine.tensorrt_check("tensorrt_rtx") == Check("backends", "tensorrt_rtx", "ok", detail)


@pytest.mark.parametrize(("program", "status"), [("/usr/bin/nvidia-smi", "broken"), (None, "missing")])
def test_no_gpu(monkeypatch: pytest.MonkeyPatch, program: str | None, status: str) -> None:
    monkeypatch.setattr(machine, "read_gpus", lambda: ())
    monkeypatch.setattr(shutil, "which", lambda _: program)
    assert [check.status for check in examine.machine_checks() if check.section == "GPU"] == [status]


def test_gpus_and_features(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "read_gpus", lambda: (Gpu("Tesla T4", "550.54", 15360, None, None, None, "7.5"),))
    monkeypatch.setattr(machine, "cpu_features", lambda: {"avx2": True, "amx": False})
    found = {check.name: check.detail for check in examine.machine_checks()}
    assert found["Tesla T4"] == "Tesla T4, 15360 MB, compute capability 7.5, driver 550.54"
    assert found["CPU features"] == "avx2; not amx"
    monkeypatch.setattr(machine, "cpu_features", lambda: None)
    assert "unknown" in next(c.detail for c in examine.machine_checks() if c.name == "CPU features")


def engine(home: Path) -> Path:
    """An engine with its side-car, as build-engine leaves them."""
    path = home / "engines" / DEFAULT_MODEL / "tensorrt-rtx" / "encoder.rtx"
    path.parent.mkdir(parents=True)
    path.write_bytes(DATA)
    sidecar_path(path).write_text(SIDECAR.text(), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda path: None, None),
        (lambda path: path.write_bytes(DATA[1:]), "is not the file that encoder.engine.json describes"),
        (lambda path: sidecar_path(path).unlink(), "has no encoder.engine.json beside it"),
        (lambda path: sidecar_path(path).write_bytes(b"\xff"), "encoder.engine.json cannot be read: it is no text"),
        (lambda path: sidecar_path(path).write_bytes(b"[" * 100_000), "it is nested too deeply"),
        (lambda path: sidecar_path(path).write_bytes(b'{"schema_version": 1}'), "was edited"),
    ],
)
def test_an_engine_of_the_cache(home: Path, spoil: Callable[[Path], object], words: str | None) -> None:
    spoil(engine(home))
    (check,) = [check for check in cache_checks() if check.section == "engines"]
    assert check.name == f"{DEFAULT_MODEL} encoder, tensorrt-rtx"
    if words is None:
        assert "TensorRT" in check.detail or "tensorrt" in check.detail  # whole, and not for this machine
    else:
        assert check.status == "broken"
        assert words in check.detail
        assert "nanosam build-engine" in (check.fix or "")


@pytest.mark.parametrize(
    ("about", "status"), [(b'{"url": "a", "validator": null, "total": 9}', "ok"), (b"{", "broken")]
)
def test_a_download_that_broke_off(home: Path, about: bytes, status: str) -> None:
    folder = home / "models"
    folder.mkdir(parents=True)
    (folder / "a.onnx.part").write_bytes(b"half")
    (folder / "a.onnx.part.json").write_bytes(about)
    (check,) = [check for check in cache_checks() if check.name.endswith(".part")]
    assert (check.name, check.status) == ("models/a.onnx.part", status)


@pytest.mark.skipif(os.name != "posix", reason="modes are those of POSIX")
def test_a_cache_that_everybody_may_write(home: Path) -> None:
    home.mkdir()
    home.chmod(0o777)
    (check,) = [check for check in cache_checks() if check.name == "directory"]
    assert check.status == "broken"
    assert f"{home} can be written by everybody" in check.detail
    assert (check.fix or "").startswith(f"chmod -R o-w {home}")


# environment


def test_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("NANOSAM_")]:
        monkeypatch.delenv(name)
    values = {
        "NANOSAM_DEVCE": "cpu",
        "NANOSAM_HOME": "/somewhere",
        "NANOSAM_MIRROR": "https://me:secret@example.org/models",
        "NANOSAM_OFFLINE": "maybe",
        "NANOSAM_DEVICE": "",
    }
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    found = {check.name: check for check in examine.environment_checks()}
    assert found.keys() == values.keys()
    assert (found["NANOSAM_DEVCE"].status, found["NANOSAM_DEVCE"].fix) == ("broken", "did you mean NANOSAM_DEVICE?")
    assert found["NANOSAM_HOME"] == Check("environment", "NANOSAM_HOME", "ok", "/somewhere")
    assert found["NANOSAM_MIRROR"].detail == "https://***@example.org/models"
    assert (found["NANOSAM_OFFLINE"].status, found["NANOSAM_OFFLINE"].fix) == ("broken", "unset NANOSAM_OFFLINE")
    assert found["NANOSAM_DEVICE"].detail == "empty, so not in force"


def test_a_checkpoint_is_hashed_but_not_opened(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = find_model("mobile-sam")
    (part,) = spec.parts
    path = home / "models" / spec.name / spec.parts[part].file
    path.parent.mkdir(parents=True)
    path.write_bytes(b"no checkpoint")
    monkeypatch.setattr(model_files, "MODELS", {spec.name: spec})
    (check,) = model_checks()
    assert (check.status, check.fix) == ("broken", "nanosam download mobile-sam --force")
    good = replace(spec, parts={part: replace(spec.parts[part], sha256=file_sha256(path))})
    monkeypatch.setattr(model_files, "MODELS", {spec.name: good})
    (check,) = model_checks()
    assert (check.status, check.detail) == ("ok", "0.0 MB, sha256 as published")


GPU = Check("GPU", "an RTX", "ok", "")
TENSORRT = Check("backends", "tensorrt", "missing", "", "pip install tensorrt")
TEXT = Check("extras", "text", "missing", "", "pip install 'nanosam-cli[text]'")
ENCODER_GONE = Check("models", "nanosam-lite2 encoder", "missing", "", "pip install --force-reinstall nanosam-cli")
OTHER = [Check("models", f"mobile-sam {part}", "missing", "", "nanosam download mobile-sam") for part in "ab"]


@pytest.mark.parametrize(
    ("checks", "mended", "words"),
    [
        ([], [], "the base install is fine"),
        (
            [TENSORRT, TEXT, *OTHER],
            [],
            "the base install is fine; extras not installed: text (pip install 'nanosam-cli[EXTRA]'); "
            "models not downloaded: mobile-sam (nanosam download MODEL)",
        ),
        ([GPU, TENSORRT], [TENSORRT], "the default model runs; the rest is listed above"),
        ([replace(TENSORRT, fix=examine._JETSON)], [replace(TENSORRT, fix=examine._JETSON)], "listed above"),
        ([replace(TEXT, status="broken")], [replace(TEXT, status="broken")], "listed above"),
        ([ENCODER_GONE], [ENCODER_GONE], "listed above"),
    ],
)
def test_verdict(checks: list[Check], mended: list[Check], words: str) -> None:
    assert examine.to_mend(checks) == mended
    assert words in examine.verdict(checks)

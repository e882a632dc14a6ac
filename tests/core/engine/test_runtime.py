from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import onnxruntime
import pytest

from nanosam_cli.core.engine import runtime
from nanosam_cli.core.engine.runtime import choose
from nanosam_cli.core.errors import BackendError, UsageError
from nanosam_cli.core.inference.backends.tensorrt import flavour
from nanosam_cli.core.system.machine import Gpu

T4 = Gpu("Tesla T4", "550", 15_000, None, None, None, "7.5")
ORIN = Gpu("Orin", None, 30_000, None, None, None, "8.7")
OLD = Gpu("GTX 1080", "550", 8_000, None, None, None, "6.1")
RTX_CAPABILITIES = SimpleNamespace(__members__=("NONE", "CURRENT", "SM75", "SM86", "SM89", "SM120"))


def machine(monkeypatch: pytest.MonkeyPatch, gpu: Gpu | None = None, *, jetson: bool = False, **versions: str) -> None:
    """What is installed, such as tensorrt="10.3.0", and the GPU."""

    def import_module(name: str) -> Any:
        if name in versions:
            return SimpleNamespace(__version__=versions[name], ComputeCapability=RTX_CAPABILITIES)
        raise ModuleNotFoundError(f"No module named '{name}'", name=name)

    monkeypatch.setattr(flavour, "import_module", import_module)
    monkeypatch.setattr(runtime, "gpu_here", lambda: gpu)
    monkeypatch.setattr(flavour, "on_jetson", lambda: jetson)


@pytest.mark.parametrize(
    ("gpu", "versions", "expected", "why"),
    [
        (T4, {"tensorrt": "10.13.0", "tensorrt_rtx": "1.7"}, "tensorrt", "TensorRT 10.13.0 and Tesla T4 are here"),
        (ORIN, {"tensorrt": "10.3.0"}, "tensorrt", "TensorRT 10.3.0 and Orin are here"),
        (None, {"tensorrt": "10.13.0", "tensorrt_rtx": "1.7"}, "tensorrt-rtx", "there is none here"),
        (
            None,
            {"tensorrt_rtx": "1.7"},
            "tensorrt-rtx",
            "builds for RTX cards on any machine; tensorrt: ",
        ),
        (T4, {"tensorrt": "8.6.2"}, "onnxruntime", "TensorRT 8.6.2 is too old"),
        (ORIN, {"tensorrt_rtx": "1.7"}, "onnxruntime", "compute capability 8.7; tensorrt-rtx 1.7 builds for 7.5, 8.6"),
        (
            OLD,
            {"tensorrt": "10.13.0"},
            "onnxruntime",
            "GTX 1080 has compute capability 6.1",
        ),
        (None, {}, "onnxruntime", "runs everywhere"),
    ],
)
def test_the_best_that_works_here(
    monkeypatch: pytest.MonkeyPatch, gpu: Gpu | None, versions: dict[str, str], expected: str, why: str
) -> None:
    machine(monkeypatch, gpu, **versions)
    chosen = choose("auto")
    assert chosen.target.backend == expected
    assert why in chosen.why
    assert chosen.runs_here is (expected != "tensorrt-rtx")


def test_what_an_engine_is_built_for(monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch, ORIN, tensorrt="10.3.0")
    found = choose("tensorrt").target
    assert (found.version, found.gpu, found.compute_capabilities) == ("10.3.0", "Orin", ("8.7",))
    machine(monkeypatch, None, tensorrt_rtx="1.7")
    found = choose("tensorrt-rtx").target
    assert (found.gpu, found.compute_capabilities) == (None, ("7.5", "8.6", "8.9", "12.0"))
    assert choose("onnxruntime").target.version == onnxruntime.__version__


@pytest.mark.parametrize(
    ("asked", "gpu", "jetson", "versions", "words", "hint"),
    [
        ("tensorrt", None, False, {}, "tensorrt is not installed", "pip install 'nanosam-cli[tensorrt]'"),
        ("tensorrt", ORIN, True, {}, "tensorrt is not installed", "sudo apt install nvidia-jetpack"),
        ("tensorrt-rtx", None, False, {}, "tensorrt-rtx is not installed", "pip install 'nanosam-cli[tensorrt-rtx]'"),
        ("tensorrt", None, False, {"tensorrt": "10.13.0"}, "builds on the GPU", "--backend tensorrt-rtx"),
        ("tensorrt", ORIN, True, {"tensorrt": "8.6.2"}, "8.6.2 is too old: 10.0 or newer", "JetPack 6.1"),
        ("tensorrt", OLD, False, {"tensorrt": "10.13.0"}, "compute capability 6.1", "--backend onnxruntime"),
        ("tensorrt-rtx", ORIN, True, {"tensorrt_rtx": "1.7"}, "capability 8.7", "--backend tensorrt, or"),
    ],
)
def test_what_is_not_there(
    monkeypatch: pytest.MonkeyPatch,
    asked: str,
    gpu: Gpu | None,
    jetson: bool,
    versions: dict[str, str],
    words: str,
    hint: str,
) -> None:
    machine(monkeypatch, gpu, jetson=jetson, **versions)
    with pytest.raises(BackendError, match=words) as caught:
        choose(asked)
    assert hint in (caught.value.hint or "")


def test_an_unknown_backend() -> None:
    with pytest.raises(UsageError, match="unknown backend: abacus"):
        choose("abacus")


def test_a_broken_installation(monkeypatch: pytest.MonkeyPatch) -> None:
    """The bindings are there, the libraries they link are not."""

    def import_module(name: str) -> Any:
        raise OSError("libnvinfer.so.10: cannot open shared object file")

    monkeypatch.setattr(flavour, "import_module", import_module)
    with pytest.raises(BackendError, match=r"tensorrt is not installed: libnvinfer\.so\.10"):
        choose("tensorrt")

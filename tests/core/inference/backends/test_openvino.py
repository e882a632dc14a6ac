"""OpenVINO behind the seam, where the extra is installed."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import helper

from nanosam_cli.core.errors import BackendError, ModelError
from nanosam_cli.core.inference.session import TensorInfo, open_session
from nanosam_cli.core.loading.load import load_predictor
from nanosam_cli.core.types import Prompt
from tests.fake_models import save

openvino = pytest.importorskip("openvino")
RealCore = openvino.Core
backend = pytest.importorskip("nanosam_cli.core.inference.backends.openvino")


@pytest.fixture
def double_file(tmp_path: Path) -> Path:
    """y = x + x, (B, 2)."""
    nodes = [helper.make_node("Add", ["x", "x"], ["y"])]
    return save(tmp_path / "double.onnx", nodes, {"x": ("B", 2)}, {"y": ("B", 2)}, metadata={"nanosam.model": "double"})


def test_a_session_describes_itself_and_runs(double_file: Path) -> None:
    session = open_session(double_file, backend="openvino", threads=1)
    assert session.inputs == (TensorInfo("x", (None, 2), "float32"),)
    assert session.outputs == (TensorInfo("y", (None, 2), "float32"),)
    assert session.metadata == {"nanosam.model": "double"}
    assert session.backend.startswith("OpenVINO 20")
    assert session.backend.endswith(", CPU")
    given = np.array([[1, 2], [3, 4]], np.float32)
    first: Any = session.run({"x": given})["y"]
    session.run({"x": given[:1] + 5})
    with pytest.raises(ModelError, match=r"double\.onnx takes x \(any, 2\) float32, not x \(1, 3\) float32"):
        session.run({"x": np.zeros((1, 3), np.float32)})
    session.close()
    assert first.tolist() == [[2, 4], [6, 8]]
    with pytest.raises(ModelError, match="was closed"):
        session.run({"x": given})


def test_threads_may_share_a_session(double_file: Path) -> None:
    session = open_session(double_file, backend="openvino", threads=1)

    def doubled(number: int) -> float:
        result: Any = session.run({"x": np.full((1, 2), number, np.float32)})["y"]
        return float(result[0, 0])

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(doubled, range(50))) == [2 * number for number in range(50)]


def test_a_file_that_is_no_model(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(b"<html>")
    with pytest.raises(ModelError, match="it is a web page"):
        open_session(tmp_path / "m.onnx", backend="openvino")


class FakeCore:
    """OpenVINO with a GPU whose driver fails."""

    available_devices = ("CPU", "GPU.0")

    def __init__(self) -> None:
        self.real = RealCore()

    def read_model(self, path: str) -> Any:
        return self.real.read_model(path)

    def compile_model(self, model: Any, name: str, settings: Any) -> Any:
        raise RuntimeError("Exception from src/core.cpp:117:\nCheck 'x' failed at src/y.cpp:1:\n[GPU] no kernel\n\n")


def _named(fault: str) -> Callable[[], Any]:
    return {"lacks": openvino.Core, "fails": FakeCore}[fault]


@pytest.mark.parametrize(
    ("fault", "device", "message"),
    [
        ("lacks", "npu", "finds no device npu here, only "),
        ("fails", "npu", "finds no device npu here, only cpu, gpu.0$"),
        ("fails", "gpu", r"cannot run .*double\.onnx on device gpu: \[GPU\] no kernel$"),
    ],
)
def test_a_device_that_cannot_be_used(
    monkeypatch: pytest.MonkeyPatch, double_file: Path, fault: str, device: str, message: str
) -> None:
    monkeypatch.setattr(backend.openvino, "Core", _named(fault))
    with pytest.raises(BackendError, match=message):
        open_session(double_file, device=device)


def test_a_run_that_fails_says_where(double_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A driver may give up as late as that."""

    class Broken:
        def infer(self, *_: Any, **__: Any) -> Any:
            raise RuntimeError("Exception from src/infer.cpp:1:\ndevice lost")

    session = open_session(double_file, backend="openvino", threads=1)
    session._idle.append(Broken())  # type: ignore[attr-defined]
    with pytest.raises(ModelError, match=r"double\.onnx failed on OpenVINO .*CPU: device lost"):
        session.run({"x": np.ones((1, 2), np.float32)})


def test_the_model_in_the_box_gives_the_same_masks() -> None:
    image = np.random.default_rng(0).integers(0, 256, (120, 160, 3), np.uint8)
    prompt = Prompt.from_boxes([[20, 20, 100, 100], [60, 30, 150, 110]])
    masks = []
    for name in ("onnxruntime", "openvino"):
        with load_predictor(backend=name, device="cpu", threads=1) as predictor:
            masks.append([mask.mask for mask in predictor.predict(predictor.encode_image(image), prompt)])
    agree = [np.mean(one == other) for one, other in zip(*masks)]
    assert min(agree) > 0.99

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from nanosam_cli.core.errors import BackendError, ModelError, UsageError
from nanosam_cli.core.inference import session as session_module
from nanosam_cli.core.inference.backends import onnxruntime as backend
from nanosam_cli.core.inference.session import Backend, TensorInfo, host, open_session
from tests.fake_models import save

CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"


@pytest.fixture
def double_file(tmp_path: Path) -> Path:
    """y = x + x, (B, 2)."""
    nodes = [helper.make_node("Add", ["x", "x"], ["y"])]
    return save(tmp_path / "double.onnx", nodes, {"x": ("B", 2)}, {"y": ("B", 2)}, metadata={"nanosam.model": "double"})


def test_a_session_describes_itself_and_runs(double_file: Path) -> None:
    session = open_session(double_file)
    assert session.path == double_file
    assert session.inputs == (TensorInfo("x", (None, 2), "float32"),)
    assert session.outputs == (TensorInfo("y", (None, 2), "float32"),)
    assert session.metadata == {"nanosam.model": "double"}
    assert session.backend == f"ONNX Runtime {onnxruntime.__version__}, CPU"
    outputs = session.run({"x": np.array([[1, 2], [3, 4]], np.float32)})
    assert np.array_equal(outputs["y"], [[2, 4], [6, 8]])  # type: ignore[arg-type]


def test_arrays_belong_to_the_caller(tmp_path: Path) -> None:
    """Neither a later run nor close changes a result, and results do not share memory with what went in."""
    nodes = [helper.make_node("Identity", ["x"], ["y"])]
    session = open_session(save(tmp_path / "same.onnx", nodes, {"x": (1, 2)}, {"y": (1, 2)}))
    given = np.array([[1, 2]], np.float32)
    first: Any = session.run({"x": given})["y"]
    session.run({"x": np.array([[5, 6]], np.float32)})
    given[:] = 7
    session.close()
    assert first.tolist() == [[1, 2]]
    first[:] = 8  # and may be written


def test_device_arrays_are_fetched(double_file: Path) -> None:
    class OnDevice:
        def numpy(self) -> Any:
            return np.ones((1, 2), np.float32)

    assert np.array_equal(open_session(double_file).run({"x": OnDevice()})["y"], [[2, 2]])  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("feeds", "message"),
    [
        ({}, "takes inputs x, not nothing"),
        ({"z": np.zeros((1, 2), np.float32)}, "takes inputs x, not z"),
        ({"x": np.zeros((1, 2), np.float32), "z": np.zeros(1, np.float32)}, "takes inputs x, not x, z"),
        ({"x": np.zeros((1, 3), np.float32)}, r"takes x \(any, 2\) float32, not x \(1, 3\) float32"),
        ({"x": np.zeros(2, np.float32)}, r"takes x \(any, 2\) float32, not x \(2\) float32"),
        ({"x": np.zeros((1, 2), np.float64)}, r"takes x \(any, 2\) float32, not x \(1, 2\) float64"),
        ({"x": np.zeros((1, 2), np.int32)}, r"takes x \(any, 2\) float32, not x \(1, 2\) int32"),
    ],
)
def test_wrong_feeds(double_file: Path, feeds: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelError, match=f"double.onnx {message}"):
        open_session(double_file).run(feeds)


def test_a_closed_session_says_so(double_file: Path) -> None:
    session = open_session(double_file)
    session.close()
    with pytest.raises(ModelError, match=r"double\.onnx was closed"):
        session.run({"x": np.zeros((1, 2), np.float32)})


def test_a_failing_run_is_a_model_error_and_prints_nothing(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    nodes = [helper.make_node("Gather", ["table", "x"], ["y"])]
    path = tmp_path / "gather.onnx"
    save(path, nodes, {"x": (1,)}, {"y": (1,)}, {"table": np.arange(3)}, elem_type=TensorProto.INT64)
    with pytest.raises(ModelError, match=r"gather.onnx failed on ONNX Runtime .*, CPU: .*indices element out of"):
        open_session(path).run({"x": np.array([9])})
    assert capfd.readouterr() == ("", "")


AGAIN = "download or export it again"
UPGRADE = "pip install -U onnxruntime, or export it for an older ONNX"


@pytest.mark.parametrize(
    ("content", "message", "hint"),
    [
        (b"", "is empty", AGAIN),
        (b"not a model at all", "is not a whole ONNX file", AGAIN),
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 3\n",
            "is not a whole ONNX file .*: it is a pointer of Git LFS, and `git lfs pull` fetches the file",
            AGAIN,
        ),
        (b"<!DOCTYPE html><html>quota exceeded</html>", "is not a whole ONNX file .*: it is a web page", AGAIN),
        (b"PK\x03\x04...", "is not a whole ONNX file .*: it is a zip file, such as a PyTorch checkpoint", AGAIN),
        ("half", r"is not a whole ONNX file .*: it is cut off: \d+ bytes of \d+ or more", AGAIN),
        ("bad graph", "is not a whole ONNX file", AGAIN),
        ("new opset", "is too new for ONNX Runtime .*", UPGRADE),
        ("new IR", "is too new for ONNX Runtime .*: .*version: 999", UPGRADE),
        ("own operator", "has an operator that ONNX Runtime .* does not know: .*Sharpen", "pip install -U onnxruntime"),
        ("weights elsewhere", "keeps weights in broken.data, which is not there", "put broken.data beside it"),
        ("weights cut off", "is not a whole ONNX file", AGAIN),
    ],
)
def test_broken_files(
    tmp_path: Path, double_file: Path, capfd: pytest.CaptureFixture[str], content: bytes | str, message: str, hint: str
) -> None:
    whole = onnx.load(double_file)
    if content == "half":
        content = double_file.read_bytes()[: double_file.stat().st_size // 2]
    elif content == "bad graph":
        whole.graph.node[0].input[1] = "nothing of this name"
        content = whole.SerializeToString()
    elif content == "new opset":
        whole.opset_import[0].version = 999
        content = whole.SerializeToString()
    elif content == "new IR":
        whole.ir_version = 999
        content = whole.SerializeToString()
    elif content == "own operator":
        whole.graph.node[0].op_type = "Sharpen"
        content = whole.SerializeToString()
    elif isinstance(content, str):  # the .data file beside it was not copied, or not whole
        whole.graph.initializer.append(numpy_helper.from_array(np.zeros((300, 2), np.float32), "weights"))
        whole.graph.node[0].input[1] = "weights"
        onnx.save(whole, tmp_path / "broken.onnx", save_as_external_data=True, location="broken.data")
        weights = (tmp_path / "broken.data").read_bytes()
        (tmp_path / "broken.data").unlink()
        if content == "weights cut off":
            (tmp_path / "broken.data").write_bytes(weights[:100])
        content = (tmp_path / "broken.onnx").read_bytes()
    assert isinstance(content, bytes)
    path = tmp_path / "broken.onnx"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=f"broken.onnx {message}") as caught:
        open_session(path)
    assert str(caught.value.hint).startswith(hint)
    assert capfd.readouterr() == ("", "")


def save_with_weights_beside(path: Path, location: str) -> None:
    """y = x + 1, the ones in a file at `location`, relative to that of the graph."""
    save(path, [helper.make_node("Add", ["x", "w"], ["y"])], {"x": (4, 2)}, {"y": (4, 2)}, {"w": np.ones((4, 2), "f4")})
    model = onnx.load(path)
    onnx.save(model, path, save_as_external_data=True, location="weights.data", size_threshold=0)
    for entry in model.graph.initializer[0].external_data:
        entry.value = location if entry.key == "location" else entry.value
    path.write_bytes(model.SerializeToString())


def test_weights_in_a_file_beside_it(tmp_path: Path) -> None:
    save_with_weights_beside(tmp_path / "model.onnx", "weights.data")
    found = open_session(tmp_path / "model.onnx").run({"x": np.zeros((4, 2), np.float32)})["y"]
    np.testing.assert_array_equal(host(found), np.ones((4, 2)))


@pytest.mark.parametrize("location", ["../weights.data", "/etc/passwd"])
def test_weights_must_not_lie_elsewhere(tmp_path: Path, location: str) -> None:
    (tmp_path / "model").mkdir()
    save_with_weights_beside(tmp_path / "model" / "model.onnx", location)
    (tmp_path / "model" / "weights.data").rename(tmp_path / "weights.data")
    with pytest.raises(ModelError, match=r"model.onnx is not a whole ONNX file"):
        open_session(tmp_path / "model" / "model.onnx")


@pytest.mark.parametrize(
    ("name", "message"),
    [("none.onnx", "none.onnx does not exist"), ("folder.onnx", "folder.onnx is not a file")],
)
def test_missing_files(tmp_path: Path, name: str, message: str) -> None:
    (tmp_path / "folder.onnx").mkdir()
    with pytest.raises(ModelError, match=message):
        open_session(tmp_path / name)


@pytest.mark.parametrize("name", ["model.pth", "model.plan", "model", "onnx"])
def test_unknown_suffixes(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"x")
    with pytest.raises(ModelError, match=f"no backend reads model file .*{name}") as caught:
        open_session(tmp_path / name)
    assert (
        caught.value.hint == "supported: .onnx (onnxruntime), .onnx (openvino), .engine (tensorrt), .rtx (tensorrt-rtx)"
    )


def test_suffixes_ignore_case(double_file: Path) -> None:
    upper = double_file.rename(double_file.with_suffix(".ONNX"))
    assert open_session(str(upper)).path == upper


@pytest.mark.parametrize(
    ("options", "environment", "message"),
    [
        ({"device": "vpu"}, {}, "unknown device: vpu"),
        ({"device": "cuda:0"}, {}, "unknown device: cuda:0"),
        ({}, {"NANOSAM_DEVICE": "tpu"}, "unknown device in NANOSAM_DEVICE: tpu"),
        ({"backend": "ort"}, {}, "unknown backend: ort"),
        ({}, {"NANOSAM_BACKEND": "ncnn"}, "unknown backend in NANOSAM_BACKEND: ncnn"),
        ({"threads": 0}, {}, "threads must be 1 or more, not 0"),
        ({"threads": -1}, {}, "threads must be 1 or more, not -1"),
        ({"threads": 100_000}, {}, "threads must be 1024 at most, not 100000"),
    ],
)
def test_wrong_options(
    monkeypatch: pytest.MonkeyPatch,
    double_file: Path,
    options: dict[str, Any],
    environment: dict[str, str],
    message: str,
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UsageError, match=message):
        open_session(double_file, **options)


def test_an_option_beats_the_environment(monkeypatch: pytest.MonkeyPatch, double_file: Path) -> None:
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [CPU])
    monkeypatch.setenv("NANOSAM_DEVICE", "cuda")
    with pytest.raises(BackendError):
        open_session(double_file)
    assert open_session(double_file, device="cpu").backend.endswith("CPU")
    monkeypatch.setenv("NANOSAM_BACKEND", "nonsense")
    assert open_session(double_file, device="auto", backend="onnxruntime").backend.endswith("CPU")


def test_backends_are_a_table(monkeypatch: pytest.MonkeyPatch, double_file: Path, tmp_path: Path) -> None:
    """The first that reads the suffix is the default; a named one is taken, or says that it does not read the file."""
    ghost = Backend("ghost", (".onnx", ".ghost"), "nanosam_cli.core.inference.backends.ghost", "pip install ghost")
    monkeypatch.setattr(session_module, "BACKENDS", (*session_module.BACKENDS[:1], ghost))
    assert open_session(double_file).backend.startswith("ONNX Runtime")
    with pytest.raises(BackendError, match=r"ghost, which runs double\.onnx, cannot be imported") as caught:
        open_session(double_file, backend="ghost")
    assert caught.value.hint == "pip install ghost"
    with pytest.raises(ModelError, match=r"backend onnxruntime does not read model file .*x\.ghost") as refused:
        open_session(tmp_path / "x.ghost", backend="onnxruntime")
    assert refused.value.hint == "supported: .onnx (onnxruntime), .onnx (ghost), .ghost (ghost)"


def test_cuda_that_is_not_installed(monkeypatch: pytest.MonkeyPatch, double_file: Path) -> None:
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [CPU])
    with pytest.raises(BackendError, match="cannot use device cuda") as caught:
        open_session(double_file, device="cuda")
    assert "pip install 'onnxruntime-gpu" in (caught.value.hint or "")


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (None, f"did not start {CUDA}"),  # CUDA's libraries are missing: ONNX Runtime drops the provider without a word
        ("CUDA failure 100: no CUDA-capable device is detected\nand more", "cuda cannot be used: CUDA failure .*ted$"),
    ],
)
def test_cuda_that_does_not_start(
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    double_file: Path,
    fault: str | None,
    message: str,
) -> None:
    """Asked for, it is an error; under auto the CPU does the work, and the session says so. Neither prints."""
    create = onnxruntime.InferenceSession._create_inference_session

    def start(self: Any, providers: list[str], *rest: Any) -> None:
        if fault and providers == [CUDA]:
            raise RuntimeError(fault)
        create(self, [CPU], *rest)

    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [CUDA, CPU])
    monkeypatch.setattr(onnxruntime.InferenceSession, "_create_inference_session", start)
    with pytest.raises(BackendError, match=message):
        open_session(double_file, device="cuda")
    assert open_session(double_file).backend.endswith(", CPU")
    assert capfd.readouterr() == ("", "")


def test_auto_takes_cuda_where_it_works(monkeypatch: pytest.MonkeyPatch, double_file: Path) -> None:
    class OnGpu(onnxruntime.InferenceSession):  # type: ignore[misc]
        def __init__(self, path: str, options: Any, providers: list[str], **kwargs: Any) -> None:
            super().__init__(path, options, providers=[CPU], **kwargs)
            self.asked = providers

        def get_providers(self) -> list[str]:
            return [*self.asked, CPU]

    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [CUDA, CPU])
    monkeypatch.setattr(onnxruntime, "InferenceSession", OnGpu)
    assert open_session(double_file).backend.endswith(", CUDA")
    assert open_session(double_file, device="cpu").backend.endswith(", CPU")


PROVIDERS = {
    "coreml": "CoreMLExecutionProvider",
    "directml": "DmlExecutionProvider",
    "webgpu": "WebGpuExecutionProvider",
    "xnnpack": "XnnpackExecutionProvider",
    "openvino": "OpenVINOExecutionProvider",
}


class Share(NamedTuple):
    """Nodes that ONNX Runtime gave to a provider."""

    ep_name: str
    nodes: int

    def get_nodes(self) -> list[None]:
        return [None] * self.nodes


@pytest.mark.parametrize("device", PROVIDERS)
@pytest.mark.parametrize("on_cpu", [0, 2, None])  # None: a version that does not tell
def test_a_provider_is_taken_by_name_and_what_it_leaves_to_the_cpu_is_told(
    monkeypatch: pytest.MonkeyPatch, double_file: Path, device: str, on_cpu: int | None
) -> None:
    provider = PROVIDERS[device]

    class Elsewhere(onnxruntime.InferenceSession):  # type: ignore[misc]
        def __init__(self, path: str, options: Any, providers: list[str], **kwargs: Any) -> None:
            assert providers == [provider]
            super().__init__(path, options, providers=[CPU], **kwargs)

        def get_providers(self) -> list[str]:
            return [provider, CPU]

        def get_provider_graph_assignment_info(self) -> list[Share]:
            if on_cpu is None:
                raise AttributeError
            return [Share(provider, 3), Share(CPU, on_cpu)]

    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [provider, CPU])
    monkeypatch.setattr(onnxruntime, "InferenceSession", Elsewhere)
    session = open_session(double_file, device=device, backend="onnxruntime")
    assert session.backend.endswith(f", {device.upper()}")
    told = {
        0: (),
        2: (f"double.onnx: 2 of 5 nodes run on the CPU, which {device.upper()} does not take",),
        None: (
            f"ONNX Runtime {onnxruntime.__version__} does not tell which nodes of double.onnx fall back to the CPU "
            f"from {device.upper()}",
        ),
    }
    assert session.remarks == told[on_cpu]


@pytest.mark.parametrize("device", PROVIDERS)
def test_a_provider_that_the_build_lacks_is_refused(
    monkeypatch: pytest.MonkeyPatch, double_file: Path, device: str
) -> None:
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [CPU])
    with pytest.raises(BackendError, match=f"installed ONNX Runtime cannot use device {device}"):
        open_session(double_file, device=device)


@pytest.mark.parametrize(
    ("backend_name", "device", "message"),
    [
        ("openvino", "cuda", r"no device cuda for double\.onnx on openvino"),
        ("onnxruntime", "npu", r"no device npu for double\.onnx on onnxruntime"),
    ],
)
def test_a_device_of_another_backend(double_file: Path, backend_name: str, device: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        open_session(double_file, backend=backend_name, device=device)


@pytest.mark.parametrize(("threads", "expected"), [(None, 0), (1, 1), (3, 3)])  # 0 is ONNX Runtime's own choice
def test_threads(threads: int | None, expected: int) -> None:
    assert backend.session_options(threads).intra_op_num_threads == expected


def test_float16_weights_are_widened_once(tmp_path: Path) -> None:
    """Weights stored as float16 behind a Cast cost nothing at run time: loading folds them to float32."""
    nodes = [
        helper.make_node("Cast", ["half"], ["weights"], to=TensorProto.FLOAT),
        helper.make_node("MatMul", ["x", "weights"], ["y"]),
    ]
    half = np.full((2, 2), 0.5, np.float16)
    path = save(tmp_path / "half.onnx", nodes, {"x": (1, 2)}, {"y": (1, 2)}, {"half": half})
    options = backend.session_options(None)
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    onnxruntime.InferenceSession(str(path), options, providers=[CPU])
    kinds = {node.op_type for node in onnx.load(tmp_path / "optimised.onnx").graph.node}
    assert kinds
    assert "Cast" not in kinds
    assert np.array_equal(open_session(path).run({"x": np.ones((1, 2), np.float32)})["y"], [[1, 1]])  # type: ignore[arg-type]


def test_int8_is_computed_as_written_where_asked(tmp_path: Path) -> None:
    """Sums of two products beyond 16 bits, which a CPU without VNNI cuts off in its own int8 kernels."""
    constants = {
        "step": np.array(1, np.float32),
        "coarse": np.array(1e4, np.float32),
        "zero": np.array(0, np.int8),
        "weights": np.full((64, 4), 127, np.int8),
    }
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "step", "zero"], ["x8"]),
        helper.make_node("DequantizeLinear", ["x8", "step", "zero"], ["x32"]),
        helper.make_node("DequantizeLinear", ["weights", "step", "zero"], ["w32"]),
        helper.make_node("MatMul", ["x32", "w32"], ["sums"]),
        helper.make_node("QuantizeLinear", ["sums", "coarse", "zero"], ["y8"]),
        helper.make_node("DequantizeLinear", ["y8", "coarse", "zero"], ["y"]),
    ]
    path = save(tmp_path / "int8.onnx", nodes, {"x": (1, 64)}, {"y": (1, 4)}, constants)
    session = backend.open_file(path, "cpu", 1, fuse_int8=False)
    found = session.run({"x": np.full((1, 64), 127, np.float32)})["y"]
    np.testing.assert_allclose(found, 1e4 * round(64 * 127 * 127 / 1e4), rtol=1e-6)


def test_text_of_a_file_that_is_no_text(tmp_path: Path) -> None:
    """Bytes that protobuf lets pass in a name, and in the metadata."""
    path = save(
        tmp_path / "a.onnx", [helper.make_node("Relu", ["xxxx"], ["y"])], {"xxxx": (1,)}, {"y": (1,)}, {}, {"k": "vvvv"}
    )
    data = path.read_bytes()
    for word in (b"xxxx", b"vvvv", b"Relu"):
        path.write_bytes(data.replace(word, b"\xff\xfe\xbf\xff"))
        with pytest.raises(ModelError, match=r"a\.onnx is not a whole ONNX file"):
            open_session(path)


def test_an_output_that_is_no_tensor_is_nobodys(tmp_path: Path) -> None:
    path = save(tmp_path / "a.onnx", [helper.make_node("Relu", ["x"], ["y"])], {"x": (1,)}, {"y": (1,)})
    model = onnx.load(path)
    model.graph.node.append(helper.make_node("SequenceConstruct", ["x"], ["list"]))
    model.graph.output.insert(0, helper.make_tensor_sequence_value_info("list", TensorProto.FLOAT, None))
    onnx.save(model, path)
    session = open_session(path)
    assert [info.name for info in session.outputs] == ["y"]
    found = session.run({"x": np.ones(1, np.float32)})
    assert found.keys() == {"y"}

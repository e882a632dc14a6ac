"""ONNX files on ONNX Runtime, on the CPU or what else the installed build has a provider for."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import onnxruntime
from onnxruntime.capi import onnxruntime_pybind11_state as state

from nanosam_cli.core.errors import BackendError, ModelError
from nanosam_cli.core.inference.onnx_faults import load_error
from nanosam_cli.core.inference.session import Tensor, TensorInfo, check_feeds, host

_PROVIDERS = {  # by device; auto takes CUDA or the CPU
    "cuda": "CUDAExecutionProvider",
    "cpu": "CPUExecutionProvider",
    "coreml": "CoreMLExecutionProvider",
    "directml": "DmlExecutionProvider",
    "webgpu": "WebGpuExecutionProvider",
    "xnnpack": "XnnpackExecutionProvider",
    "openvino": "OpenVINOExecutionProvider",
}
_DEVICES = {provider: device.upper() for device, provider in _PROVIDERS.items()}
# All builds of ONNX Runtime fill the same folder, and the last one installed is the one that is imported
_AGAIN = "pip install --force-reinstall --no-deps"
_INSTALL_CUDA = f"pip install 'onnxruntime-gpu[cuda,cudnn]' && {_AGAIN} onnxruntime-gpu"
_INSTALL = {
    "cuda": _INSTALL_CUDA,
    "directml": f"{_AGAIN} onnxruntime-directml, on Windows",
    "openvino": f"{_AGAIN} onnxruntime-openvino; or --backend openvino, with the extra of that name",
    "coreml": f"{_AGAIN} onnxruntime, on a Mac",
}
_OWN_BUILD = "build ONNX Runtime with it, or leave --device out"

_DTYPES = {"float": "float32", "double": "float64"}  # ONNX Runtime's names where they differ from numpy's

# Its exceptions have no common parent. The first group comes from a file, the second from a device.
_FILE_ERRORS = (
    *(state.Fail, state.InvalidArgument, state.InvalidGraph, state.InvalidProtobuf),
    *(state.NoModel, state.NoSuchFile, state.NotImplemented),
    UnicodeDecodeError,  # names, or the reason itself, that are no text
)
_PROVIDER_ERRORS = (RuntimeError, state.EPFail, state.EngineError, state.RuntimeException)

_SILENT = 4  # logs only what is fatal: errors are raised as well, and warnings concern ONNX Runtime's own developers
onnxruntime.set_default_logger_severity(_SILENT)  # providers that cannot be loaded log here


class OnnxSession:
    """A `Session` over `onnxruntime.InferenceSession`; safe to run from several threads, and in a forked child."""

    def __init__(self, path: Path, session: Any) -> None:
        self._session = session
        self._process = os.getpid()
        self.path = path
        self.inputs = tuple(map(_tensor_info, session.get_inputs()))
        # a sequence or a map of tensors is nobody's output here
        self.outputs = tuple(_tensor_info(node) for node in session.get_outputs() if node.type.startswith("tensor("))
        self.metadata: dict[str, str] = dict(session.get_modelmeta().custom_metadata_map)
        provider = session.get_providers()[0]
        self.remarks = _fallen_back(path, session, provider)
        self.backend = f"ONNX Runtime {onnxruntime.__version__}, {_DEVICES.get(provider, provider)}"

    def run(self, feeds: Mapping[str, Tensor]) -> dict[str, Tensor]:
        if self._session is None:
            raise ModelError(f"{self.path.name} was closed")
        arrays = {name: host(value) for name, value in feeds.items()}
        check_feeds(self.path, self.inputs, arrays)
        try:
            results = self._session.run([info.name for info in self.outputs], arrays)
        except (*_FILE_ERRORS, *_PROVIDER_ERRORS) as error:
            raise ModelError(f"{self.path} failed on {self.backend}: {_reason(error)}") from error
        return {info.name: result for info, result in zip(self.outputs, results)}

    def close(self) -> None:
        if self._session is not None and os.getpid() != self._process:
            _of_the_parent.append(self._session)
        self._session = None  # ONNX Runtime frees a session with its last reference


# A session ends its threads when it is freed, and a forked child, which has not got them, would wait for ever.
_of_the_parent: list[Any] = []


def open_file(path: Path, device: str, threads: int | None, *, fuse_int8: bool = True) -> OnnxSession:
    """Load an ONNX file on `device`: auto, or a name of `_PROVIDERS`. Auto takes CUDA where it works, else the CPU.

    Without `fuse_int8`, quantised numbers are computed with in float32, exactly as the graph says. The CPU's own int8
    kernels cut off large sums where it has no VNNI, which another runtime's do not.
    """
    if device != "auto":
        return _load(path, device, threads, fuse_int8)
    available = onnxruntime.get_available_providers()
    if _PROVIDERS["cuda"] in available:
        try:
            return _load(path, "cuda", threads, fuse_int8)
        except BackendError:  # the GPU package without a driver or a GPU
            pass
    return _load(path, "cpu", threads, fuse_int8)


def _load(path: Path, device: str, threads: int | None, fuse_int8: bool) -> OnnxSession:
    provider = _PROVIDERS[device]
    if provider not in onnxruntime.get_available_providers():
        raise BackendError(f"the installed ONNX Runtime cannot use device {device}", _how_to_get(device))
    try:
        # enable_fallback=0: the fallback prints to stdout, where results go
        options = session_options(threads)
        options.add_session_config_entry("session.disable_quant_qdq", "0" if fuse_int8 else "1")
        options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
        session = onnxruntime.InferenceSession(str(path), options, providers=[provider], enable_fallback=0)
        opened = OnnxSession(path, session)
    except (*_FILE_ERRORS, *_PROVIDER_ERRORS) as error:
        if device != "cpu" and isinstance(error, _PROVIDER_ERRORS):
            raise BackendError(f"device {device} cannot be used: {_reason(error)}", _how_to_get(device)) from error
        raise load_error(path, f"ONNX Runtime {onnxruntime.__version__}", _reason(error)) from error
    # a provider that fails to start is dropped without an exception
    if provider not in session.get_providers():
        lacks = "CUDA or cuDNN" if device == "cuda" else "its driver"
        raise BackendError(f"ONNX Runtime did not start {provider}: {lacks} is missing or too old", _how_to_get(device))
    return opened


def _how_to_get(device: str) -> str:
    return _INSTALL.get(device, _OWN_BUILD)


def _fallen_back(path: Path, session: Any, provider: str) -> tuple[str, ...]:
    """A sentence where nodes run on the CPU that the provider does not take."""
    cpu, device = _PROVIDERS["cpu"], _DEVICES.get(provider, provider)
    if provider == cpu:
        return ()
    try:
        shares = session.get_provider_graph_assignment_info()
    except AttributeError:  # before ONNX Runtime 1.24
        untold = f"ONNX Runtime {onnxruntime.__version__} does not tell which nodes of {path.name} fall back to the CPU"
        return (f"{untold} from {device}",)
    counts = {share.ep_name: 0 for share in shares}
    for share in shares:
        counts[share.ep_name] += len(share.get_nodes())
    if not counts.get(cpu):
        return ()
    return (f"{path.name}: {counts[cpu]} of {sum(counts.values())} nodes run on the CPU, which {device} does not take",)


def session_options(threads: int | None) -> Any:
    """All graph optimisations (they fold weights stored as float16 back to float32), no log output."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.log_severity_level = _SILENT
    # nodes in the file's order: the default puts off what nobody waits for, such as an emulation's range checks, and
    # keeps every value until then, which took gigabytes of MobileSAM's encoder
    options.execution_order = onnxruntime.ExecutionOrder.PRIORITY_BASED
    # threads that wait by spinning keep the cores from the next session: encoder and decoder take turns
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if threads is not None:
        options.intra_op_num_threads = threads
    return options


def _tensor_info(node: Any) -> TensorInfo:
    dtype = node.type.removeprefix("tensor(").removesuffix(")")
    shape = tuple(side if isinstance(side, int) else None for side in node.shape)  # dynamic sides are names
    return TensorInfo(node.name, shape, _DTYPES.get(dtype, dtype))


def _reason(error: Exception) -> str:
    """`[ONNXRuntimeError] : 7 : INVALID_PROTOBUF : why ...` -> `why`."""
    return re.sub(r"^\[ONNXRuntimeError\] : \d+ : \w+ : ", "", str(error)).strip().partition("\n")[0]

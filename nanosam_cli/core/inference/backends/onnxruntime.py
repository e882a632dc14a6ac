"""ONNX files on ONNX Runtime, CPU or CUDA."""

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

_PROVIDERS = {"cuda": "CUDAExecutionProvider", "cpu": "CPUExecutionProvider"}  # auto takes the first that is there
_DEVICES = {provider: device.upper() for device, provider in _PROVIDERS.items()}
_INSTALL_CUDA = "pip uninstall onnxruntime; pip install 'onnxruntime-gpu[cuda,cudnn]'"

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
    """Load an ONNX file on `device`: auto, cpu or cuda. Auto takes CUDA where it works, else the CPU.

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
        raise BackendError(f"the installed ONNX Runtime cannot use device {device}", _INSTALL_CUDA)
    try:
        # enable_fallback=0: the fallback prints to stdout, where results go
        options = session_options(threads)
        options.add_session_config_entry("session.disable_quant_qdq", "0" if fuse_int8 else "1")
        session = onnxruntime.InferenceSession(str(path), options, providers=[provider], enable_fallback=0)
        opened = OnnxSession(path, session)
    except (*_FILE_ERRORS, *_PROVIDER_ERRORS) as error:
        if device == "cuda" and isinstance(error, _PROVIDER_ERRORS):
            raise BackendError(f"device cuda cannot be used: {_reason(error)}", _INSTALL_CUDA) from error
        raise load_error(path, f"ONNX Runtime {onnxruntime.__version__}", _reason(error)) from error
    # a provider that fails to start is dropped without an exception
    if provider not in session.get_providers():
        raise BackendError(f"ONNX Runtime did not start {provider}: CUDA or cuDNN is missing or too old", _INSTALL_CUDA)
    return opened


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

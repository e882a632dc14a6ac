"""ONNX files on OpenVINO: the CPU, an Intel GPU or an NPU."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import openvino
from openvino import properties

from nanosam_cli.core.errors import BackendError, ModelError
from nanosam_cli.core.inference.onnx_faults import load_error
from nanosam_cli.core.inference.session import Tensor, TensorInfo, check_feeds, host

_VERSION = openvino.__version__.partition("-")[0]
_NAMES = {"auto": "CPU", "cpu": "CPU", "gpu": "GPU", "npu": "NPU"}  # auto: what is proved is what a CPU computes
_ORIGINS = ("Exception from", "Check '")  # lines of an error that say where in C++ it arose


class OpenVinoSession:
    """A `Session` over a compiled model; safe to run from several threads."""

    def __init__(self, path: Path, model: Any, compiled: Any, device: str) -> None:
        self._compiled: Any = compiled
        self._idle: list[Any] = []  # requests that nobody runs; a list's append and pop are atomic
        self.path = path
        self.inputs = tuple(_tensor_info(port.get_any_name(), port) for port in model.inputs)
        self.outputs = tuple(_tensor_info(_output_name(port), port) for port in model.outputs)
        self.metadata = _metadata(model)
        self.remarks: tuple[str, ...] = ()
        self.backend = f"OpenVINO {_VERSION}, {device}"

    def run(self, feeds: Mapping[str, Tensor]) -> dict[str, Tensor]:
        if self._compiled is None:
            raise ModelError(f"{self.path.name} was closed")
        arrays = {name: np.ascontiguousarray(host(value)) for name, value in feeds.items()}
        check_feeds(self.path, self.inputs, arrays)
        try:
            request = self._idle.pop() if self._idle else self._compiled.create_infer_request()
        except IndexError:  # another thread took the last one
            request = self._compiled.create_infer_request()
        try:
            results = request.infer(arrays, share_inputs=True, share_outputs=False)
        except RuntimeError as error:
            raise ModelError(
                f"{self.path} failed on {self.backend}: {_reason(error)}", "--device cpu, or --backend onnxruntime"
            ) from error
        self._idle.append(request)
        return {info.name: results[index] for index, info in enumerate(self.outputs)}

    def close(self) -> None:
        self._compiled, self._idle = None, []  # OpenVINO frees a model with its last reference


def open_file(path: Path, device: str, threads: int | None) -> OpenVinoSession:
    """Load an ONNX file on `device`: auto (the CPU), cpu, gpu or npu.

    A CPU and a GPU compute in float32 what the file has in float32, where OpenVINO's own choice would be bf16 or fp16.

    Raises:
        ModelError: the file cannot be read.
        BackendError: the device is not there, or cannot run the file.
    """
    core, name = openvino.Core(), _NAMES[device]
    _check_device(core.available_devices, name, device)
    try:
        model = core.read_model(str(path))
    except RuntimeError as error:
        raise load_error(path, f"OpenVINO {_VERSION}", _reason(error)) from error
    try:
        compiled = core.compile_model(model, name, _settings(name, threads))
    except RuntimeError as error:
        raise BackendError(
            f"OpenVINO {_VERSION} cannot run {path} on device {name.lower()}: {_reason(error)}",
            "--backend onnxruntime" if name == "CPU" else "--device cpu",
        ) from error
    return OpenVinoSession(path, model, compiled, name)


def _check_device(available: list[str], name: str, device: str) -> None:
    """GPUs are called GPU, or GPU.0 and GPU.1 where there are two."""
    if not any(found.partition(".")[0] == name for found in available):
        raise BackendError(
            f"OpenVINO {_VERSION} finds no device {device} here, only {', '.join(available).lower() or 'none'}",
            "install Intel's driver for it, or leave --device out",
        )


def _settings(name: str, threads: int | None) -> dict[Any, Any]:
    """One photo after the other, as fast as it goes. An NPU has no float32: its own precision is left to it."""
    settings: dict[Any, Any] = {properties.hint.performance_mode: properties.hint.PerformanceMode.LATENCY}
    if name != "NPU":
        settings[properties.hint.inference_precision] = openvino.Type.f32
    if name == "CPU" and threads is not None:
        settings[properties.inference_num_threads] = threads
    return settings


def _metadata(model: Any) -> dict[str, str]:
    """What the file says of itself; OpenVINO keeps ONNX's `metadata_props` under `framework`."""
    if not model.has_rt_info("framework"):
        return {}
    found = model.get_rt_info("framework")
    return {str(key): str(getattr(value, "value", value)) for key, value in getattr(found, "value", found).items()}


def _output_name(port: Any) -> str:
    """The graph's name of an output, which may share its tensor with names from inside."""
    names: list[str] = sorted(port.get_names())
    own: str = port.get_node().get_friendly_name().partition("/sink_port_")[0]
    return own if own in names else names[0]


def _tensor_info(name: str, port: Any) -> TensorInfo:
    shape = tuple(None if side.is_dynamic else side.get_length() for side in port.get_partial_shape())
    return TensorInfo(name, shape, np.dtype(port.get_element_type().to_dtype()).name)


def _reason(error: Exception) -> str:
    """The first line of an error that does not name a place in OpenVINO's source."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return next((line for line in lines if not line.startswith(_ORIGINS)), lines[0] if lines else "no reason given")

"""The one seam between models and runtimes: `open_session(path)` gives a `Session`, whatever runs the file."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from nanosam_cli.core import paths
from nanosam_cli.core.errors import BackendError, ModelError, UsageError
from nanosam_cli.core.types import DeviceArray

Tensor: TypeAlias = NDArray[Any] | DeviceArray

MAX_THREADS = 1024  # more than any machine has cores; each takes memory, and a runtime that starts 100 000 hangs
ORT_DEVICES = ("cpu", "cuda", "coreml", "directml", "webgpu", "xnnpack", "openvino")  # one a provider
OPENVINO_DEVICES = ("cpu", "gpu", "npu")
DEVICES = ("auto", *dict.fromkeys((*ORT_DEVICES, *OPENVINO_DEVICES)))


@dataclass(frozen=True)
class TensorInfo:
    """One input or output of a model."""

    name: str
    shape: tuple[int | None, ...]  # None where a side is dynamic
    dtype: str  # numpy's name, such as float32

    def __str__(self) -> str:
        return f"{self.name} ({', '.join('any' if side is None else str(side) for side in self.shape)}) {self.dtype}"


class Session(Protocol):
    """A loaded model file. Arrays that go in or come out belong to the caller."""

    @property
    def path(self) -> Path: ...

    @property
    def inputs(self) -> tuple[TensorInfo, ...]: ...

    @property
    def outputs(self) -> tuple[TensorInfo, ...]: ...

    @property
    def metadata(self) -> dict[str, str]:
        """What the file says about itself; the project's own keys begin with `nanosam.`."""
        ...

    @property
    def backend(self) -> str:
        """The runtime and the device that really run the model, for people."""
        ...

    @property
    def remarks(self) -> tuple[str, ...]:
        """What whoever opened the file should hear, such as that a part of it runs on another device."""
        ...

    def run(self, feeds: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """All outputs by name. ModelError where `feeds` are not what `inputs` say."""
        ...

    def close(self) -> None: ...


@dataclass(frozen=True)
class Backend:
    """A runtime. `module` is imported when a file needs it, and has `open_file(path, device, threads) -> Session`."""

    name: str
    suffixes: tuple[str, ...]
    module: str
    install: str
    devices: tuple[str, ...] = ("cpu", "cuda")  # beside auto


_HERE = "nanosam_cli.core.inference.backends"

BACKENDS = (
    Backend("onnxruntime", (".onnx",), f"{_HERE}.onnxruntime", "pip install onnxruntime", ORT_DEVICES),
    Backend("openvino", (".onnx",), f"{_HERE}.openvino", "pip install 'nanosam-cli[openvino]'", OPENVINO_DEVICES),
    Backend("tensorrt", (".engine",), f"{_HERE}.tensorrt.plain", "pip install 'nanosam-cli[tensorrt]'"),
    Backend("tensorrt-rtx", (".rtx",), f"{_HERE}.tensorrt.rtx", "pip install 'nanosam-cli[tensorrt-rtx]'"),
)  # where two read the same suffix, the first that has the device is the default


def open_session(
    path: str | Path, *, backend: str | None = None, device: str | None = None, threads: int | None = None
) -> Session:
    """Load a model file. `backend` and `device` fall back to NANOSAM_BACKEND and NANOSAM_DEVICE, then to auto.

    `threads` limits the CPU threads of one run; None leaves the runtime's own choice.
    """
    path = Path(path)
    device = _setting("device", device, paths.DEVICE, DEVICES)
    name = _setting("backend", backend, paths.BACKEND, ("auto", *(entry.name for entry in BACKENDS)))
    if threads is not None and not 1 <= threads <= MAX_THREADS:
        wanted = "1 or more" if threads < 1 else f"{MAX_THREADS} at most"
        raise UsageError(f"threads must be {wanted}, not {threads}")
    chosen = _backend_of(path, name, device)
    if not path.is_file():
        raise ModelError(f"model file {path} " + ("is not a file" if path.exists() else "does not exist"))
    if path.stat().st_size == 0:
        raise ModelError(f"model file {path} is empty", "download or export it again")
    try:
        module = import_module(chosen.module)
    except ImportError as error:
        raise BackendError(
            f"{chosen.name}, which runs {path.name}, cannot be imported: {error}", chosen.install
        ) from error
    session: Session = module.open_file(path, device, threads)
    return session


def _setting(what: str, given: str | None, variable: paths.Variable[str], allowed: Iterable[str]) -> str:
    value = given or variable.get() or "auto"
    if value not in allowed:
        origin = what if given else f"{what} in {variable.name}"
        raise UsageError(f"unknown {origin}: {value}", f"choose one of {', '.join(allowed)}")
    return value


def _backend_of(path: Path, name: str, device: str) -> Backend:
    readers = [entry for entry in BACKENDS if path.suffix.lower() in entry.suffixes and name in ("auto", entry.name)]
    for entry in readers:
        if device in ("auto", *entry.devices):
            return entry
    if readers:
        those = "; ".join(f"{entry.name}: {', '.join(entry.devices)}" for entry in readers)
        raise UsageError(f"no device {device} for {path.name} on {readers[0].name}", f"devices of {those}")
    supported = ", ".join(f"{suffix} ({entry.name})" for entry in BACKENDS for suffix in entry.suffixes)
    who = "no backend reads" if name == "auto" else f"backend {name} does not read"
    raise ModelError(f"{who} model file {path}", f"supported: {supported}")


def host(value: Tensor) -> NDArray[Any]:
    """The array on the host; not a copy where it is there already."""
    return value if isinstance(value, np.ndarray) else value.numpy()


def check_feeds(path: Path, inputs: tuple[TensorInfo, ...], feeds: Mapping[str, NDArray[Any]]) -> None:
    """ModelError where names, shapes or dtypes of `feeds` are not what the file's `inputs` say."""
    wanted = {info.name: info for info in inputs}
    if wanted.keys() != feeds.keys():
        raise ModelError(f"{path.name} takes inputs {_names(wanted)}, not {_names(feeds)}")
    for name, array in feeds.items():
        shape = wanted[name].shape
        fits = len(shape) == array.ndim and all(want in (None, got) for want, got in zip(shape, array.shape))
        if not fits or array.dtype != wanted[name].dtype:
            raise ModelError(f"{path.name} takes {wanted[name]}, not {TensorInfo(name, array.shape, str(array.dtype))}")


def _names(names: Iterable[str]) -> str:
    return ", ".join(sorted(names)) or "nothing"

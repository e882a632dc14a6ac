"""Engines behind the session seam. Each thread has a context, a stream and memory of its own.

The shapes of a call seldom change, so what it gives to the GPU is recorded when they come a second time in a row, and
then launched as one graph (RTX does that by itself). The image encoder's result stays on the device; everything else
comes back as arrays.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nanosam_cli.core.errors import BackendError, ModelError
from nanosam_cli.core.inference.backends.tensorrt.compatibility import checked
from nanosam_cli.core.inference.backends.tensorrt.cuda import Cuda, DeviceTensor, Handle, Pair
from nanosam_cli.core.inference.backends.tensorrt.flavour import Flavour, Installed
from nanosam_cli.core.inference.session import Tensor, TensorInfo, check_feeds, host
from nanosam_cli.core.inference.sidecar import SideCar, shapes_text
from nanosam_cli.core.types import ENCODER

_FLOAT = 4  # bytes

InputShapes = tuple[tuple[int, ...], ...]  # of the inputs, in the engine's order


@dataclass(frozen=True)
class EngineKind:
    """How the flavours differ at run time."""

    flavour: Flavour
    new_context: Callable[[Any, Any], Any]  # the module, the engine -> an execution context
    records: bool  # graphs are recorded here, not by the runtime itself


class EngineSession:
    """A `Session` over an engine; safe to run from several threads."""

    def __init__(self, path: Path, kind: EngineKind, sidecar: SideCar, found: Installed, cuda: Cuda) -> None:
        self._trt, self._cuda, self._sidecar, self._kind = found.module, cuda, sidecar, kind
        gpu = cuda.gpu().name
        self.path = path
        self.inputs, self.outputs = sidecar.inputs, sidecar.outputs
        self.metadata = {**sidecar.metadata, "nanosam.precision": sidecar.precision_built}
        self.backend = f"{found.flavour} {found.version}, {gpu}, {sidecar.precision_built}"
        self.remarks: tuple[str, ...] = ()
        self._runtime = self._trt.Runtime(self._trt.Logger(self._trt.Logger.ERROR))
        self._engine = self._runtime.deserialize_cuda_engine(path.read_bytes())
        if self._engine is None:  # without an exception
            raise BackendError(
                f"{found.flavour} {found.version} does not load engine {path} on {gpu}: see its message above",
                f"update the GPU's driver, or {sidecar.rebuild}",
            )
        self._local = threading.local()
        self._runners: list[_Runner] = []
        self._lock = threading.Lock()

    def run(self, feeds: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """All outputs by name; those of an image encoder are `DeviceTensor`s."""
        if self._engine is None:
            raise ModelError(f"{self.path.name} was closed")
        arrays = {name: _checkable(value) for name, value in feeds.items()}
        check_feeds(self.path, self.inputs, arrays)
        self._check_range({name: array.shape for name, array in arrays.items()})
        return self._runner().run(feeds, keep=self._sidecar.part == ENCODER)

    def close(self) -> None:
        with self._lock:
            runners, self._runners = self._runners, []
        for runner in runners:
            runner.close()
        self._engine = None

    def _runner(self) -> _Runner:
        """This thread's."""
        runner: _Runner | None = getattr(self._local, "runner", None)
        if runner is None:
            context = self._kind.new_context(self._trt, self._engine)
            if context is None:
                message = f"there is not enough GPU memory to run {self.path}"
                raise BackendError(message, "close what else uses the GPU")
            runner = _Runner(self.path, context, self._cuda, self.inputs, self.outputs, self._kind.records)
            self._local.runner = runner
            with self._lock:
                self._runners.append(runner)
        return runner

    def _check_range(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        for name, shape in shapes.items():
            allowed = self._sidecar.shapes[name]
            if not all(low <= side <= high for low, side, high in zip(allowed.min, shape, allowed.max)):
                least, most, given = ("x".join(map(str, sides)) for sides in (allowed.min, allowed.max, shape))
                raise ModelError(
                    f"{self.path.name} takes {name} from {least} to {most}, not {given}",
                    f"{self._sidecar.rebuild}{self._wider(shapes)}",
                )

    def _wider(self, shapes: Mapping[str, tuple[int, ...]]) -> str:
        """Options that build for these inputs as well: all inputs are named, because they have to agree."""
        ranges = self._sidecar.shapes
        free = [name for name in shapes if ranges[name].min != ranges[name].max or shapes[name] != ranges[name].max]
        low = {name: tuple(map(min, ranges[name].min, shapes[name])) for name in free}
        high = {name: tuple(map(max, ranges[name].max, shapes[name])) for name in free}
        options = ""
        if any(low[name] != ranges[name].min for name in free):
            options += f" --min-shapes {shapes_text(low)}"
        if any(high[name] != ranges[name].max for name in free):
            options += f" --max-shapes {shapes_text(high)}"
        return options


def open_engine(path: Path, kind: EngineKind, device: str) -> EngineSession:
    """Load an engine after its side-car was held against this machine; see `checked` for what is raised."""
    if device == "cpu":
        raise BackendError(f"engine {path} runs on a GPU, not on device cpu", "--backend onnxruntime")
    sidecar, found = checked(path, kind.flavour)
    return EngineSession(path, kind, sidecar, found, Cuda.load())


class _Runner:
    """One thread's context, stream, memory and recorded graph.

    A graph is good only as long as its context is told no other shapes, so there is one, of the shapes that were last.
    """

    def __init__(
        self,
        path: Path,
        context: Any,
        cuda: Cuda,
        inputs: tuple[TensorInfo, ...],
        outputs: tuple[TensorInfo, ...],
        records: bool,
    ) -> None:
        self._path, self._context, self._cuda, self._records = path, context, cuda, records
        self._inputs, self._outputs = [info.name for info in inputs], [info.name for info in outputs]
        self._stream = cuda.new_stream()
        self._memory = {name: Pair(cuda) for name in (*self._inputs, *self._outputs)}
        self._shapes: InputShapes | None = None  # that the context was told last
        self._runs = 0  # with these shapes
        self._graph: Handle | None = None

    def run(self, feeds: Mapping[str, Tensor], keep: bool) -> dict[str, Tensor]:
        shapes = tuple(_shape(feeds[name]) for name in self._inputs)
        self._prepare(shapes)
        for name in self._inputs:
            self._send(name, feeds[name])
        self._execute()
        results: dict[str, Tensor] = {}
        for name in self._outputs:
            shape = tuple(self._context.get_tensor_shape(name))
            if keep:
                results[name] = self._kept(name, shape)
            else:
                self._memory[name].fetch(_FLOAT * int(np.prod(shape)), self._stream)
        self._cuda.wait(self._stream)
        for name in self._outputs:
            if not keep:  # a copy: the next run overwrites pinned memory
                results[name] = self._memory[name].host(tuple(self._context.get_tensor_shape(name))).copy()
        return results

    def close(self) -> None:
        self._forget_graph()
        for pair in self._memory.values():
            pair.close()
        self._cuda.free_stream(self._stream)
        self._context = None

    def _prepare(self, shapes: InputShapes) -> None:
        """Tell the context the shapes, and make room."""
        if shapes == self._shapes:
            return
        for name, shape in zip(self._inputs, shapes):
            if not self._context.set_input_shape(name, shape):
                raise ModelError(f"{self._path.name} does not take {name} of shape {shape}")
        self._forget_graph()
        for name, pair in self._memory.items():
            size = _FLOAT * int(np.prod(tuple(self._context.get_tensor_shape(name))))
            if pair.fit(size):
                self._context.set_tensor_address(name, pair.device)
        self._shapes, self._runs = shapes, 0

    def _send(self, name: str, value: Tensor) -> None:
        if isinstance(value, DeviceTensor):
            self._cuda.on_device(self._memory[name].device, value.address, value.size, self._stream)
        else:
            self._memory[name].send(host(value), self._stream)

    def _execute(self) -> None:
        if self._graph is not None:
            self._cuda.launch(self._graph, self._stream)
            return
        self._enqueue()
        self._runs += 1
        if self._runs == 2 and self._records:  # the first run of a shape allocates, which cannot be recorded
            self._record()

    def _enqueue(self) -> None:
        if not self._context.execute_async_v3(int(self._stream)):
            raise ModelError(f"{self._path.name} failed on the GPU: see TensorRT's message above")

    def _record(self) -> None:
        """For the next time."""
        self._cuda.wait(self._stream)
        with suppress(BackendError, ModelError):  # an engine may do what no graph can hold; it runs all the same
            self._graph = self._cuda.record(self._stream, self._enqueue)

    def _kept(self, name: str, shape: tuple[int, ...]) -> DeviceTensor:
        tensor = DeviceTensor(self._cuda, shape)
        self._cuda.on_device(tensor.address, self._memory[name].device, tensor.size, self._stream)
        return tensor

    def _forget_graph(self) -> None:
        if self._graph is not None:
            self._cuda.free_graph(self._graph)
        self._graph = None


def _shape(value: Tensor) -> tuple[int, ...]:
    return tuple(value.shape) if isinstance(value, DeviceTensor) else host(value).shape


def _checkable(value: Tensor) -> NDArray[Any]:
    """Something of the same shape and type on the host, without copying from the device."""
    if isinstance(value, DeviceTensor):
        return np.broadcast_to(np.float32(0), value.shape)
    return host(value)

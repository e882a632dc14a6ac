"""TensorRT and CUDA's runtime without a GPU, as far as a session uses them.

Device memory is host memory. A stream only keeps what it is given until somebody waits, so that code which forgets to
wait is found out; while a graph is recorded, nothing runs. An engine is the JSON of a program's name, and a program is
a numpy function from inputs to outputs.
"""

from __future__ import annotations

import ctypes
import json
import threading
from collections.abc import Callable, Mapping
from enum import IntEnum
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray

Arrays = dict[str, NDArray[np.float32]]
VERSION = "10.3.0"


class Status(IntEnum):
    cudaSuccess = 0
    cudaErrorMemoryAllocation = 2
    cudaErrorStreamCaptureInvalidated = 901


class FakeCudaRuntime:
    """`cuda.bindings.runtime`; counts what is still allocated."""

    cudaMemcpyKind = SimpleNamespace(
        cudaMemcpyHostToDevice="to device", cudaMemcpyDeviceToHost="to host", cudaMemcpyDeviceToDevice="on device"
    )
    cudaStreamCaptureMode = SimpleNamespace(cudaStreamCaptureModeThreadLocal=2)

    def __init__(self) -> None:
        self.memory: dict[int, Any] = {}
        self.pinned: set[int] = set()
        self.streams: dict[int, list[Callable[[], None]]] = {}
        self.recording: dict[int, list[Callable[[], None]]] = {}
        self.graphs: dict[int, list[Callable[[], None]]] = {}
        self.launches = 0
        self.contexts: list[FakeContext] = []
        self.room = 2**40  # bytes
        self.name, self.capability = "Orin", (8, 7)
        self._lock = threading.Lock()
        self._handles = 1000

    def give(self, stream: int, work: Callable[[], None]) -> None:
        self.recording.get(stream, self.streams[stream]).append(work)

    def cudaGetDevice(self) -> tuple[Any, ...]:
        return Status.cudaSuccess, 0

    def cudaGetDeviceProperties(self, device: int) -> tuple[Any, ...]:
        major, minor = self.capability
        found = SimpleNamespace(name=self.name.encode(), major=major, minor=minor, totalGlobalMem=8 * 2**30)
        return Status.cudaSuccess, found

    def cudaMalloc(self, size: int) -> tuple[Any, ...]:
        if size > self.room:
            return Status.cudaErrorMemoryAllocation, 0
        buffer = ctypes.create_string_buffer(b"\xff" * size, size)  # NaN: nothing may be read that was not written
        address = ctypes.addressof(buffer)
        self.memory[address] = buffer
        return Status.cudaSuccess, address

    def cudaFree(self, address: int) -> tuple[Any, ...]:
        del self.memory[address]
        return (Status.cudaSuccess,)

    def cudaMallocHost(self, size: int) -> tuple[Any, ...]:
        status, address = self.cudaMalloc(size)
        self.pinned.add(address)
        return status, address

    def cudaFreeHost(self, address: int) -> tuple[Any, ...]:
        self.pinned.remove(address)
        return self.cudaFree(address)

    def cudaMemcpyAsync(self, target: int, source: int, size: int, kind: str, stream: int) -> tuple[Any, ...]:
        host = {"to device": source, "to host": target}.get(kind)
        if host is not None and host not in self.pinned:  # pageable memory makes CUDA wait, and so does this
            self.flush(stream)
            ctypes.memmove(target, source, size)
        else:
            self.give(stream, lambda: ctypes.memmove(target, source, size) and None)
        return (Status.cudaSuccess,)

    def flush(self, stream: int) -> None:
        work, self.streams[stream] = self.streams[stream], []
        for one in work:
            one()

    def cudaStreamCreate(self) -> tuple[Any, ...]:
        with self._lock:
            self._handles += 1
            self.streams[self._handles] = []
            return Status.cudaSuccess, self._handles

    def cudaStreamDestroy(self, stream: int) -> tuple[Any, ...]:
        del self.streams[stream]
        return (Status.cudaSuccess,)

    def cudaStreamSynchronize(self, stream: int) -> tuple[Any, ...]:
        assert stream not in self.recording, "waiting spoils a recording"
        self.flush(stream)
        return (Status.cudaSuccess,)

    def cudaStreamBeginCapture(self, stream: int, mode: int) -> tuple[Any, ...]:
        self.recording[stream] = []
        return (Status.cudaSuccess,)

    def cudaStreamEndCapture(self, stream: int) -> tuple[Any, ...]:
        return Status.cudaSuccess, self.recording.pop(stream)

    def cudaGraphInstantiate(self, graph: list[Callable[[], None]], flags: int) -> tuple[Any, ...]:
        with self._lock:
            self._handles += 1
            self.graphs[self._handles] = graph
            return Status.cudaSuccess, self._handles

    def cudaGraphDestroy(self, graph: object) -> tuple[Any, ...]:
        return (Status.cudaSuccess,)

    def cudaGraphExecDestroy(self, graph: int) -> tuple[Any, ...]:
        del self.graphs[graph]
        return (Status.cudaSuccess,)

    def cudaGraphLaunch(self, graph: int, stream: int) -> tuple[Any, ...]:
        self.launches += 1
        for work in self.graphs[graph]:
            self.give(stream, work)
        return (Status.cudaSuccess,)


class Program:
    """What an engine computes: the shapes of its outputs from those of its inputs, and the numbers."""

    def __init__(
        self,
        shapes: Callable[[Mapping[str, tuple[int, ...]]], dict[str, tuple[int, ...]]],
        numbers: Callable[[Arrays], Arrays],
    ) -> None:
        self.shapes, self.numbers = shapes, numbers


class FakeContext:
    def __init__(self, program: Program, runtime: FakeCudaRuntime, config: Any = None) -> None:
        self._program, self._runtime, self.config = program, runtime, config
        runtime.contexts.append(self)
        self._inputs: dict[str, tuple[int, ...]] = {}
        self._addresses: dict[str, int] = {}
        self._threads: set[int] = set()

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        self._inputs[name] = tuple(shape)
        return True

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return {**self._inputs, **self._program.shapes(self._inputs)}[name]

    def set_tensor_address(self, name: str, address: int) -> bool:
        self._addresses[name] = address
        return True

    def execute_async_v3(self, stream: int) -> bool:
        self._threads.add(threading.get_ident())
        assert len(self._threads) == 1, "a context belongs to one thread"
        inputs, addresses = dict(self._inputs), dict(self._addresses)
        self._runtime.give(stream, lambda: self._compute(inputs, addresses))
        return True

    def _compute(self, inputs: dict[str, tuple[int, ...]], addresses: dict[str, int]) -> None:
        found = self._program.numbers({name: _view(addresses[name], shape) for name, shape in inputs.items()})
        for name, array in found.items():
            _view(addresses[name], array.shape)[...] = array


def fake_tensorrt(programs: Mapping[str, Program], runtime: FakeCudaRuntime, *, loads: bool = True) -> Any:
    """The `tensorrt` module. `loads` is whether engines deserialise: without a driver they give None."""

    class Runtime:
        def __init__(self, logger: object) -> None: ...

        def deserialize_cuda_engine(self, data: bytes) -> Any:
            if not loads:
                return None
            program = programs[json.loads(data)["program"]]
            return SimpleNamespace(
                create_runtime_config=SimpleNamespace,
                create_execution_context=lambda config=None: FakeContext(program, runtime, config),
            )

    class Logger:
        ERROR = 1

        def __init__(self, severity: int) -> None: ...

    strategies = SimpleNamespace(WHOLE_GRAPH_CAPTURE="whole graph")  # RTX's own
    return SimpleNamespace(__version__=VERSION, Runtime=Runtime, Logger=Logger, CudaGraphStrategy=strategies)


def engine_bytes(program: str) -> bytes:
    return json.dumps({"program": program}).encode()


def _view(address: int, shape: tuple[int, ...]) -> NDArray[np.float32]:
    numbers = (ctypes.c_float * int(np.prod(shape))).from_address(address)
    return np.ctypeslib.as_array(numbers).reshape(shape)

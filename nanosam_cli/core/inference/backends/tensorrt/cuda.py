"""CUDA's runtime, as far as a session needs it: memory on both sides, a stream, recorded graphs.

All calls of `cuda-bindings` are here. They give (status, values...), which become the values or a BackendError.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nanosam_cli.core.errors import BackendError
from nanosam_cli.core.system.machine import Gpu

_INSTALL = "pip install 'cuda-bindings>=12.8,<13' for CUDA 12 (JetPack 6), cuda-bindings>=13 for CUDA 13"

Address = int
Handle = Any  # of cuda-bindings, or the plain number


class Cuda:
    """The runtime's functions, on the current device."""

    def __init__(self, runtime: Any) -> None:
        self._runtime = runtime
        self._to_device = runtime.cudaMemcpyKind.cudaMemcpyHostToDevice
        self._to_host = runtime.cudaMemcpyKind.cudaMemcpyDeviceToHost
        self._on_device = runtime.cudaMemcpyKind.cudaMemcpyDeviceToDevice

    @classmethod
    def load(cls) -> Cuda:
        """Import `cuda.bindings.runtime`. BackendError where it is missing."""
        try:
            from cuda.bindings import runtime
        except ImportError as error:
            raise BackendError(f"CUDA's Python bindings are missing: {error}", _INSTALL) from error
        return cls(runtime)

    def gpu(self) -> Gpu:
        """The current device. BackendError where there is no driver or no GPU."""
        device = self._one(self._runtime.cudaGetDevice())
        properties = self._one(self._runtime.cudaGetDeviceProperties(device))
        name = properties.name.decode() if isinstance(properties.name, bytes) else str(properties.name)
        capability = f"{properties.major}.{properties.minor}"
        return Gpu(name, None, int(properties.totalGlobalMem) // 2**20, None, None, None, capability)

    def new_stream(self) -> Handle:
        return self._one(self._runtime.cudaStreamCreate())

    def free_stream(self, stream: Handle) -> None:
        self._none(self._runtime.cudaStreamDestroy(stream))

    def wait(self, stream: Handle) -> None:
        """Until everything is done that the stream was given."""
        self._none(self._runtime.cudaStreamSynchronize(stream))

    def new_memory(self, size: int) -> Address:
        """So many bytes on the device."""
        return int(self._one(self._runtime.cudaMalloc(size)))

    def free_memory(self, address: Address) -> None:
        self._none(self._runtime.cudaFree(address))

    def new_pinned(self, size: int) -> Address:
        """So many bytes on the host that the device can reach by itself."""
        return int(self._one(self._runtime.cudaMallocHost(size)))

    def free_pinned(self, address: Address) -> None:
        self._none(self._runtime.cudaFreeHost(address))

    def to_device(self, target: Address, source: Address, size: int, stream: Handle) -> None:
        self._none(self._runtime.cudaMemcpyAsync(target, source, size, self._to_device, stream))

    def to_host(self, target: Address, source: Address, size: int, stream: Handle) -> None:
        self._none(self._runtime.cudaMemcpyAsync(target, source, size, self._to_host, stream))

    def on_device(self, target: Address, source: Address, size: int, stream: Handle) -> None:
        self._none(self._runtime.cudaMemcpyAsync(target, source, size, self._on_device, stream))

    def record(self, stream: Handle, work: Callable[[], None]) -> Handle:
        """What `work` gives to the stream, as a graph that can be launched again and again.

        Raises BackendError where it cannot be recorded; the stream can still be used.
        """
        mode = self._runtime.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        self._none(self._runtime.cudaStreamBeginCapture(stream, mode))
        try:
            work()
        finally:  # a capture that failed has to be ended all the same
            status, *captured = self._runtime.cudaStreamEndCapture(stream)
        graph = self._one((status, *captured))
        try:
            return self._one(self._runtime.cudaGraphInstantiate(graph, 0))
        finally:
            self._none(self._runtime.cudaGraphDestroy(graph))

    def launch(self, graph: Handle, stream: Handle) -> None:
        self._none(self._runtime.cudaGraphLaunch(graph, stream))

    def free_graph(self, graph: Handle) -> None:
        self._none(self._runtime.cudaGraphExecDestroy(graph))

    def _one(self, result: Sequence[Any]) -> Any:
        self._none(result[:1])
        return result[1]

    def _none(self, result: Sequence[Any]) -> None:
        if int(result[0]) != 0:
            name = getattr(result[0], "name", str(result[0]))
            if name == "cudaErrorMemoryAllocation":
                raise BackendError("the GPU is out of memory", "close what else uses it, or send fewer prompts a call")
            raise BackendError(f"CUDA failed: {name}", "nanosam doctor shows the GPU and its driver")


class DeviceTensor:
    """Float32 numbers on the device, owned by whoever holds this. `numpy()` copies them to the host."""

    def __init__(self, cuda: Cuda, shape: tuple[int, ...]) -> None:
        self.shape = shape
        self.size = 4 * int(np.prod(shape))  # bytes
        self._cuda = cuda
        self.address = cuda.new_memory(self.size)

    def numpy(self) -> NDArray[np.float32]:
        found = np.empty(self.shape, np.float32)
        stream = self._cuda.new_stream()
        try:
            self._cuda.to_host(found.ctypes.data, self.address, self.size, stream)
            self._cuda.wait(stream)
        finally:
            self._cuda.free_stream(stream)
        return found

    def __del__(self) -> None:
        if hasattr(self, "address"):
            self._cuda.free_memory(self.address)


class Pair:
    """The memory of one input or output: on the device, and pinned on the host. It grows and is never given away."""

    def __init__(self, cuda: Cuda) -> None:
        self._cuda = cuda
        self._room = 0
        self.device: Address = 0
        self._pinned: Address = 0

    def fit(self, size: int) -> bool:
        """Make room for so many bytes; True where the addresses have changed."""
        if size <= self._room:
            return False
        self.close()
        self.device, self._pinned = self._cuda.new_memory(size), self._cuda.new_pinned(size)
        self._room = size
        return True

    def send(self, array: NDArray[np.float32], stream: Handle) -> None:
        """Host to device."""
        self.host(array.shape)[...] = array
        self._cuda.to_device(self.device, self._pinned, array.nbytes, stream)

    def fetch(self, size: int, stream: Handle) -> None:
        """Device to pinned memory; `host` has it when the stream is done."""
        self._cuda.to_host(self._pinned, self.device, size, stream)

    def host(self, shape: tuple[int, ...]) -> NDArray[np.float32]:
        """The pinned memory itself, which the next run overwrites."""
        count = int(np.prod(shape))
        numbers = (ctypes.c_float * count).from_address(self._pinned)
        return np.ctypeslib.as_array(numbers).reshape(shape)

    def close(self) -> None:
        if self._room:
            self._cuda.free_memory(self.device)
            self._cuda.free_pinned(self._pinned)
        self._room = 0

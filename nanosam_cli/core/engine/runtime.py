"""Which runtime engines are built for on this machine, and why."""

from __future__ import annotations

import platform
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import onnxruntime

from nanosam_cli.core.errors import BackendError, UsageError
from nanosam_cli.core.inference.backends.tensorrt.flavour import check_capability, gpu_here, installed
from nanosam_cli.core.inference.sidecar import EngineTarget, Flavour
from nanosam_cli.core.system.machine import Gpu

FLAVOURS: tuple[Flavour, ...] = ("tensorrt", "tensorrt-rtx", "onnxruntime")  # the best first


@dataclass(frozen=True)
class Chosen:
    """A runtime."""

    target: EngineTarget
    why: str
    runs_here: bool  # whether its engines can be run on this machine, and so be proved by running


def choose(asked: str | None) -> Chosen:
    """The runtime that was asked for, else the best that works here.

    Raises:
        UsageError: there is none of that name.
        BackendError: it is not installed, or has no GPU that it can work on; with what to type.
    """
    makers: Mapping[str, Callable[[], Chosen]] = {
        "tensorrt": _tensorrt,
        "tensorrt-rtx": _rtx,
        "onnxruntime": _onnxruntime,
    }
    if asked is not None and asked != "auto":
        if asked not in makers:
            raise UsageError(f"unknown backend: {asked}", f"choose one of {', '.join(FLAVOURS)}")
        chosen = makers[asked]()
        return Chosen(chosen.target, "asked for", chosen.runs_here)
    reasons = []
    for flavour in FLAVOURS:
        try:
            chosen = makers[flavour]()
        except BackendError as error:
            reasons.append(f"{flavour}: {error}")
            continue
        return Chosen(chosen.target, "; ".join([chosen.why, *reasons]), chosen.runs_here)
    raise AssertionError("ONNX Runtime is always there")


def _tensorrt() -> Chosen:
    found, gpu = installed("tensorrt"), gpu_here()
    if gpu is None:
        raise BackendError(
            "tensorrt builds on the GPU that the engine is for, and there is none here",
            "--backend tensorrt-rtx builds for RTX cards without one; --backend onnxruntime for CPUs",
        )
    check_capability(found, gpu)
    target = EngineTarget("tensorrt", found.version, _platform(), gpu.name, _capabilities(gpu))
    return Chosen(target, f"TensorRT {found.version} and {gpu.name} are here", runs_here=True)


def _rtx() -> Chosen:
    found, gpu = installed("tensorrt-rtx"), gpu_here()
    if gpu is not None:
        check_capability(found, gpu)
    target = EngineTarget("tensorrt-rtx", found.version, _platform(), None, found.capabilities)
    why = f"TensorRT-RTX {found.version} is installed, which builds for RTX cards on any machine"
    return Chosen(target, why, runs_here=gpu is not None)


def _onnxruntime() -> Chosen:
    target = EngineTarget("onnxruntime", onnxruntime.__version__, _platform())
    return Chosen(target, f"ONNX Runtime {onnxruntime.__version__} runs everywhere", runs_here=True)


def half_pays() -> bool:
    """Whether ONNX Runtime has a device here that computes in half: its CPU converts back and forth."""
    return "CUDAExecutionProvider" in onnxruntime.get_available_providers()


def _capabilities(gpu: Gpu) -> tuple[str, ...]:
    return (gpu.compute_capability,) if gpu.compute_capability else ()


def _platform() -> str:
    return f"{platform.system()} {platform.machine()}"

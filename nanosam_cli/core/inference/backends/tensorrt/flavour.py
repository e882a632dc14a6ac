"""TensorRT and TensorRT-RTX: what is installed, for which GPU, and what to type where it is not."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Literal, TypeAlias

from nanosam_cli.core.errors import BackendError
from nanosam_cli.core.system.machine import Gpu, board, read_gpus

Flavour: TypeAlias = Literal["tensorrt", "tensorrt-rtx"]

_MODULES: Mapping[Flavour, str] = {"tensorrt": "tensorrt", "tensorrt-rtx": "tensorrt_rtx"}
_OLDEST = 10  # TensorRT's major version; JetPack 6.0 has 8.6
_LOWEST = (7, 5)  # compute capability of either's
_JETSON = (
    "sudo apt install nvidia-jetpack, then make the environment with `python3 -m venv --system-site-packages`; "
    "TensorRT 10 comes with JetPack 6.1 and newer"
)


@dataclass(frozen=True)
class Installed:
    """One flavour, imported."""

    flavour: Flavour
    module: Any
    version: str

    @property
    def capabilities(self) -> tuple[str, ...]:
        """The compute capabilities that RTX builds for, such as 8.9; empty for TensorRT, which builds for its GPU."""
        if self.flavour == "tensorrt":
            return ()
        names = self.module.ComputeCapability.__members__
        found = [name.removeprefix("SM") for name in names if name.startswith("SM")]
        return tuple(f"{digits[:-1]}.{digits[-1]}" for digits in found)


def installed(flavour: Flavour) -> Installed:
    """Import a flavour. BackendError where it is missing, broken or too old, with what to type."""
    try:
        module: Any = import_module(_MODULES[flavour])
        version = str(module.__version__)
    except (ImportError, AttributeError, OSError) as error:  # OSError: its libraries are not there
        raise BackendError(f"{flavour} is not installed: {error}", how_to_install(flavour)) from error
    if flavour == "tensorrt" and int(version.partition(".")[0]) < _OLDEST:
        message = f"TensorRT {version} is too old: {_OLDEST}.0 or newer is needed"
        raise BackendError(message, "update to JetPack 6.1 or newer" if on_jetson() else how_to_install(flavour))
    return Installed(flavour, module, version)


def how_to_install(flavour: Flavour) -> str:
    """The command, or the steps on a Jetson, where pip has nothing that fits."""
    return _JETSON if flavour == "tensorrt" and on_jetson() else f"pip install 'nanosam-cli[{flavour}]'"


def on_jetson() -> bool:
    return "jetson" in (board() or "").lower() or "tegra" in platform.release()


def gpu_here() -> Gpu | None:
    """The first GPU, as nvidia-smi or else CUDA itself tells; None where there is none that works."""
    found = next(iter(read_gpus()), None)
    if found is not None and found.compute_capability:
        return found
    try:
        from nanosam_cli.core.inference.backends.tensorrt.cuda import Cuda

        return Cuda.load().gpu()
    except (ImportError, BackendError):  # no cuda-bindings, or no driver
        return found


def check_capability(found: Installed, gpu: Gpu) -> None:
    """BackendError where engines of this flavour do not run on this GPU."""
    capability = gpu.compute_capability
    if capability is None:
        return  # old drivers do not tell; the builder will
    numbers = tuple(int(part) for part in capability.split("."))
    if numbers < _LOWEST:
        lowest = ".".join(map(str, _LOWEST))
        raise BackendError(
            f"{gpu.name} has compute capability {capability}, and {found.flavour} {found.version} needs {lowest}",
            "--backend onnxruntime",
        )
    if found.flavour == "tensorrt-rtx" and capability not in found.capabilities:
        known = ", ".join(found.capabilities)
        raise BackendError(
            f"{gpu.name} has compute capability {capability}; tensorrt-rtx {found.version} builds for {known}",
            "--backend tensorrt, or --backend onnxruntime",
        )

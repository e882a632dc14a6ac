"""Whether an engine may be loaded here: its side-car against this machine, before TensorRT sees the file."""

from __future__ import annotations

import platform
from pathlib import Path

from nanosam_cli.core.errors import BackendError, ModelError
from nanosam_cli.core.inference.backends.tensorrt.flavour import Flavour, Installed, gpu_here, installed
from nanosam_cli.core.inference.sidecar import SideCar, check_engine, check_source, read_sidecar
from nanosam_cli.core.system.machine import Gpu


def checked(path: Path, flavour: Flavour) -> tuple[SideCar, Installed]:
    """The side-car of an engine of this flavour that runs here.

    Raises:
        ModelError: the side-car is missing or edited, or the engine is not the one it describes or of another flavour,
            version, platform, GPU or ONNX file. The hint is the command that builds it again.
        BackendError: the flavour is not installed, or there is no GPU.
    """
    sidecar = read_sidecar(path)
    check_engine(path, sidecar)
    target = sidecar.target
    if target.backend != flavour:
        raise ModelError(f"engine {path} was built for {target.backend}, not {flavour}", f"--backend {target.backend}")
    found = installed(flavour)
    here = f"{platform.system()} {platform.machine()}"
    for what, built, present in (("version", target.version, found.version), ("platform", target.platform, here)):
        if built != present:
            raise ModelError(
                f"engine {path} was built for {flavour} {what} {built}, this is {present}", sidecar.rebuild
            )
    check_source(path, sidecar, path.with_name(sidecar.onnx))
    gpu = gpu_here()
    if gpu is None:
        raise BackendError(
            f"engine {path} needs an NVIDIA GPU, and there is none here", "run the ONNX file: --backend onnxruntime"
        )
    _check_gpu(path, sidecar, gpu)
    return sidecar, found


def _check_gpu(path: Path, sidecar: SideCar, gpu: Gpu) -> None:
    target = sidecar.target
    if target.gpu is not None and target.gpu != gpu.name:
        raise ModelError(f"engine {path} was built on {target.gpu}, this is {gpu.name}", sidecar.rebuild)
    known = target.compute_capabilities
    if known and gpu.compute_capability and gpu.compute_capability not in known:
        raise ModelError(
            f"engine {path} was built for compute capability {', '.join(known)}; {gpu.name} has "
            f"{gpu.compute_capability}",
            sidecar.rebuild if target.backend == "tensorrt" else "--backend tensorrt, or --backend onnxruntime",
        )

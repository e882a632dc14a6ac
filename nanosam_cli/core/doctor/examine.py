"""What this installation has, what it lacks, and what to type for each thing that is missing."""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
from collections.abc import Iterator, Sequence
from importlib import import_module, metadata
from pathlib import Path
from time import perf_counter

import numpy as np

from nanosam_cli.core import paths
from nanosam_cli.core.doctor.check import Check, CheckStatus
from nanosam_cli.core.doctor.model_files import cache_checks, model_checks
from nanosam_cli.core.doctor.requirements import DISTRIBUTION, requirement_checks
from nanosam_cli.core.errors import ModelError, NanosamError, UsageError
from nanosam_cli.core.inference.session import BACKENDS, Backend
from nanosam_cli.core.loading.load import load_predictor
from nanosam_cli.core.loading.part_files import model_files
from nanosam_cli.core.messages import did_you_mean, shown
from nanosam_cli.core.system import machine
from nanosam_cli.core.types import Prompt
from nanosam_cli.core.zoo.models import DEFAULT_MODEL, find_model

# Flavours by their import name. On a Jetson it comes with the system, and pip has nothing that fits.
_TENSORRT = {"tensorrt": "pip install tensorrt", "tensorrt_rtx": "pip install tensorrt-rtx"}
_EXTRAS = ("openvino",)  # backends that only who wants them installs
_OTHER_BUILDS = ("onnxruntime-gpu", "onnxruntime-directml", "onnxruntime-openvino")  # they fill onnxruntime's folder
_DEFAULT = "default model"  # the check that decides
_JETSON = "sudo apt install nvidia-jetpack, then make the environment with `python3 -m venv --system-site-packages`"


def examine() -> tuple[list[Check], Check]:
    """Everything that was looked at, and of it the check that decides: whether the default model runs."""
    decisive = default_model_check()
    checks = [
        Check("system", "Python", "ok", f"{platform.python_implementation()} {platform.python_version()}"),
        *machine_checks(),
        *requirement_checks(),
        *(backend_check(backend) for backend in BACKENDS if backend.name.replace("-", "_") not in _TENSORRT),
        *build_checks(),
        *(tensorrt_check(module) for module in _TENSORRT),
        *environment_checks(),
        *model_checks(),
        decisive,
        *cache_checks(),
    ]
    return checks, decisive


def to_mend(checks: Sequence[Check]) -> list[Check]:
    """What should be put right; not what is missing and only some need: extras, downloads, TensorRT without a GPU."""
    gpu = any(check.section == "GPU" and check.status == "ok" for check in checks)
    return [check for check in checks if check.fix and not _is_optional(check, gpu)]


def _is_optional(check: Check, gpu: bool) -> bool:
    if check.section == "backends" and check.name in _EXTRAS:
        return check.status == "missing"
    if check.section == "backends":
        return check.status == "missing" and check.name in _TENSORRT and not (gpu or check.fix == _JETSON)
    bundled = check.name == _DEFAULT or check.name.startswith(f"{DEFAULT_MODEL} ")
    return check.status == "missing" and check.section in ("extras", "models") and not bundled


def verdict(checks: Sequence[Check]) -> str:
    """In one line, how the base installation is where the default model runs, and what is not here."""
    absent = [check for check in checks if check.status == "missing" and check.fix]
    extras = [check.name for check in absent if check.section == "extras"]
    models = dict.fromkeys(check.name.split()[0] for check in absent if check.section == "models")
    words = ["the base install is fine" if not to_mend(checks) else "the default model runs; the rest is listed above"]
    words += [f"extras not installed: {', '.join(extras)} (pip install '{DISTRIBUTION}[EXTRA]')"] if extras else []
    words += [f"models not downloaded: {', '.join(models)} (nanosam download MODEL)"] if models else []
    return "; ".join(words)


def default_model_check() -> Check:
    """Open the default model as any command would, and run it once on a made-up photo."""
    name = _DEFAULT
    try:
        model_files(find_model(DEFAULT_MODEL))
    except ModelError as error:
        return Check("models", name, "missing", str(error), error.hint)
    image = np.random.default_rng(0).integers(0, 256, (480, 640, 3), np.uint8)
    start = perf_counter()
    try:
        with load_predictor() as predictor:
            (mask,) = predictor.predict(predictor.encode_image(image), Prompt.from_boxes([[160, 120, 480, 360]]))
            parts = dict.fromkeys((predictor.encoder.backend, predictor.decoder.backend))
    except NanosamError as error:
        return Check("models", name, "broken", str(error), error.hint)
    seconds = perf_counter() - start
    height, width = mask.mask.shape
    return Check(
        "models",
        name,
        "ok",
        f"{DEFAULT_MODEL} on {' + '.join(parts)}: opened and gave a {width}x{height} mask in {seconds:.1f} s",
    )


def machine_checks() -> Iterator[Check]:
    """Processor, memory and GPU."""
    gpus = machine.read_gpus()
    yield Check("system", "machine", "ok", str(machine.read_machine(gpus)))
    features = machine.cpu_features()
    if features is None:
        yield Check("system", "CPU features", "ok", "unknown: this system does not tell")
    else:
        there, lacking = ([name for name, has in features.items() if has is wanted] for wanted in (True, False))
        yield Check("system", "CPU features", "ok", f"{', '.join(there) or 'none'}; not {', '.join(lacking) or 'any'}")
    total, free = machine.memory_bytes(), machine.free_memory_bytes()
    known = [f"{size / 2**30:.1f} GiB{what}" for size, what in ((total, ""), (free, " free")) if size is not None]
    yield Check("system", "memory", "ok", ", ".join(known) or "unknown: this system does not tell")
    for gpu in gpus:
        yield Check("GPU", gpu.name, "ok", str(gpu))
    if not gpus and shutil.which("nvidia-smi"):
        yield Check("GPU", "NVIDIA", "broken", "nvidia-smi finds no GPU that works", "nvidia-smi")
    elif not gpus:
        yield Check("GPU", "NVIDIA", "missing", "nvidia-smi is not here, so there is no GPU or no driver for it")


def backend_check(backend: Backend) -> Check:
    """Whether a runtime can be imported, and what it offers."""
    try:
        module = import_module(backend.module)
    except ImportError as error:
        status: CheckStatus = "missing" if isinstance(error, ModuleNotFoundError) else "broken"
        return Check("backends", backend.name, status, str(error), backend.install)
    runtime = getattr(module, backend.name, None)  # the package, where the backend is named after it
    providers: list[str] = getattr(runtime, "get_available_providers", list)()
    parts = [getattr(runtime, "__version__", "loads"), *providers, f"reads {' '.join(backend.suffixes)}"]
    return Check("backends", backend.name, "ok", ", ".join(parts))


def build_checks() -> Iterator[Check]:
    """Another build of ONNX Runtime, over whose files the plain one was installed later."""
    try:
        plain = metadata.distribution("onnxruntime")
    except metadata.PackageNotFoundError:  # nothing that could lie over it
        return
    library = next((path for path in plain.files or () if path.name.startswith("onnxruntime_pybind11_state")), None)
    for name in _OTHER_BUILDS:
        try:
            version = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
        if library and library.size == Path(str(library.locate())).stat().st_size:
            again = f"pip install --force-reinstall --no-deps {name}"
            yield Check("backends", name, "broken", f"{version}, but onnxruntime's files lie over its own", again)
        else:
            yield Check("backends", name, "ok", version)


def tensorrt_check(module: str) -> Check:
    """Whether one of TensorRT's flavours is installed; it is not imported, which takes long and needs a driver."""
    if importlib.util.find_spec(module) is None:
        jetson = "jetson" in (machine.board() or "").lower()
        return Check(
            "backends",
            module,
            "missing",
            "not installed; only for NVIDIA GPUs",
            _JETSON if jetson else _TENSORRT[module],
        )
    names = metadata.packages_distributions().get(module, [])
    return Check("backends", module, "ok", metadata.version(names[0]) if names else "of unknown version")


def environment_checks() -> Iterator[Check]:
    """The variables that are set, those that cannot be read, and misspelt ones."""
    known = {variable.name: variable for variable in paths.VARIABLES}
    for name in sorted(name for name in os.environ if name.startswith("NANOSAM_")):
        value = shown(os.environ[name])  # a mirror's password is nobody's business
        if name not in known:
            hint = did_you_mean(name, known) or f"unset {name}"
            yield Check("environment", name, "broken", f"{value}: nanosam has no such variable", hint)
            continue
        try:
            known[name].get()
        except UsageError as error:
            yield Check("environment", name, "broken", str(error), error.hint)
        else:
            yield Check("environment", name, "ok", value or "empty, so not in force")

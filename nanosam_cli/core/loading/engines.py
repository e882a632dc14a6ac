"""Which files a named model is opened from: engines that were built for this machine, else its ONNX files.

On a CPU that is the int8 encoder, where the model comes with one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from nanosam_cli.core import paths
from nanosam_cli.core.errors import BackendError, ModelError
from nanosam_cli.core.inference.backends.tensorrt.compatibility import checked
from nanosam_cli.core.inference.backends.tensorrt.flavour import gpu_here
from nanosam_cli.core.inference.sidecar import Flavour, SideCar, check_engine, check_source, read_sidecar, sidecar_path
from nanosam_cli.core.loading.part_files import part_file
from nanosam_cli.core.messages import Note
from nanosam_cli.core.system.ownership import others_can_write
from nanosam_cli.core.types import DECODER, ENCODER
from nanosam_cli.core.zoo.models import INT8_ENCODER, ModelSpec

ON_GPU: tuple[Flavour, ...] = ("tensorrt", "tensorrt-rtx")
_SUFFIXES: Mapping[Flavour, str] = {"tensorrt": ".engine", "tensorrt-rtx": ".rtx", "onnxruntime": ".onnx"}
FLAVOURS, ENGINE_SUFFIXES = tuple(_SUFFIXES), tuple(_SUFFIXES.values())


def engine_folder(spec: ModelSpec, backend: Flavour) -> Path:
    """Where the engines of a model of the zoo are kept."""
    return paths.home() / "engines" / spec.name / backend


def is_in_cache(engine: Path) -> bool:
    """Whether an engine lies where only this program keeps any, as `engine_folder` says."""
    return engine.parent.parent.parent == paths.home() / "engines"


def engine_name(stem: str, backend: Flavour) -> str:
    """The file's name tells its backend."""
    return stem + _SUFFIXES[backend]


def model_paths(spec: ModelSpec, backend: str | None, device: str | None, note: Note) -> tuple[Path, Path]:
    """The encoder's and the decoder's file: `backend`'s engines, or by themselves the best that work here.

    An engine that does not fit (any more) is passed over with a note; one for a GPU, where there is none, without.
    Raises ModelError where the model's files are missing, or `backend` runs engines alone and there is none.
    """
    backend = backend or paths.BACKEND.get() or "auto"
    device = device or paths.DEVICE.get() or "auto"
    engines = _can_be_entered(note)
    return _part(spec, ENCODER, backend, device, engines, note), _part(spec, DECODER, backend, device, engines, note)


def _can_be_entered(note: Note) -> bool:
    """Whether there may be engines. A cache out of reach, such as another user's, counts as empty; it is said."""
    try:
        return (paths.home() / "engines").exists()
    except OSError as error:
        set_it = f"{paths.HOME.name} names another place"
        note(f"{paths.home()} cannot be entered ({error.strerror}), so no engines are looked for there; {set_it}")
        return False


def _part(spec: ModelSpec, part: str, backend: str, device: str, engines: bool, note: Note) -> Path:
    original = part_file(spec, part, note)
    if backend in ON_GPU:
        return _named(spec, part, next(flavour for flavour in ON_GPU if flavour == backend))
    on_cpu = _on_cpu(backend, device) or (backend == "openvino" and device in ("auto", "cpu"))
    has_int8 = part == ENCODER and INT8_ENCODER in spec.parts and on_cpu
    for flavour in _flavours(backend, device) if engines else ():
        engine = engine_folder(spec, flavour) / engine_name(part, flavour)
        if engine.exists():
            try:
                sidecar = check(engine, flavour, original)
            except (BackendError, ModelError) as error:
                note(f"{error}; it is not used{f' ({error.hint})' if error.hint else ''}")
                continue
            built, asked = sidecar.precision_built, sidecar.precision_asked
            if has_int8 and flavour == "onnxruntime" and built != asked:
                note(f"{engine} became {built}, not {asked} as asked; the model's int8 encoder is faster, and runs")
                continue
            return engine
    return part_file(spec, INT8_ENCODER, note) if has_int8 else original


def _flavours(backend: str, device: str) -> Iterator[Flavour]:
    """The runtimes whose engines are looked for, the best first."""
    if backend == "auto" and device != "cpu" and gpu_here():
        yield from ON_GPU
    # ONNX Runtime's engines are for CPUs, and do not beat the original on a GPU
    if _on_cpu(backend, device):
        yield "onnxruntime"


def _on_cpu(backend: str, device: str) -> bool:
    """Whether ONNX Runtime runs the model, on a CPU."""
    on_cpu = device == "cpu" or (device == "auto" and not _cuda_provider())
    return backend in ("auto", "onnxruntime") and on_cpu


def _named(spec: ModelSpec, part: str, flavour: Flavour) -> Path:
    engine = engine_folder(spec, flavour) / engine_name(part, flavour)
    if not engine.exists():
        raise ModelError(
            f"there is no {flavour} engine of {spec.name}'s {part}: {engine}",
            f"nanosam build-engine {spec.name} --fp16 --backend {flavour}",
        )
    _check_owner(engine)
    return engine


def check(engine: Path, flavour: Flavour, original: Path) -> SideCar:
    """An engine's side-car. ModelError or BackendError, with what to do, where it does not fit machine or original."""
    _check_owner(engine)
    sidecar = _check_onnxruntime(engine) if flavour == "onnxruntime" else checked(engine, flavour)[0]
    check_source(engine, sidecar, original)
    return sidecar


def _check_owner(engine: Path) -> None:
    """ModelError where somebody else could have put an engine into the cache: loading it would run what they like."""
    folders = [folder for folder in engine.parents if folder.is_relative_to(paths.home())]
    files = [file for file in (engine, sidecar_path(engine)) if file.exists()]
    fault = others_can_write([*reversed(folders), *files])
    if fault:
        raise ModelError(
            f"engine {engine} may be another's: {fault}", f"chmod -R o-w {paths.home()}, and build it again"
        )


def _check_onnxruntime(engine: Path) -> SideCar:
    import onnxruntime

    sidecar = read_sidecar(engine)
    check_engine(engine, sidecar)
    built, here = sidecar.target.version, onnxruntime.__version__
    if built != here:
        raise ModelError(f"engine {engine} was built by ONNX Runtime {built}, this is {here}", sidecar.rebuild)
    return sidecar


def _cuda_provider() -> bool:
    import onnxruntime

    return "CUDAExecutionProvider" in onnxruntime.get_available_providers()

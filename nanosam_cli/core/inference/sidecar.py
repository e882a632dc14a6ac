"""`NAME.engine.json` beside an engine: what it was made of, for what machine, and what was found when it was proved.

An engine is opaque. Nothing loads one whose side-car is missing, was edited, or speaks of another file.
"""

from __future__ import annotations

import hashlib
import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path, PureWindowsPath
from typing import Annotated, Any, Literal

from nanosam_cli.core import paths
from nanosam_cli.core.errors import InputError, ModelError
from nanosam_cli.core.inference.session import TensorInfo
from nanosam_cli.core.messages import quoted
from nanosam_cli.core.schema import read_section
from nanosam_cli.core.system.documents import RECORD_BYTES, parse_json
from nanosam_cli.core.system.files import file_sha256, read_input

SCHEMA_VERSION = 1
SUFFIX = ".engine.json"

FixedShape = tuple[int, ...]
ProofStatus = Literal["proved by running", "built, not run", "not proved"]
Flavour = Literal["tensorrt", "tensorrt-rtx", "onnxruntime"]


@dataclass(frozen=True)
class _Beside:
    """A rule for names of files that lie beside a side-car."""

    def fault(self, value: str) -> str | None:
        path = PureWindowsPath(value)
        inside = value and not path.anchor and ".." not in path.parts and "\0" not in value
        return None if inside else f"must name a file beside it, not {value!r}"


FileName = Annotated[str, _Beside()]


@dataclass(frozen=True)
class ShapeRange:
    """The shapes that an engine takes for one input."""

    min: tuple[int, ...]
    opt: tuple[int, ...]
    max: tuple[int, ...]


@dataclass(frozen=True)
class EngineTarget:
    """What an engine was built for. An engine of TensorRT runs on nothing else."""

    backend: Flavour
    version: str  # the runtime's
    platform: str  # such as Linux x86_64
    gpu: str | None = None  # TensorRT's own engines are for one
    compute_capabilities: tuple[str, ...] = ()  # such as 8.7; RTX's engines are for a range of them


@dataclass(frozen=True)
class SideCar:
    """Everything that is known of an engine."""

    engine: FileName
    engine_sha256: str
    engine_bytes: int
    onnx: FileName  # the float32 original
    onnx_sha256: str
    part: str
    target: EngineTarget
    precision_asked: str
    precision_built: str
    status: ProofStatus
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    metadata: Mapping[str, str]  # the contract's facts, and what the original says of itself
    rebuild: str  # the command that made it
    options: Mapping[str, Any] = field(default_factory=dict)  # of the build and the proof: what else decided it
    onnx_data: Mapping[str, str] = field(default_factory=dict)  # hashes of files that hold its weights, by name
    fp32_nodes: tuple[str, ...] = ()  # that could have been in the precision asked for
    layers: Mapping[str, int] = field(default_factory=dict)  # how many give numbers of each type
    shapes: Mapping[str, ShapeRange] = field(default_factory=dict)
    ladder: tuple[Mapping[str, Any], ...] = ()  # what was tried
    proof: Mapping[str, Any] | None = None
    build_seconds: float = 0.0
    created: str = ""  # ISO 8601, UTC
    nanosam: str = ""  # the version that built it

    def text(self) -> str:
        """The file: JSON, with a hash of all the rest, by which an edit is noticed."""
        content = {"schema_version": SCHEMA_VERSION, **asdict(self)}
        return json.dumps({**content, "sha256": _digest(content)}, indent=2, allow_nan=False) + "\n"


def sidecar_path(engine: Path) -> Path:
    """`encoder.engine` -> `encoder.engine.json`, and so for the ONNX files that ONNX Runtime's engines are."""
    return engine.with_suffix(SUFFIX)


def read_sidecar(engine: Path) -> SideCar:
    """What is known of an engine. ModelError where its side-car is missing, edited, or not of this version."""
    path = sidecar_path(engine)
    again = _rebuild(engine)
    if not path.exists():
        raise ModelError(f"engine {engine} has no {path.name} beside it, so nothing is known of it", again)
    try:
        content = parse_json(read_input(path, most=RECORD_BYTES))
        if not isinstance(content, dict):
            raise ValueError("it holds no JSON object")
        claimed, digest = content.pop("sha256", None), _digest(content)
    except (InputError, ValueError, RecursionError) as error:
        raise ModelError(f"{path} cannot be read: {error}", again) from error
    rebuild = str(content.get("rebuild", again))
    if content.get("schema_version") != SCHEMA_VERSION:
        raise ModelError(f"{path} is of version {quoted(content.get('schema_version'))}, not {SCHEMA_VERSION}", rebuild)
    if claimed != digest:
        raise ModelError(f"{path} was edited: its own hash does not fit", rebuild)
    try:
        return read_section(SideCar, content, strangers=True)
    except ValueError as error:  # whoever edits it can hash it again
        raise ModelError(f"{path} is no side-car of an engine: {error}", again) from error


def check_engine(engine: Path, sidecar: SideCar) -> None:
    """ModelError where the file is not the one that the side-car speaks of."""
    if not engine.is_file():
        raise ModelError(f"engine {engine} does not exist", sidecar.rebuild)
    if file_sha256(engine) != sidecar.engine_sha256:
        raise ModelError(f"engine {engine} is not the file that {sidecar_path(engine).name} describes", sidecar.rebuild)


def check_source(engine: Path, sidecar: SideCar, onnx: Path) -> None:
    """ModelError where an ONNX file, or one beside it that holds its weights, is not what the engine was built from."""
    data = ((onnx.parent / name, built) for name, built in sidecar.onnx_data.items())
    for path, built in ((onnx, sidecar.onnx_sha256), *data):
        if path.is_file() and file_sha256(path) != built:
            raise ModelError(f"engine {engine} was built from another {path.name} than {path}", sidecar.rebuild)


def _rebuild(engine: Path) -> str:
    """The command, as far as an engine's place tells it: `choice.engine_folder` is engines/MODEL/BACKEND."""
    folder = engine.parent
    if folder.parent.parent == paths.home() / "engines":
        return f"nanosam build-engine {folder.parent.name} --backend {folder.name} --force"
    return "nanosam build-engine FILE.onnx --force, of the file that it was built from"


def _digest(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


CommandOptions = Mapping[
    str, object
]  # by their names on the command line, such as --batch; True where one takes no value


def rebuild_command(models: Sequence[str], options: CommandOptions) -> str:
    """`nanosam build-engine` with names or files, and the options that were given: those that are not None or False."""
    words = ["nanosam", "build-engine", *models]
    for name, value in options.items():
        if value is not None and value is not False:
            words += [name] if value is True else [name, str(value)]
    return shlex.join(words)


def unless_default(value: object, default: object) -> object:
    """None where an option says what goes without saying."""
    return None if value == default else value


def shapes_text(shapes: Mapping[str, FixedShape]) -> str | None:
    """`point_coords:8x2x2,point_labels:8x2`, or None where there are none."""
    return ",".join(f"{name}:{'x'.join(map(str, shape))}" for name, shape in shapes.items()) or None

"""What a build is to do: which files, in which precision, for which runtime, and where the results go."""

from __future__ import annotations

import shlex
from collections.abc import Collection, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from nanosam_cli.core import paths
from nanosam_cli.core.engine.left_over import AGAIN, is_left_over
from nanosam_cli.core.engine.runtime import Chosen, half_pays
from nanosam_cli.core.engine.shapes import EncoderShape, Shapes, profile
from nanosam_cli.core.errors import ModelError, OutputError, UsageError
from nanosam_cli.core.inference.contract import INPUTS, check_part, encoder_image_size, part_of
from nanosam_cli.core.inference.session import open_session
from nanosam_cli.core.inference.sidecar import (
    CommandOptions,
    Flavour,
    ShapeRange,
    read_sidecar,
    rebuild_command,
    shapes_text,
    sidecar_path,
    unless_default,
)
from nanosam_cli.core.loading.engines import engine_folder, engine_name
from nanosam_cli.core.loading.part_files import part_file
from nanosam_cli.core.system.files import check_writable
from nanosam_cli.core.types import DECODER, ENCODER
from nanosam_cli.core.zoo.models import DEFAULT_MODEL, ModelSpec, find_model

EnginePrecision = Literal["fp32", "fp16", "bf16", "int8"]
PRECISIONS: tuple[EnginePrecision, ...] = ("fp32", "fp16", "bf16", "int8")
HALF_PRECISIONS = ("fp16", "bf16")


@dataclass(frozen=True)
class BuildRequest:
    """What the user asked for. None is left to the model and the runtime."""

    precision: EnginePrecision | None = None  # of encoders
    decoder_precision: EnginePrecision | None = None
    shapes: Shapes = field(default_factory=lambda: Shapes({}, {}, {}))
    batch: int = 1
    output: Path | None = None  # directory
    overwrite: bool = False
    prove: bool = True
    others: CommandOptions = field(default_factory=dict)  # that a plan has no use for, but the command to build again


@dataclass(frozen=True)
class EngineJob:
    """One engine to build."""

    part: str
    onnx: Path
    engine: Path
    precision_asked: EnginePrecision
    precision: EnginePrecision  # that is tried first
    profile: dict[str, ShapeRange]  # empty for ONNX Runtime, which takes any shape
    rebuild: str
    overwrite: bool
    why: str | None = None  # where precision is not what was asked for
    other_engine: Path | None = None  # another engine, whose side-car this one's replaces


@dataclass(frozen=True)
class BuildPlan:
    """Engines to build for one model, and its float32 originals to prove them with."""

    spec: ModelSpec  # whose normalisation the files have
    chosen: Chosen
    jobs: tuple[EngineJob, ...]
    encoder: Path | None  # the originals; a decoder is missing where only an encoder was given
    decoder: Path | None


def plan_model(name: str, chosen: Chosen, asked: BuildRequest) -> BuildPlan:
    """Both parts of a model of the zoo."""
    spec = find_model(name)
    files = {part: part_file(spec, part) for part in (ENCODER, DECODER)}
    folder = asked.output or engine_folder(spec, chosen.target.backend)
    targets = {part: folder / engine_name(part, chosen.target.backend) for part in files}
    return _plan(spec, chosen, asked, files, targets, files, _rebuild([name], asked, chosen))


def plan_files(
    files: Sequence[Path], chosen: Chosen, asked: BuildRequest, *, model: str | None, originals: dict[str, Path]
) -> BuildPlan:
    """ONNX files of one model: an encoder, a decoder, or both. Engines go beside them, or where `asked` says.

    `originals` are float32 files that are only there for the proof. Raises UsageError where two files are the same
    part, or an original is of a part that is itself to be built, ModelError where a file is no part of a model.
    """
    spec = find_model(model or DEFAULT_MODEL)
    parts: dict[str, Path] = {}
    for file in files:
        with closing(open_session(file, backend="onnxruntime", device="cpu")) as session:
            part = part_of(session)
            if part is None:
                check_part(ENCODER, session)  # says what was expected
                raise ModelError(f"{file} is neither an image encoder nor a mask decoder")
            check_part(part, session)
        if part in parts:
            both = f"{parts[part]} and {file} are both {'an' if part == ENCODER else 'a'} {part}"
            raise UsageError(both, "build the engines of one model at a time")
        parts[part] = file
    _refuse_idle(originals, parts)
    backend = chosen.target.backend
    targets = {
        part: (asked.output or file.parent) / engine_name(f"{file.stem}.{backend}", backend)
        for part, file in parts.items()
    }
    known = {**originals, **parts}
    if DECODER in parts and ENCODER not in known and asked.prove:
        raise UsageError(
            f"{parts[DECODER]} is a mask decoder, which is proved behind its encoder",
            f"nanosam build-engine {parts[DECODER]} --encoder ENCODER.onnx",
        )
    helpers: CommandOptions = {"--model": model, **{f"--{part}": originals.get(part) for part in (ENCODER, DECODER)}}
    again = _rebuild([str(file) for file in files], asked, chosen, helpers)
    return _plan(spec, chosen, asked, parts, targets, known, again)


def refuse_shared(plans: Sequence[BuildPlan]) -> None:
    """UsageError where an engine would overwrite one of the same build. Equal side-cars go with equal engines."""
    taken: dict[Path, EngineJob] = {}
    for job in (job for plan in plans for job in plan.jobs):
        other = taken.setdefault(sidecar_path(job.engine).resolve(), job)
        if other.onnx == job.onnx and other is not job:
            raise UsageError(f"{job.onnx} would be built twice as {job.engine}", "name each model once")
        if other is not job:
            raise UsageError(
                f"{other.onnx} and {job.onnx} would both be built as {job.engine}",
                "build them one by one, each with another -o DIR, or rename one of the files",
            )


def _plan(
    spec: ModelSpec,
    chosen: Chosen,
    asked: BuildRequest,
    files: dict[str, Path],
    targets: dict[str, Path],
    originals: dict[str, Path],
    rebuild: str,
) -> BuildPlan:
    backend = chosen.target.backend
    if backend == "onnxruntime" and (asked.shapes or asked.batch != 1):
        raise UsageError("ONNX Runtime's engines take any shape", "leave --batch and the shapes out")
    _refuse_unknown(asked.shapes, files)
    jobs = []
    for part, file in files.items():
        wanted = _asked_precision(part, spec, asked)
        precision, why = _possible(part, wanted, backend)
        jobs.append(
            EngineJob(
                part=part,
                onnx=file,
                engine=targets[part],
                precision_asked=wanted,
                precision=precision,
                profile={} if backend == "onnxruntime" else _profile(part, file, asked),
                rebuild=rebuild,
                overwrite=asked.overwrite,
                why=why,
                other_engine=_other_engine(targets[part]),
            )
        )
    _refuse_taken(jobs, asked.overwrite)
    return BuildPlan(spec, chosen, tuple(jobs), originals.get(ENCODER), originals.get(DECODER))


def _rebuild(models: Sequence[str], asked: BuildRequest, chosen: Chosen, helpers: CommandOptions | None = None) -> str:
    options: CommandOptions = {
        **{f"--{precision}": precision == asked.precision for precision in PRECISIONS},
        "--decoder-precision": asked.decoder_precision,
        "--min-shapes": shapes_text(asked.shapes.min),
        "--opt-shapes": shapes_text(asked.shapes.opt),
        "--max-shapes": shapes_text(asked.shapes.max),
        "--batch": unless_default(asked.batch, 1),
        **(helpers or {}),
        **asked.others,
        "--no-proof": not asked.prove,
        "-o": asked.output,
        "--backend": chosen.target.backend,
        "--force": True,
    }
    return rebuild_command(models, options)


def _asked_precision(part: str, spec: ModelSpec, asked: BuildRequest) -> EnginePrecision:
    """Read precisions as NanoSAM means them: `--fp16` is the encoder's. Decoders are fp32 unless they are named."""
    if part == DECODER:
        wanted: str = asked.decoder_precision or spec.default_precision[DECODER]
        if wanted == "int8":
            raise UsageError("a mask decoder in int8 gives broken masks", "--decoder-precision fp16, bf16 or fp32")
    else:
        wanted = asked.precision or spec.default_precision[ENCODER]
    return next(precision for precision in PRECISIONS if precision == wanted)


def _possible(part: str, wanted: EnginePrecision, backend: Flavour) -> tuple[EnginePrecision, str | None]:
    """What makes sense on a runtime, and why it is not what was asked for."""
    if backend == "onnxruntime" and wanted in HALF_PRECISIONS and not (wanted == "fp16" and half_pays()):
        why = f"ONNX Runtime's CPU computes in fp32 and would only convert {wanted} back and forth: {part} in fp32"
        return "fp32", f"{why}; --int8 is what pays there" if part == ENCODER else why
    return wanted, None


def _profile(part: str, file: Path, asked: BuildRequest) -> dict[str, ShapeRange]:
    with closing(open_session(file, backend="onnxruntime", device="cpu")) as session:
        side = encoder_image_size(session) if part == ENCODER else 1
        return profile(part, session.inputs, asked.shapes, EncoderShape(side, asked.batch))


def _refuse_unknown(shapes: Shapes, parts: Collection[str]) -> None:
    known = [name for part in parts for name in INPUTS[part]]
    for name in (*shapes.min, *shapes.opt, *shapes.max):
        if name not in known:
            raise UsageError(f"there is no input {name}", f"inputs: {', '.join(known)}")


def _refuse_idle(originals: Mapping[str, Path], parts: Mapping[str, Path]) -> None:
    """An engine is proved against the file that it is built from, so another original would not be looked at."""
    for part in (part for part in originals if part in parts):
        raise UsageError(
            f"{parts[part]} is the {part} itself, and proved against itself: --{part} {originals[part]} has no use",
            f"leave --{part} out, or build from the original: nanosam build-engine {shlex.quote(str(originals[part]))}",
        )


def _refuse_taken(jobs: Sequence[EngineJob], overwrite: bool) -> None:
    """Before minutes are spent."""
    for job in jobs:
        folder = job.engine.parent
        if job.engine.resolve() == job.onnx.resolve():
            raise OutputError(f"the engine would overwrite {job.onnx}", "give another directory with -o")
        in_cache = folder.is_relative_to(paths.home())
        check_writable(
            folder, f"set {paths.HOME.name} to another directory, or give -o DIR" if in_cache else "give -o DIR"
        )
        if not overwrite:
            _refuse_existing(job)


def _refuse_existing(job: EngineJob) -> None:
    """What is there must be a finished engine, which `finished` compares with what is asked, or what a kill left."""
    sidecar = sidecar_path(job.engine)
    if job.other_engine:
        raise OutputError(
            f"{sidecar} exists already, and describes {job.other_engine}",
            f"give another directory with -o; with `--force` {job.other_engine} loses its side-car and is of no "
            "more use",
        )
    if job.engine.exists() and sidecar.exists():
        return
    for path in (job.engine, sidecar):
        if path.exists() and not is_left_over(job.engine):
            raise OutputError(f"{path} exists already", AGAIN)


def _other_engine(engine: Path) -> Path | None:
    """Side-cars of engines for other backends have the same name."""
    try:
        other = engine.with_name(read_sidecar(engine).engine)
    except ModelError:  # there is none that says anything
        return None
    return other if other.name != engine.name and other.exists() else None

"""`nanosam build-engine`: ONNX files in, engines that were proved out."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nanosam_cli import console
from nanosam_cli.core.errors import UsageError
from nanosam_cli.options import (
    OUTPUT,
    DecoderOption,
    EncoderOption,
    ForceOption,
    JsonOption,
    QuietOption,
    VerboseOption,
    complete_models,
    parse_share,
)

if TYPE_CHECKING:
    from nanosam_cli.core.engine.finished import BuildOptions
    from nanosam_cli.core.engine.plan import BuildPlan, BuildRequest, EngineJob, EnginePrecision
    from nanosam_cli.core.engine.runtime import Chosen
    from nanosam_cli.core.precision.agreement import Thresholds
    from nanosam_cli.core.precision.ladder_step import Step

PRECISION, RUNTIME, PROOF = "Precision", "Runtime", "Proof"  # headings of the help


class InputShapes(dict[str, tuple[int, ...]]):
    """Shapes of inputs, by name. A class of its own, because Typer takes lists of nothing that has parameters."""


class EngineBackend(str, Enum):
    auto = "auto"
    tensorrt = "tensorrt"
    tensorrt_rtx = "tensorrt-rtx"
    onnxruntime = "onnxruntime"


class DecoderPrecision(str, Enum):
    """int8 breaks a decoder's masks."""

    fp32 = "fp32"
    fp16 = "fp16"
    bf16 = "bf16"


def parse_shapes(text: str) -> InputShapes:
    """`point_coords:8x2x2,point_labels:8x2`, as trtexec takes it."""
    example = "shapes are NAME:1x2x3 with commas in between, such as point_coords:8x2x2,point_labels:8x2"
    shapes = InputShapes()
    for part in text.split(","):
        name, colon, sides = part.rpartition(":")
        numbers = sides.lower().split("x")
        if not colon or not name or not all(number.isascii() and number.isdigit() for number in numbers):
            raise typer.BadParameter(f"{part!r} is no shape; {example}")
        if name in shapes:
            raise typer.BadParameter(f"{name} has two shapes; {example}")
        shapes[name] = tuple(int(number) for number in numbers)
    return shapes


def build_engine(
    models: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="MODEL|FILE.onnx",
            autocompletion=complete_models,
            help="Models by name, or ONNX files of one model.",
        ),
    ] = None,
    fp16: Annotated[
        bool, typer.Option("--fp16", rich_help_panel=PRECISION, help="Encoder in fp16, decoder in fp32.")
    ] = False,
    bf16: Annotated[bool, typer.Option("--bf16", rich_help_panel=PRECISION, help="Encoder in bf16.")] = False,
    int8: Annotated[
        bool, typer.Option("--int8", rich_help_panel=PRECISION, help="Encoder in int8, with calibration photos.")
    ] = False,
    fp32: Annotated[bool, typer.Option("--fp32", rich_help_panel=PRECISION, help="Everything in fp32.")] = False,
    decoder_precision: Annotated[
        DecoderPrecision | None, typer.Option("--decoder-precision", rich_help_panel=PRECISION, help="Else fp32.")
    ] = None,
    calibrate: Annotated[
        Path | None,
        typer.Option(
            "--calibrate",
            metavar="DIR",
            rich_help_panel=PRECISION,
            help="Photos for int8, such as the camera will see; else those of the proof.",
        ),
    ] = None,
    backend: Annotated[
        EngineBackend, typer.Option("--backend", rich_help_panel=RUNTIME, help="Else the best that works here.")
    ] = EngineBackend.auto,
    min_shapes: Annotated[
        list[InputShapes] | None,
        typer.Option(
            "--min-shapes",
            parser=parse_shapes,
            metavar="NAME:1x2,...",
            rich_help_panel=RUNTIME,
            help="Smallest inputs, in trtexec's syntax. The decoder's default is 1 prompt of 2 points. Repeatable.",
        ),
    ] = None,
    opt_shapes: Annotated[
        list[InputShapes] | None,
        typer.Option(
            "--opt-shapes",
            parser=parse_shapes,
            metavar="NAME:1x2,...",
            rich_help_panel=RUNTIME,
            help="Inputs that the engine is tuned for; else 8 prompts of 2 points. Repeatable.",
        ),
    ] = None,
    max_shapes: Annotated[
        list[InputShapes] | None,
        typer.Option(
            "--max-shapes",
            parser=parse_shapes,
            metavar="NAME:1x2,...",
            rich_help_panel=RUNTIME,
            help="Largest inputs; else 64 prompts of 16 points. Repeatable.",
        ),
    ] = None,
    batch: Annotated[
        int, typer.Option("--batch", min=1, metavar="N", rich_help_panel=RUNTIME, help="Most photos at once.")
    ] = 1,
    workspace: Annotated[
        int | None,
        typer.Option("--workspace", min=1, metavar="MB", rich_help_panel=RUNTIME, help="GPU memory for building."),
    ] = None,
    level: Annotated[
        int | None,
        typer.Option(
            "--builder-level", min=0, max=5, metavar="0-5", rich_help_panel=RUNTIME, help="How long TensorRT searches."
        ),
    ] = None,
    validate: Annotated[
        Path | None,
        typer.Option(
            "--validate", metavar="DIR", rich_help_panel=PROOF, help="Photos to prove with; else the example photos."
        ),
    ] = None,
    mean_iou: Annotated[
        float,
        typer.Option(
            "--mean-iou", parser=parse_share, metavar="IOU", rich_help_panel=PROOF, help="Masks must reach this."
        ),
    ] = 0.98,
    worst_iou: Annotated[
        float,
        typer.Option("--worst-iou", parser=parse_share, metavar="IOU", rich_help_panel=PROOF, help="Each mask, too."),
    ] = 0.90,
    no_proof: Annotated[bool, typer.Option("--no-proof", rich_help_panel=PROOF, help="Build blind.")] = False,
    model: Annotated[
        str | None,
        typer.Option("--model", metavar="NAME", rich_help_panel=PROOF, help="Model whose normalisation FILEs have."),
    ] = None,
    encoder: EncoderOption = None,
    decoder: DecoderOption = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", rich_help_panel=OUTPUT, help="Say what would be built, and build nothing.")
    ] = False,
    output: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--output",
            metavar="DIR",
            rich_help_panel=OUTPUT,
            help="Folder for the engines; else where commands look for a model's engines, or beside FILE.",
        ),
    ] = None,
    force: ForceOption = False,
    json: JsonOption = False,
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Build engines, and prove each against the fp32 original on photos.

    Where a precision breaks the masks, parts of the model go back to fp32 step by step, and each step is shown. Without
    a GPU the proof emulates what the engine will round. --encoder and --decoder are fp32 files that only help to prove
    FILE.

        nanosam build-engine --fp16

        nanosam build-engine --int8 --backend onnxruntime --calibrate photos/

        nanosam build-engine encoder.onnx decoder.onnx --fp16 --backend tensorrt-rtx -o engines/
    """
    from nanosam_cli.core.engine.plan import BuildRequest, refuse_shared
    from nanosam_cli.core.engine.runtime import choose
    from nanosam_cli.core.engine.shapes import Shapes
    from nanosam_cli.core.inference.sidecar import unless_default
    from nanosam_cli.core.precision.agreement import Thresholds

    thresholds = Thresholds(mean_iou, worst_iou)
    asked = BuildRequest(
        precision=_precision(fp16=fp16, bf16=bf16, int8=int8, fp32=fp32),
        decoder_precision=decoder_precision.value if decoder_precision else None,
        shapes=Shapes(_joined(min_shapes), _joined(opt_shapes), _joined(max_shapes)),
        batch=batch,
        output=output,
        overwrite=force,
        prove=not no_proof,
        others={
            "--calibrate": calibrate,
            "--workspace": workspace,
            "--builder-level": level,
            "--validate": validate,
            "--mean-iou": unless_default(thresholds.mean_iou, Thresholds.mean_iou),
            "--worst-iou": unless_default(thresholds.worst_iou, Thresholds.worst_iou),
        },
    )
    chosen = choose(backend.value)
    console.info(f"{chosen.target.backend} {chosen.target.version}: {chosen.why}")
    plans = _plans(models or [], chosen, asked, model, {"encoder": encoder, "decoder": decoder})
    refuse_shared(plans)
    _report_plans(plans, dry_run, json)
    if not dry_run:
        settings = _settings(chosen, thresholds, validate, calibrate, workspace, level, no_proof)
        _build(plans, settings, json)


def _joined(shapes: list[InputShapes] | None) -> InputShapes:
    """Take the last shape of an input that is named twice: a command can be widened at its end."""
    return InputShapes((name, shape) for one in shapes or [] for name, shape in one.items())


def _precision(**asked: bool) -> EnginePrecision | None:
    """What the flags say; None without one."""
    from nanosam_cli.core.engine.plan import PRECISIONS

    named = [precision for precision in PRECISIONS if asked[precision]]
    if len(named) > 1:
        flags = " and ".join(f"--{precision}" for precision in named)
        raise UsageError(f"{flags} do not go together", "nanosam build-engine --fp16")
    return named[0] if named else None


def _plans(
    models: list[str], chosen: Chosen, asked: BuildRequest, model: str | None, originals: dict[str, Path | None]
) -> list[BuildPlan]:
    from nanosam_cli.core.engine.plan import plan_files, plan_model
    from nanosam_cli.core.zoo.models import DEFAULT_MODEL

    files = [Path(name) for name in models if Path(name).suffix.lower() == ".onnx"]
    given = {part: path for part, path in originals.items() if path is not None}
    if not files:
        if given or model:
            raise UsageError(
                "--encoder, --decoder and --model go with FILE.onnx", "nanosam build-engine enc.onnx --fp16"
            )
        return [plan_model(name, chosen, asked) for name in models or [DEFAULT_MODEL]]
    if len(files) < len(models):
        raise UsageError("names and files do not go together", "build the engines of one model at a time")
    return [plan_files(files, chosen, asked, model=model, originals=given)]


def _settings(
    chosen: Chosen,
    thresholds: Thresholds,
    validate: Path | None,
    calibrate: Path | None,
    workspace: int | None,
    level: int | None,
    no_proof: bool,
) -> BuildOptions:
    from nanosam_cli.core.engine.build import check_timing_cache, timing_cache
    from nanosam_cli.core.engine.finished import BuildOptions
    from nanosam_cli.core.engine.tensorrt import BuildSettings
    from nanosam_cli.core.precision.photos import photos_of

    photos = photos_of(validate)
    calibration = photos_of(calibrate) if calibrate else photos
    check_timing_cache(chosen.target)
    builder = BuildSettings(workspace, level, timing_cache(chosen.target))
    return BuildOptions(builder, thresholds, photos, calibration, prove=not no_proof)


def _report_plans(plans: list[BuildPlan], dry_run: bool, json: bool) -> None:
    from nanosam_cli.core.engine.report import plan_records, plan_table

    for plan in plans:
        for job in plan.jobs:
            if job.why:
                console.warn(job.why)
            if job.other_engine:
                console.warn(f"{job.other_engine} loses its side-car to {job.engine}, and cannot be loaded without it")
        if dry_run and json:
            for record in plan_records(plan):
                console.json_line(record)
        elif dry_run:
            console.table(*plan_table(plan))


def _build(plans: list[BuildPlan], settings: BuildOptions, json: bool) -> None:
    from nanosam_cli.core.engine.build import KeptEngine, build_all
    from nanosam_cli.core.engine.report import (
        engine_line,
        engine_record,
        kept_line,
        ladder_table,
        proof_line,
        proof_table,
    )

    if not settings.prove:
        console.warn("the engines are not proved: nobody knows what their masks are worth", "leave --no-proof out")
    for engine in build_all(plans, settings, _tell, console.info):
        if engine.sidecar.status == "built, not run":
            console.warn(f"{engine.path.name} was built, not run: there is no GPU here that could run it")
        if json:
            console.json_line(engine_record(engine))
            continue
        if isinstance(engine, KeptEngine):
            console.text(kept_line(engine))
            continue
        if settings.prove:
            console.table(*proof_table(engine))
            console.text(proof_line(engine))
        if len(engine.steps) > 1:
            console.table(*ladder_table(engine))
        console.text(engine_line(engine))


def _tell(job: EngineJob, step: Step) -> None:
    """Each step as it is done: what fails is no secret."""
    what = f"{job.part}, {step.name}"
    if step.proof.method == "none":
        console.info(f"{what}: made, not proved, {step.seconds:.1f} s")
    elif step.proof.passed:
        console.info(f"{what}: passes, {step.seconds:.1f} s")
    else:
        console.warn(f"{what}: {'; '.join(step.proof.faults())}", None if step.is_last else "the next step is tried")

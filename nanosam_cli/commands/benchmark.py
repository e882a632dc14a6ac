"""`nanosam benchmark`: what each stage of a model costs on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from nanosam_cli import console
from nanosam_cli.core.errors import OutputError, UsageError
from nanosam_cli.options import (
    OUTPUT,
    BackendOption,
    DecoderOption,
    DeviceOption,
    EncoderOption,
    ForceOption,
    JsonOption,
    OutputOption,
    QuietOption,
    ThreadsOption,
    VerboseOption,
    chosen_model,
    complete_models,
)

if TYPE_CHECKING:
    from nanosam_cli.core.benchmark.measure import Contender, ModelReport, Run
    from nanosam_cli.core.loading.choice import ModelChoice


class Results(NamedTuple):
    """A results file, and whose it is where that was said."""

    model: str | None
    file: Path


def parse_results(text: str) -> Results:
    """`FILE` or `NAME=FILE`."""
    name, equals, file = text.partition("=")
    return Results(name, Path(file)) if equals and not Path(text).exists() else Results(None, Path(text))


def benchmark(
    models: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="MODEL",
            autocompletion=complete_models,
            help="Models by name, or any files as NAME=ENCODER,DECODER; else the default model. The first is what the "
            "others are measured against.",
        ),
    ] = None,
    compare_contenders: Annotated[
        bool, typer.Option("--compare", help="Measure nothing: put the saved runs together that are given as MODEL.")
    ] = False,
    repeats: Annotated[int, typer.Option("--repeats", min=1, metavar="N", help="Times that every stage is run.")] = 20,
    image: Annotated[
        Path | None, typer.Option("--image", metavar="FILE", help="Photo to use, instead of a 640x480 example.")
    ] = None,
    results: Annotated[
        list[Results] | None,
        typer.Option(
            "--results",
            parser=parse_results,
            metavar="[NAME=]FILE",
            help="Results of `nanosam eval coco`, to show mIoU beside the times. Repeatable.",
        ),
    ] = None,
    encoder: EncoderOption = None,
    decoder: DecoderOption = None,
    device: DeviceOption = None,
    backend: BackendOption = None,
    threads: ThreadsOption = None,
    output: OutputOption = None,
    force: ForceOption = False,
    markdown: Annotated[
        bool, typer.Option("--markdown", rich_help_panel=OUTPUT, help="Print the README's table.")
    ] = False,
    json: JsonOption = False,
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Time every stage from photo to mask, for one model or several side by side.

    Every repeat runs all stages of all models, so a machine whose speed drifts is fair to each. A cold start is a fresh
    process: imports, opening the files, first mask; peak memory is that process's. -o saves a run for --compare.

        nanosam benchmark

        nanosam benchmark nanosam-lite2 nvidia=resnet18_image_encoder.onnx,mobile_sam_mask_decoder.onnx --markdown

        nanosam benchmark --compare before.json after.json
    """
    from nanosam_cli.core.system.files import check_writable

    if compare_contenders:
        if encoder or decoder or results or image or output:
            raise UsageError("--compare only reads saved runs", "nanosam benchmark --compare before.json after.json")
        _compare([Path(file) for file in models or []], markdown, json)
        return
    target = None if output is None else Path(output)
    if target:  # known before minutes are spent
        check_writable(target.parent)
        if target.exists() and not force:
            raise OutputError(
                f"{target} exists already", "add `--force` to overwrite it, or give another place with `-o`"
            )
    runtime = chosen_model(device=device, backend=backend, threads=threads)
    candidates = _candidates(models or [], encoder, decoder, runtime)
    run = _measure(candidates, image, results or [], runtime, repeats)
    _report(run, markdown, json)  # first: it is not to be lost to a disk that is full
    _save(run, target, force)


def _candidates(models: list[str], encoder: Path | None, decoder: Path | None, runtime: ModelChoice) -> list[Contender]:
    from nanosam_cli.core.benchmark.measure import Contender, find_candidate
    from nanosam_cli.core.zoo.models import DEFAULT_MODEL

    found = []
    for text in models:
        name, equals, files = text.partition("=")
        if not equals:
            found.append(find_candidate(name, runtime, console.info))
            continue
        first, comma, second = files.partition(",")
        if not (name and first and comma and second):
            raise UsageError(f"{text!r} is not NAME=ENCODER,DECODER", "nanosam benchmark mine=enc.onnx,dec.onnx")
        found.append(Contender(name, Path(first), Path(second)))
    if encoder and decoder:
        found.append(Contender(str(encoder), encoder, decoder))
    elif encoder or decoder:
        raise UsageError("--encoder and --decoder go together", "nanosam benchmark NAME=ENCODER,DECODER")
    return found or [find_candidate(DEFAULT_MODEL, runtime, console.info)]


def _measure(
    candidates: list[Contender], image: Path | None, results: list[Results], runtime: ModelChoice, repeats: int
) -> Run:
    from nanosam_cli.core.benchmark.measure import benchmark, steps
    from nanosam_cli.core.benchmark.report import read_accuracy, with_accuracy
    from nanosam_cli.core.media.image import read_image
    from nanosam_cli.core.paths import resource

    accuracy = read_accuracy(results, [candidate.name for candidate in candidates])
    photo = read_image(image or resource("examples", "raccoon.jpg"))
    _warn_if_busy()
    for candidate in candidates:
        console.detail(f"{candidate.name}: {candidate.encoder}, {candidate.decoder}")
    with console.progress("benchmark", steps(len(candidates), repeats)) as advance:
        return with_accuracy(benchmark(candidates, photo, runtime, repeats, advance), accuracy)


def _warn_if_busy() -> None:
    from nanosam_cli.core.system.machine import read_load, usable_cores

    load, cores = read_load(()), usable_cores()
    if load.busy(cores):
        console.warn(
            f"this machine is busy (load average {load.average} on {cores} cores): times will be longer than they need",
            "compare only models of this one run, or run it when nothing else does",
        )


def _save(run: Run, target: Path | None, force: bool) -> None:
    from nanosam_cli.core.benchmark.report import run_text
    from nanosam_cli.core.system.files import write_text

    if target:
        write_text(target, run_text(run), force)
        console.info(f"saved as {target}")


def _report(run: Run, markdown: bool, json: bool) -> None:
    from nanosam_cli.core.benchmark.report import caption, run_record

    if json:
        console.json_line(run_record(run))
        return
    _table(run.models, markdown)
    console.text(caption(run))


def _compare(files: list[Path], markdown: bool, json: bool) -> None:
    from nanosam_cli.core.benchmark.report import compare_contenders

    comparison = compare_contenders(files)
    for difference in comparison.differences:
        console.warn(f"the runs differ in {difference}")
    if json:
        console.json_line(comparison.record())
        return
    _table(comparison.models, markdown)
    console.text(f"{comparison.machine}.")


def _table(models: tuple[ModelReport, ...], markdown: bool) -> None:
    from nanosam_cli.core.benchmark.report import markdown_table, stage_table

    if not markdown:
        console.table(*stage_table(models))
        return
    for line in markdown_table(models):
        console.text(line)
    console.text("")

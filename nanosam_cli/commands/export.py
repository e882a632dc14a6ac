"""`nanosam export`: a checkpoint in, ONNX files that were proved against it out."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nanosam_cli import console
from nanosam_cli.core.errors import MissingExtraError, UsageError
from nanosam_cli.options import ForceOption, JsonOption, QuietOption, VerboseOption, complete_models

if TYPE_CHECKING:
    from nanosam_cli.core.export.contract_files import Converted
    from nanosam_cli.core.export.finished import Exported
    from nanosam_cli.core.export.options import ExportOptions

SHAPES = "Shapes and precision"  # heading of the help
TEACHER = "mobile-sam"


class What(str, Enum):
    encoder = "encoder"
    decoder = "decoder"
    teacher = "teacher"
    all = "all"
    anylabeling = "anylabeling"
    browser = "browser"


class ExportPrecision(str, Enum):
    fp32 = "fp32"
    fp16 = "fp16"
    fp16_weights = "fp16-weights"


class ContractOption(str, Enum):
    nanosam = "nanosam"
    sam = "sam"
    samexporter = "samexporter"


def export(
    what: Annotated[
        What,
        typer.Argument(
            help="Which part of the model; teacher is the image encoder that others learn from. Or what it is for: "
            "anylabeling is a model for AnyLabeling and X-AnyLabeling, browser a page that needs no server.",
        ),
    ],
    source: Annotated[
        str | None,
        typer.Argument(
            metavar="SOURCE",
            autocompletion=complete_models,
            help="What `nanosam distill` left, mobile_sam.pt, or the name of a downloaded model. The teacher is "
            "mobile-sam unless another is given.",
        ),
    ] = None,
    output: Annotated[Path, typer.Option("-o", "--output", metavar="DIR", help="Folder for the files.")] = Path(),
    precision: Annotated[
        ExportPrecision,
        typer.Option(
            "--precision",
            rich_help_panel=SHAPES,
            help="Of weights and values; float32 goes in and comes out. fp16-weights: in the file alone.",
        ),
    ] = ExportPrecision.fp32,
    opset: Annotated[
        int,
        typer.Option("--opset", min=17, max=20, rich_help_panel=SHAPES, help="17 is read by the most runtimes."),
    ] = 17,
    batch: Annotated[
        int | None,
        typer.Option(
            "--batch", min=1, metavar="N", rich_help_panel=SHAPES, help="Images a run of the encoder; else any number."
        ),
    ] = None,
    max_points: Annotated[
        int | None,
        typer.Option(
            "--max-points",
            min=2,
            metavar="N",
            rich_help_panel=SHAPES,
            help="Points a prompt, of which a box takes two, for runtimes without free shapes; else any number.",
        ),
    ] = None,
    single_file: Annotated[
        bool, typer.Option("--single-file", rich_help_panel=SHAPES, help="One file from photo and prompts to masks.")
    ] = False,
    trainable: Annotated[
        bool,
        typer.Option("--trainable", help="With all: also what training needs to go on from the two files, half a MB."),
    ] = False,
    contract: Annotated[
        ContractOption,
        typer.Option(
            "--contract",
            rich_help_panel=SHAPES,
            help="Names and shapes of nanosam's files, of segment-anything's mask decoder, or of samexporter's pair.",
        ),
    ] = ContractOption.nanosam,
    runtime: Annotated[
        Path | None,
        typer.Option(
            "--runtime",
            metavar="FILE|DIR",
            help="For browser: onnxruntime-web's package of npm, a .tgz or a folder; else it is downloaded once.",
        ),
    ] = None,
    force: ForceOption = False,
    json: JsonOption = False,
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Export a trained model to ONNX.

    Each file is run on ONNX Runtime beside the torch module it was made of, on made-up inputs and on photos; where they
    differ, no file is kept. A model card is written beside each file.

        nanosam export all runs/nanosam-lite2/last.safetensors -o models/

        nanosam export teacher --batch 16

        nanosam export all mobile-sam --single-file --precision fp16

        nanosam export all nanosam-lite2 --contract samexporter -o DIR

        nanosam export anylabeling -o DIR

        nanosam export browser -o DIR
    """
    from nanosam_cli.core.export.options import ExportOptions

    options = ExportOptions(precision.value, opset, batch, max_points, single_file, contract.value, trainable)
    if runtime is not None and what is not What.browser:
        raise UsageError("--runtime is for browser", "nanosam export browser --runtime FILE -o DIR")
    if what is What.anylabeling:
        _for_anylabeling(source, output, options, force, json)
        return
    if what is What.browser:
        _for_browser(source, output, options, runtime, force, json)
        return
    if source is None and what is not What.teacher:
        raise UsageError("no checkpoint given", f"nanosam export {what.value} runs/nanosam-lite2/last.safetensors")
    options.names(what.value)  # a usage error comes before a missing file
    if contract is not ContractOption.nanosam:
        from nanosam_cli.core.loading.convert import convert_model

        converted = convert_model(source or TEACHER, what.value, output, options, overwrite=force, note=console.info)
        _report(converted, "max |original - converted|", "the original", json)
        return
    try:
        from nanosam_cli.core.export.export import export_model
        from nanosam_cli.core.export.source import find_checkpoint
    except ModuleNotFoundError as error:
        raise MissingExtraError("export", "train", str(error.name)) from error
    checkpoint = find_checkpoint(source or TEACHER)
    files = export_model(checkpoint, output, what.value, options, overwrite=force, note=console.info)
    _report(files, "max |torch - ONNX Runtime|", "torch", json)


def _for_anylabeling(source: str | None, output: Path, options: ExportOptions, force: bool, json: bool) -> None:
    from nanosam_cli.core.loading.convert import convert_for_anylabeling

    written = convert_for_anylabeling(source, output, options, overwrite=force, note=console.info)
    if json:
        console.json_line({"schema_version": 1, **written.record()})
        return
    console.text(f"{written.config}: a custom model for AnyLabeling and X-AnyLabeling; keep the files beside it")
    agreement = written.mask_iou
    console.text(f"{agreement.title} with `nanosam segment`: {agreement.figures}; {written.bytes / 1e6:.1f} MB")


def _for_browser(
    source: str | None, output: Path, options: ExportOptions, runtime: Path | None, force: bool, json: bool
) -> None:
    from nanosam_cli.core.loading.convert import export_for_browser

    written = export_for_browser(source, output, options, runtime, overwrite=force, note=console.info)
    if json:
        console.json_line({"schema_version": 1, **written.record()})
        return
    console.table(("file", "size"), [(name, f"{size / 1e6:.2f} MB") for name, size in written.sizes.items()])
    console.text(f"{written.folder}: {written.bytes / 1e6:.1f} MB, for any file server")
    console.text(f"to try it: python -m http.server --directory {written.folder}")


def _report(files: Sequence[Exported | Converted], difference: str, original: str, json: bool) -> None:
    if json:
        for file in files:
            console.json_line({"schema_version": 1, **file.record()})
        return
    rows = [
        (file.part, f"{file.bytes / 1e6:.1f} MB", name, f"{value:.1e}")
        for file in files
        for name, value in file.proof.max_difference.items()
    ]
    console.table(("file", "size", "output", difference), rows)
    for file in files:
        masks = file.proof.mask_iou
        compared = (
            f"{masks.title} with {original}: {masks.figures}" if masks else "no masks compared, there is no decoder"
        )
        console.text(f"{file.path}: {compared}")
        if file.proof.remark:
            console.text(file.proof.remark)

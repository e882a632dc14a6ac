"""`nanosam export`: a checkpoint in, ONNX files that were proved against it out."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from nanosam_cli import console
from nanosam_cli.core.errors import MissingExtraError
from nanosam_cli.options import ForceOption, JsonOption, QuietOption, VerboseOption


class Part(str, Enum):
    encoder = "encoder"
    decoder = "decoder"
    all = "all"


def export(
    part: Annotated[Part, typer.Argument(help="Which part of the model.")],
    checkpoint: Annotated[
        Path, typer.Argument(metavar="CHECKPOINT", help="What `nanosam distill` left, or mobile_sam.pt.")
    ],
    output: Annotated[Path, typer.Option("-o", "--output", metavar="DIR", help="Folder for the files.")] = Path(),
    force: ForceOption = False,
    json: JsonOption = False,
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Export a trained model to ONNX.

    Each file is run on ONNX Runtime beside the torch module it was made of; where they differ, no file is kept.

        nanosam export all runs/nanosam-b0/last.safetensors -o models/
    """
    try:
        from nanosam_cli.core.export import export_model
    except ModuleNotFoundError as error:
        raise MissingExtraError("export", "train", str(error.name)) from error

    parts = ["encoder", "decoder"] if part is Part.all else [part.value]
    files = export_model(checkpoint, output, parts, overwrite=force)
    for file in files:
        if json:
            console.json_line({"schema_version": 1, **file.record()})
    if not json:
        rows = [
            (file.part, file.path, f"{file.bytes / 1e6:.1f} MB", name, f"{difference:.1e}")
            for file in files
            for name, difference in file.max_difference.items()
        ]
        console.table(("part", "file", "size", "output", "max |torch - ONNX Runtime|"), rows)

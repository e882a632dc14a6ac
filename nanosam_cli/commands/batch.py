"""`nanosam batch`: masks for more photos than one process should do."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from nanosam_cli import console
from nanosam_cli.core.errors import MissingExtraError, NanosamError
from nanosam_cli.options import (
    OUTPUT,
    PROMPT,
    BackendOption,
    Command,
    DecoderOption,
    DeviceOption,
    EncoderOption,
    ForceOption,
    Group,
    JsonOption,
    ModelOption,
    QuietOption,
    ResumeOption,
    ThreadsOption,
    VerboseOption,
    chosen_model,
    parse_number,
    parse_positive,
)
from nanosam_cli.prompt_options import (
    ClassNamesOption,
    ClassOption,
    CropsOption,
    DetectionsOption,
    EverythingOption,
    GridOption,
    MinAreaOption,
    MinIouOption,
    MinScoreOption,
    MinStabilityOption,
    NmsOption,
    TopKOption,
)

if TYPE_CHECKING:
    from nanosam_cli.core.fleet.output import Counts

RUNNING, SOURCE = "Running", "Source"  # headings of the help


class RunByDefault(Group):
    """`nanosam batch photos/` is `nanosam batch run photos/`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args and args[0] not in (*self.commands, "-h", "--help"):
            args = ["run", *args]
        return super().parse_args(ctx, args)


app = typer.Typer(
    cls=RunByDefault, no_args_is_help=True, help="Masks for millions of photos, on one machine or a cluster."
)


def _missing(error: ModuleNotFoundError) -> NanosamError:
    if (error.name or "").split(".")[0] not in ("ray", "pyarrow", "pandas", "fsspec"):
        raise error
    return MissingExtraError("nanosam batch", "batch", str(error.name))


@app.command(cls=Command)
def run(
    source: Annotated[
        str, typer.Argument(metavar="SOURCE", help="A folder or pattern of photos, Parquet files or tars; an address.")
    ],
    output: Annotated[
        Path, typer.Option("-o", "--output", metavar="DIR", rich_help_panel=OUTPUT, help="Where the shards go.")
    ],
    prompts: Annotated[
        Path | None,
        typer.Option(
            "--prompts",
            metavar="FILE",
            rich_help_panel=PROMPT,
            help="Prompts by photo: JSON as `nanosam segment` reads it, or Parquet with the columns id, boxes, points, "
            "labels, classes.",
        ),
    ] = None,
    detections: DetectionsOption = None,
    class_names: ClassNamesOption = None,
    class_: ClassOption = None,
    min_score: MinScoreOption = None,
    top_k: TopKOption = None,
    nms: NmsOption = None,
    everything: EverythingOption = False,
    grid: GridOption = None,
    crops: CropsOption = None,
    min_iou: MinIouOption = None,
    min_stability: MinStabilityOption = None,
    min_area: MinAreaOption = None,
    image_column: Annotated[
        str,
        typer.Option(
            "--image-column", metavar="NAME", rich_help_panel=SOURCE, help="Of Parquet: bytes or paths of the photos."
        ),
    ] = "image",
    id_column: Annotated[
        str | None,
        typer.Option(
            "--id-column",
            metavar="NAME",
            rich_help_panel=SOURCE,
            help="Of Parquet: ids. Else `id`, else counted.",
        ),
    ] = None,
    threshold: Annotated[
        float,
        typer.Option(
            "--threshold",
            parser=parse_number,
            metavar="LOGIT",
            rich_help_panel=OUTPUT,
            help="Above 0 masks shrink, below they grow.",
        ),
    ] = 0.0,
    shard_size: Annotated[
        int, typer.Option("--shard-size", min=1, metavar="N", rich_help_panel=OUTPUT, help="Photos in a shard.")
    ] = 512,
    resume: ResumeOption = False,
    max_errors: Annotated[
        int,
        typer.Option("--max-errors", min=0, metavar="N", rich_help_panel=RUNNING, help="End at more broken photos."),
    ] = 1000,
    ray: Annotated[
        str,
        typer.Option(
            "--ray",
            metavar="local|ADDRESS",
            rich_help_panel=RUNNING,
            help="This machine, or a cluster: auto, ray://...",
        ),
    ] = "local",
    workers: Annotated[
        int | None,
        typer.Option(
            "--workers", min=1, metavar="N", rich_help_panel=RUNNING, help="Models at work; else CPUs / --threads."
        ),
    ] = None,
    gpus_each: Annotated[
        float,
        typer.Option(
            "--gpus-each", parser=parse_positive, metavar="SHARE", rich_help_panel=RUNNING, help="GPUs of a model."
        ),
    ] = 1.0,
    json: JsonOption = False,
    model: ModelOption = None,
    encoder: EncoderOption = None,
    decoder: DecoderOption = None,
    device: DeviceOption = None,
    backend: BackendOption = None,
    threads: ThreadsOption = None,
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Segment all photos of a source into Parquet shards; --resume goes on after any end.

    A photo that cannot be read is a row with its error. Prompts come from the source's own columns boxes and points,
    from a file, or from a grid of clicks.

        nanosam batch photos/ --everything -o masks/

        nanosam batch 's3://bucket/photos' --detections boxes.json -o masks/ --ray auto

        nanosam batch merge masks/ --format coco -o masks.json
    """
    try:
        from nanosam_cli.core.fleet.job import BatchRequest, run_job
    except ModuleNotFoundError as error:
        raise _missing(error) from error
    from nanosam_cli.core.prompting.options import PromptOptions

    asked = PromptOptions(
        prompts=prompts,
        detections=detections,
        class_names=class_names,
        classes=class_ or [],
        min_score=min_score,
        top_k=top_k,
        nms=nms,
        everything=everything,
        grid=grid,
        crop_layers=crops,
        min_iou=min_iou,
        min_stability=min_stability,
        min_area=min_area,
    )
    request = BatchRequest(
        source,
        output,
        asked,
        chosen_model(model, encoder, decoder, device, backend, threads),
        image_column=image_column,
        id_column=id_column,
        threshold=threshold,
        shard_size=shard_size,
        resume=resume,
        max_errors=max_errors,
        ray=ray,
        workers=workers,
        gpus_each=gpus_each,
    )
    counts, record = run_job(request, console.info, console.warn, console.progress)
    _report(counts, record, output, json)


def _report(counts: Counts, record: dict[str, Any], output: Path, json: bool) -> None:
    if json:
        console.json_line(record)
    else:
        console.text(f"{counts} -> {output}")


@app.command(cls=Command)
def merge(
    shards: Annotated[Path, typer.Argument(metavar="DIR", help="What `nanosam batch` wrote into.")],
    output: Annotated[
        Path, typer.Option("-o", "--output", metavar="PATH", rich_help_panel=OUTPUT, help="A file; for yolo a folder.")
    ],
    format: Annotated[
        Literal["coco", "coco-dataset", "yolo"],
        typer.Option("--format", rich_help_panel=OUTPUT, help="COCO results, a COCO data set, or YOLO's rows."),
    ] = "coco",
    simplify: Annotated[
        float,
        typer.Option(
            "--simplify",
            metavar="PIXELS",
            min=0,
            rich_help_panel=OUTPUT,
            help="How far outlines may be from the exact ones.",
        ),
    ] = 0.0,
    force: ForceOption = False,
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Make one file of all shards, as `nanosam segment --format` would have written it.

    nanosam batch merge masks/ --format coco-dataset -o instances.json
    """
    try:
        from nanosam_cli.core.fleet.merge import merge_shards
    except ModuleNotFoundError as error:
        raise _missing(error) from error
    with console.progress("merge", None, "photos") as advance:
        merged = merge_shards(shards, format, output, force=force, simplify=simplify, advance=advance)
    console.text(str(merged))

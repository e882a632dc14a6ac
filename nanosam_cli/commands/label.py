"""`nanosam label`: click in a browser, see the mask, keep it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nanosam_cli import console
from nanosam_cli.commands.serve import HostOption, PortOption
from nanosam_cli.core.errors import MissingExtraError
from nanosam_cli.options import (
    OUTPUT,
    PROMPT,
    BackendOption,
    DecoderOption,
    DeviceOption,
    EncoderOption,
    ModelOption,
    QuietOption,
    ThreadsOption,
    VerboseOption,
    chosen_model,
)


def label(
    photos: Annotated[
        list[str], typer.Argument(metavar="PHOTOS", help="Photos: files, directories, patterns; videos.")
    ],
    output: Annotated[
        Path,
        typer.Option(
            "-o",
            "--output",
            metavar="FILE",
            rich_help_panel=OUTPUT,
            help="The annotations, a COCO data set; one that is there is gone on with.",
        ),
    ] = Path("annotations.json"),
    classes: Annotated[
        str | None,
        typer.Option("--classes", metavar="NAMES|FILE", rich_help_panel=PROMPT, help="Classes: cat,dog or a file."),
    ] = None,
    detections: Annotated[
        Path | None,
        typer.Option(
            "--detections",
            metavar="FILE",
            rich_help_panel=PROMPT,
            help="Boxes to begin with: COCO, YOLO or labelme, as `nanosam segment` reads them.",
        ),
    ] = None,
    begin_with: Annotated[
        Path | None,
        typer.Option(
            "--import",
            metavar="FILE|DIR",
            rich_help_panel=PROMPT,
            help="Annotations to go on with in a new file: COCO, YOLO's outlines, labelme's polygons.",
        ),
    ] = None,
    stride: Annotated[int, typer.Option("--stride", min=1, metavar="N", help="Of videos only every N-th frame.")] = 1,
    host: HostOption = "127.0.0.1",
    port: PortOption = 8765,
    no_browser: Annotated[bool, typer.Option("--no-browser", help="Print the address, and open nothing.")] = False,
    model: ModelOption = None,
    encoder: EncoderOption = None,
    decoder: DecoderOption = None,
    device: DeviceOption = None,
    backend: BackendOption = None,
    threads: ThreadsOption = None,
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Label photos in a browser: click, see the mask, press Enter. Everything accepted is on disk at once.

    A video's frames go into a folder beside the annotations, as photos to be labelled.

    The page is served from this machine to this machine; nothing is uploaded. Ctrl-C ends it, and the next start with
    the same file goes on. `?` on the page shows its keys.

        nanosam label photos/ --classes cat,dog

        nanosam label photos/ -o cats.json --detections detections.json

        nanosam label photos/ --import labelme/
    """
    from nanosam_cli.core.media.find_photos import left_out

    try:
        from nanosam_cli.core.serving.browser import open_page
        from nanosam_cli.core.serving.label.frames import with_frames
        from nanosam_cli.core.serving.label.labelling import open_labelling, parse_classes
        from nanosam_cli.core.serving.run import Serving, serve_labels
    except ModuleNotFoundError as error:
        raise MissingExtraError("nanosam label", "label", str(error.name)) from error

    def ready(address: str) -> None:
        console.text_now(address)
        if not no_browser and not open_page(address):
            console.warn("there is no browser to open the page in", "open the address yourself")
        console.info("Ctrl-C ends it")

    photos = with_frames(photos, output.parent, stride, console.info)
    labelling = open_labelling(photos, output, parse_classes(classes or ""), detections, begin_with=begin_with)
    with labelling.store:
        for note in [*left_out(photos), *labelling.notes]:
            console.warn(note)
        console.info(f"{len(labelling.photos.names)} photos, annotations in {output}")
        choice = chosen_model(model, encoder, decoder, device, backend, threads)
        serve_labels(labelling, Serving(choice, host, port, console.info, ready))

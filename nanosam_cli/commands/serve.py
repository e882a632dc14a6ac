"""`nanosam serve`: the model behind HTTP, for programs."""

from __future__ import annotations

from typing import Annotated

import typer

from nanosam_cli import console
from nanosam_cli.core.errors import MissingExtraError
from nanosam_cli.options import (
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

HostOption = Annotated[
    str,
    typer.Option(
        "--host",
        metavar="ADDRESS",
        help="Where to listen. What others can reach, such as 0.0.0.0, needs the token that the address then has.",
    ),
]
PortOption = Annotated[
    int, typer.Option("--port", min=0, max=65535, metavar="N", help="Where to listen; 0 is any that is free.")
]


def serve(
    photos: Annotated[
        list[str] | None,
        typer.Argument(metavar="PHOTOS", help="Photos that may be asked for by their path: files, directories."),
    ] = None,
    host: HostOption = "127.0.0.1",
    port: PortOption = 8765,
    model: ModelOption = None,
    encoder: EncoderOption = None,
    decoder: DecoderOption = None,
    device: DeviceOption = None,
    backend: BackendOption = None,
    threads: ThreadsOption = None,
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Answer programs over HTTP: encode a photo once, then send boxes, points and masks for it.

    The address is printed; in a browser it shows the interface. Ctrl-C ends it.

        nanosam serve

        nanosam serve photos/ --host 0.0.0.0 --port 8765
    """
    try:
        from nanosam_cli.core.serving.photos import OpenedPhotos
        from nanosam_cli.core.serving.run import Serving, serve_programs
    except ModuleNotFoundError as error:
        raise MissingExtraError("nanosam serve", "label", str(error.name)) from error

    choice = chosen_model(model, encoder, decoder, device, backend, threads)
    serve_programs(OpenedPhotos(photos or []), Serving(choice, host, port, console.info, console.text_now))

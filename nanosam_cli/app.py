"""The `nanosam` executable: its commands, and the one place where an exception becomes a message and an exit code."""

from __future__ import annotations

import os
import signal
import sys
from typing import Annotated

import typer

from nanosam_cli import console
from nanosam_cli.commands import (
    benchmark,
    build_engine,
    distill,
    doctor,
    download,
    eval,
    export,
    label,
    metrics,
    segment,
    serve,
    track,
)
from nanosam_cli.core.errors import NanosamError, machine_error
from nanosam_cli.core.system import ending
from nanosam_cli.core.system.ending import INTERRUPTED
from nanosam_cli.options import Command, Group, QuietOption, VerboseOption, spelling
from nanosam_cli.version import __version__

DONE, FAILED, USAGE = 0, 1, 2

# shown after Typer's own usage errors, which know what is wrong but not what would be right: by the option that the
# line ends with, for want of a value, or by the command
EXAMPLES = {
    "--detections": "nanosam segment photos/ --detections detections.json --format coco",
    "--text": 'nanosam segment photo.jpg --text "a tree"',
    "--part": "--pose auto --part shirt",
    "--pose": "--pose auto --part shirt",
    "segment": "nanosam segment photo.jpg --box 10,20,300,400",
    "label": "nanosam label photos/ --classes cat,dog",
    "serve": "nanosam serve photos/ --port 8765",
    "track": "nanosam track video.mp4 --box 10,20,300,400",
    "eval": "nanosam eval coco --limit 100",
    "metrics": "nanosam metrics results.json --size small",
    "download": "nanosam download mobile-sam",
    "distill": "nanosam distill nanosam-lite2 --set data.root=photos",
    "build-engine": "nanosam build-engine --fp16",
    "export": "nanosam export all runs/nanosam-lite2/last.safetensors -o models/",
    "benchmark": "nanosam benchmark nanosam-lite2 nvidia=resnet18_image_encoder.onnx,mobile_sam_mask_decoder.onnx",
}

app = typer.Typer(
    name="nanosam",
    cls=Group,
    no_args_is_help=True,
    pretty_exceptions_enable=False,  # a bug keeps its plain traceback
    context_settings={"help_option_names": ["-h", "--help"], "token_normalize_func": spelling},
)
for command in (
    *(segment.segment, track.track, label.label, serve.serve, metrics.metrics, benchmark.benchmark),
    *(distill.distill, export.export, build_engine.build_engine, download.download, doctor.doctor),
):
    app.command(cls=Command)(command)
app.add_typer(eval.app, name="eval")


def _show_version(value: bool) -> None:
    if value:
        console.text(f"nanosam {__version__}")
        raise typer.Exit


@app.callback()
def nanosam(
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Promptable segmentation on the edge: photos and prompts in, masks out."""


def main() -> None:
    """Run the command line and end the process with 0 done, 1 failed, 2 usage, 130 interrupted, 143 by SIGTERM."""
    console.configure()
    _Signal.number = None
    for number in ending.ENDING:
        if signal.getsignal(number) is not signal.SIG_IGN:  # as `nohup` has SIGHUP
            signal.signal(number, _interrupt)
    with ending.watched(console.info):
        code = _run()
    sys.exit(code if _flushed(code) else FAILED)


def _run() -> int:
    code: int
    try:
        app(prog_name=app.info.name)
        code = DONE
    except NanosamError as error:
        code = error.exit_code if _Signal.number is None else INTERRUPTED
        if code != INTERRUPTED:
            console.error(str(error), error.hint)
    except KeyboardInterrupt:  # outside of Typer, which turns it into the same exit code
        code = INTERRUPTED
    except Exception as error:
        known = machine_error(error)
        if _Signal.number is None and known is None:
            raise  # a bug keeps its traceback
        code = INTERRUPTED if _Signal.number is not None else FAILED  # libraries make other errors of a signal
        if known is not None and code == FAILED:
            console.error(str(known), known.hint)
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else DONE
        command = next((word for word in sys.argv[1:] if not word.startswith("-")), "")
        example = EXAMPLES.get(sys.argv[-1], EXAMPLES.get(command))
        if code == USAGE and example:
            console.example(example)
    if code == INTERRUPTED:
        console.info("interrupted")
        code = INTERRUPTED if _Signal.number is None else ending.exit_code(_Signal.number)
    return code


class _Signal:
    """The one that ends this process."""

    number: int | None = None


def _interrupt(number: int, _: object) -> None:
    """SIGTERM, of `kill`, `timeout` and service managers, and SIGHUP, of a terminal that closes, end a command as
    Ctrl-C does: what is done is kept."""
    _Signal.number = number
    if number != signal.SIGINT:
        signal.signal(number, signal.SIG_IGN)  # `timeout` sends two, and the second must not stop the ending
    if not ending.end_at_once():
        raise KeyboardInterrupt


def _flushed(code: int) -> bool:
    """Whether the reader of stdout took everything; a pipe that was closed early (`| head`) ends quietly."""
    try:
        sys.stdout.flush()
    except OSError as error:
        if code == DONE and not isinstance(error, BrokenPipeError):  # of a failure the reason has been said
            console.error(f"cannot write to stdout: {error.strerror or error}")
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or the interpreter fails again at exit
        return False
    return True

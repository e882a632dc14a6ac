"""`nanosam segment`: photos and prompts in, masks out."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nanosam_cli import console
from nanosam_cli.core.errors import InputError, UsageError
from nanosam_cli.options import (
    OUTPUT,
    PROMPT,
    BackendOption,
    BoxOption,
    DecoderOption,
    DeviceOption,
    EncoderOption,
    ForceOption,
    JsonOption,
    MaskOption,
    ModelOption,
    OutputOption,
    PointOption,
    QuietOption,
    ThreadsOption,
    VerboseOption,
    parse_number,
)

if TYPE_CHECKING:
    from nanosam_cli.core.outputs import PhotoResult, Tally
    from nanosam_cli.core.predictor import Predictor
    from nanosam_cli.core.request import Job, Request


class Format(str, Enum):
    png = "png"
    overlay = "overlay"
    cutout = "cutout"
    rle = "rle"
    polygon = "polygon"
    coco = "coco"


def segment(
    images: Annotated[
        list[str], typer.Argument(metavar="IMAGE|DIR|GLOB|-", help="Photos: files, directories, patterns; - is stdin.")
    ],
    box: BoxOption = None,
    point: PointOption = None,
    each_point: Annotated[
        bool,
        typer.Option(
            "--each-point", rich_help_panel=PROMPT, help="Every foreground point is an object, instead of all together."
        ),
    ] = False,
    mask: MaskOption = None,
    prompts: Annotated[
        Path | None,
        typer.Option(
            "--prompts",
            metavar="FILE",
            rich_help_panel=PROMPT,
            help=r'Prompts by photo: {"a.jpg": {"boxes": [\[x0, y0, x1, y1]], "points": [\[x, y, label]]}}',
        ),
    ] = None,
    multimask: Annotated[
        bool,
        typer.Option(
            "--multimask", rich_help_panel=PROMPT, help="Give every reading of a prompt, such as part and whole."
        ),
    ] = False,
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
    format: Annotated[
        Format,
        typer.Option("--format", rich_help_panel=OUTPUT, help="What to write; in a png, object k has the value k."),
    ] = Format.png,
    separate: Annotated[
        bool, typer.Option("--separate", rich_help_panel=OUTPUT, help="Write one file an object.")
    ] = False,
    output: OutputOption = None,
    force: ForceOption = False,
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
    """Segment objects in photos, from boxes, points and masks.

    Every --box is an object. Points describe one object, together with the box if there is one. Without -o the results
    go to the working directory: photo_mask.png, photo_overlay.png, photo_rle.json, coco.json.

        nanosam segment photo.jpg --box 10,20,300,400

        nanosam segment photo.jpg --point 150,200 --point 40,60,0 --format overlay

        nanosam segment photos/ --prompts prompts.json --format coco -o results.json
    """
    from nanosam_cli.core.outputs import Tally, plan_outputs
    from nanosam_cli.core.predictor import load_predictor
    from nanosam_cli.core.request import find_photos, make_job, make_request, some

    asked = box or point or mask or each_point or not prompts
    request = make_request(box or [], point or [], each_point=each_point, masks=mask) if asked else None
    job = make_job(find_photos(images), request, prompts)
    _report_unmatched(job)
    photos = list(job.requests)
    tally = Tally(len(photos), failed=list(job.missing))
    with (
        plan_outputs(photos, format.value, output, separate, force) as outputs,
        load_predictor(
            model,
            encoder=encoder,
            decoder=decoder,
            backend=backend,
            device=device.value if device else None,
            threads=threads,
            note=console.info,
        ) as predictor,
        _closing_line(tally),
        console.progress("segment", len(photos), "photos") as advance,
    ):
        for session in (predictor.encoder, predictor.decoder):
            console.detail(f"{session.path}: {session.backend}")
        for photo, request in job.requests.items():
            try:
                result = _segment_photo(predictor, photo, request, multimask, threshold)
            except (InputError, UsageError) as error:
                if len(photos) == 1:
                    raise
                console.warn(f"{photo} is passed over: {error}", error.hint)  # one bad photo does not stop the others
                tally.failed.append(str(photo))
                advance()
                continue
            outputs.write(result)
            tally.add(result)
            if outputs.loses(result):
                console.warn(f"masks of {photo} overlap; the smaller lie on top", "--separate keeps all of them whole")
            _report(result, json, brief=len(photos) > 1)
            advance()
    if tally.failed:
        raise InputError(f"no result for {some(tally.failed)}")


def _segment_photo(
    predictor: Predictor, photo: Path, request: Request, multimask: bool, threshold: float
) -> PhotoResult:
    from nanosam_cli.core.image import read_image
    from nanosam_cli.core.outputs import PhotoResult, Stopwatch, found_masks
    from nanosam_cli.core.request import STDIN

    watch = Stopwatch()
    predict = predictor.predict_multimask if multimask else predictor.predict
    with watch("read"):
        image = read_image(sys.stdin.buffer if photo == STDIN else photo)
    with watch("encode"):
        embedding = predictor.encode_image(image)
    with watch("decode"):
        masks = predict(embedding, request.prompt(embedding.frame), threshold=threshold)
    return PhotoResult(photo, image, request, found_masks(masks), watch)


@contextmanager
def _closing_line(tally: Tally) -> Iterator[None]:
    """Many photos end with a summary, after Ctrl-C too: what was done stays."""
    try:
        yield
    finally:
        if tally.photos > 1:
            console.info(str(tally))


def _report(result: PhotoResult, json: bool, brief: bool) -> None:
    files = ", ".join(str(file) for file in result.files)
    if json:
        console.json_line(result.record())
    elif brief:
        console.text(f"{result.photo}: {_objects(result)} -> {files}")
    else:
        columns = ("label", "object", "box", "bbox", "area", "predicted_iou")
        rows = [[record[column] for column in columns] for record in result.objects()]
        headings = ("object", "prompt", "box x0 y0 x1 y1", "mask x y w h", "area", "predicted IoU")
        console.table(headings, rows)
        console.text(f"{result.watch} -> {files}")


def _objects(result: PhotoResult) -> str:
    return "1 object" if len(result.found) == 1 else f"{len(result.found)} objects"


def _report_unmatched(job: Job) -> None:
    from nanosam_cli.core.request import some

    if job.unasked:
        console.warn(f"not in the prompt file, so left out: {some(job.unasked)}")
    if job.missing:
        console.warn(f"in the prompt file, but not among the photos: {some(job.missing)}")

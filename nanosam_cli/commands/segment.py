"""`nanosam segment`: photos and prompts in, masks out."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nanosam_cli import console
from nanosam_cli.core.errors import InputError, UsageError
from nanosam_cli.core.segmentation.formats import FORMATS, find_format
from nanosam_cli.options import (
    OUTPUT,
    PROMPT,
    BackendOption,
    BoxOption,
    DecoderOption,
    DeviceOption,
    EachPointOption,
    EncoderOption,
    ForceOption,
    GreyOption,
    JsonOption,
    LabelOption,
    MaskOption,
    ModelOption,
    OutputOption,
    PointOption,
    QuietOption,
    ResumeOption,
    ThreadsOption,
    VerboseOption,
    ZoomOption,
    chosen_model,
    parse_number,
    parse_positive,
)
from nanosam_cli.prompt_options import (
    BatchOption,
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
    PartOption,
    PartsOption,
    PersonOption,
    PoseOption,
    TextModelOption,
    TextOption,
    TopKOption,
)

if TYPE_CHECKING:
    from nanosam_cli.core.loading.choice import ModelChoice
    from nanosam_cli.core.segmentation.edit import EditPlan
    from nanosam_cli.core.segmentation.job import Job
    from nanosam_cli.core.segmentation.outputs import Outputs
    from nanosam_cli.core.segmentation.result import PhotoResult, Tally
    from nanosam_cli.core.segmentation.segment_photo import MaskOptions


def parse_format(text: str) -> str:
    """One of the formats that are known."""
    try:
        return find_format(text).name
    except UsageError as error:
        raise typer.BadParameter(f"{error}; {error.hint}") from None


COLUMNS = {
    "label": "object",
    "object": "prompt",
    "class": "class",
    "score": "score",
    "box": "box x0 y0 x1 y1",
    "bbox": "mask x y w h",
    "area": "area",
    "predicted_iou": "predicted IoU",
}


def segment(
    images: Annotated[
        list[str], typer.Argument(metavar="IMAGE|DIR|GLOB|-", help="Photos: files, directories, patterns; - is stdin.")
    ],
    box: BoxOption = None,
    point: PointOption = None,
    each_point: EachPointOption = False,
    mask: MaskOption = None,
    label: LabelOption = None,
    prompts: Annotated[
        Path | None,
        typer.Option(
            "--prompts",
            metavar="FILE",
            rich_help_panel=PROMPT,
            help=r'Prompts by photo: {"a.jpg": {"boxes": [\[x0, y0, x1, y1]], "points": [\[x, y, label]], "labels": '
            '["cat"]}}',
        ),
    ] = None,
    detections: DetectionsOption = None,
    class_names: ClassNamesOption = None,
    class_: ClassOption = None,
    text: TextOption = None,
    text_model: TextModelOption = None,
    pose: PoseOption = None,
    part: PartOption = None,
    parts: PartsOption = None,
    person: PersonOption = None,
    min_score: MinScoreOption = None,
    top_k: TopKOption = None,
    nms: NmsOption = None,
    everything: EverythingOption = False,
    grid: GridOption = None,
    crops: CropsOption = None,
    min_iou: MinIouOption = None,
    min_stability: MinStabilityOption = None,
    min_area: MinAreaOption = None,
    batch: BatchOption = None,
    multimask: Annotated[
        bool,
        typer.Option(
            "--multimask", rich_help_panel=PROMPT, help="Give every reading of a prompt, such as part and whole."
        ),
    ] = False,
    zoom: ZoomOption = False,
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
    edit: Annotated[
        Path | None,
        typer.Option(
            "--edit",
            metavar="FILE",
            rich_help_panel=PROMPT,
            help="Correct one object of an earlier run's file, with --point or --box; the others stay as they are.",
        ),
    ] = None,
    object_: Annotated[
        int | None,
        typer.Option("--object", min=1, metavar="K", rich_help_panel=PROMPT, help="Which object --edit corrects."),
    ] = None,
    format: Annotated[
        str | None,
        typer.Option(
            "--format",
            parser=parse_format,
            metavar="|".join(FORMATS),
            autocompletion=lambda incomplete: [name for name in FORMATS if name.startswith(incomplete)],
            rich_help_panel=OUTPUT,
            help="; ".join(f"{kind.name}: {kind.about}" for kind in FORMATS.values()) + ". Else png.",
        ),
    ] = None,
    simplify: Annotated[
        float | None,
        typer.Option(
            "--simplify",
            parser=parse_positive,
            metavar="PIXELS",
            rich_help_panel=OUTPUT,
            help="Outlines with few corners for editing, at most so far from the exact ones: 1 is a good start. For "
            f"{', '.join(kind.name for kind in FORMATS.values() if kind.outlines)}, which else follow every pixel.",
        ),
    ] = None,
    separate: Annotated[
        bool, typer.Option("--separate", rich_help_panel=OUTPUT, help="Write one file an object.")
    ] = False,
    exclusive: Annotated[
        bool,
        typer.Option("--exclusive", rich_help_panel=OUTPUT, help="Where masks overlap, leave each pixel to the best."),
    ] = False,
    grey: GreyOption = False,
    output: OutputOption = None,
    force: ForceOption = False,
    resume: ResumeOption = False,
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
    """Segment objects in photos: from boxes, points and masks, from other models' findings, or everything there is.

    Every --box is an object. Points describe one object, together with the box if there is one. Without -o the results
    go to the working directory: photo_mask.png, photo_overlay.png, photo_rle.json, coco.json. A run over many photos
    that was cut off goes on when it is asked the same with --resume, and ends with the same files.

        nanosam segment photo.jpg --box 10,20,300,400

        nanosam segment photo.jpg --point 150,200 --point 40,60,0 --format overlay

        nanosam segment photos/ --prompts prompts.json --format coco -o results.json

        nanosam segment photos/ --detections detections.json --min-score 0.5 --format coco

        nanosam segment large.jpg --detections detections.json --zoom --format yolo

        nanosam segment photo.jpg --text "a tree" --format overlay

        nanosam segment photo.jpg --pose auto --part shirt

        nanosam segment photo.jpg --edit photo_mask.png --object 2 --point 40,60,0 --force
    """
    from nanosam_cli.core.loading.load import open_predictor
    from nanosam_cli.core.media.find_photos import find_photos, left_out
    from nanosam_cli.core.messages import some
    from nanosam_cli.core.prompting.options import PromptOptions
    from nanosam_cli.core.segmentation.edit import plan_edit
    from nanosam_cli.core.segmentation.image_ids import COUNTED, counted_categories
    from nanosam_cli.core.segmentation.job import make_job
    from nanosam_cli.core.segmentation.outputs import plan_outputs
    from nanosam_cli.core.segmentation.segment_photo import MaskOptions, check_mask_options, run_settings, segment_photo

    asked = PromptOptions(
        boxes=box or [],
        points=point or [],
        each_point=each_point,
        mask=mask,
        labels=label or [],
        prompts=prompts,
        detections=detections,
        class_names=class_names,
        classes=class_ or [],
        text=text or [],
        text_model=text_model,
        pose=pose,
        parts=part or [],
        part_table=parts,
        people=person or [],
        min_score=min_score,
        top_k=top_k,
        nms=nms,
        everything=everything,
        grid=grid,
        crop_layers=crops,
        min_iou=min_iou,
        min_stability=min_stability,
        min_area=min_area,
        batch=batch,
    )
    models = chosen_model(model, encoder, decoder, device, backend, threads)
    if edit is not None:
        given = {"format": format, "separate": separate, "exclusive": exclusive, "multimask": multimask}
        for option, value in {**given, "zoom": zoom, "resume": resume, "grey": grey}.items():
            if value:
                raise UsageError(f"--edit writes the file as it is but for one object, so it takes no --{option}")
        plan = plan_edit(
            find_photos(images), edit, asked, object_, output, threshold=threshold, simplify=simplify, force=force
        )
        _edit(plan, models, json)
        return
    if object_ is not None:
        raise UsageError("--object belongs to --edit, which was not given")
    job = make_job(find_photos(images), asked)
    for note in left_out(images):
        console.warn(note, "save them as JPEG or PNG")
    reading = MaskOptions(multimask, threshold, exclusive, zoom)
    check_mask_options(job, reading)
    _report_unmatched(job)
    photos = list(job.sources)
    outputs = plan_outputs(
        photos,
        format or "png",
        output,
        separate,
        force,
        job.classes,
        simplify,
        resume,
        read=asked.files(),
        image_ids=job.image_ids,
        grey=grey,
    )
    if outputs.format.shared and outputs.ids_counted:
        console.info(COUNTED)
    if outputs.format.shared and job.classes_counted and job.classes:
        console.info(counted_categories(job.classes))
    with (
        open_predictor(models, console.info) as predictor,
        outputs.opened(partial(run_settings, predictor, asked, job, reading)),
    ):
        if outputs.are_there:
            console.info("the results are there already, and no run that was cut off: nothing is done")
            return
        for session in (predictor.encoder, predictor.decoder):
            console.detail(f"{session.path}: {session.backend}")
        with job:
            if job.about:
                console.info(job.about)
            tally = _segment_photos(
                partial(segment_photo, predictor, job, check_count=outputs.check_count), outputs, photos, reading, json
            )
    if failed := [*job.missing, *tally.failed]:
        raise InputError(f"no result for {some(failed)}", "--resume tries them again, once they are mended")


def _edit(plan: EditPlan, models: ModelChoice, json: bool) -> None:
    """Correct one object of a file."""
    from nanosam_cli.core.loading.load import open_predictor
    from nanosam_cli.core.media.find_photos import STDIN
    from nanosam_cli.core.segmentation.edit import edit_object

    with open_predictor(models, console.info) as predictor:
        result = edit_object(predictor, plan, sys.stdin.buffer if plan.photo == STDIN else plan.photo)
    for note in result.notes:
        console.warn(f"{plan.file}: {note}")
    if json:
        console.json_line(result.record())
    else:
        console.text(str(result))


def _segment_photos(
    segment_one: Callable[..., PhotoResult], outputs: Outputs, photos: Sequence[Path], reading: MaskOptions, json: bool
) -> Tally:
    """Do the photos that are left, one by one; where there are several, one that cannot be done stops no others."""
    from nanosam_cli.core.media.find_photos import STDIN
    from nanosam_cli.core.segmentation.result import Tally

    done = outputs.done
    if done:
        console.info(f"{len(done)} of {len(photos)} photos are done already")
    left = [photo for photo in photos if photo not in done]
    tally = Tally(len(left))
    with _closing_line(tally), console.progress("segment", len(photos), "photos", done=len(done)) as advance:
        for photo in left:
            try:
                result = segment_one(photo, sys.stdin.buffer if photo == STDIN else photo, reading)
            except (InputError, UsageError) as error:
                if len(photos) == 1:
                    raise
                console.warn(f"{photo} is passed over: {error}", error.hint)
                tally.failed.append(str(photo))
            else:
                outputs.write(result)
                tally.add(result)
                _remark(result, outputs)
                _report(result, json, brief=len(photos) > 1)
            advance()
    return tally


def _remark(result: PhotoResult, outputs: Outputs) -> None:
    for note in result.request.notes:
        console.warn(f"{result.photo}: {note}")
    if outputs.loses(result):
        console.warn(f"masks of {result.photo} overlap; the smaller lie on top", "--separate keeps all of them whole")


@contextmanager
def _closing_line(tally: Tally) -> Iterator[None]:
    """Many photos end with a summary, after Ctrl-C too: what was done stays."""
    try:
        yield
    except KeyboardInterrupt:
        if tally.photos > 1:
            console.info("--resume goes on with the photos that are left")
        raise
    finally:
        if tally.photos > 1:
            console.info(str(tally))


def _report(result: PhotoResult, json: bool, brief: bool) -> None:
    files = ", ".join(str(file) for file in result.files)
    if result.zoomed is not None:
        (console.detail if brief else console.info)(f"{result.photo}: {result.zoomed}")
    if json:
        console.json_line(result.record())
    elif brief or not result.found:
        console.text(f"{result.photo}: {_objects(result)} -> {files}")
    else:
        records = result.objects()
        shown = [name for name in COLUMNS if any(record[name] is not None for record in records)]
        console.table([COLUMNS[name] for name in shown], [[record[name] for name in shown] for record in records])
        console.text(f"{result.watch} -> {files}")


def _objects(result: PhotoResult) -> str:
    return "1 object" if len(result.found) == 1 else f"{len(result.found)} objects"


def _report_unmatched(job: Job) -> None:
    from nanosam_cli.core.messages import some

    for note in job.notes:
        console.warn(note)
    if job.unasked:
        console.warn(f"not in the prompt file, so left out: {some(job.unasked)}")
    if job.missing or job.unmatched:
        console.warn(f"in the prompt file, but not among the photos: {some([*job.missing, *job.unmatched])}")

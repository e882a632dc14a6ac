"""`nanosam eval`: a model and annotated data in, the IoU of every object out."""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import ExitStack
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from nanosam_cli import console
from nanosam_cli.core.errors import InputError
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
    ZoomOption,
    chosen_model,
    parse_number,
)

if TYPE_CHECKING:
    from nanosam_cli.core.datasets.clips import Clip
    from nanosam_cli.core.datasets.photo_files import PhotoFiles
    from nanosam_cli.core.evaluation.davis_run import ClipScore
    from nanosam_cli.core.evaluation.plan import EvaluationPlan
    from nanosam_cli.core.evaluation.results import Results
    from nanosam_cli.core.evaluation.run import EvaluationRun
    from nanosam_cli.core.evaluation.segmenters import Segmenter

DATA = "Data"  # heading of the help

ImagesOption = Annotated[
    Path | None,
    typer.Option(
        "--images",
        metavar="DIR|ZIP",
        rich_help_panel=DATA,
        help="The photos; else COCO val2017, as `nanosam download coco-val2017` leaves it.",
    ),
]
AnnotationsOption = Annotated[
    Path | None,
    typer.Option(
        "--annotations",
        metavar="FILE",
        rich_help_panel=DATA,
        help="COCO instances, JSON; else what lies beside the photos. In a zip file: FILE.zip/annotations/x.json.",
    ),
]
CategoryOption = Annotated[
    list[str] | None,
    typer.Option("--category", metavar="NAME|ID", rich_help_panel=DATA, help="Only objects of it. Repeatable."),
]
LimitOption = Annotated[
    int | None, typer.Option("--limit", min=1, metavar="N", rich_help_panel=DATA, help="Only the first N photos.")
]
AllowMissingOption = Annotated[
    bool, typer.Option("--allow-missing", rich_help_panel=DATA, help="Leave out photos that cannot be read.")
]

app = typer.Typer(cls=Group, no_args_is_help=True, help="Evaluate a model on annotated data.")


class ProtocolName(str, Enum):
    nanosam = "nanosam"
    edgesam = "edgesam"
    efficientvit = "efficientvit"


class FirstPrompt(str, Enum):
    mask = "mask"
    box = "box"


class Start(str, Enum):
    click = "click"
    box = "box"


class Given(str, Enum):
    clicks = "clicks"
    mask = "mask"


class CocoPrompt(NamedTuple):
    """What each object is prompted with."""

    boxes: bool
    points: int


class Shard(NamedTuple):
    """One of equal parts, from 1."""

    part: int
    parts: int


def parse_prompt(text: str) -> CocoPrompt:
    """`box`, `point`, `points:3`, `box+point` or `box+points:3`."""
    first, _, second = text.partition("+")
    clicks = re.fullmatch(r"point|points:([1-9]\d{0,2})", second or first)
    if (first != "box" and second) or (text != "box" and not clicks):
        raise typer.BadParameter(f"{text!r} is not box, point, points:N or box+point")
    return CocoPrompt(first == "box", int(clicks[1] or 1) if clicks else 0)


def parse_shard(text: str) -> Shard:
    """`2/4`: the second of four."""
    matched = re.fullmatch(r"(\d+)/(\d+)", text)
    if not matched or not 1 <= int(matched[1]) <= int(matched[2]):
        raise typer.BadParameter(f"{text!r} is not I/N with I from 1 to N, such as 2/4")
    return Shard(int(matched[1]), int(matched[2]))


@app.command(cls=Command)
def coco(
    images: ImagesOption = None,
    annotations: AnnotationsOption = None,
    category: CategoryOption = None,
    limit: LimitOption = None,
    shard: Annotated[
        Shard | None,
        typer.Option(
            "--shard",
            parser=parse_shard,
            metavar="I/N",
            rich_help_panel=DATA,
            help="Only every N-th photo, from the I-th on; `nanosam metrics --merge` joins the parts.",
        ),
    ] = None,
    allow_missing: AllowMissingOption = False,
    protocol: Annotated[
        ProtocolName,
        typer.Option("--protocol", help="Whose way to count: which objects, and which of the decoder's masks."),
    ] = ProtocolName.nanosam,
    prompt: Annotated[
        CocoPrompt | None,
        typer.Option(
            "--prompt",
            parser=parse_prompt,
            metavar="KIND",
            rich_help_panel=PROMPT,
            help="box (the annotated one; default), point (the object's centre), points:N (and random ones on it), "
            "box+point.",
        ),
    ] = None,
    zoom: ZoomOption = False,
    box_noise: Annotated[
        float,
        typer.Option(
            "--box-noise",
            parser=parse_number,
            metavar="SHARE",
            rich_help_panel=PROMPT,
            help="Move each edge by up to this share of the box's side, such as 0.1.",
        ),
    ] = 0.0,
    seed: Annotated[
        int, typer.Option("--seed", min=0, metavar="N", rich_help_panel=PROMPT, help="Of random points and noise.")
    ] = 0,
    output: Annotated[
        Path | None,
        typer.Option(
            "-o", "--output", metavar="FILE", rich_help_panel=OUTPUT, help="Results, JSON; else results.json."
        ),
    ] = None,
    resume: ResumeOption = False,
    save_masks: Annotated[
        bool,
        typer.Option("--save-masks", rich_help_panel=OUTPUT, help="Also write FILE.masks.json, COCO results."),
    ] = False,
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
    """Prompt with annotated objects of a COCO data set and measure the masks' IoU.

    Results are kept photo by photo: a run that was cut off goes on with --resume and ends with the same file. The
    baselines --model box and --model ellipse take the prompt itself as the mask; a model has to beat them.

        nanosam eval coco

        nanosam eval coco --images photos/ --annotations instances.json --model ellipse -o ellipse.json

        nanosam eval coco --resume --shard 2/4
    """
    from nanosam_cli.core.datasets.coco import read_annotations
    from nanosam_cli.core.datasets.photo_files import PhotoFiles, find_data
    from nanosam_cli.core.evaluation.plan import ObjectFilter, plan_evaluation
    from nanosam_cli.core.evaluation.prompting import Prompting
    from nanosam_cli.core.evaluation.protocols import PROTOCOLS
    from nanosam_cli.core.evaluation.run import start_run
    from nanosam_cli.core.evaluation.segmenters import BASELINES, open_segmenter
    from nanosam_cli.core.zoo.models import check_model_name

    chosen = chosen_model(model, encoder, decoder, device, backend, threads)
    check_model_name(model, BASELINES)  # before data is looked for: a wrong word is mended sooner than a missing file
    kind, part = prompt or CocoPrompt(True, 0), shard or Shard(1, 1)
    prompting = Prompting(kind.boxes, kind.points, box_noise, seed)
    choice = ObjectFilter(PROTOCOLS[protocol.value], category or [], limit, part)
    with ExitStack() as opened:
        place, file = find_data(images, annotations)
        files = opened.enter_context(PhotoFiles(place))
        segmenter = opened.enter_context(
            open_segmenter(chosen, select=choice.protocol.select, zoom=zoom, note=console.info)
        )
        truth = read_annotations(file, place)
        plan = plan_evaluation(truth, files, segmenter, choice, prompting, save_masks=save_masks)
        _report_plan(plan, allow_missing)
        about = plan.settings["model"]
        console.detail(f"{about['name']}: {' + '.join(about.get('backend', ['needs no runtime']))}")
        target = output or Path("results.json" if shard is None else f"results-{part.part}of{part.parts}.json")
        run = opened.enter_context(start_run(plan, target, resume=resume, force=force))
        before = run.done
        _work(run, segmenter, files)
        if zoom:
            console.info(f"the encoder ran {segmenter.encodings} times for {_photos(run.done - before)}")
        results = run.finish(keep_failed=not allow_missing)
        _report(run, results, json)
        _check_failed(run, allow_missing)


@app.command(cls=Command)
def clicks(
    images: ImagesOption = None,
    annotations: AnnotationsOption = None,
    category: CategoryOption = None,
    limit: LimitOption = None,
    allow_missing: AllowMissingOption = False,
    start: Annotated[
        Start, typer.Option("--start", rich_help_panel=PROMPT, help="Begin with a click, or with the annotated box.")
    ] = Start.click,
    count: Annotated[
        int, typer.Option("--clicks", metavar="N", rich_help_panel=PROMPT, help="Clicks an object, 1 to 100.")
    ] = 10,
    prompt: Annotated[
        Given,
        typer.Option(
            "--prompt",
            rich_help_panel=PROMPT,
            help="mask: no clicks, but the object's own mask and a rough one, each alone and with the box.",
        ),
    ] = Given.clicks,
    seed: Annotated[
        int, typer.Option("--seed", min=0, metavar="N", rich_help_panel=PROMPT, help="Where rough masks are moved.")
    ] = 0,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", metavar="FILE", rich_help_panel=OUTPUT, help="Results, JSON; else clicks.json."),
    ] = None,
    sheet: Annotated[
        Path | None,
        typer.Option(
            "--sheet", metavar="PNG", rich_help_panel=OUTPUT, help="Draw ten objects with their first clicks."
        ),
    ] = None,
    resume: ResumeOption = False,
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
    """Correct masks of annotated objects click by click, as a person would, and measure how soon they are right.

    Each click is set on the deepest pixel of the largest wrong region, and the last mask is fed back. Told are the mean
    IoU after so many clicks, the clicks to an IoU of 0.85 and 0.90 (all of them where it is never reached), how often
    the newest click is obeyed, and how often a step makes the mask worse. The baseline --model disc takes clicks as
    discs. `nanosam metrics FILE FILE --plot clicks.png` draws several results in one picture.

        nanosam eval clicks --images photos/ --annotations instances.json

        nanosam eval clicks --start box --clicks 5 -o from-a-box.json --sheet clicks.png

        nanosam eval clicks --prompt mask -o masks.json
    """
    from nanosam_cli.core.datasets.coco import read_annotations
    from nanosam_cli.core.datasets.photo_files import PhotoFiles, find_data
    from nanosam_cli.core.evaluation.clicks import PROTOCOL, Corrections, MaskPrompts, plan_clicks
    from nanosam_cli.core.evaluation.clicks_sheet import check_sheet, draw_clicks, first_clicks
    from nanosam_cli.core.evaluation.plan import ObjectFilter
    from nanosam_cli.core.evaluation.run import start_run
    from nanosam_cli.core.evaluation.segmenters import BASELINES, DISC, open_segmenter
    from nanosam_cli.core.media.image import write_png
    from nanosam_cli.core.zoo.models import check_model_name

    chosen = chosen_model(model, encoder, decoder, device, backend, threads)
    check_model_name(model, [*BASELINES, DISC])
    corrections = Corrections(start.value, count)
    if sheet is not None:
        check_sheet(sheet, None if prompt is Given.mask else corrections, force=force)
    with ExitStack() as opened:
        place, file = find_data(images, annotations)
        files = opened.enter_context(PhotoFiles(place))
        segmenter = opened.enter_context(open_segmenter(chosen, select=PROTOCOL.select, note=console.info))
        truth = read_annotations(file, place)
        examine = MaskPrompts(segmenter, seed) if prompt is Given.mask else corrections
        plan = plan_clicks(truth, files, segmenter, ObjectFilter(PROTOCOL, category or [], limit), examine)
        _report_plan(plan, allow_missing)
        target = output or Path("clicks.json")
        run = opened.enter_context(start_run(plan, target, resume=resume, force=force, examine=examine))
        _work(run, segmenter, files)
        results = run.finish(keep_failed=not allow_missing)
        _report_clicks(run, results, json)
        if sheet is not None:
            write_png(sheet, draw_clicks(first_clicks(corrections), segmenter, plan.photos, files), overwrite=force)
            console.info(f"first clicks: {sheet}")
        _check_failed(run, allow_missing)


@app.command(cls=Command)
def davis(
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="DIR/<clip>/00000.jpg with 00000.png beside it, or DAVIS's layout.")
    ],
    clip: Annotated[
        list[str] | None,
        typer.Option("--clip", metavar="NAME", rich_help_panel=DATA, help="Only this clip. Repeatable."),
    ] = None,
    split: Annotated[
        str | None,
        typer.Option("--split", metavar="NAME", rich_help_panel=DATA, help="Only DAVIS's list of this name, as val."),
    ] = None,
    prompt: Annotated[
        FirstPrompt,
        typer.Option("--prompt", rich_help_panel=PROMPT, help="What is given of the first frame: its mask or its box."),
    ] = FirstPrompt.mask,
    sheets: Annotated[
        Path | None,
        typer.Option("--sheets", metavar="DIR", rich_help_panel=OUTPUT, help="A contact sheet a clip: DIR/<clip>.png."),
    ] = None,
    masks: Annotated[
        Path | None,
        typer.Option(
            "--masks", metavar="DIR", rich_help_panel=OUTPUT, help="Label PNGs, as DAVIS's own toolkit reads them."
        ),
    ] = None,
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
    """Follow the objects of annotated clips and measure J (region), F (boundary) and their mean, as DAVIS 2017 does.

    The baseline --model copy repeats the first mask; a tracker has to beat it. Label 255 is void, but where a clip's
    first mask has no other, as in DAVIS 2016, it is the object.

        nanosam eval davis clips/

        nanosam eval davis DAVIS/ --split val --prompt box --sheets sheets/
    """
    from nanosam_cli.core.datasets.clips import find_clips
    from nanosam_cli.core.evaluation.davis_run import Places, check_clips, score_clip
    from nanosam_cli.core.evaluation.followers import COPY, open_follower
    from nanosam_cli.core.zoo.models import check_model_name

    chosen = chosen_model(model, encoder, decoder, device, backend, threads)
    check_model_name(model, [COPY])
    clips = find_clips(folder, clip or [], split)
    places = Places(sheets, masks, force).checked(clips)
    check_clips(clips)
    scores: list[ClipScore] = []
    name = ""
    try:
        with (
            open_follower(chosen, prompt=prompt.value, note=console.info) as follower,
            console.progress("evaluate", sum(len(one.frames) for one in clips), "frames") as advance,
        ):
            name = follower.name
            for one in clips:
                scores.append(score_clip(one, follower, places, advance))
                console.detail(f"{one.name}: J&F {scores[-1].jf:.3f}")
    finally:  # also what was done before Ctrl-C or a clip that cannot be read: each is minutes of work
        if scores:
            _report_davis(scores, name, prompt, json)
            _report_missing(clips, scores)


def _work(run: EvaluationRun, segmenter: Segmenter, files: PhotoFiles) -> None:
    try:
        with console.progress("evaluate", run.total, "photos", done=run.done) as advance:
            for mean in run.steps(segmenter, files):
                advance(mIoU=mean)
    except KeyboardInterrupt:
        console.info(f"{run.done} of {run.total} photos are done; --resume goes on with them")
        raise


def _check_failed(run: EvaluationRun, allow_missing: bool) -> None:
    if run.failed and not allow_missing:
        raise InputError(
            f"no result for {_photos(len(run.failed))}",
            "--resume tries them again, --allow-missing leaves them out",
        )


def _report_davis(scores: Sequence[ClipScore], name: str, prompt: FirstPrompt, json: bool) -> None:
    from nanosam_cli.core.evaluation.davis_run import DavisScore

    result = DavisScore(scores)
    if json:
        console.json_line({**result.record(), "model": name, "prompt": prompt.value})
        return
    console.table(
        ("clip", "frames", "objects", "J", "F", "J&F", "tracked", "found again", "fps"),
        result.rows(),
        f"{name}, {prompt.value} prompt",
    )


def _report_missing(clips: Sequence[Clip], scores: Sequence[ClipScore]) -> None:
    from nanosam_cli.core.messages import some

    if missing := [clip.name for clip in clips[len(scores) :]]:
        console.warn(f"no result for {len(missing)} of {len(clips)} clips: {some(missing)}")


def _report_plan(plan: EvaluationPlan, allow_missing: bool) -> None:
    console.detail(f"model: {plan.settings['model']}")
    if plan.missing:
        some = ", ".join(photo.path.name for photo in plan.missing[:5])
        message = f"{len(plan.missing)} of {_photos(len(plan.photos))} missing in {plan.images}: {some}"
        if not allow_missing:
            raise InputError(message, "--allow-missing leaves them out")
        console.warn(message)
    left_out, empty = plan.annotations.without_mask, plan.boxes_without_area
    for note in plan.annotations.notes:
        console.warn(note)
    if left_out:
        console.warn(f"{left_out} annotations have no segmentation and are left out")
    if empty:
        console.warn(f"{empty} annotated boxes have no area in their photo; each is taken as one pixel")


def _report(run: EvaluationRun, results: Results, json: bool) -> None:
    from nanosam_cli.core.evaluation.metrics import group_rows, summarise
    from nanosam_cli.core.evaluation.protocols import PROTOCOLS

    settings, counts = results.settings, results.meta["counts"]
    if run.mended:
        path, note = run.mended[0]
        more = f", and so or alike {len(run.mended) - 1} more" if len(run.mended) > 1 else ""
        console.warn(f"annotations of {path} were {note}{more}")
    for path, error in run.failed:
        console.warn(f"{path} is passed over: {error}", error.hint)
    if counts["empty_masks"]:
        console.warn(f"{counts['empty_masks']} annotated masks are empty; their IoU is 0")
    summaries = summarise(results, group_rows(results))
    if json:
        made = {key: settings[key] for key in ("protocol", "prompt", "box_noise", "seed")}
        about = {"schema_version": 1, "output": str(results.path), "model": results.name, **made, "counts": counts}
        console.json_line({**about, "groups": [summary.record() for summary in summaries]})
        return
    rows = [(s.group, s.objects, "-" if s.mean_iou is None else f"{s.mean_iou:.3f}") for s in summaries]
    console.table(("size", "objects", "mIoU"), rows, f"{results.name}, {settings['prompt']} prompts")
    console.text(f"protocol {PROTOCOLS[settings['protocol']]} -> {results.path}")


def _report_clicks(run: EvaluationRun, results: Results, json: bool) -> None:
    from nanosam_cli.core.evaluation.clicks import PROTOCOL
    from nanosam_cli.core.evaluation.clicks_report import HEADS, measures, rows

    settings, counts = results.settings, results.meta["counts"]
    for path, error in run.failed:
        console.warn(f"{path} is passed over: {error}", error.hint)
    if counts["empty_masks"]:
        console.warn(f"{counts['empty_masks']} annotated masks are empty; nobody can click on them")
    found = measures(results)
    if json:
        made = {key: settings[key] for key in ("protocol", "prompt", "start", "clicks", "seed") if key in settings}
        about = {"schema_version": 1, "output": str(results.path), "model": results.name, **made, "counts": counts}
        console.json_line({**about, "measures": [measure.record() for measure in found]})
        return
    console.table(HEADS, rows(found), f"{results.name}, {counts['objects']} objects of {counts['photos']} photos")
    console.text(f"protocol {PROTOCOL} -> {results.path}")


def _photos(count: int) -> str:
    return "1 photo" if count == 1 else f"{count} photos"

"""`nanosam track`: a video and prompts in, every object's mask in every frame out."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nanosam_cli import console
from nanosam_cli.core.media.video_time import VideoTime, parse_video_time
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
    MaskOption,
    ModelOption,
    OutputOption,
    PointOption,
    QuietOption,
    ResumeOption,
    ThreadsOption,
    VerboseOption,
    chosen_model,
    parse_positive,
)
from nanosam_cli.prompt_options import MinScoreOption, PartOption, PartsOption, PersonOption, PoseOption

if TYPE_CHECKING:
    from nanosam_cli.core.tracking.outputs import TrackPlan
    from nanosam_cli.core.tracking.people import FollowedPeople
    from nanosam_cli.core.tracking.run import TrackingRun

FRAMES = "Frames"  # heading of the help


def parse_place(text: str) -> VideoTime:
    """A frame such as 120, or a time such as 4.5s or 1:30."""
    try:
        return parse_video_time(text)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


def track(
    video: Annotated[
        str, typer.Argument(metavar="VIDEO|DIR|0", help="A video file, a folder of frames, or a camera's number.")
    ],
    box: BoxOption = None,
    point: PointOption = None,
    each_point: EachPointOption = False,
    mask: MaskOption = None,
    prompts: Annotated[
        Path | None,
        typer.Option(
            "--prompts",
            metavar="FILE",
            rich_help_panel=PROMPT,
            help=r'Prompts by frame or time: {"40": {"boxes": [\[x0, y0, x1, y1]]}, "4.5s": {"points": [\[x, y, 1]]}}',
        ),
    ] = None,
    pose: PoseOption = None,
    part: PartOption = None,
    parts: PartsOption = None,
    person: PersonOption = None,
    min_score: MinScoreOption = None,
    start: Annotated[
        VideoTime | None,
        typer.Option(
            "--start",
            parser=parse_place,
            metavar="PLACE",
            rich_help_panel=FRAMES,
            help="First frame, where the prompts hold: a frame such as 120, or a time such as 4.5s or 1:30.",
        ),
    ] = None,
    stop: Annotated[
        VideoTime | None,
        typer.Option(
            "--stop", parser=parse_place, metavar="PLACE", rich_help_panel=FRAMES, help="End before this frame or time."
        ),
    ] = None,
    stride: Annotated[
        int, typer.Option("--stride", min=1, metavar="N", rich_help_panel=FRAMES, help="Only every N-th frame.")
    ] = 1,
    max_side: Annotated[
        int | None,
        typer.Option(
            "--max-side",
            min=16,
            metavar="PIXELS",
            rich_help_panel=FRAMES,
            help="Make larger frames smaller first. Prompts stay in the video's own pixels; results are of the "
            "smaller frames.",
        ),
    ] = None,
    fps: Annotated[
        float | None,
        typer.Option(
            "--fps", parser=parse_positive, metavar="N", rich_help_panel=FRAMES, help="Of a folder of frames; else 24."
        ),
    ] = None,
    output: OutputOption = None,
    no_video: Annotated[
        bool, typer.Option("--no-video", rich_help_panel=OUTPUT, help="Write no overlay video.")
    ] = False,
    masks: Annotated[
        Path | None,
        typer.Option(
            "--masks", metavar="DIR", rich_help_panel=OUTPUT, help="Also a label PNG a frame: object k has the value k."
        ),
    ] = None,
    grey: GreyOption = False,
    show: Annotated[
        bool,
        typer.Option(
            "--show",
            rich_help_panel=OUTPUT,
            help="A window: double-click follows an object, r forgets all, q ends.",
        ),
    ] = False,
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
    """Follow objects through a video, and find them again.

    Every --box is an object. The overlay video is VIDEO_track.mp4 in the working directory, or -o FILE.mp4; --json
    prints a line a frame with each object's run-length code, box, score and state: tracked, uncertain or lost. A run
    that was killed goes on when it is asked the same with --resume, and ends with the same files and lines.

        nanosam track video.mp4 --box 10,20,300,400

        nanosam track frames/ --mask frames/00000.png --masks found/ -o out.mp4

        nanosam track video.mp4 --pose auto --part shirt

        nanosam track 0 --show
    """
    from nanosam_cli.core.errors import UsageError
    from nanosam_cli.core.loading.load import open_predictor
    from nanosam_cli.core.media.frame_range import BEGINNING, FrameRange
    from nanosam_cli.core.media.video import open_video
    from nanosam_cli.core.prompting.options import PromptOptions
    from nanosam_cli.core.prompting.request import make_request
    from nanosam_cli.core.tracking.outputs import SURVIVED, TrackOutputs, plan_track
    from nanosam_cli.core.tracking.people import follow_people
    from nanosam_cli.core.tracking.record import opened_record, track_settings
    from nanosam_cli.core.tracking.run import TrackingRun
    from nanosam_cli.core.tracking.timed_requests import (
        TimedRequest,
        check_asked,
        read_timed_requests,
        some_moments,
        split_early,
    )
    from nanosam_cli.core.tracking.window import TrackWindow

    asked = PromptOptions(
        boxes=box or [],
        points=point or [],
        each_point=each_point,
        mask=mask,
        prompts=None if box or point or mask or each_point else prompts,  # which may go with what is drawn
        pose=pose,
        parts=part or [],
        part_table=parts,
        people=person or [],
        min_score=min_score,
    )
    people = follow_people(asked, console.info)
    if fps is not None and not Path(video).is_dir():
        raise UsageError(f"--fps is for folders of frames; {video} has a rate of its own", "leave --fps out")
    frames = FrameRange(start or BEGINNING, stop, stride)
    requests = read_timed_requests(prompts) if prompts else []
    if box or point or mask or each_point:
        request = make_request(box or [], point or [], each_point=each_point, masks=mask)
        requests.insert(0, TimedRequest(frames.start, request))
    check_asked(requests, later=show or people is not None)
    plan = plan_track(video, output, masks, video=not no_video, force=force, resume=resume, grey=grey)
    if plan.is_finished:
        console.info("the results are there already, and no run that was killed: nothing is done")
        return
    with ExitStack() as opened:
        source = opened.enter_context(open_video(video, None if fps is None else Fraction(fps)))
        requests, early = split_early(requests, frames.start, source.rate)
        if early:
            console.warn(f"left out, because frames begin at {frames.start}: the prompts for {some_moments(early)}")
        if people is not None:
            opened.enter_context(people)
        predictor = opened.enter_context(
            open_predictor(chosen_model(model, encoder, decoder, device, backend, threads), console.info)
        )
        for session in (predictor.encoder, predictor.decoder):
            console.detail(f"{session.path}: {session.backend}")
        opened.enter_context(plan.locked())
        run = TrackingRun(predictor, requests, max_side, people)
        window = opened.enter_context(TrackWindow(f"nanosam track {video}", run)) if show else None
        said = replace(asked, prompts=prompts)
        settings = partial(track_settings, video, predictor, said, frames, max_side, fps, grey)
        record = opened.enter_context(opened_record(plan.record, settings, resume=resume))
        if record.state is not None:
            run.restore(record.state)
            console.info(f"{record.kept} frames are done already; they are drawn again from their record")
        try:
            with (
                TrackOutputs(plan, source) as outputs,
                console.progress("track", frames.count(source), "frames") as advance,
            ):
                for tracked in run.frames(frames.of(source), record.past()):
                    outputs.write(tracked)
                    record.add(tracked, run)
                    if json:
                        console.json_line(tracked.record)
                    advance(fps=run.summary.fps)
                    if window and not window.show(tracked):
                        break
        except SURVIVED:
            _report(run, plan, people, json)
            raise
        _report(run, plan, people, json)
        if source.fault:
            raise source.fault


def _report(run: TrackingRun, plan: TrackPlan, people: FollowedPeople | None, json: bool) -> None:
    """What was done, after Ctrl-C too."""
    from nanosam_cli.core.tracking.timed_requests import some_moments

    if run.waiting and run.summary.frames:  # none at all is another fault, told where it is found
        console.warn(f"the frames ended before these prompts: {some_moments(run.waiting)}")
    if people is not None and people.nobody:
        console.warn(people.nobody)
    if not json and run.summary.frames:
        console.table(("object", "tracked", "uncertain", "lost", "found again"), run.summary.rows())
        console.text(f"{run.summary} -> {plan.places or 'nothing written'}")
    console.detail(str(run))

"""What `nanosam track` leaves behind: an overlay video and label PNGs, whole also after Ctrl-C.

After a kill the video so far is `NAME.part.mp4`, which plays, until the next run writes it anew.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from types import TracebackType

import numpy as np
from PIL import Image as Picture
from PIL import ImageDraw, ImageFont

from nanosam_cli.core.errors import InputError, OutputError, UsageError
from nanosam_cli.core.media.image import write_png
from nanosam_cli.core.media.render import PALETTE, label_map, object_colour, overlay
from nanosam_cli.core.media.video import Video, VideoWriter, find_encoder
from nanosam_cli.core.system.files import atomic_write, check_writable
from nanosam_cli.core.system.journal import check_choice
from nanosam_cli.core.system.lock import only_run
from nanosam_cli.core.tracking.record import FRAMES
from nanosam_cli.core.tracking.run import TrackedFrame
from nanosam_cli.core.tracking.target import TrackState
from nanosam_cli.core.types import Image

# what a video ends at and plays up to: Ctrl-C, a source that is cut off, a prompt that cannot be followed, `| head`
SURVIVED = (KeyboardInterrupt, InputError, UsageError, BrokenPipeError)


@dataclass(frozen=True)
class TrackPlan:
    """Where results go, None for what is not wanted. Made by `plan_track`, which has checked the places."""

    video: Path | None
    masks: Path | None
    force: bool = False
    resume: bool = False
    record: Path | None = None  # folder of the run's record; None where nothing is kept, or the source is live
    is_finished: bool = False  # whether `resume` has nothing to go on with, because the results are there
    grey: bool = False  # masks without colours, which DAVIS's tools want

    @property
    def places(self) -> str:
        return ", ".join(str(path) for path in (self.video, self.masks) if path is not None)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """No other run writes there. OutputError where one does."""
        with ExitStack() as locks:
            if self.video is not None:
                locks.enter_context(only_run(self.video))
            if self.masks is not None:
                locks.enter_context(only_run(self.masks, self.masks / ".masks.lock"))
            yield


def plan_track(
    source: str,
    output: str | None,
    masks: Path | None,
    *,
    video: bool = True,
    force: bool = False,
    resume: bool = False,
    grey: bool = False,
) -> TrackPlan:
    """Decide where results go and check it, so that no work is lost to a name.

    Without `output` the video is called `SOURCE_track.mp4` and lies in the working directory; of a camera nothing is
    kept unless it is asked for. With `resume` a run that was killed is gone on with, if there is one.

    Raises:
        UsageError: the video would overwrite its source, no such videos are written, `grey` has no masks, or `resume`
            makes no sense.
        OutputError: something is there already and `force` is false, or the place cannot be written.
    """
    check_choice(resume, force)
    path = _video_path(source, output, video)
    if grey and masks is None:
        raise UsageError("--grey is for the label PNGs of --masks, which was not given", "--masks DIR")
    plan = TrackPlan(path, masks, force, resume, _record_folder(source, path, masks), grey=grey)
    if resume and plan.record is None:
        why = "a camera does not show again what it has shown" if _is_camera(source) else "nothing is written"
        raise UsageError(f"--resume has nothing to go on with: {why}", "give a video, and -o or --masks")
    unfinished = plan.record is not None and (plan.record / FRAMES).exists()
    if unfinished and not resume:
        with plan.locked():
            pass
        if not force:
            raise OutputError(f"{plan.places}: a run was not finished", "--resume goes on with it, --force starts anew")
    if resume and not unfinished and _are_there(plan):
        return replace(plan, is_finished=True)
    force = force or (resume and unfinished)  # what is there is that run's own
    if path is not None:
        find_encoder(path.resolve())  # of a link, what it points at: the file there keeps its name
        if path.exists() and Path(source).exists() and path.samefile(source):
            raise UsageError(f"{path} would overwrite the video that is read", "give another place with `-o`")
        if path.exists() and not force:
            raise OutputError(f"{path} exists already", "add `--force` to overwrite it, or give another with `-o`")
        if path.exists() and not path.is_file():
            raise OutputError(f"cannot write {path}: it is not a regular file", "give another place with `-o`")
        check_writable(path.resolve().parent)  # of a link, where it points at
    if masks is not None:
        if masks.exists() and not masks.is_dir():
            raise OutputError(f"{masks} is not a directory", "give a directory for the masks")
        if masks.is_dir() and Path(source).is_dir() and masks.samefile(source):
            raise UsageError(f"{masks} holds the frames that are read", "give another directory for the masks")
        if not force and masks.is_dir() and any(masks.glob("*.png")):
            raise OutputError(
                f"{masks} has masks already", "add `--force` to overwrite them, or give another directory"
            )
        check_writable(masks, "give another directory for the masks")
    return replace(plan, force=force)


def _record_folder(source: str, video: Path | None, masks: Path | None) -> Path | None:
    if _is_camera(source):
        return None
    if video is not None:
        return video.with_name(f".{video.name}.run")
    return None if masks is None else masks / ".run"


def _is_camera(source: str) -> bool:
    return source.isdecimal() and not Path(source).exists()


def _are_there(plan: TrackPlan) -> bool:
    has_masks = plan.masks is None or (plan.masks.is_dir() and any(plan.masks.glob("*.png")))
    return has_masks and (plan.video is None or plan.video.exists())


def _video_path(source: str, output: str | None, video: bool) -> Path | None:
    if not video:
        if output is not None:
            raise UsageError("--no-video writes no video, so it takes no -o")
        return None
    stem = Path(source).resolve().name if Path(source).is_dir() else Path(source).stem
    if output is None:
        return None if _is_camera(source) else Path(f"{stem}_track.mp4")
    if output.endswith(("/", os.sep)) or Path(output).is_dir():
        return Path(output) / f"{stem}_track.mp4"
    return Path(output)


class TrackOutputs:
    """Writes frame by frame. The video gets its name at the end of the `with` block: also after what SURVIVED names,
    with the frames up to there; not after any other error."""

    def __init__(self, plan: TrackPlan, video: Video) -> None:
        self._plan = plan
        self._video = video
        self._stack = ExitStack()
        self._writer: VideoWriter | None = None
        self._first: Fraction | None = None  # time of the first frame that is wanted, with which the overlay begins

    def write(self, tracked: TrackedFrame) -> None:
        """One frame. OSError where the disk refuses, which the end of the block turns into an OutputError."""
        plan = self._plan
        if self._first is None:
            self._first = tracked.frame.time
        if plan.video is not None:
            self._open(plan.video).write(draw(tracked), tracked.frame.time - self._first)
        if plan.masks is not None and not _is_written(plan.masks / f"{tracked.frame.name}.png", tracked):
            labels = label_map(tracked.masks, tracked.image.shape[:2])
            palette = None if plan.grey else PALETTE
            write_png(plan.masks / f"{tracked.frame.name}.png", labels, palette, overwrite=plan.force)

    def _open(self, path: Path) -> VideoWriter:
        if self._writer is None:
            video = self._video
            temporary = self._stack.enter_context(atomic_write(path, self._plan.force, seen=True))
            self._writer = self._stack.enter_context(VideoWriter(temporary, video.rate, video.clock, video.pixel_ratio))
        return self._writer

    def __enter__(self) -> TrackOutputs:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None or issubclass(kind, SURVIVED):
            self._stack.close()
        else:
            self._stack.__exit__(kind, error, trace)


def _is_written(mask: Path, tracked: TrackedFrame) -> bool:
    """Whether an earlier run wrote the mask of a frame that it recorded; a power cut may have emptied the file."""
    return tracked.record_before is not None and mask.exists() and bool(mask.stat().st_size)


def draw(tracked: TrackedFrame) -> Image:
    """(H, W, 3) the frame with its masks, and each object's number and state where it is or, if lost, in a corner."""
    picture = Picture.fromarray(overlay(tracked.image, tracked.masks))
    pen = ImageDraw.Draw(picture)
    size = max(11, round(max(picture.size) / 55))
    font = ImageFont.load_default(size)
    lost = 0
    for one in tracked.objects:
        words = str(one.number) if one.state is TrackState.tracked else f"{one.number} {one.state.value}"
        x, y = 4.0, 4.0 + lost * (size + 4)
        if one.box is not None:
            x, y = float(one.box[0]), max(0.0, one.box[1] - size - 4.0)
        else:
            lost += 1
        pen.text((x, y), words, fill=object_colour(one.number - 1), font=font, stroke_width=2, stroke_fill=(0, 0, 0))
    return np.asarray(picture)

"""A tracker over annotated clips: J, F and what became of every object, a contact sheet a clip."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import fmean
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from nanosam_cli.core.datasets.clips import VOID, Clip, ClipLabels, Labels
from nanosam_cli.core.errors import InputError, OutputError, UsageError
from nanosam_cli.core.evaluation.davis_measures import boundary, boundary_accuracy, region_similarity, scored_frames
from nanosam_cli.core.evaluation.followers import Followed, Follower
from nanosam_cli.core.masks import Mask
from nanosam_cli.core.media.image import read_image, write_png
from nanosam_cli.core.media.render import PALETTE, label_map, overlay
from nanosam_cli.core.messages import some
from nanosam_cli.core.system.files import check_writable
from nanosam_cli.core.tracking.target import TrackState

SCHEMA_VERSION = 1

SHEET_TILES, SHEET_COLUMNS, TILE_WIDTH, CAPTION = 16, 4, 320, 16
TRUTH_COLOUR = (60, 210, 90)

_OTHER_SHEETS, _OTHER_MASKS = "give another directory with `--sheets`", "give another directory with `--masks`"

Picture = NDArray[np.uint8]


@dataclass(frozen=True)
class ObjectScore:
    """One object of a clip, over the frames that count."""

    number: int  # its label
    j: float
    f: float
    tracked: float  # share of all frames after the first in which the follower was sure of it
    reacquired: int  # how often it was lost and found again

    @property
    def jf(self) -> float:
        return (self.j + self.f) / 2


@dataclass(frozen=True)
class ClipScore:
    """One clip. `fps` is that of the follower alone: reading, scoring and drawing are not counted."""

    name: str
    frames: int
    objects: Sequence[ObjectScore]
    fps: float

    @property
    def j(self) -> float:
        return fmean(one.j for one in self.objects)

    @property
    def f(self) -> float:
        return fmean(one.f for one in self.objects)

    @property
    def jf(self) -> float:
        return (self.j + self.f) / 2

    @property
    def tracked(self) -> float:
        return fmean(one.tracked for one in self.objects)

    @property
    def reacquired(self) -> int:
        return sum(one.reacquired for one in self.objects)

    def record(self) -> dict[str, Any]:
        """Plain values for JSON."""
        objects = [{**vars(one), "jf": one.jf} for one in self.objects]
        means = {"j": self.j, "f": self.f, "jf": self.jf}
        return {
            "clip": self.name,
            "frames": self.frames,
            **means,
            "tracked": self.tracked,
            "reacquired": self.reacquired,
            "fps": self.fps,
            "objects": objects,
        }


@dataclass(frozen=True)
class DavisScore:
    """All clips. Means go over objects, as the DAVIS toolkit takes them."""

    clips: Sequence[ClipScore]

    @property
    def mean_j(self) -> float:
        return fmean(one.j for clip in self.clips for one in clip.objects)

    @property
    def mean_f(self) -> float:
        return fmean(one.f for clip in self.clips for one in clip.objects)

    @property
    def mean_jf(self) -> float:
        return (self.mean_j + self.mean_f) / 2

    def record(self) -> dict[str, Any]:
        """Plain values for JSON."""
        means = {"mean_j": self.mean_j, "mean_f": self.mean_f, "mean_jf": self.mean_jf}
        return {"schema_version": SCHEMA_VERSION, **means, "clips": [clip.record() for clip in self.clips]}

    def rows(self) -> list[tuple[object, ...]]:
        """A row a clip and the means over all objects: clip, frames, objects, J, F, J&F, tracked, found again, fps."""
        rows: list[tuple[object, ...]] = []
        for clip in self.clips:
            measures = (f"{value:.3f}" for value in (clip.j, clip.f, clip.jf, clip.tracked))
            rows.append((clip.name, clip.frames, len(clip.objects), *measures, clip.reacquired, f"{clip.fps:.1f}"))
        objects = [one for clip in self.clips for one in clip.objects]
        frames = sum(clip.frames for clip in self.clips)
        seconds = sum(clip.frames / clip.fps for clip in self.clips)
        means = (f"{v:.3f}" for v in (self.mean_j, self.mean_f, self.mean_jf, fmean(one.tracked for one in objects)))
        again = sum(one.reacquired for one in objects)
        rows.append(("all", frames, len(objects), *means, again, f"{frames / seconds:.1f}"))
        return rows


@dataclass(frozen=True)
class Places:
    """Where pictures go, None for those that are not wanted."""

    sheets: Path | None = None  # DIR/<clip>.png
    masks: Path | None = None  # DIR/<clip>/00000.png, as DAVIS's toolkit reads results
    force: bool = False

    def checked(self, clips: Sequence[Clip]) -> Places:
        """Check the places, before any work is done; gives itself.

        Raises:
            UsageError: a picture would lie among the clips' frames and masks, whatever `force` says.
            OutputError: a picture is there already and `force` is false, or a place cannot be written.
        """
        sheets = [self.sheets / f"{clip.name}.png" for clip in clips] if self.sheets else []
        folders = [self.masks / clip.name for clip in clips] if self.masks else []
        _keep_apart(clips, sheets, folders)
        there = [path for path in sheets if path.exists()] + [path for path in folders if any(path.glob("*.png"))]
        if there and not self.force:
            raise OutputError(f"{some(there)} exist already; nothing was done", "add `--force` to overwrite")
        for sheet in sheets:
            if sheet.exists() and not sheet.is_file():
                raise OutputError(f"cannot write {sheet}: it is not a regular file", _OTHER_SHEETS)
            check_writable(sheet.resolve().parent, _OTHER_SHEETS)  # of a link, where it points at
        for folder in folders:
            check_writable(folder.resolve(), _OTHER_MASKS)
        return self


def _keep_apart(clips: Sequence[Clip], sheets: Sequence[Path], folders: Sequence[Path]) -> None:
    files = [path for clip in clips for path in (*clip.frames, *clip.truths) if path is not None]
    read = {path.resolve() for path in files}
    taken = {path.parent for path in read} | {parent.resolve() for parent in {path.parent for path in files}}
    for folder in folders:
        if folder.resolve() in taken or any(path.resolve() in read for path in folder.glob("*.png")):
            raise UsageError(f"{folder} holds a clip that is read", _OTHER_MASKS)
    for sheet in sheets:
        if sheet.resolve() in read:
            raise UsageError(f"{sheet} belongs to a clip that is read", _OTHER_SHEETS)


def check_clips(clips: Sequence[Clip]) -> None:
    """InputError where a clip cannot be scored, as far as its file names and its first mask tell."""
    for clip in clips:
        _counted(clip)
        ClipLabels(clip)


def score_clip(
    clip: Clip, follower: Follower, places: Places | None = None, advance: Callable[[], None] = lambda: None
) -> ClipScore:
    """Follow every object of the first frame's mask through a clip.

    InputError where a file cannot be read, sizes differ, the first mask is empty, or no frame counts.
    """
    places = places or Places()
    annotated = ClipLabels(clip)
    numbers = annotated.numbers
    judge, sheet = _Judge(clip, numbers), _Sheet(clip)
    seconds = 0.0
    for index, image in enumerate(_images(clip, annotated.first)):
        start = perf_counter()
        found = follower.step(image) if index else follower.start(image, _masks(annotated.first, numbers))
        seconds += perf_counter() - start
        truth = annotated.at(index)
        judge.see(index, found, truth)
        sheet.see(index, image, found, truth)
        if places.masks is not None:
            _write_masks(places, clip, index, found, numbers)
        advance()
    if places.sheets is not None:
        write_png(places.sheets / f"{clip.name}.png", sheet.drawn(), overwrite=places.force)
    return ClipScore(clip.name, len(clip.frames), judge.scores(), len(clip.frames) / max(seconds, 1e-9))


class _Judge:
    """J, F and states of a clip's objects, frame by frame."""

    def __init__(self, clip: Clip, numbers: Sequence[int]) -> None:
        self._counted = _counted(clip)
        self._numbers = numbers
        self._j: list[list[float]] = [[] for _ in numbers]
        self._f: list[list[float]] = [[] for _ in numbers]
        self._states: list[list[TrackState]] = [[] for _ in numbers]

    def see(self, index: int, found: Sequence[Followed], truth: Labels | None) -> None:
        for row, (number, one) in enumerate(zip(self._numbers, found, strict=True)):
            self._states[row].append(one.state)
            if truth is not None and index in self._counted:
                void = truth == VOID
                pair = one.mask, truth == number
                self._j[row].append(region_similarity(*pair, void if void.any() else None))
                self._f[row].append(boundary_accuracy(*pair, void if void.any() else None))

    def scores(self) -> list[ObjectScore]:
        return [
            ObjectScore(number, fmean(self._j[row]), fmean(self._f[row]), _share_tracked(states), _found_again(states))
            for row, (number, states) in enumerate(zip(self._numbers, self._states))
        ]


def _share_tracked(states: Sequence[TrackState]) -> float:
    return fmean(state is TrackState.tracked for state in states[1:])


def _found_again(states: Sequence[TrackState]) -> int:
    return sum(a is TrackState.lost and b is not TrackState.lost for a, b in pairwise(states))


class _Sheet:
    """Some frames of a clip, evenly spaced, with the masks found and the outline of the true ones."""

    def __init__(self, clip: Clip) -> None:
        count = min(SHEET_TILES, len(clip.frames))
        self._clip = clip
        self._chosen = {round(step) for step in np.linspace(0, len(clip.frames) - 1, count)}
        self._tiles: list[Image.Image] = []

    def see(self, index: int, image: Picture, found: Sequence[Followed], truth: Labels | None) -> None:
        if index not in self._chosen:
            return
        drawn = overlay(image, [one.mask for one in found])
        if truth is not None:
            drawn[boundary_of(truth)] = TRUTH_COLOUR
        height = round(TILE_WIDTH * image.shape[0] / image.shape[1])
        tile = Image.new("RGB", (TILE_WIDTH, height + CAPTION))
        tile.paste(Image.fromarray(drawn).resize((TILE_WIDTH, height), Image.Resampling.BICUBIC), (0, CAPTION))
        states = ", ".join(one.state.value for one in found)
        ImageDraw.Draw(tile).text((4, 2), f"{self._clip.frames[index].stem}  {states}")
        self._tiles.append(tile)

    def drawn(self) -> Picture:
        """(H, W, 3) RGB."""
        columns = min(SHEET_COLUMNS, len(self._tiles))
        width, height = self._tiles[0].size
        sheet = Image.new("RGB", (columns * width, -(-len(self._tiles) // columns) * height))
        for number, tile in enumerate(self._tiles):
            sheet.paste(tile, (number % columns * width, number // columns * height))
        return np.asarray(sheet)


def boundary_of(labels: Labels) -> Mask:
    """Where labels change, two pixels wide."""
    edge = np.zeros(labels.shape, bool)
    for number in np.unique(labels):
        edge |= boundary(labels == number)
    return edge


def _counted(clip: Clip) -> set[int]:
    """The frames that count and have a mask. InputError where there are none."""
    try:
        counted = {index for index in scored_frames(len(clip.frames)) if clip.truths[index]}
    except InputError as error:
        raise InputError(f"clip {clip.name}: {error}", error.hint) from error
    if not counted:
        raise InputError(f"clip {clip.name} has no mask between its first and last frame, so it cannot be scored")
    return counted


def _masks(labels: Labels, numbers: Sequence[int]) -> NDArray[np.bool_]:
    return np.stack([labels == number for number in numbers])


def _images(clip: Clip, labels: Labels) -> Iterator[Picture]:
    for path in clip.frames:
        image = read_image(path)
        if image.shape[:2] != labels.shape:
            sizes = (f"{shape[1]}x{shape[0]}" for shape in (image.shape, labels.shape))
            raise InputError("{} is {} pixels, the first mask {}".format(path, *sizes))
        yield image


def _write_masks(places: Places, clip: Clip, index: int, found: Sequence[Followed], numbers: Sequence[int]) -> None:
    assert places.masks is not None
    labels = label_map([one.mask for one in found])
    named = np.array([0, *numbers], np.uint8)[labels]
    write_png(places.masks / clip.name / f"{clip.frames[index].stem}.png", named, PALETTE, overwrite=places.force)

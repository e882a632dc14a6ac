"""`nanosam track`'s line: frames in, prompts when their moment comes, every object's mask and state out."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from time import perf_counter
from typing import Any

import numpy as np
from PIL import Image as Picture

from nanosam_cli.core.errors import InputError, NanosamError, fault
from nanosam_cli.core.inference.predictor import Predictor
from nanosam_cli.core.masks import Mask
from nanosam_cli.core.media.mask_codes import mask_to_rle, rle_to_mask
from nanosam_cli.core.media.video import VideoFrame
from nanosam_cli.core.timing import Stopwatch, Timings
from nanosam_cli.core.tracking.people import FollowedPeople
from nanosam_cli.core.tracking.target import TrackState
from nanosam_cli.core.tracking.timed_requests import TimedRequest
from nanosam_cli.core.tracking.tracker import Tracked, Tracker
from nanosam_cli.core.types import Image, ImageEmbedding, Prompt, Segmentation

SCHEMA_VERSION = 1


@dataclass(frozen=True, eq=False)
class TrackedFrame:
    """One frame, at the size it was worked on, with its objects in the order of their numbers."""

    frame: VideoFrame
    image: Image
    objects: Sequence[Tracked]
    cut: bool  # whether the scene changed before this frame
    names: Mapping[int, str] = field(default_factory=dict)  # what objects are, by their numbers, where that is known

    record_before: Mapping[str, Any] | None = None  # where it is not tracked but taken from an earlier run's record

    @property
    def masks(self) -> list[Mask]:
        """The k-th is object k + 1's, empty for a number that nobody has: colours and labels follow the numbers."""
        masks = {one.number: one.segmentation.mask for one in self.objects}
        nothing = np.zeros(self.image.shape[:2], bool)
        return [masks.get(number, nothing) for number in range(1, max(masks, default=0) + 1)]

    @cached_property
    def record(self) -> Mapping[str, Any]:
        """A line of JSON: run-length code, box x0 y0 x1 y1 (null where the mask is empty), score and state."""
        if self.record_before is not None:
            return self.record_before
        objects = [
            {
                "id": one.number,
                "class": self.names.get(one.number),
                "state": one.state.value,
                "score": round(one.score, 4),
                "box": None if one.box is None else list(one.box),
                "area": one.segmentation.area,
                "segmentation": mask_to_rle(one.segmentation.mask),
            }
            for one in self.objects
        ]
        return {
            "schema_version": SCHEMA_VERSION,
            "frame": self.frame.index,
            "seconds": round(float(self.frame.time), 6),
            "scene_cut": self.cut,
            "objects": objects,
        }


@dataclass
class TrackSummary:
    """What became of the objects."""

    frames: int = 0
    seconds: float = 0.0
    states: dict[int, Counter[TrackState]] = field(default_factory=dict)
    reacquired: Counter[int] = field(default_factory=Counter)
    cuts: int = 0
    _last: dict[int, TrackState] = field(default_factory=dict)

    @property
    def fps(self) -> float:
        """Frames a second of everything together: reading, models, tracker, writing."""
        return self.frames / self.seconds if self.seconds else 0.0

    def add(self, tracked: TrackedFrame) -> None:
        self.frames += 1
        self.cuts += tracked.cut
        for one in tracked.objects:
            self.states.setdefault(one.number, Counter())[one.state] += 1
            self.reacquired[one.number] += (
                self._last.get(one.number) is TrackState.lost and one.state is not TrackState.lost
            )
            self._last[one.number] = one.state

    def __str__(self) -> str:
        cuts = f", {self.cuts} scene cut{'s' * (self.cuts > 1)}" if self.cuts else ""
        return f"{self.frames} frame{'s' * (self.frames != 1)}, {self.fps:.1f} a second{cuts}"

    def rows(self) -> list[list[object]]:
        """A row an object: number, frames tracked, uncertain, lost, times found again."""
        return [
            [number, *(states[state] for state in TrackState), self.reacquired[number]]
            for number, states in sorted(self.states.items())
        ]


class TrackingRun:
    """Frames through encoder, tracker and decoder. The predictor stays its owner's to close.

    `max_side` makes larger frames smaller before anything is done with them. `people` are started as they are seen.
    """

    def __init__(
        self,
        predictor: Predictor,
        requests: Sequence[TimedRequest],
        max_side: int | None = None,
        people: FollowedPeople | None = None,
    ) -> None:
        self.summary = TrackSummary()
        self.watch = Stopwatch()
        self.timings = Timings()
        self._predictor = predictor
        self._tracker = Tracker(predictor)
        self._waiting = list(requests)
        self._max_side = max_side
        self._people = people
        self._embedding: ImageEmbedding | None = None
        self._replayed = 0

    def state(self) -> dict[str, Any]:
        """What is known after the frame that came last, for `restore`: plain values and arrays, nested."""
        return {"tracker": self._tracker.state(), "people": None if self._people is None else self._people.state()}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from where a run of the same settings was. InputError where it is no state."""
        try:
            self._tracker.restore(state["tracker"])
            if self._people is not None:
                self._people.restore(state["people"])
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise InputError(f"the state of the run cannot be used: {fault(error)}", "`--force` starts anew") from error

    def frames(self, source: Iterator[VideoFrame], past: Iterable[Mapping[str, Any]] = ()) -> Iterator[TrackedFrame]:
        """Every frame with its objects, as they come. The first are taken from the records of an earlier run, `past`.

        UsageError or InputError at the first frame, which tells the size, where a request does not fit the frames,
        whenever its moment is.
        """
        start, earlier = perf_counter(), iter(past)
        for frame in source:
            if not self.summary.frames:
                for timed in self._waiting:
                    timed.check(frame.image.shape[:2])
            record = next(earlier, None)
            tracked = self._track(frame) if record is None else self._again(frame, record)
            self.summary.add(tracked)
            self.summary.seconds = perf_counter() - start
            yield tracked

    @property
    def waiting(self) -> Sequence[TimedRequest]:
        """Requests whose moment has not come."""
        return self._waiting

    def start_at(self, x: float, y: float) -> None:
        """Follow what is under a point of the frame that came last."""
        self._tracker.init(self._encoded(), Prompt.from_points([[x, y]]))

    def reset(self) -> None:
        """Forget all objects."""
        self._tracker.reset()

    def _track(self, frame: VideoFrame) -> TrackedFrame:
        image = self._image = shrunk(frame.image, self._max_side)
        due = [timed for timed in self._waiting if timed.moment.reached(frame)]
        self._waiting = [timed for timed in self._waiting if timed not in due]
        self._embedding = None
        found: dict[int, Tracked] = {}
        cut = False
        if self._tracker.numbers:
            embedding = self._encoded()
            with self.watch("track"):
                found = {one.number: one for one in self._tracker.update(embedding, self.timings)}
            cut = self._tracker.cut
        if self._people is not None:
            due += self._people.requests_for(frame, found)
        for timed in due:
            found |= {one.number: one for one in self._start(timed, frame)}
        if due and len(found) > 1:
            found = {one.number: one for one in self._tracker.apart(self._encoded(), list(found.values()))}
        names = {} if self._people is None else self._people.names
        return TrackedFrame(frame, image, [found[number] for number in sorted(found)], cut, names)

    def _again(self, frame: VideoFrame, record: Mapping[str, Any]) -> TrackedFrame:
        """A frame as an earlier run recorded it. InputError where that saw another one."""
        self._replayed += 1
        image = shrunk(frame.image, self._max_side)
        self._waiting = [timed for timed in self._waiting if not timed.moment.reached(frame)]
        try:
            objects = [_recorded(one) for one in record["objects"]]
            is_same = record["frame"] == frame.index and all(
                one.segmentation.mask.shape == image.shape[:2] for one in objects
            )
            names = {one["id"]: one["class"] for one in record["objects"] if one["class"] is not None}
            cut = bool(record["scene_cut"])
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"a record of the run cannot be used: {fault(error)}", "`--force` starts anew") from error
        if not is_same:
            raise InputError(
                f"frame {frame.index} is not the one that the run to go on with saw", "`--force` starts anew"
            )
        return TrackedFrame(frame, image, objects, cut, names, record)

    def _encoded(self) -> ImageEmbedding:
        """The embedding of the frame that came last, made once."""
        if self._embedding is None:
            self._embedding = self._predictor.encode_image(self._image, self.timings)
        return self._embedding

    def _start(self, timed: TimedRequest, frame: VideoFrame) -> list[Tracked]:
        embedding = self._encoded()
        request = timed.scaled(frame.image.shape[:2], embedding.original_hw)
        try:
            return self._tracker.init(embedding, request.prompt(embedding.frame), timed.ids, self.timings)
        except NanosamError as error:
            if timed.may_fail and isinstance(error, InputError):
                return []
            raise type(error)(f"frame {frame.index}: {error}", error.hint) from error

    def stages(self) -> dict[str, float]:
        """Milliseconds a frame: encoder, decoder, and what the tracker does besides."""
        frames = max(1, self.summary.frames - self._replayed)
        tracker = self.watch.ms.get("track", 0.0) - self.timings.decode_ms
        stages = {"encode": self.timings.encode_ms, "decode": self.timings.decode_ms, "track": max(0.0, tracker)}
        return {stage: ms / frames for stage, ms in stages.items()}

    def __str__(self) -> str:
        return "a frame: " + ", ".join(f"{stage} {ms:.1f} ms" for stage, ms in self.stages().items())


def _recorded(one: Mapping[str, Any]) -> Tracked:
    """An object of a record: its mask alone, which is all that is drawn and written."""
    mask = rle_to_mask(one["segmentation"])
    segmentation = Segmentation(mask, math.nan, np.empty((0, 0), np.float32))
    return Tracked(one["id"], segmentation, TrackState(one["state"]), one["score"])


def shrunk(image: Image, max_side: int | None) -> Image:
    """(H, W, 3) no larger than `max_side` on its longer side."""
    height, width = image.shape[:2]
    if max_side is None or max(height, width) <= max_side:
        return image
    scale = max_side / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return np.asarray(Picture.fromarray(image).resize(size, Picture.Resampling.BILINEAR, reducing_gap=2.0))

"""Which frames of a video are wanted."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from nanosam_cli.core.errors import InputError, UsageError
from nanosam_cli.core.media.video import Video, VideoFrame
from nanosam_cli.core.media.video_time import VideoTime

BEGINNING = VideoTime(frame=0)


@dataclass(frozen=True)
class FrameRange:
    """From `start` on, up to but without `stop`, every `stride`-th frame."""

    start: VideoTime = BEGINNING
    stop: VideoTime | None = None
    stride: int = 1

    def __post_init__(self) -> None:
        if self.stride < 1:
            raise UsageError(f"stride must be 1 or more, not {self.stride}")

    def of(self, video: Video) -> Iterator[VideoFrame]:
        """The wanted frames. InputError where the video ends before `start`."""
        return self._chosen(video, video.name)

    def _chosen(self, frames: Iterable[VideoFrame], name: str) -> Iterator[VideoFrame]:
        passed = 0
        for frame in frames:
            if self.stop is not None and self.stop.reached(frame):
                break
            if self.start.reached(frame):
                if passed % self.stride == 0:
                    yield frame
                passed += 1
        if not passed:
            stop = "" if self.stop is None else f" and before {self.stop}"
            raise InputError(f"{name} has no frames from {self.start} on{stop}", "check --start and --stop")

    def count(self, video: Video) -> int | None:
        """About how many frames `of` gives; None where the video does not know its length."""
        if video.frames is None and self.stop is None:
            return None
        ends = [video.frames] if video.frames is not None else []
        if self.stop is not None:
            ends.append(self.stop.frames(video.rate))
        return max(0, -(-(min(ends) - self.start.frames(video.rate)) // self.stride))

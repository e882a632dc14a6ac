"""Places in a video, by frame or by time."""

from __future__ import annotations

import re
from fractions import Fraction
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from nanosam_cli.core.media.video import VideoFrame

_TIME = re.compile(r"(?:(?:(\d+):)?(\d+):)?(\d+(?:\.\d+)?)(s)?")
EXAMPLES = "a frame such as 120, or a time such as 4.5s or 1:30"


class VideoTime(NamedTuple):
    """A place in a video: a frame's number from 0, or seconds from the first frame."""

    frame: int | None = None
    seconds: Fraction | None = None

    def reached(self, frame: VideoFrame) -> bool:
        """Whether a frame is that one or a later one."""
        if self.seconds is not None:
            return frame.time >= self.seconds
        return frame.index >= (self.frame or 0)

    def frames(self, rate: Fraction) -> int:
        """About how many frames come before it."""
        return self.frame or 0 if self.seconds is None else round(self.seconds * rate)

    def __str__(self) -> str:
        return f"frame {self.frame}" if self.seconds is None else f"{float(self.seconds):g} s"


def parse_video_time(text: str) -> VideoTime:
    """`120` is a frame; `4.5s`, `1:30` and `1:02:03.5` are times. ValueError where it is neither."""
    found = _TIME.fullmatch(text.strip())
    if not found or ("." in text and ":" not in text and not found[4]):
        raise ValueError(f"{text!r} is not {EXAMPLES}")
    hours, minutes, seconds, unit = found.groups()
    if minutes is None and unit is None:
        return VideoTime(frame=int(seconds))
    return VideoTime(seconds=int(hours or 0) * 3600 + int(minutes or 0) * 60 + Fraction(seconds))

"""Places in a video, and the frames between two of them."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction

import numpy as np
import pytest

from nanosam_cli.core.errors import InputError
from nanosam_cli.core.media.frame_range import BEGINNING, FrameRange
from nanosam_cli.core.media.video import VideoFrame
from nanosam_cli.core.media.video_time import VideoTime, parse_video_time


@pytest.mark.parametrize(
    ("text", "frame", "seconds"),
    [
        ("0", 0, None),
        ("120", 120, None),
        ("4.5s", None, Fraction(9, 2)),
        ("4s", None, 4),
        ("1:30", None, 90),
        ("1:02:03.5", None, Fraction(7447, 2)),
    ],
)
def test_parse(text: str, frame: int | None, seconds: Fraction | None) -> None:
    assert parse_video_time(text) == VideoTime(frame, seconds)


@pytest.mark.parametrize("text", ["", "4.5", "-3", "s", "1:", "ten", "1:2:3:4"])
def test_what_is_no_place(text: str) -> None:
    with pytest.raises(ValueError, match="such as 120"):
        parse_video_time(text)


class Frames:
    """Ten frames, five a second."""

    name, rate, clock, live, fault = "ten", Fraction(5), Fraction(1, 5), False, None
    frames: int | None = 10

    def __iter__(self) -> Iterator[VideoFrame]:
        image = np.zeros((2, 2, 3), np.uint8)
        yield from (VideoFrame(index, Fraction(index, 5), image, f"{index:05}") for index in range(10))


@pytest.mark.parametrize(
    ("part", "wanted"),
    [
        (FrameRange(), list(range(10))),
        (FrameRange(VideoTime(3), VideoTime(6)), [3, 4, 5]),
        (FrameRange(VideoTime(seconds=Fraction(1)), VideoTime(seconds=Fraction(3, 2))), [5, 6, 7]),
        (FrameRange(BEGINNING, None, 4), [0, 4, 8]),
        (FrameRange(VideoTime(1), VideoTime(8), 3), [1, 4, 7]),
    ],
)
def test_parts(part: FrameRange, wanted: list[int]) -> None:
    assert [frame.index for frame in part.of(Frames())] == wanted
    assert part.count(Frames()) == len(wanted)


def test_nothing_left() -> None:
    with pytest.raises(InputError, match="no frames from frame 10 on"):
        list(FrameRange(VideoTime(10)).of(Frames()))

"""What to follow, and from which frame on: from options and from prompt files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from nanosam_cli.core.errors import InputError, NanosamError, UsageError
from nanosam_cli.core.frame import COORDINATE_SIZE, Frame
from nanosam_cli.core.ids import whole_number
from nanosam_cli.core.inference.decoder_inputs import check_prompt
from nanosam_cli.core.masks import Mask
from nanosam_cli.core.media.video_time import VideoTime, parse_video_time
from nanosam_cli.core.messages import some
from nanosam_cli.core.prompting.prompt_files import parse_request, read_entries
from nanosam_cli.core.prompting.request import Request

_LAYOUT = '{"0": {"boxes": [[x0, y0, x1, y1]]}, "4.5s": {"points": [[x, y, 1]], "ids": [2]}}'


@dataclass(frozen=True, eq=False)
class TimedRequest:
    """Objects that are prompted at one moment. `ids` name them; an object that is followed already starts anew."""

    moment: VideoTime
    request: Request
    ids: Sequence[int] | None = None
    may_fail: bool = False  # whether an empty mask is no error, because a model asks for it and may ask again

    def check(self, original_hw: tuple[int, int]) -> None:
        """UsageError or InputError, which say when, where the request does not fit frames of `original_hw` pixels."""
        try:
            check_prompt(self.request.prompt(Frame(original_hw, COORDINATE_SIZE)), original_hw)
        except NanosamError as error:
            raise type(error)(f"{self.moment}: {error}", error.hint) from error

    def scaled(self, original_hw: tuple[int, int], hw: tuple[int, int]) -> Request:
        """The request for frames that were made smaller: coordinates and masks of the video's own size shrink too."""
        request = self.request
        if original_hw == hw:
            return request
        scale = np.array([hw[1] / original_hw[1], hw[0] / original_hw[0]], np.float32)
        return replace(
            request,
            boxes=None if request.boxes is None else request.boxes * np.tile(scale, 2),
            points=None if request.points is None else request.points * scale,
            masks=None if request.masks is None else np.stack([_shrunk(mask, hw) for mask in request.masks]),
        )


def read_timed_requests(path: Path) -> list[TimedRequest]:
    """Requests by frame or time, in the file's order; see `read_prompts` for what each entry holds.

    InputError where the file cannot be read or is laid out in another way.
    """
    content = read_entries(path, "frames", _LAYOUT)
    return [_timed(key, entry, f"{path}, {key}") for key, entry in content.items()]


def _timed(key: str, entry: Any, where: str) -> TimedRequest:
    try:
        moment = parse_video_time(key)
    except ValueError as error:
        raise InputError(f"{where}: {error}", f"expected {_LAYOUT}") from error
    ids = entry.get("ids") if isinstance(entry, dict) else None
    request = parse_request({k: v for k, v in entry.items() if k != "ids"} if ids is not None else entry, where)
    try:
        numbers = None if ids is None else [whole_number(number) for number in ids]
    except (TypeError, ValueError) as error:
        raise InputError(f"{where}: ids: {error}", _LAYOUT) from error
    whole = numbers is not None and isinstance(ids, list) and all(number > 0 for number in numbers)
    if numbers is not None and not (whole and len(set(numbers)) == len(numbers) == request.count):
        raise InputError(f"{where}: ids must name its {request.count} objects by numbers from 1", _LAYOUT)
    return TimedRequest(moment, request, numbers)


def check_asked(requests: Sequence[TimedRequest], *, later: bool) -> None:
    """UsageError where nothing is to be followed and nothing comes later, by clicks or by poses."""
    if not requests and not later:
        raise UsageError(
            "no prompt: say what to follow with --box, --point, --mask, --prompts or --pose, or click it with --show",
            "nanosam track video.mp4 --box 10,20,300,400",
        )


def split_early(
    requests: Sequence[TimedRequest], start: VideoTime, rate: Fraction
) -> tuple[list[TimedRequest], list[TimedRequest]]:
    """Those from `start` on, and those of frames before it: nothing is known of where their objects are by then."""
    early = [timed for timed in requests if timed.moment.frames(rate) < start.frames(rate)]
    return [timed for timed in requests if timed not in early], early


def some_moments(requests: Sequence[TimedRequest]) -> str:
    """When requests are due, for a message."""
    return some([timed.moment for timed in requests])


def _shrunk(mask: Mask, hw: tuple[int, int]) -> Mask:
    return np.asarray(Image.fromarray(mask).resize(hw[::-1], Image.Resampling.NEAREST))

"""What a command line asks for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nanosam_cli.core.errors import UsageError
from nanosam_cli.core.prompting.body_parts import read_parts
from nanosam_cli.core.prompting.pose import MIN_CONFIDENCE, PoseChoice
from nanosam_cli.core.prompting.request import Box, Point
from nanosam_cli.core.system.files import file_sha256

_DRAWN = "--box, --point and --mask"
GRID = (
    "grid",
    "crop_layers",
    "min_iou",
    "min_stability",
    "min_area",
    "batch",
)  # names in `PromptOptions` and `Everything`
# option -> the places of prompts that it belongs to; with any other it would do nothing
_BELONGS: Mapping[str, tuple[str, ...]] = {
    "labels": (_DRAWN,),
    "class_names": ("--detections",),
    "classes": ("--detections",),
    "text_model": ("--text",),
    "parts": ("--pose",),
    "part_table": ("--pose",),
    "people": ("--pose",),
    "min_score": ("--detections", "--text", "--pose"),
    "top_k": ("--detections", "--text"),
    "nms": ("--detections", "--text", "--everything"),
    **dict.fromkeys(GRID, ("--everything",)),
}
_SPELLING = {
    "labels": "label",
    "classes": "class",
    "parts": "part",
    "part_table": "parts",
    "people": "person",
    "crop_layers": "crops",
}
_FILES = ("mask", "prompts", "detections", "class_names", "text_model", "pose", "part_table")


@dataclass(frozen=True)
class PromptOptions:
    """What a command line asks for. None and empty mean that nothing was said."""

    boxes: Sequence[Box] = ()
    points: Sequence[Point] = ()
    each_point: bool = False
    mask: Path | None = None
    labels: Sequence[str] = ()  # class names: one for all objects, or one each
    prompts: Path | None = None
    detections: Path | None = None
    class_names: Path | None = None
    classes: Sequence[str] = ()
    text: Sequence[str] = ()
    text_model: str | None = None
    pose: str | None = None  # a file, or AUTO
    parts: Sequence[str] = ()
    part_table: Path | None = None
    people: Sequence[int] = ()  # from 1
    min_score: float | None = None
    nms: float | None = None
    top_k: int | None = None
    everything: bool = False
    grid: int | None = None
    crop_layers: int | None = None
    min_iou: float | None = None
    min_stability: float | None = None
    min_area: int | None = None
    batch: int | None = None

    def settings(self) -> dict[str, Any]:
        """What was said, for the record of a long run. Plain values for JSON; a file stands for its content."""
        said = {name: value for name, value in vars(self).items() if value not in (None, (), [])}
        return {name: _content(value) if name in _FILES else value for name, value in said.items()}

    def files(self) -> list[Path]:
        """Files and folders that are read beside the photos; not a mask, whose place a better one may take."""
        said = [getattr(self, name) for name in _FILES if name != "mask"]
        return [Path(value) for value in said if value is not None and Path(value).exists()]

    def place(self) -> str:
        """The option that the prompts come from. UsageError where there are two, or one that does nothing."""
        given = {
            _DRAWN: bool(self.boxes or self.points or self.mask or self.each_point),
            "--prompts": self.prompts is not None,
            "--detections": self.detections is not None,
            "--text": bool(self.text),
            "--pose": self.pose is not None,
            "--everything": self.everything,
        }
        places = [place for place, there in given.items() if there] or [_DRAWN]
        if len(places) > 1:
            raise UsageError(f"give prompts either by {places[1]} or by {places[0]}, not by both")
        for name, homes in _BELONGS.items():
            if getattr(self, name) not in (None, (), []) and places[0] not in homes:
                option = f"--{_SPELLING.get(name, name).replace('_', '-')}"
                raise UsageError(f"{option} belongs to {' or '.join(homes)}, which was not given")
        return places[0]


def _content(place: Path | str) -> str:
    """A file's SHA-256; the name itself of a folder, or of what is no file."""
    path = Path(place)
    return f"{path.name} sha256 {file_sha256(path)}" if path.is_file() else str(place)


def pose_choice(asked: PromptOptions) -> PoseChoice:
    """The parts and people of the options beside --pose. See `read_parts` for what is refused."""
    confidence = MIN_CONFIDENCE if asked.min_score is None else asked.min_score
    return PoseChoice(read_parts(asked.parts, asked.part_table), asked.people, confidence)

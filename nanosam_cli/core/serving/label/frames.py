"""Videos to be labelled: their frames become photos, in a folder beside the annotation file.

Training reads photos, and an annotation file that speaks of frames is of no use without them. So they are written once,
as JPEG, and a later start finds them there.
"""

from __future__ import annotations

import json
import mimetypes
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nanosam_cli.core.errors import OutputError
from nanosam_cli.core.media.frame_range import FrameRange
from nanosam_cli.core.media.image import IMAGE_FORMATS, jpeg_bytes
from nanosam_cli.core.media.video import open_video
from nanosam_cli.core.messages import Note
from nanosam_cli.core.system.documents import parse_json
from nanosam_cli.core.system.files import read_input, write_bytes, write_text

ABOUT = "frames.json"  # in the folder: which video the frames are of, and whether all are there


def with_frames(arguments: Sequence[str], home: Path, stride: int, note: Note) -> list[str]:
    """The same arguments, each video replaced by the folder of its frames, `home/NAME_frames`.

    Every `stride`-th frame is written, unless an earlier start has done it.

    Raises:
        InputError: a video cannot be read.
        OutputError: a folder of that name is there and holds something else, or cannot be written.
    """
    return [str(_frames(Path(one), home, stride, note)) if is_video(one) else one for one in arguments]


def is_video(argument: str) -> bool:
    """Whether an argument is the file of a video, by its suffix."""
    path = Path(argument)
    if path.suffix.lower() in IMAGE_FORMATS or not path.is_file():
        return False
    return (mimetypes.guess_type(path.name)[0] or "").startswith("video/")


def _frames(video: Path, home: Path, stride: int, note: Note) -> Path:
    folder = home / f"{video.stem}_frames"
    about = {"video": video.name, "bytes": video.stat().st_size, "stride": stride}
    if folder.exists() and _is_done(folder, about):
        return folder
    with open_video(str(video)) as opened:
        note(f"the frames of {video} go into {folder}")
        _write_about(folder, {**about, "done": False})
        count = 0
        for frame in FrameRange(stride=stride).of(opened):
            write_bytes(folder / f"{frame.name}.jpg", jpeg_bytes(frame.image), overwrite=True, durable=False)
            count += 1
        if opened.fault is not None:
            note(f"{opened.fault}; the {count} frames before are there")
        rate = float(opened.rate)
    _write_about(folder, {**about, "done": True, "frames": count, "rate": rate})
    return folder


def _write_about(folder: Path, about: dict[str, Any]) -> None:
    write_text(folder / ABOUT, json.dumps(about) + "\n", overwrite=True)


def _is_done(folder: Path, about: dict[str, Any]) -> bool:
    """Whether the folder has all frames. OutputError where it holds something else."""
    try:
        found = parse_json(read_input(folder / ABOUT)) if (folder / ABOUT).exists() else {}
    except ValueError:
        found = {}
    if not isinstance(found, dict) or any(found.get(key) != value for key, value in about.items()):
        raise OutputError(
            f"{folder} is there, and does not hold every frame of {about['video']} with --stride {about['stride']}",
            "rename it, or give another place with -o",
        )
    return bool(found.get("done"))

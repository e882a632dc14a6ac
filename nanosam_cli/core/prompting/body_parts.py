"""The table of a person's parts: which keypoints lie on each, which beside it, and which its box is drawn around."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nanosam_cli.core.errors import InputError, UsageError
from nanosam_cli.core.messages import did_you_mean
from nanosam_cli.core.names import class_name
from nanosam_cli.core.paths import resource
from nanosam_cli.core.system.documents import parse_toml, read_toml

DEFAULT_PART = "person"

_POINTS = ("foreground", "background", "box")
_SIDES = ("eye", "ear", "shoulder", "elbow", "wrist", "hip", "knee", "ankle")  # COCO's, with the nose
_HANDS_AND_FEET = ("thumb", "index", "pinky", "heel", "foot_index")  # MediaPipe's

# COCO's order, https://cocodataset.org/#format-data
COCO_KEYPOINTS = ("nose", *(f"{side}_{name}" for name in _SIDES for side in ("left", "right")))
# TRTPose's order: `tasks/human_pose/human_pose.json` of NVIDIA-AI-IOT/trt_pose
TRTPOSE_KEYPOINTS = (*COCO_KEYPOINTS, "neck")
CROWN = "crown"  # the top of the head, worked out from the others: for boxes
KEYPOINTS = (*TRTPOSE_KEYPOINTS, *(f"{side}_{name}" for name in _HANDS_AND_FEET for side in ("left", "right")))


@dataclass(frozen=True)
class BodyPart:
    """One part of a person, by the names of keypoints."""

    name: str
    foreground: tuple[str, ...]
    background: tuple[str, ...] = ()
    box: tuple[str, ...] = ()  # empty: no box
    margin: float = 0.0  # around the box, in torso lengths


def read_parts(wanted: Sequence[str] = (), table: Path | None = None) -> list[BodyPart]:
    """The parts of a TOML table, the packaged one without `table`, that are asked for; without any, the person.

    Raises:
        InputError: the table cannot be read; the message has all its faults.
        UsageError: a part that is asked for is not in it.
    """
    path = table or resource("parts.toml")
    content = read_toml(path, f"copy {resource('parts.toml')} and change it")
    faults = [fault for name, entry in content.items() for fault in _faults(name, entry)]
    if faults:
        raise InputError(f"{path}: {'; '.join(faults)}", f"see {resource('parts.toml')}")
    return [_part(name, content) for name in (wanted or [DEFAULT_PART])]


def known_parts() -> list[str]:
    """The parts of the packaged table."""
    return list(parse_toml(resource("parts.toml").read_text(encoding="utf-8")))


def _part(name: str, content: Mapping[str, Any]) -> BodyPart:
    if name not in content:
        hint = did_you_mean(name, content) or f"known parts are {', '.join(content)}"
        raise UsageError(f"unknown part: {name}", hint)
    entry = content[name]
    points = {key: tuple(entry.get(key, ())) for key in _POINTS}
    return BodyPart(name, **points, margin=float(entry.get("margin", 0)))


def _faults(name: str, entry: Any) -> list[str]:
    """What is wrong with one entry of the table, each with the nearest word that would be right."""
    if not isinstance(entry, dict):
        return [f"{name} is no table"]
    try:
        class_name(name)  # of what is found
    except ValueError as error:
        return [str(error)]
    faults = [f"{name} has an unknown key {key}" for key in entry if key not in (*_POINTS, "margin")]
    for key in _POINTS:
        known = (*KEYPOINTS, CROWN) if key == "box" else KEYPOINTS
        names = entry.get(key, [])
        if not isinstance(names, list):
            faults.append(f"{name}.{key} must be a list of keypoints")
            continue
        for unknown in (one for one in names if one not in known):
            hint = did_you_mean(str(unknown), known)
            faults.append(f"{name}.{key}: unknown keypoint {unknown}" + (f", {hint}" if hint else ""))
    margin = entry.get("margin", 0)
    if not isinstance(margin, (int, float)) or isinstance(margin, bool) or not math.isfinite(margin) or margin < 0:
        faults.append(f"{name}.margin must be a number from 0 on")
    return faults if entry.get("foreground") or faults else [f"{name} has no foreground"]

"""Files of pose estimators: COCO keypoint results and annotations, and TRTPose's as NVIDIA NanoSAM writes them.

Formats: https://cocodataset.org/#format-results and #format-data; `PoseDetector.predict` of NVIDIA NanoSAM's
`nanosam/utils/trt_pose.py` gives a list of {"keypoints": [{"name", "index", "x", "y"}]} for a photo.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nanosam_cli.core.errors import InputError, fault
from nanosam_cli.core.prompting.body_parts import COCO_KEYPOINTS, KEYPOINTS, TRTPOSE_KEYPOINTS
from nanosam_cli.core.prompting.by_photo import ByPhoto, file_name
from nanosam_cli.core.prompting.detection_files import read_json
from nanosam_cli.core.prompting.people import Keypoint, Person

_KINDS = "COCO keypoint results and annotations, and TRTPose's people are read"
_BY_COUNT = {len(names): names for names in (COCO_KEYPOINTS, TRTPOSE_KEYPOINTS)}
_VISIBILITY = {0: 0.0, 1: 0.5, 2: 1.0}  # COCO's flags: not there, hidden, seen


def read_poses(path: Path) -> ByPhoto[Person]:
    """Read a file of poses; the people of a photo keep their order.

    A list of TRTPose's people is that of one photo; a file for many has such a list for each photo's name.

    Raises:
        InputError: the file cannot be read, is none of the known formats, or has another skeleton.
    """
    content = read_json(path, _KINDS)
    try:
        if isinstance(content, dict) and "annotations" in content:
            return ByPhoto(path, _annotations(content))
        if isinstance(content, dict):
            people = {file_name(name): [_trtpose_person(one) for one in entry] for name, entry in content.items()}
            return ByPhoto(path, people)
        if isinstance(content, list) and all("image_id" in one or "file_name" in one for one in content) and content:
            return ByPhoto(path, _results(content))
        if isinstance(content, list):
            return ByPhoto(path, {path.stem: [_trtpose_person(one) for one in content]}, nameless=True)
    except (AttributeError, KeyError, TypeError, ValueError, OverflowError) as error:
        raise InputError(f"{path} is not a file of poses: {fault(error)}", _KINDS) from error
    except InputError as error:
        raise InputError(f"{path}: {error}", error.hint) from error
    raise InputError(f"{path} is none of the formats that are known", _KINDS)


def _results(entries: Sequence[Mapping[str, Any]]) -> dict[str, list[Person]]:
    photos: dict[str, list[Person]] = defaultdict(list)
    for entry in entries:
        key = file_name(entry["file_name"] if "file_name" in entry else str(entry["image_id"]))
        score = None if entry.get("score") is None else float(entry["score"])
        photos[key].append(Person(_flat(entry["keypoints"], None), score))
    return photos


def _annotations(content: Mapping[str, Any]) -> dict[str, list[Person]]:
    names = {image["id"]: file_name(image["file_name"]) for image in content["images"]}
    skeletons = {entry["id"]: entry["keypoints"] for entry in content.get("categories", []) if "keypoints" in entry}
    photos: dict[str, list[Person]] = {name: [] for name in names.values()}
    for entry in content["annotations"]:
        if not entry.get("iscrowd") and any(entry["keypoints"][2::3]):  # COCO has people without a keypoint
            points = _flat(entry["keypoints"], skeletons.get(entry["category_id"]))
            seen = {name: Keypoint(p.x, p.y, _VISIBILITY[int(p.confidence)]) for name, p in points.items()}
            photos[names[entry["image_id"]]].append(Person(seen))
    return photos


def _flat(values: Sequence[float], names: Sequence[str] | None) -> dict[str, Keypoint]:
    """COCO's x y v x y v ...; without names the count says whose skeleton it is."""
    if len(values) % 3:
        raise InputError(f"{len(values)} numbers are no keypoints x y v", _KINDS)
    known = _BY_COUNT.get(len(values) // 3) if names is None else names
    if known is None or len(known) != len(values) // 3:
        raise InputError(
            f"{len(values) // 3} keypoints are another skeleton than COCO's 17 or TRTPose's 18",
            "give the people's keypoints by name, as TRTPose does: " + '{"name": "left_wrist", "x": 10, "y": 20}',
        )
    rows = zip(known, values[::3], values[1::3], values[2::3])
    return {_known(name): _keypoint(x, y, confidence) for name, x, y, confidence in rows}


def _trtpose_person(entry: Mapping[str, Any]) -> Person:
    points = entry["keypoints"]
    if points and not isinstance(points[0], Mapping):
        return Person(_flat(points, None), entry.get("score"))
    named = {_known(p["name"]): _keypoint(p["x"], p["y"], p.get("score", 1.0)) for p in points}
    return Person(named, entry.get("score"))


def _known(name: str) -> str:
    if name not in KEYPOINTS:
        raise InputError(f"{name} is a keypoint of another skeleton", f"known are {', '.join(KEYPOINTS)}")
    return name


def _keypoint(x: float, y: float, confidence: float) -> Keypoint:
    point = Keypoint(float(x), float(y), float(confidence))
    if not all(map(math.isfinite, (point.x, point.y, point.confidence))):
        raise ValueError(f"keypoint {x}, {y}, {confidence} is not finite")
    return point

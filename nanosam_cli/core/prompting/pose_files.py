"""Files of pose estimators: COCO keypoint results and annotations, OpenPose's, and TRTPose's as NanoSAM writes them.

Formats: https://cocodataset.org/#format-results and #format-data; `PoseDetector.predict` of NVIDIA NanoSAM's
`nanosam/utils/trt_pose.py` gives a list of {"keypoints": [{"name", "index", "x", "y"}]} for a photo;
https://github.com/CMU-Perceptual-Computing-Lab/openpose/blob/master/doc/02_output.md.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nanosam_cli.core.datasets.coco_layout import read_layout
from nanosam_cli.core.errors import InputError, fault
from nanosam_cli.core.ids import read_id
from nanosam_cli.core.prompting.body_parts import COCO_KEYPOINTS, KEYPOINTS, TRTPOSE_KEYPOINTS
from nanosam_cli.core.prompting.by_photo import ByPhoto, photo_keys
from nanosam_cli.core.prompting.coco_detections import photo_of
from nanosam_cli.core.prompting.people import Keypoint, Person
from nanosam_cli.core.system.documents import read_json

_KINDS = "COCO keypoint results and annotations, OpenPose's people and TRTPose's are read"
_BY_COUNT = {len(names): names for names in (COCO_KEYPOINTS, TRTPOSE_KEYPOINTS)}
_VISIBILITY = {0: 0.0, 1: 0.5, 2: 1.0}  # COCO's flags: not there, hidden, seen

_ARMS = ("right_shoulder", "right_elbow", "right_wrist", "left_shoulder", "left_elbow", "left_wrist")
_LEGS = ("right_hip", "right_knee", "right_ankle", "left_hip", "left_knee", "left_ankle")
_FACE = ("right_eye", "left_eye", "right_ear", "left_ear")
_FEET = ("left_foot_index", None, "left_heel", "right_foot_index", None, "right_heel")  # None: small toes
# OpenPose's orders BODY_25, whose ninth is the middle of the hips, and COCO
_OPENPOSE = {
    25: ("nose", "neck", *_ARMS, None, *_LEGS, *_FACE, *_FEET),
    18: ("nose", "neck", *_ARMS, *_LEGS, *_FACE),
}
_OPENPOSE_ENDING = "_keypoints"  # of the file's name, behind the photo's


def read_poses(path: Path) -> ByPhoto[Person]:
    """Read a file of poses; the people of a photo keep their order.

    A list of TRTPose's people is that of one photo, and so is OpenPose's file; a file for many has such a list for each
    photo's name. The third number of COCO's keypoints is a visibility where all of a file are 0, 1 or 2 and some 2,
    else a confidence.

    Raises:
        InputError: the file cannot be read, is none of the known formats, or has another skeleton.
    """
    content = read_json(path, _KINDS)
    try:
        if isinstance(content, dict) and "annotations" in content:
            return _annotations(path, content)
        if _is_mmpose(content):
            raise InputError(
                "this is MMPose's layout, which is not read",
                "convert it to COCO's keypoint results: image_id or file_name, and keypoints x y confidence ...",
            )
        if isinstance(content, dict) and isinstance(content.get("people"), list):
            name = path.stem.removesuffix(_OPENPOSE_ENDING)
            return ByPhoto(path, {name: [*map(_openpose_person, content["people"])]}, nameless=True)
        if isinstance(content, dict):
            people = {name: [_trtpose_person(one) for one in entry] for name, entry in content.items()}
            keys = photo_keys(people)
            names = {key: name for name, key in keys.items()}
            return ByPhoto(path, {keys[name]: entry for name, entry in people.items()}, names=names)
        if isinstance(content, list) and all("image_id" in one or "file_name" in one for one in content) and content:
            return _results(path, content)
        if isinstance(content, list):
            return ByPhoto(path, {path.stem: [_trtpose_person(one) for one in content]}, nameless=True)
    except (AttributeError, KeyError, TypeError, ValueError, OverflowError) as error:
        raise InputError(f"{path} is not a file of poses: {fault(error)}", _KINDS) from error
    except InputError as error:
        named = str(error).startswith(str(path))
        raise InputError(str(error) if named else f"{path}: {error}", error.hint) from error
    raise InputError(f"{path} is none of the formats that are known", _KINDS)


def _is_mmpose(content: Any) -> bool:
    """Its demo's file, or the list of instances in one."""
    people = content.get("instance_info") if isinstance(content, dict) else content
    first = people[0] if isinstance(people, list) and people else None
    return isinstance(first, dict) and ("keypoint_scores" in first or "instances" in first)


def _results(path: Path, entries: Sequence[Mapping[str, Any]]) -> ByPhoto[Person]:
    """Results beside which stand others, such as boxes, which are no poses."""
    photos: dict[str, list[Person]] = defaultdict(list)
    ids: dict[str, set[int | None]] = defaultdict(set)
    poses = [entry for entry in entries if entry.get("keypoints")]
    if not poses:
        raise KeyError("keypoints")
    for entry in poses:
        name, image_id = photo_of(entry)
        score = None if entry.get("score") is None else float(entry["score"])
        photos[name].append(Person(_flat(entry["keypoints"], None), score))
        ids[name].add(image_id)
    keys = photo_keys(photos)
    return ByPhoto(
        path,
        {keys[name]: people for name, people in photos.items()},
        names={key: name for name, key in keys.items()},
        image_ids={keys[name]: one for name, (one, *more) in ids.items() if one is not None and not more},
        notes=_without_pose(len(entries) - len(poses)),
    )


def _annotations(path: Path, content: Mapping[str, Any]) -> ByPhoto[Person]:
    layout = read_layout(path, content)
    skeletons = {key: entry["keypoints"] for key, entry in layout.categories.items() if entry.get("keypoints")}
    keys = photo_keys(image.name for image in layout.images.values())
    photos: dict[str, list[Person]] = {keys[image.name]: [] for image in layout.images.values()}
    poses = [one for one in layout.annotations if one.content.get("keypoints")]
    if layout.annotations and not poses:
        raise KeyError("keypoints")
    flags = {float(flag) for one in poses for flag in one.content["keypoints"][2::3]}
    confident = not flags <= _VISIBILITY.keys() or max(flags, default=0) == 1
    for one in poses:
        entry = one.content
        if not entry.get("iscrowd") and any(entry["keypoints"][2::3]):  # COCO has people without a keypoint
            category = read_id(entry, "category_id", f"{path}, {one.where}")
            points = _flat(entry["keypoints"], skeletons.get(category))
            if not confident:
                points = {name: Keypoint(p.x, p.y, _VISIBILITY[int(p.confidence)]) for name, p in points.items()}
            photos[keys[one.image.name]].append(Person(points))
    return ByPhoto(
        path,
        photos,
        names={key: name for name, key in keys.items()},
        image_ids={keys[image.name]: image.id for image in layout.images.values()},
        sizes={keys[i.name]: i.size for i in layout.images.values() if i.size is not None and min(i.size) > 0},
        notes=[*layout.notes, *_without_pose(len(layout.annotations) - len(poses))],
    )


def _without_pose(count: int) -> list[str]:
    return [f"{count} entr{'y' if count == 1 else 'ies'} without keypoints left out"] if count else []


def _openpose_person(entry: Mapping[str, Any]) -> Person:
    values = entry["pose_keypoints_2d"]
    names = _OPENPOSE.get(len(values) // 3) if len(values) % 3 == 0 else None
    if names is None:
        raise InputError(
            f"{len(values)} numbers are none of the skeletons of OpenPose that are read",
            "run OpenPose with --model_pose BODY_25 or COCO",
        )
    rows = zip(names, values[::3], values[1::3], values[2::3])
    # what was not found is 0 0 0
    return Person({name: _keypoint(x, y, sure) for name, x, y, sure in rows if name is not None and sure})


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

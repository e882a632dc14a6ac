"""From keypoints to prompts."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest

from nanosam_cli.core.errors import UsageError
from nanosam_cli.core.prompting.body_parts import COCO_KEYPOINTS, BodyPart, read_parts
from nanosam_cli.core.prompting.people import Keypoint, Person
from nanosam_cli.core.prompting.pose import PoseChoice, PosePrompt, pose_request
from nanosam_cli.core.prompting.request import Request
from nanosam_cli.core.types import BACKGROUND, FOREGROUND, PADDING

HW = 200, 100
SHIRT = read_parts(["shirt"])
BARE = BodyPart("bare", ("nose",), ("left_hip", "neck"))

UPRIGHT = {
    **{"nose": (50, 30), "left_ear": (54, 28), "right_ear": (46, 28), "left_eye": (52, 27), "right_eye": (48, 27)},
    **{"left_shoulder": (65, 60), "right_shoulder": (35, 60), "left_hip": (60, 110), "right_hip": (40, 110)},
    **{"left_knee": (60, 150), "right_knee": (40, 150), "left_ankle": (60, 190), "right_ankle": (40, 190)},
}


def person(changes: Mapping[str, tuple[float, ...] | None] | None = None) -> Person:
    places = {**UPRIGHT, **(changes or {})}
    return Person({name: Keypoint(*place) for name, place in places.items() if place is not None}, 0.75)


def marks(request: Request, row: int = 0) -> dict[tuple[float, float], int]:
    assert request.points is not None
    assert request.labels is not None
    pairs = zip(request.points[row], request.labels[row])
    return {(float(x), float(y)): int(label) for (x, y), label in pairs if label != PADDING}


def test_shirt() -> None:
    """Shoulders and hips against the rest, and a box around them with a margin in torso lengths (50 pixels here)."""
    request = pose_request([person()], HW, PoseChoice(SHIRT))
    found = marks(request)
    assert {place for place, label in found.items() if label == FOREGROUND} == {
        *((65, 60), (35, 60), (60, 110), (40, 110)),
    }
    assert {place for place, label in found.items() if label == BACKGROUND} == {
        *((50, 30), (54, 28), (46, 28), (60, 150), (40, 150)),
    }
    assert request.boxes is not None
    assert request.boxes[0] == pytest.approx([27.5, 52.5, 72.5, 117.5])
    assert [(tag.name, tag.category_id, tag.score) for tag in request.tags] == [("shirt", 1, 0.75)]
    assert not request.notes


@pytest.mark.parametrize(
    ("changes", "gone"),
    [
        ({"nose": (50, 30, 0.29)}, (50, 30)),  # not sure enough
        ({"nose": (50, -0.5)}, (50, -0.5)),
        ({"left_knee": (100, 150)}, (100, 150)),  # the photo is 100 wide
        ({"left_knee": (60, 200)}, (60, 200)),
    ],
)
def test_points_that_are_not_used(changes: Mapping[str, tuple[float, ...]], gone: tuple[float, float]) -> None:
    found = marks(pose_request([person(changes)], HW, PoseChoice(SHIRT)))
    assert gone not in found
    assert len(found) == 8


def test_confidence_threshold() -> None:
    unsure = person({"nose": (50, 30, 0.29)})
    assert (50, 30) in marks(pose_request([unsure], HW, PoseChoice(SHIRT, min_confidence=0.2)))


def test_boxes_reach_the_border_where_the_body_leaves_the_photo() -> None:
    hips = {"left_hip": (60, 210, 0.01), "right_hip": (40, 215, 0.01)}
    request = pose_request([person(hips)], HW, PoseChoice(SHIRT))
    assert request.boxes is not None
    assert request.boxes[0][3] == 200
    assert (60, 210) not in marks(request)
    nowhere = {"left_hip": (0, 0, 0), "right_hip": (0, 0, 0)}  # COCO's way to say that a point is not there
    request = pose_request([person(nowhere)], HW, PoseChoice(SHIRT))
    assert request.boxes is not None
    assert request.boxes[0][:2].min() > 20


def test_head_box_has_the_crown() -> None:
    request = pose_request([person()], HW, PoseChoice(read_parts(["head"])))
    assert request.boxes is not None
    assert request.boxes[0][1] == pytest.approx(28 - 0.4 * 32 - 0.2 * 50)


def test_neck_is_between_the_shoulders() -> None:
    part = BodyPart("neck", ("neck",))
    assert marks(pose_request([person()], HW, PoseChoice([part]))) == {(50, 60): FOREGROUND}
    named = person({"neck": (51, 58)})
    assert marks(pose_request([named], HW, PoseChoice([part]))) == {(51, 58): FOREGROUND}
    one_shoulder = person({"left_shoulder": None})
    request = pose_request([one_shoulder], HW, PoseChoice([part]))
    assert list(request.notes) == ["person 1 shows no keypoint of neck"]
    assert not request.tags


def test_several_people_and_parts() -> None:
    people = [person(), person({"left_hip": None, "right_hip": None}), person({"nose": (10, 10)})]
    choice = PoseChoice(read_parts(["pants", "shirt"]))
    request = PosePrompt(people, choice).request_for(np.zeros((*HW, 3), np.uint8))
    assert [tag.name for tag in request.tags] == ["pants", "shirt", "pants", "shirt", "pants", "shirt"]
    assert [tag.category_id for tag in request.tags] == [1, 2] * 3
    some = pose_request(people, HW, PoseChoice(SHIRT, people=[3, 1]))
    assert (10, 10) in marks(some, 0)
    assert (50, 30) in marks(some, 1)


@pytest.mark.parametrize(
    ("people", "wanted", "notes"),
    [
        ([], [], ["no person found"]),
        ([person()], [2, 5], ["there is no person 2, 5: 1 found"]),
        ([Person({})], [], ["person 1 shows no keypoint of shirt"]),
    ],
)
def test_empty_results_are_said(people: list[Person], wanted: list[int], notes: list[str]) -> None:
    request = pose_request(people, HW, PoseChoice(SHIRT, people=wanted))
    assert list(request.notes) == notes
    assert request.boxes is not None
    assert request.boxes.shape == (0, 4)


def test_a_part_without_a_box() -> None:
    request = pose_request([person()], HW, PoseChoice([BARE]))
    assert request.boxes is None
    assert marks(request) == {(50, 30): FOREGROUND, (60, 110): BACKGROUND, (50, 60): BACKGROUND}


@pytest.mark.parametrize("missing", [("hip",), ("shoulder",), ("hip", "shoulder"), ("hip", "shoulder", "ear", "eye")])
def test_boxes_of_half_seen_people(missing: tuple[str, ...]) -> None:
    """The margin is guessed from what is seen: boxes stay within the photo and have an area."""
    hidden = {name: None for name in COCO_KEYPOINTS if name.endswith(missing)}
    request = pose_request([person(hidden)], HW, PoseChoice(read_parts(["person", "head"])))
    assert request.boxes is not None
    assert (request.boxes[:, :2] < request.boxes[:, 2:]).all()
    assert request.boxes.min() >= 0
    assert (request.boxes <= [100, 200, 100, 200]).all()


def test_people_are_counted_from_one() -> None:
    with pytest.raises(UsageError, match="counted from 1, not from 0"):
        PoseChoice(SHIRT, people=[0])

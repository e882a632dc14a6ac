"""Pose estimators' files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from nanosam_cli.core.errors import InputError
from nanosam_cli.core.prompting.body_parts import COCO_KEYPOINTS, TRTPOSE_KEYPOINTS
from nanosam_cli.core.prompting.pose_files import read_poses


def flat(names: tuple[str, ...], confidence: float = 0.5) -> list[float]:
    """x y v of each keypoint: its place in the list times ten, and as far down again."""
    return [number for place, _ in enumerate(names) for number in (10 * place, 10 * place + 5, confidence)]


def save(path: Path, content: Any) -> Path:
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def test_coco_results(tmp_path: Path) -> None:
    rows = [{"image_id": 7, "category_id": 1, "keypoints": flat(COCO_KEYPOINTS), "score": 0.9}]
    ((person,),) = read_poses(save(tmp_path / "r.json", rows)).photos.values()
    wrist = person.keypoints["left_wrist"]
    assert (wrist.x, wrist.y, wrist.confidence, person.score) == (90, 95, 0.5, 0.9)
    assert len(person.keypoints) == 17


def test_coco_annotations(tmp_path: Path) -> None:
    content = {
        "images": [{"id": 3, "file_name": "a.jpg"}, {"id": 4, "file_name": "b.jpg"}],
        "categories": [{"id": 1, "name": "person", "keypoints": ["right_hip", "left_hip", "neck"]}],
        "annotations": [
            {"image_id": 3, "category_id": 1, "keypoints": [1, 2, 2, 3, 4, 1, 0, 0, 0]},
            {"image_id": 3, "category_id": 1, "keypoints": [0] * 9},  # nobody marked the keypoints
            {"image_id": 3, "category_id": 1, "keypoints": [1, 2, 2] * 3, "iscrowd": 1},
        ],
    }
    file = read_poses(save(tmp_path / "person_keypoints.json", content))
    (person,) = file.photos["a.jpg"]
    assert [(p.x, p.y, p.confidence) for p in person.keypoints.values()] == [(1, 2, 1), (3, 4, 0.5), (0, 0, 0)]
    assert list(person.keypoints) == ["right_hip", "left_hip", "neck"]
    assert file.photos["b.jpg"] == []


NOSE_AND_NECK = {"keypoints": [{"name": "nose", "index": 0, "x": 1.5, "y": 2}, {"name": "neck", "x": 3, "y": 4}]}


def test_trtpose(tmp_path: Path) -> None:
    file = read_poses(save(tmp_path / "a.json", [NOSE_AND_NECK, {"keypoints": flat(TRTPOSE_KEYPOINTS)}]))
    named, listed = file.photos["a"]
    assert [(name, p.x, p.y, p.confidence) for name, p in named.keypoints.items()] == [
        ("nose", 1.5, 2, 1),
        ("neck", 3, 4, 1),
    ]
    assert listed.keypoints["neck"].x == 170
    assert file.match([Path("anything.jpg")]) == {Path("anything.jpg"): "a"}
    many = read_poses(save(tmp_path / "b.json", {"a.jpg": [NOSE_AND_NECK], "x/b.jpg": []}))
    assert (len(many.photos["a.jpg"]), many.photos["b.jpg"]) == (1, [])


def annotated(*entries: dict[str, Any]) -> dict[str, Any]:
    whole = [{"image_id": 3, "category_id": 1, **entry} for entry in entries]
    return {"images": [{"id": "3", "file_name": "a.jpg", "width": 40, "height": 30}], "annotations": whole}


@pytest.mark.parametrize(
    ("flags", "confidences"),
    [
        ([0, 1, 2], [0, 0.5, 1]),
        ([0, 0.87, 0.25], [0, 0.87, 0.25]),
        ([0, 1, 0.5], [0, 1, 0.5]),
        ([1, 1, 0], [1, 1, 0]),  # all that are there are sure
    ],
)
def test_the_third_number_is_a_flag_or_a_confidence(
    tmp_path: Path, flags: list[float], confidences: list[float]
) -> None:
    numbers = [number for flag in flags for number in (1, 2, flag)] + [0] * 42
    file = read_poses(save(tmp_path / "p.json", annotated({"keypoints": numbers})))
    (person,) = file.photos["a.jpg"]
    assert [point.confidence for point in person.keypoints.values()][:3] == confidences
    assert (file.image_ids, file.sizes) == ({"a.jpg": 3}, {"a.jpg": (30, 40)})


def test_entries_without_keypoints_are_no_poses(tmp_path: Path) -> None:
    person = {"keypoints": flat(COCO_KEYPOINTS)}
    file = read_poses(save(tmp_path / "p.json", annotated(person, {"bbox": [1, 2, 3, 4]}, {"keypoints": []})))
    assert len(file.photos["a.jpg"]) == 1
    assert file.notes == ["2 entries without keypoints left out"]
    rows = [{"image_id": 7, **person}, {"image_id": 7, "bbox": [1, 2, 3, 4]}]
    file = read_poses(save(tmp_path / "r.json", rows))
    assert (len(file.photos["7"]), file.notes) == (1, ["1 entry without keypoints left out"])


@pytest.mark.parametrize(
    ("count", "places"),
    [(25, {"left_hip": 12, "left_ear": 18, "right_heel": 24}), (18, {"left_hip": 11, "left_ear": 17})],
)
def test_openpose(tmp_path: Path, count: int, places: dict[str, int]) -> None:
    points = [number for place in range(count) for number in (place, 2 * place, 0.5)]
    points[5 * 3 : 5 * 3 + 3] = [0, 0, 0]  # not found
    people = [{"person_id": [-1], "pose_keypoints_2d": points, "face_keypoints_2d": []}]
    file = read_poses(save(tmp_path / "a_keypoints.json", {"version": 1.3, "people": people}))
    (person,) = file.photos["a"]
    assert {name: person.keypoints[name].x for name in places} == places
    assert "left_shoulder" not in person.keypoints
    assert (person.keypoints["neck"].y, person.keypoints["neck"].confidence) == (2, 0.5)
    assert file.match([Path("a.jpg")]) == {Path("a.jpg"): "a"}


def test_nobody(tmp_path: Path) -> None:
    file = read_poses(save(tmp_path / "a.json", []))
    assert file.photos[file.match([Path("b.jpg")])[Path("b.jpg")]] == []


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", "is not JSON"),
        (3, "none of the formats"),
        ([{"keypoints": [1, 2, 1] * 21}], "21 keypoints are another skeleton than COCO's 17 or TRTPose's 18"),
        ([{"image_id": 1, "keypoints": [1, 2, 1] * 133}], "133 keypoints are another skeleton"),
        ([{"image_id": 1, "keypoints": [1, 2]}], "2 numbers are no keypoints"),
        ([{"keypoints": [{"name": "tail", "x": 1, "y": 2}]}], "tail is a keypoint of another skeleton"),
        ([{"keypoints": [{"name": "nose", "x": 1}]}], "'y' is missing"),
        ([{"keypoints": [{"name": "nose", "x": 1, "y": float("inf")}]}], "not finite"),
        ([{"image_id": 1, "bbox": [1, 2, 3, 4]}], "'keypoints' is missing"),
        ({"annotations": [{"image_id": 1}]}, "'images' is missing"),
        (annotated({"image_id": "x", "keypoints": [1, 2, 2]}), "image_id 'x' is no whole number"),
        ({"instance_info": [{"frame_id": 1, "instances": []}]}, "this is MMPose's layout, which is not read"),
        ([{"keypoints": [[1, 2]], "keypoint_scores": [1]}], "this is MMPose's layout"),
        ({"people": [{"pose_keypoints_2d": [1, 2, 1] * 15}]}, "none of the skeletons of OpenPose"),
        (
            {
                "images": [{"id": 1, "file_name": "a"}],
                "annotations": [{"image_id": 1, "category_id": 1, "keypoints": [1, 2, 2]}],
                "categories": [{"id": 1, "keypoints": ["beak"]}],
            },
            "beak is a keypoint of another skeleton",
        ),
    ],
)
def test_bad_files(tmp_path: Path, content: Any, words: str) -> None:
    with pytest.raises(InputError) as caught:
        read_poses(save(tmp_path / "poses.json", content))
    assert words in str(caught.value)
    assert "poses.json" in str(caught.value)
    assert caught.value.hint

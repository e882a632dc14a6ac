"""Other tools' files, read as they write them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from nanosam_cli.core.errors import InputError
from nanosam_cli.core.prompting.detection_files import read_detections

RESULTS = [
    {"image_id": 285, "category_id": 23, "bbox": [10, 20, 30, 40], "score": 0.5},
    {"image_id": 7, "category_id": 1, "bbox": [1, 2, 3, 4], "score": 0.25},
]
ANNOTATIONS = {
    "images": [{"id": 3, "file_name": "val/000000000285.jpg"}, {"id": 4, "file_name": "b.png"}],
    "annotations": [
        {"image_id": 3, "category_id": 23, "bbox": [10, 20, 30, 40], "iscrowd": 0},
        {"image_id": 3, "category_id": 23, "bbox": [0, 0, 90, 90], "iscrowd": 1},
    ],
    "categories": [{"id": 1, "name": "person"}, {"id": 23, "name": "bear"}],
}
LABELME = {
    "imagePath": "..\\photos\\a.jpg",
    "shapes": [
        {"label": "bear", "shape_type": "rectangle", "points": [[40, 60], [10, 20]]},
        {"label": "ant", "shape_type": "polygon", "points": [[1, 2], [9, 3], [5, 8]]},
        {"label": "ant", "shape_type": "circle", "points": [[50, 50], [53, 54]]},
        {"label": "ant", "shape_type": "point", "points": [[5, 5]]},
    ],
}


def save(path: Path, content: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def test_coco_results(tmp_path: Path) -> None:
    file = read_detections(save(tmp_path / "r.json", RESULTS))
    (bear,) = file.photos["285"]
    assert (bear.box, bear.category_id, bear.name, bear.score) == ((10, 20, 40, 60), 23, None, 0.5)
    assert file.classes == {23: "23", 1: "1"}
    assert file.match([Path("x/000000000285.webp"), Path("c.jpg")]) == {Path("x/000000000285.webp"): "285"}


def test_coco_results_with_names(tmp_path: Path) -> None:
    """As this project writes them, so that its results can be prompts again."""
    row = {"image_id": 1, "category_id": 23, "score": 0.5, "file_name": "a.jpg", "category_name": "bear"}
    masks = [{"size": [5, 9], "counts": [11, 3, 2, 3, 26]}, {"size": [5, 9], "counts": [45]}]
    file = read_detections(save(tmp_path / "r.json", [{**row, "segmentation": mask} for mask in masks]))
    bear, nothing = file.photos["a.jpg"]
    assert (bear.name, bear.box) == ("bear", (2, 1, 4, 4))
    assert nothing.box == (0, 0, 0, 0)  # which is dropped and counted
    assert file.classes == {23: "bear"}


def test_coco_annotations(tmp_path: Path) -> None:
    file = read_detections(save(tmp_path / "instances.json", ANNOTATIONS))
    (bear,) = file.photos["000000000285.jpg"]
    assert (bear.box, bear.name, bear.score) == ((10, 20, 40, 60), "bear", None)
    assert file.skipped == {"000000000285.jpg": "1 crowds left out"}
    assert file.photos["b.png"] == []
    assert file.classes == {1: "person", 23: "bear"}
    keys = file.match([Path("285.png")])
    assert keys == {Path("285.png"): "000000000285.jpg"}
    assert file.unmatched(keys) == ["b.png"]


def test_labelme(tmp_path: Path) -> None:
    file = read_detections(save(tmp_path / "any.json", LABELME))
    assert [(one.name, one.category_id, one.box) for one in file.photos["a.jpg"]] == [
        ("bear", 2, (10, 20, 40, 60)),
        ("ant", 1, (1, 2, 9, 8)),
        ("ant", 1, (45, 45, 55, 55)),
    ]
    assert file.skipped == {"a.jpg": "1 shapes that have no box left out (point)"}
    assert file.classes == {1: "ant", 2: "bear"}


def test_labelme_shapes_of_one_group_are_one_object(tmp_path: Path) -> None:
    def shape(label: str, group: int | None, x: int) -> dict[str, Any]:
        points = [[x, 0], [x + 5, 0], [x + 5, 5]]
        return {"label": label, "group_id": group, "shape_type": "polygon", "points": points}

    shapes = [shape("a", 1, 0), shape("a", None, 10), shape("a", 1, 20), shape("b", 1, 30), shape("a", None, 40)]
    file = read_detections(save(tmp_path / "any.json", {"shapes": shapes, "imagePath": "a.jpg"}))
    assert [(one.name, one.box[0], one.box[2]) for one in file.photos["a.jpg"]] == [
        ("a", 0, 25),  # both parts
        ("a", 10, 15),
        ("b", 30, 35),  # another label
        ("a", 40, 45),
    ]


@pytest.mark.parametrize(
    ("row", "box", "score"),
    [
        ("1 0.5 0.5 0.2 0.4", (0.4, 0.3, 0.6, 0.7), None),
        ("1 0.5 0.5 0.2 0.4 0.9", (0.4, 0.3, 0.6, 0.7), 0.9),
        ("1 0.1 0.2 0.5 0.2 0.3 0.8", (0.1, 0.2, 0.5, 0.8), None),  # an outline
        ("1 0.1 0.2 0.5 0.2 0.3 0.8 0.7", (0.1, 0.2, 0.5, 0.8), 0.7),
    ],
)
def test_yolo(tmp_path: Path, row: str, box: tuple[float, ...], score: float | None) -> None:
    save(tmp_path / "classes.txt", "ant\nbear\n")
    file = read_detections(save(tmp_path / "labels/a.txt", f"\n{row}\n"))
    (bear,) = file.photos["a"]
    assert bear.box == pytest.approx(box)
    assert (bear.name, bear.score, bear.relative) == ("bear", score, True)
    assert file.match([Path("elsewhere.jpg")]) == {Path("elsewhere.jpg"): "a"}  # one file for one photo


def test_folder(tmp_path: Path) -> None:
    for name in ("a", "b"):
        save(tmp_path / f"labels/{name}.txt", "0 0.5 0.5 0.2 0.4")
    save(tmp_path / "labels/classes.txt", "ant")
    file = read_detections(tmp_path / "labels")
    assert sorted(file.photos) == ["a", "b"]
    assert file.match([Path("b.png"), Path("c.png")]) == {Path("b.png"): "b"}
    assert file.classes == {0: "ant"}


def test_yolo_numbers_without_names_stay(tmp_path: Path) -> None:
    file = read_detections(save(tmp_path / "a.txt", "3 0.5 0.5 0.2 0.4"))
    assert file.classes == {0: "0", 1: "1", 2: "2", 3: "3"}
    assert file.photos["a"][0].name is None


@pytest.mark.parametrize("names", ["names.txt", "coco.json"])
def test_class_names(tmp_path: Path, names: str) -> None:
    save(tmp_path / "names.txt", "\n".join(f"class {number}" for number in range(30)))
    save(tmp_path / "coco.json", {"categories": [{"id": n, "name": f"class {n}"} for n in (1, 23)]})
    file = read_detections(save(tmp_path / "r.json", RESULTS), tmp_path / names)
    assert file.photos["285"][0].name == "class 23"
    assert file.classes[1] == "class 1"


def test_alike_names_do_not_stand_for_each_other(tmp_path: Path) -> None:
    rows = [{**RESULTS[0], "file_name": name} for name in ("a.jpg", "a.png")]
    file = read_detections(save(tmp_path / "r.json", rows))
    assert file.match([Path("a.png"), Path("a.webp")]) == {Path("a.png"): "a.png"}


BAD = [
    ("r.json", "{", "is not JSON"),
    ("r.json", "7", "none of the formats"),
    ("r.json", {"boxes": []}, "none of the formats"),
    ("r.json", [{"image_id": 1, "category_id": 1, "segmentation": []}], "r.json, entry 1: 'bbox' is missing"),
    ("r.json", [{"image_id": 1, "category_id": 1, "segmentation": {"size": [1, 1]}}], "not a COCO run-length code"),
    ("r.json", [{"image_id": 1, "bbox": [1, 2, 3, 4]}], "'category_id'"),
    ("r.json", [{"image_id": 1, "category_id": 1, "bbox": [1, 2, 3]}], "not enough values"),
    ("r.json", [{"image_id": 1, "category_id": 1, "bbox": [1, 2, 3, float("nan")]}], "not a finite number"),
    ("r.json", [{"image_id": 1, "category_id": 1, "bbox": [1, 2, 3, 4], "score": "high"}], "could not convert"),
    (
        "r.json",
        [
            {"image_id": 1, "category_id": 1, "bbox": [1, 2, 3, 4]},
            {"image_id": 1, "category_id": 1, "bbox": [1, 2, "x", 4]},
        ],
        "r.json, entry 2: could not convert string to float: 'x'",
    ),
    ("r.json", [1, 2], "r.json, entry 1: "),
    ("r.json", {"images": [], "annotations": [{"image_id": 9}]}, "9"),
    ("r.json", {"shapes": [{"shape_type": "polygon", "points": [[1, 2]]}]}, "'label'"),
    ("a.txt", "0 0.5 0.5 0.2", "line 1: not a class"),
    ("a.txt", "0 0.5 0.5 0.2 0.2\nx 1 1 1 1", "line 2: invalid literal"),
    ("a.txt", "0 0.5 0.5 nan 0.2", "not a finite number"),
    ("a.txt", "0 320 240 50 60", "pixels, not shares"),
    ("nowhere.json", None, "no such file"),
    ("nowhere.txt", None, "no such file"),
    ("folder/a.md", "", "holds neither"),
]


@pytest.mark.parametrize(("name", "content", "words"), BAD, ids=[f"{row[0]} {row[2]}" for row in BAD])
def test_bad_files(tmp_path: Path, name: str, content: Any, words: str) -> None:
    path = tmp_path / name
    if content is not None:
        save(path, content)
    with pytest.raises(InputError, match=words) as caught:
        read_detections(path if "/" not in name else path.parent)
    assert caught.value.hint


def test_folder_of_both_kinds(tmp_path: Path) -> None:
    save(tmp_path / "a.txt", "")
    save(tmp_path / "b.json", LABELME)
    with pytest.raises(InputError, match="holds both"):
        read_detections(tmp_path)


@pytest.mark.parametrize(
    ("names", "words"), [("ant\n", "has class 5, which is not among the 1 of"), ("", "not among the 0 of")]
)
def test_classes_without_a_name(tmp_path: Path, names: str, words: str) -> None:
    save(tmp_path / "classes.txt", names)
    with pytest.raises(InputError, match=words):
        read_detections(save(tmp_path / "a.txt", "5 0.5 0.5 0.2 0.4"))
    with pytest.raises(InputError, match="no COCO categories"):
        read_detections(tmp_path / "a.txt", save(tmp_path / "names.json", "[]"))

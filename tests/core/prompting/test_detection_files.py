"""Other tools' files, read as they write them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nanosam_cli.core.errors import InputError
from nanosam_cli.core.prompting.class_names import read_class_names
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
        ("ant", 1, None),
    ]
    assert file.photos["a.jpg"][3].clicks == [(5, 5, 1)]
    assert file.skipped == {}
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


def labelme(path: Path, *shapes: dict[str, Any], **more: Any) -> Any:
    given = [{"label": "a", "group_id": None, "shape_type": "polygon", "flags": {}, **shape} for shape in shapes]
    content = {"imagePath": "a.jpg", "shapes": given, **more}
    return read_detections(save(path, content))


SQUARE = [[1, 2], [9, 2], [9, 8], [1, 8]]


@pytest.mark.parametrize(
    ("shape", "box"),
    [
        ({"shape_type": "rotation", "direction": 0.3, "points": SQUARE}, (1, 2, 9, 8)),
        ({"shape_type": "quadrilateral", "points": SQUARE}, (1, 2, 9, 8)),
        ({"shape_type": "a kind of next year", "points": SQUARE}, (1, 2, 9, 8)),
        ({"shape_type": None, "points": SQUARE}, (1, 2, 9, 8)),
        ({"shape_type": "line", "points": [[9, 8], [1, 2]]}, (1, 2, 9, 8)),
        ({"shape_type": "mask", "points": [[1, 2], [9, 8]], "mask": "iVBOR"}, (1, 2, 9, 8)),
    ],
)
def test_labelme_shapes_are_known_by_their_points(
    tmp_path: Path, shape: dict[str, Any], box: tuple[float, ...]
) -> None:
    (found,) = labelme(tmp_path / "a.json", shape).photos["a.jpg"]
    assert found.box == box


def test_old_labelme_files_have_polygons_without_a_type(tmp_path: Path) -> None:
    content = {"lineColor": [0, 255, 0, 128], "shapes": [{"label": "a", "points": SQUARE}], "imagePath": "a.jpg"}
    (found,) = read_detections(save(tmp_path / "a.json", content)).photos["a.jpg"]
    assert found.box == (1, 2, 9, 8)


def test_labelme_shapes_that_cannot_be_used_are_counted(tmp_path: Path) -> None:
    shapes = [{"points": []}, {"points": SQUARE}, {"points": [], "shape_type": "rotation"}]
    file = labelme(tmp_path / "a.json", *shapes, imageHeight=30, imageWidth=40)
    assert [one.box for one in file.photos["a.jpg"]] == [(1, 2, 9, 8)]
    assert file.skipped == {"a.jpg": "2 shapes without points left out (polygon, rotation)"}
    assert file.sizes == {"a.jpg": (30, 40)}


def test_labelme_points_are_clicks(tmp_path: Path) -> None:
    """On the shape of their group, else on an object of their own; X-AnyLabeling has a score beside."""
    shapes = [
        {"points": SQUARE, "group_id": 1, "score": 0.5},
        {"points": [[4, 5]], "group_id": 1, "shape_type": "point"},
        {"points": [[20, 21], [22, 23]], "shape_type": "points", "point_labels": [1, 0]},
    ]
    box, alone = labelme(tmp_path / "a.json", *shapes).photos["a.jpg"]
    assert (box.box, box.clicks, box.score) == ((1, 2, 9, 8), [(4, 5, 1)], 0.5)
    assert (alone.box, alone.clicks) == (None, [(20, 21, 1), (22, 23, 0)])


def test_two_labelme_files_of_one_photo_are_refused(tmp_path: Path) -> None:
    for name in ("a", "b"):
        save(tmp_path / f"{name}.json", LABELME)
    with pytest.raises(InputError, match=r"a.json and .*b.json are both of"):
        read_detections(tmp_path)


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


POSE = "0 0.5 0.5 0.4 0.4 " + " ".join(f"{x} {y} 2" for x, y in [(0.4, 0.4), (0.6, 0.6), (0.5, 0.65)])
PERSON = "0 0.5 0.5 0.4 0.4 " + " ".join(
    f"{0.5 + 0.15 * np.sin(2.4 * k):.4f} {0.34 + 0.02 * k:.4f} {0.99 - 0.03 * k:.2f}" for k in range(17)
)
BOX = (0.4, 0.3, 0.6, 0.7)


@pytest.mark.parametrize(
    ("rows", "boxes", "scores"),
    [
        (["1 0.5 0.5 0.2 0.4 7"], [BOX], [None]),  # a track id
        (["1 0.5 0.5 0.2 0.4 0.9 7", "1 0.5 0.5 0.2 0.4 0.8 1"], [BOX, BOX], [0.9, 0.8]),
        (["1 0.5 0.5 0.2 0.4 1", "1 0.5 0.5 0.2 0.4 2"], [BOX, BOX], [None, None]),
        (["1 0.5 0.5 0.2 0.4 1", "1 0.5 0.5 0.2 0.4 0.5"], [BOX, BOX], [1, 0.5]),
        (["1 0.5 0.5 0.2 0.4 1.0"], [BOX], [1]),
        (["1.0 0.5 0.5 0.2 0.4"], [BOX], [None]),
        (["1 0.1 0.2 0.5 0.2 0.3 0.8 0.7 12"], [(0.1, 0.2, 0.5, 0.8)], [0.7]),  # an outline with both
        (["1 0.1 0.2 0.5 0.2 0.3 0.8 12"], [(0.1, 0.2, 0.5, 0.8)], [None]),
        ([POSE], [(0.3, 0.3, 0.7, 0.7)], [None]),
        ([f"{POSE} 0.75 3"], [(0.3, 0.3, 0.7, 0.7)], [0.75]),
        # flags that are confidences: the chain of keypoints crosses itself, as no outline does
        ([PERSON], [(0.3, 0.3, 0.7, 0.7)], [None]),
        # a small disc in the middle, of as many numbers as a pose has
        (
            [
                "0 "
                + " ".join(f"{0.5 + 0.1 * x} {0.5 + 0.1 * y}" for x, y in ((-1, -1), (1, -1), (2, 0), (1, 1), (-1, 1)))
            ],
            [(0.4, 0.4, 0.7, 0.6)],
            [None],
        ),
        # rows of two kinds in one file, as in a data set of boxes and outlines
        (["1 0.5 0.5 0.2 0.4", "1 0.5 0.5 0.2 0.4 0.25"], [BOX, BOX], [None, 0.25]),
        (["1 0.5 0.5 0.2 0.4", "1 0.1 0.2 0.5 0.2 0.3 0.8"], [BOX, (0.1, 0.2, 0.5, 0.8)], [None, None]),
    ],
)
def test_what_yolo_rows_mean(
    tmp_path: Path, rows: list[str], boxes: list[tuple[float, ...]], scores: list[float | None]
) -> None:
    found = read_detections(save(tmp_path / "a.txt", "\n".join(rows))).photos["a"]
    assert [one.box for one in found] == [pytest.approx(box) for box in boxes]
    assert [one.score for one in found] == scores


@pytest.mark.parametrize(
    ("row", "words"),
    [
        (
            "0 0.5 0.5 0.2 0.4 1",
            "line 2: the row can be a box with a score, or a box with a track id",
        ),
        ("0 0.5 0.5 0.2 0.4 0.5 1", "line 2: the row can be an outline, or a box with a score and a track id"),
        ("0 0.5 0.5 0.2 0.4 0.5 0.25 -3", "line 2: 7 numbers behind the class are no box, outline or pose"),
        ("1000000000 0.5 0.5 0.2 0.4", "line 2: not a class from 0 on and a box: classes are 0 to 100000"),
    ],
)
def test_yolo_rows_that_can_mean_two_things_are_refused(tmp_path: Path, row: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        read_detections(save(tmp_path / "a.txt", f"\n{row}"))


def test_what_is_unclear_in_one_yolo_file_is_clear_from_all(tmp_path: Path) -> None:
    save(tmp_path / "rows/a.txt", "0 0.5 0.5 0.2 0.4 1")
    save(tmp_path / "rows/b.txt", "0 0.5 0.5 0.2 0.4 2")
    assert [one.score for rows in read_detections(tmp_path / "rows").photos.values() for one in rows] == [None, None]


@pytest.mark.parametrize(
    ("name", "text", "names"),
    [
        ("data.yaml", "path: ../x\ntrain: images\nnc: 2\nnames: [ant, 'no']", {0: "ant", 1: "no"}),
        ("data.yaml", "names:\n  0: ant\n  7: no", {0: "ant", 7: "no"}),
        ("data.yaml", "names:\n- ant\n- yes\n", {0: "ant", 1: "yes"}),
        ("data.yaml", "names: !!python/object/apply:os.system [ls]", {0: "ls"}),  # a word, and nothing is run
        ("names.txt", "nc: 1\nnames:\n  '0': ant\n", {0: "ant"}),  # known by its content
        ("names.txt", "ant\n\nclass: a b\n", {0: "ant", 1: "class: a b"}),
        ("names.json", '["ant", "no"]', {0: "ant", 1: "no"}),
        ("names.json", '{"names": {"3": "ant"}}', {3: "ant"}),
        ("names.txt", '{"categories": [{"id": "3", "name": "ant"}]}', {3: "ant"}),
    ],
)
def test_class_names_of_other_tools(tmp_path: Path, name: str, text: str, names: dict[int, str]) -> None:
    assert read_class_names(save(tmp_path / name, text)) == names


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("data.yaml", "path: ../x\ntrain: images", "has no names of classes"),
        ("data.yaml", "names: [a", "is not YAML"),
        ("data.yaml", "names: {a: 0}", "class 'a' is no whole number"),
        ("data.yaml", "names: [[a]]", "that of class 0 is no word"),
        ("obj.data", "classes = 2\ntrain = train.txt", "is no list of class names: its first line is classes = 2"),
        ("names.xml", "<names/>", "is no list of class names"),
        ("names.json", '{"categories": [{"id": "x", "name": "ant"}]}', "id 'x' is no whole number"),
    ],
)
def test_other_layouts_are_no_class_names(tmp_path: Path, name: str, text: str, words: str) -> None:
    with pytest.raises(InputError, match=words) as caught:
        read_class_names(save(tmp_path / name, text))
    assert caught.value.hint


def test_coco_boxes_round_what_is_there(tmp_path: Path) -> None:
    """Without bbox, with ids in any spelling, of a photo by its address, beside entries that say too little."""
    entries = [
        {"id": 1, "image_id": 1, "category_id": "2", "segmentation": [[1, 2, 9, 2, 9, 8], [0, 4, 1, 4, 1, 5]]},
        {"id": 2, "image_id": "1", "category_id": 2.0, "segmentation": {"size": [5, 9], "counts": [11, 3, 2, 3, 26]}},
        {"id": 3, "image_id": 1.0, "category_id": 2},
        {"id": 4, "image_id": 1, "bbox": [1, 2, 3, 4]},
        {"id": 5, "image_id": 99, "category_id": 2, "bbox": [1, 2, 3, 4]},
    ]
    images = [{"id": "1", "coco_url": "http://images.example/val2017/a%20b.jpg", "height": 5, "width": 9}]
    content = {"images": images, "annotations": entries, "categories": [{"id": "2", "name": "bear"}]}
    file = read_detections(save(tmp_path / "c.json", content))
    assert [(one.box, one.name) for one in file.photos["a b.jpg"]] == [((0, 2, 9, 8), "bear"), ((2, 1, 4, 4), "bear")]
    assert file.notes == [
        "1 annotation of photos that are not listed left out: annotation 5 of image 99",
        "2 entries of c.json left out: 'bbox' is missing in annotation 3; 'category_id' is missing in annotation 4",
    ]
    assert (file.image_ids, file.sizes) == ({"a b.jpg": 1}, {"a b.jpg": (5, 9)})


def test_one_bad_result_does_not_cost_the_file(tmp_path: Path) -> None:
    rows = [*RESULTS, {"image_id": 7, "category_id": 1}, {"image_id": 7, "category_id": 1, "bbox": [1, 2, 3]}]
    file = read_detections(save(tmp_path / "r.json", rows))
    assert {key: len(found) for key, found in file.photos.items()} == {"285": 1, "7": 1}
    assert file.notes == [
        "2 entries of r.json left out: 'bbox' is missing in entry 3; not enough values for a box: 3 of 4 in entry 4"
    ]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"images": [{"id": 3, "file_name": "a.jpg"}, {"id": 3, "file_name": "b.jpg"}]}, "two images with id 3: a.jpg"),
        ({"images": [{"id": 3, "file_name": "a.jpg"}, {"id": 4, "file_name": "a.jpg"}]}, "a.jpg under the ids 3 and 4"),
        ({"images": [{"id": "x3", "file_name": "a.jpg"}]}, "image 1: id 'x3' is no whole number"),
        ({"categories": [{"id": 1, "name": "a"}, {"id": "1", "name": "b"}]}, "two categories with id 1: a and b"),
        ({"annotations": [{"id": 5, "image_id": True}]}, "annotation 5: image_id True is no whole number"),
        (
            {"annotations": [{"id": 5, "image_id": 3, "category_id": "cat", "bbox": [1, 2, 3, 4]}]},
            "annotation 5: category_id 'cat' is no whole number",
        ),
    ],
)
def test_coco_files_that_contradict_themselves(tmp_path: Path, change: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words) as caught:
        read_detections(save(tmp_path / "c.json", {**ANNOTATIONS, **change}))
    assert "c.json" in str(caught.value)
    assert caught.value.hint


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

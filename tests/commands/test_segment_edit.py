"""`nanosam segment --edit`: one object of many is corrected, and the others stay as they were, to the bit."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from nanosam_cli.core.inference.predictor import Predictor
from nanosam_cli.core.media.mask_codes import mask_to_rle, rle_to_mask
from nanosam_cli.core.media.render import filled_corners
from tests.command_line import Ran, run_nanosam

Run = Callable[..., Ran]
BOXES = ("--box", "10,20,60,50", "--box", "70,60,90,75", "--box", "5,5,15,15")
CLICK = ("--point", "75,65")
EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture(autouse=True)
def _working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a.png", "b.png"):
        Image.fromarray(np.random.default_rng(0).integers(0, 256, (80, 100, 3), np.uint8)).save(name)


@pytest.fixture
def segment(own_files: tuple[Path, Path]) -> Run:
    """`nanosam segment` with the fake model."""

    def run(*arguments: object) -> Ran:
        return run_nanosam("segment", *arguments, "--encoder", own_files[0], "--decoder", own_files[1])

    return run


def read_json(path: str) -> Any:
    return json.loads(Path(path).read_text(encoding="utf-8"))


def values(path: str) -> np.ndarray[Any, Any]:
    with Image.open(path) as image:
        return np.array(image)


@pytest.fixture
def other_model(monkeypatch: pytest.MonkeyPatch) -> np.ndarray[Any, Any]:
    """Where it is given a mask, the model answers with this one, which lies over other objects too."""
    mask = np.zeros((80, 100), bool)
    mask[40:78, 40:95] = True
    predict = Predictor.predict

    def answer(self: Any, embedding: Any, prompt: Any, **options: Any) -> Any:
        found = predict(self, embedding, prompt, **options)
        return found if prompt.mask_logits is None else [replace(one, mask=mask) for one in found]

    monkeypatch.setattr(Predictor, "predict", answer)
    return mask


@pytest.mark.parametrize("options", [(), ("--grey",)])
def test_a_label_png(segment: Run, other_model: Any, options: tuple[str, ...]) -> None:
    segment("a.png", *BOXES, *options, "-o", "m.png")
    before = values("m.png")
    ran = segment("a.png", "--edit", "m.png", "--object", "2", *CLICK, "-o", "new.png", "--json")
    assert ran.code == 0, ran.err
    after, record = values("new.png"), json.loads(ran.out)
    for value in (1, 3):
        np.testing.assert_array_equal(after == value, before == value)
    np.testing.assert_array_equal(after == 2, other_model & ~np.isin(before, (1, 3)))
    taken = (other_model & np.isin(before, (1, 3))).sum()
    assert record["notes"] == [f"{taken} pixels of it belong to other objects, and stay theirs"]
    assert (record["object"], record["area"]) == (2, (after == 2).sum())
    assert record["area_before"] == (before == 2).sum()
    with Image.open("m.png") as old, Image.open("new.png") as new:
        assert (old.mode, old.getpalette()) == (new.mode, new.getpalette())
        old_objects, objects = (json.loads(one.info["nanosam.objects"]) for one in (old, new))
    assert objects[1]["area"] == record["area"]
    assert [objects[0], objects[2]] == [old_objects[0], old_objects[2]]


@pytest.mark.parametrize("kind", ["rle", "polygon", "coco", "coco-dataset", "labelme"])
def test_json(segment: Run, other_model: Any, kind: str) -> None:
    segment("a.png", "b.png", *BOXES, "--format", kind, "-o", "coco.json" if "coco" in kind else "out/")
    file = "coco.json" if "coco" in kind else "out/a.json" if kind == "labelme" else f"out/a_{kind}.json"
    before = read_json(file)
    ran = segment("a.png", "--edit", file, "--object", "2", *CLICK, "--force")
    assert ran.code == 0, ran.err
    after = read_json(file)
    lists = {
        "coco": lambda one: one,
        "coco-dataset": lambda one: one["annotations"],
        "labelme": lambda one: one["shapes"],
    }
    entries = lists.get(kind, lambda one: one["objects"])
    old, new = entries(before).pop(1), entries(after).pop(1)
    assert after == before
    assert {key for key in old if old[key] != new[key]} <= {
        *("segmentation", "points", "bbox", "area", "predicted_iou", "index")
    }
    np.testing.assert_array_equal(mask_of(new), other_model)


def mask_of(entry: dict[str, Any]) -> np.ndarray[Any, Any]:
    from pycocotools import mask as coco_mask

    if "points" in entry:
        return filled_corners([np.array(entry["points"])], (80, 100))
    code = entry["segmentation"]
    return rle_to_mask(code if isinstance(code, dict) else coco_mask.merge(coco_mask.frPyObjects(code, 80, 100)))


def test_yolo_rows(segment: Run, other_model: Any) -> None:
    segment("a.png", *BOXES, "--format", "yolo", "-o", "out/")
    before = Path("out/a.txt").read_bytes().splitlines(keepends=True)
    assert segment("a.png", "--edit", "out/a.txt", "--object", "2", *CLICK, "--force").code == 0
    after = Path("out/a.txt").read_bytes().splitlines(keepends=True)
    assert (after[0], after[2]) == (before[0], before[2])
    corners = np.array(after[1].split()[1:], float).reshape(-1, 2) * (100, 80)
    np.testing.assert_array_equal(filled_corners([corners], (80, 100)), other_model)


def test_the_mask_is_the_prompt(segment: Run) -> None:
    """The fake decoder gives back the mask that it is given, so nothing changes but for its coarse cells."""
    segment("a.png", *BOXES, "-o", "m.png")
    ran = segment("a.png", "--edit", "m.png", "--object", "1", "--point", "30,30", "--force")
    assert ran.code == 0, ran.err
    assert "object 1 of m.png" in ran.out
    assert float(ran.out.split("IoU ")[1].split()[0]) > 0.9


def test_the_only_object_needs_no_number(segment: Run, other_model: Any) -> None:
    segment("a.png", *BOXES, "--separate", "-o", "m.png")
    assert segment("a.png", "--edit", "m_2.png", *CLICK, "--force").code == 0
    np.testing.assert_array_equal(values("m_2.png"), other_model * 255)


def test_a_file_of_labelme_in_several_shapes(segment: Run, other_model: Any) -> None:
    """Parts of a group are one object; shapes without a group are one each, and keep what labelme says of them."""
    square = [[20, 20], [30, 20], [30, 30], [20, 30]]
    shapes = [
        {"label": "cat", "points": square, "group_id": None, "shape_type": "polygon", "flags": {"old": True}},
        {"label": "dog", "points": [[50, 50], [60, 60]], "group_id": None, "shape_type": "rectangle", "flags": {}},
    ]
    content = {"version": "5", "imagePath": "a.png", "imageHeight": 80, "imageWidth": 100, "shapes": shapes}
    Path("a.json").write_text(json.dumps(content, indent=2), encoding="utf-8")
    assert segment("a.png", "--edit", "a.json", "--object", "2", *CLICK, "--force").code == 0
    after = read_json("a.json")
    assert after["shapes"][0] == shapes[0]
    assert [(one["label"], one["shape_type"]) for one in after["shapes"]] == [("cat", "polygon"), ("dog", "polygon")]
    assert "\n  " in Path("a.json").read_text(encoding="utf-8")


def test_the_model_in_the_box_takes_a_correction() -> None:
    """A click beside the astronaut's helmet takes what it had too much."""
    photo = EXAMPLES / "astronaut.jpg"
    boxes = ("--box", "20,15,365,512", "--box", "276,343,512,512")
    assert run_nanosam("segment", photo, *boxes, "--threads", 1, "-o", "m.png").code == 0
    before = values("m.png")
    rows, columns = np.nonzero(before == 1)
    place = len(rows) // 2
    click = f"{columns[place]},{rows[place]},0"
    ran = run_nanosam(
        "segment", photo, "--edit", "m.png", "--object", 1, "--point", click, "--threads", 1, "-o", "n.png", "--json"
    )
    assert ran.code == 0, ran.err
    after = values("n.png")
    np.testing.assert_array_equal(after == 2, before == 2)
    assert after[rows[place], columns[place]] != 1
    assert json.loads(ran.out)["iou_with_before"] < 1


EMPTY_ROW = {"image_id": 1, "file_name": "a.png", "category_id": 1, "score": 1.0}


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("--edit", "m.png", *CLICK, "-o", "n.png"), 2, "m.png has 3 objects: 1, 2, 3 say which: --object K"),
        (("--edit", "m.png", "--object", "9", *CLICK, "-o", "n.png"), 1, "m.png has no object 9; it has 1, 2, 3"),
        (("--edit", "m.png", "--object", "1", *CLICK), 1, "m.png exists already; nothing was done"),
        (("--edit", "m.png", "--object", "1"), 2, "say what to correct, with --point or one --box"),
        (("--edit", "m.png", "--object", "1", "--mask", "m.png"), 2, "--edit takes --point and --box alone"),
        (("--edit", "m.png", "--object", "1", "--everything"), 2, "--edit takes --point and --box alone"),
        (("--edit", "m.png", "--object", "1", *CLICK, "--format", "rle"), 2, "so it takes no --format"),
        (("--edit", "m.png", "--object", "1", *CLICK, "-o", "n.json"), 2, "n.json would be of another kind than m.png"),
        (("--edit", "none.png", *CLICK, "-o", "n.png"), 1, "no such file: none.png"),
        (("--edit", "a.png", *CLICK, "-o", "n.png"), 1, "a.png is no label PNG"),
        (("--edit", "small.png", *CLICK, "-o", "n.png"), 1, "small.png is 9x9 pixels, which does not fit a.png"),
        (("--edit", "text.txt", *CLICK, "-o", "n.txt"), 1, "text.txt, line 1: no outline"),
        (("--edit", "broken.json", *CLICK, "-o", "n.json"), 1, "broken.json is not JSON"),
        (("--edit", "other.json", *CLICK, "-o", "n.json"), 1, "other.json is no file of results"),
        (("--edit", "empty.json", *CLICK, "-o", "n.json"), 1, "the mask of the object is empty"),
        (("--edit", "rows.json", "--object", "1", *CLICK, "-o", "n.json"), 1, "the object has no mask"),
        (("--edit", "large.json", "--object", "1", *CLICK, "-o", "n.json"), 1, "large.json has masks of 50x40 pixels"),
        (("--edit", "strange.json", *CLICK, "-o", "n.json"), 1, "strange.json names none"),
        (("b.png", "--edit", "m.png", *CLICK), 2, "--edit corrects an object of one photo, not of 2"),
        ((*BOXES, "--object", "1"), 2, "--object belongs to --edit"),
        (("--edit", "m.png", "--object", "1", "--point", "500,5", "-o", "n.png"), 2, "lies outside the photo"),
        (("--edit", "m.png", "--object", "1", *CLICK, "--threshold", "1e9", "-o", "n.png"), 1, "nothing would be left"),
    ],
)
def test_bad_input(segment: Run, arguments: tuple[str, ...], code: int, words: str) -> None:
    segment("a.png", *BOXES, "-o", "m.png")
    Image.fromarray(np.ones((9, 9), np.uint8)).save("small.png")
    large = mask_to_rle(np.ones((40, 50), bool))
    for name, text in {
        "text.txt": "0 0.5 0.5 0.2 0.2\n",
        "broken.json": "{",
        "other.json": '{"a": 1}',
        "empty.json": json.dumps([{**EMPTY_ROW, "segmentation": mask_to_rle(np.zeros((80, 100), bool))}]),
        "rows.json": json.dumps([EMPTY_ROW]),
        "large.json": json.dumps([{**EMPTY_ROW, "segmentation": large}]),
        "strange.json": json.dumps([{**EMPTY_ROW, "file_name": "z.png", "segmentation": large}]),
    }.items():
        Path(name).write_text(text, encoding="utf-8")
    before = Path("m.png").read_bytes()
    ran = segment("a.png", *arguments)
    assert (ran.code, words in ran.words.replace("error: ", "")) == (code, True), ran.err
    assert Path("m.png").read_bytes() == before
    assert not list(Path().glob("n.*"))

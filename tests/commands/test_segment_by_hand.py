"""`nanosam segment` for people who prompt by hand: classes, remarks, and corrections of what an earlier run wrote."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from nanosam_cli.core.inference.predictor import Predictor
from nanosam_cli.core.media import render
from tests.command_line import Ran, run_nanosam

Run = Callable[..., Ran]
CAT, DOG = ("--box", "10,20,60,50"), ("--box", "70,60,90,75")


@pytest.fixture(autouse=True)
def _working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    photo("a.jpg")


@pytest.fixture
def segment(own_files: tuple[Path, Path]) -> Run:
    """`nanosam segment` with the fake model."""

    def run(*arguments: object) -> Ran:
        return run_nanosam("segment", *arguments, "--encoder", own_files[0], "--decoder", own_files[1])

    return run


def photo(path: str, width: int = 100, height: int = 80) -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)).save(path)


def read_json(path: str) -> Any:
    return json.loads(Path(path).read_text(encoding="utf-8"))


def kept_objects(png: str) -> Any:
    """What a PNG says of its objects."""
    with Image.open(png) as image:
        return json.loads(image.info["nanosam.objects"])


def prompt_file(entries: dict[str, Any]) -> str:
    Path("prompts.json").write_text(json.dumps(entries), encoding="utf-8")
    return "prompts.json"


# classes

BY_FORMAT: dict[str, Callable[[str], list[Any]]] = {
    "png": lambda out: [one["class"] for one in kept_objects(out)],
    "overlay": lambda out: [one["class"] for one in kept_objects(out)],
    "rle": lambda out: [one["class"] for one in read_json(out)["objects"]],
    "polygon": lambda out: [one["class"] for one in read_json(out)["objects"]],
    "coco": lambda out: [one["category_name"] for one in read_json(out)],
    "yolo": lambda out: [
        Path("classes.txt").read_text().split()[int(row.split()[0])] for row in Path(out).read_text().splitlines()
    ],
    "labelme": lambda out: [shape["label"] for shape in read_json(out)["shapes"]],
    "coco-dataset": lambda out: [
        {entry["id"]: entry["name"] for entry in read_json(out)["categories"]}[one["category_id"]]
        for one in read_json(out)["annotations"]
    ],
}


@pytest.mark.parametrize("kind", BY_FORMAT)
def test_labels_reach_every_format(segment: Run, kind: str) -> None:
    out = f"out{'.png' if kind in ('png', 'overlay') else '.txt' if kind == 'yolo' else '.json'}"
    ran = segment("a.jpg", *CAT, *DOG, "--label", "cat", "--label", "dog", "--format", kind, "-o", out)
    assert ran.code == 0, ran.err
    assert BY_FORMAT[kind](out) == ["cat", "dog"]


def test_one_label_is_that_of_all_objects(segment: Run) -> None:
    ran = segment("a.jpg", "--point", "20,20", "--point", "70,60", "--each-point", "--label", " cat ", "--json")
    assert [one["class"] for one in json.loads(ran.out)["objects"]] == ["cat", "cat"]


def test_labels_of_a_prompt_file_are_numbered_over_all_its_photos(segment: Run) -> None:
    for name in ("b.jpg", "c.jpg"):
        photo(name)
    box, other = [10, 20, 60, 50], [70, 60, 90, 75]
    prompts = prompt_file(
        {
            "a.jpg": {"boxes": [box, other], "labels": ["dog", "cat"]},
            "b.jpg": {"boxes": [box], "labels": ["cat"]},
            "c.jpg": {"boxes": [box]},
        }
    )
    ran = segment("a.jpg", "b.jpg", "c.jpg", "--prompts", prompts, "--format", "coco")
    assert "1 dog, 2 cat, 3 object" in ran.words
    rows = [(one["file_name"], one["category_id"], one["category_name"]) for one in read_json("coco.json")]
    assert rows == [("a.jpg", 1, "dog"), ("a.jpg", 2, "cat"), ("b.jpg", 2, "cat"), ("c.jpg", 3, "object")]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((*CAT, *DOG, *["--label", "cat"] * 3), "3 labels for 2 objects"),
        ((*CAT, "--label", " "), "a class needs a name of 1 to 200 printable characters"),
        ((*CAT, "--label", "two\nlines"), "printable characters, not 'two\\nlines'"),
        (("--everything", "--label", "cat"), "--label belongs to --box, --point and --mask"),
        (("--label", "cat"), "no prompt"),
    ],
)
def test_wrong_labels(segment: Run, arguments: tuple[str, ...], words: str) -> None:
    ran = segment("a.jpg", *arguments)
    assert (ran.code, words in ran.words) == (2, True), ran.err


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        ("cat", "a.jpg: labels must be a list"),
        (["cat", "dog"], "a.jpg: labels: 2 for 1 objects"),
        ([None], "a.jpg: labels: a class needs a name of 1 to 200 printable characters, not 'None'"),
        (["\ud800"], "printable characters, not '\\ud800'"),
    ],
)
def test_wrong_labels_of_a_prompt_file(segment: Run, labels: Any, words: str) -> None:
    prompts = prompt_file({"a.jpg": {"boxes": [[10, 20, 60, 50]], "labels": labels}})
    ran = segment("a.jpg", "--prompts", prompts)
    assert (ran.code, words in ran.words) == (1, True), ran.err


# remarks


def test_one_box_on_photos_of_several_sizes_is_remarked_on_once(segment: Run) -> None:
    photo("b.jpg")
    photo("c.jpg", 120, 90)
    photo("d.jpg", 130, 90)
    ran = segment("a.jpg", "b.jpg", "c.jpg", "d.jpg", *CAT)
    assert ran.code == 0
    assert ran.err.count("several sizes") == 1
    assert "a.jpg is 100x80, c.jpg is 120x90; --prompts FILE gives each photo its own" in ran.words


def test_one_box_on_photos_of_one_size_is_not_remarked_on(segment: Run) -> None:
    photo("b.jpg")
    Path("broken.jpg").write_bytes(b"\xff\xd8\xff")
    ran = segment("a.jpg", "b.jpg", "broken.jpg", *CAT)
    assert "several sizes" not in ran.err
    assert "broken.jpg is passed over" in ran.words


NOTES: dict[str, Callable[[], Any]] = {
    "rle": lambda: read_json("a_rle.json")["notes"],
    "polygon": lambda: read_json("a_polygon.json")["notes"],
    "labelme": lambda: read_json("a.json")["notes"],
    "coco-dataset": lambda: read_json("coco-dataset.json")["images"][0]["notes"],
    "coco": lambda: [f"{one['note']}: object {number}" for number, one in enumerate(read_json("coco.json"), 1)],
}


@pytest.mark.parametrize("kind", ["png", *NOTES])
def test_an_empty_mask_is_said(segment: Run, kind: str) -> None:
    ran = segment("a.jpg", *CAT, "--threshold", "1e9", "--format", kind, "--json")
    assert ran.code == 0
    assert "a.jpg: the mask is empty: object 1" in ran.words
    notes = json.loads(ran.out)["notes"]
    assert notes == ["the mask is empty: object 1"]
    if kind in NOTES:
        assert NOTES[kind]() == notes


def test_only_what_is_empty_is_said_to_be(segment: Run) -> None:
    assert segment("a.jpg", *CAT).err == ""
    ran = segment("a.jpg", *CAT, *CAT, *CAT, "--exclusive", "--force")
    assert "the mask is empty: objects 2, 3" in ran.words


# label PNGs


@pytest.mark.parametrize(("options", "mode"), [((), "P"), (("--grey",), "L")])
def test_label_pngs_have_colours_unless_they_are_to_be_grey(segment: Run, options: tuple[str, ...], mode: str) -> None:
    assert segment("a.jpg", *CAT, *DOG, *options).code == 0
    with Image.open("a_mask.png") as labels:
        assert labels.mode == mode
        assert np.unique(np.asarray(labels)).tolist() == [0, 1, 2]


def test_more_objects_than_labels_are_refused_before_they_are_segmented(
    segment: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(render, "MAX_LABELS", 1)
    monkeypatch.setattr(Predictor, "encode_image", None)
    ran = segment("a.jpg", *CAT, *DOG)
    assert (ran.code, "holds at most 1 objects, not 2" in ran.words) == (2, True)
    assert "--format rle, polygon, coco or coco-dataset hold any number" in ran.words


def test_grey_is_for_labels(segment: Run) -> None:
    ran = segment("a.jpg", *CAT, "--grey", "--format", "rle")
    assert (ran.code, "--format rle has no labels, so it takes no --grey" in ran.words) == (2, True)

"""Names of classes, in every reader of them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nanosam_cli.core.datasets.coco import read_annotations
from nanosam_cli.core.errors import InputError, UsageError
from nanosam_cli.core.names import class_name
from nanosam_cli.core.prompting.body_parts import read_parts
from nanosam_cli.core.prompting.class_names import read_class_names
from nanosam_cli.core.prompting.detection_files import read_detections
from nanosam_cli.core.prompting.labels import check_class_name
from nanosam_cli.core.prompting.prompt_files import read_prompts
from nanosam_cli.core.serving.label.label_file import LabelFile


@pytest.mark.parametrize(
    ("value", "name"),
    [
        ("cat", "cat"),
        ("  traffic light\t", "traffic light"),
        ("\u96fb\u3000\u67f1", "\u96fb\u3000\u67f1"),
        ("caf\u00e9\u00a0noir", "caf\u00e9\u00a0noir"),
        ("x" * 200, "x" * 200),
        (7, "7"),
        (10**9, "1000000000"),
    ],
)
def test_names(value: Any, name: str) -> None:
    assert class_name(value) == name


BAD: dict[str, Any] = {
    "nothing": None,
    "empty": "",
    "blank": " \t",
    "two lines": "cat\ndog",
    "a line of Mac OS 9": "cat\rdog",
    "a paragraph": "cat\u2029dog",
    "a next line": "cat\x85dog",
    "a command to the terminal": "\x1b[31mcat",
    "half a character": "cat\ud800",
    "too long": "x" * 201,
    "a share": 1.5,
    "yes": True,
    "a list": ["cat"],
    "an object": {"name": "cat"},
    "huge": 10**300,
}


@pytest.mark.parametrize("bad", BAD)
def test_what_is_no_name(bad: str) -> None:
    with pytest.raises(ValueError, match="a class needs a name of 1 to 200 printable characters, not "):
        class_name(BAD[bad])
    with pytest.raises(UsageError, match="a class needs a name"):
        check_class_name(BAD[bad])


IMAGE = {"id": 1, "file_name": "a.jpg", "height": 10, "width": 10}
BOX = {"id": 1, "image_id": 1, "category_id": 3, "bbox": [1, 2, 3, 4], "segmentation": [[1, 1, 5, 1, 5, 5]]}


def coco(name: Any) -> dict[str, Any]:
    return {"images": [IMAGE], "annotations": [BOX], "categories": [{"id": 3, "name": name}]}


def label_file(path: Path) -> LabelFile:
    return LabelFile(path, json.loads(path.read_bytes()), ["a.jpg"])


Reader = tuple[Callable[[Any], Any], Callable[[Path], object], str]

READERS: dict[str, Reader] = {
    "COCO boxes": (coco, read_detections, "file.json, category 3: name: "),
    "COCO masks": (coco, read_annotations, "file.json, category 3: name: "),
    "COCO to go on with": (coco, label_file, "file.json, category 3: name: "),
    "COCO for its classes": (coco, read_class_names, "file.json, category 3: name: "),
    "names by number": (lambda name: {"names": {"3": name}}, read_class_names, "file.json, "),
    "COCO results": (
        lambda name: [{"image_id": 1, "category_id": 3, "bbox": [1, 2, 3, 4], "category_name": name}],
        read_detections,
        "file.json, entry 1: 'category_name': ",
    ),
    "labelme": (
        lambda name: {"imagePath": "a.jpg", "shapes": [{"label": name, "points": [[1, 1], [5, 1], [5, 5]]}]},
        read_detections,
        "file.json is not a labelme file: shape 1: 'label': ",
    ),
    "prompt file": (
        lambda name: {"a.jpg": {"boxes": [[1, 2, 3, 4]], "labels": [name]}},
        read_prompts,
        "file.json, a.jpg: labels: ",
    ),
}


@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize("reader", READERS)
def test_every_reader_says_where_a_name_is_none(tmp_path: Path, reader: str, bad: str) -> None:
    content, read, where = READERS[reader]
    path = tmp_path / "file.json"
    path.write_text(json.dumps(content(BAD[bad])))
    if reader == "COCO results" and BAD[bad] is None:  # as if the key were left out
        return
    with pytest.raises(InputError, match=re.escape(where)) as caught:
        read(path)
    assert caught.value.hint
    assert len(str(caught.value)) < 300 + len(str(path))


@pytest.mark.parametrize("reader", READERS)
def test_every_reader_takes_the_blanks_away(tmp_path: Path, reader: str) -> None:
    content, read, _ = READERS[reader]
    path = tmp_path / "file.json"
    path.write_text(json.dumps(content(" cat ")))
    assert re.search(r"'cat'", repr(vars(read(path)) if reader.endswith("go on with") else read(path)))


@pytest.mark.parametrize(
    ("file", "data", "words"),
    [
        ("data.yaml", b'names: ["cat\\ndog"]', "data.yaml, class 0: name: a class needs a name"),
        ("data.yaml", b"names: {1000000000: ''}", "data.yaml, class 1000000000: name: a class needs a name"),
        ("data.yaml", b'names: ["\\ud800"]', "class 0: name"),
        ("classes.txt", b"cat\n\x1b[2Jdog\n", "classes.txt, class 1: name"),
        ("classes.json", b'["cat", "a\\u0000b"]', "classes.json, class 1: name"),
    ],
)
def test_files_of_names(tmp_path: Path, file: str, data: bytes, words: str) -> None:
    (tmp_path / file).write_bytes(data)
    with pytest.raises(InputError, match=re.escape(words)):
        read_class_names(tmp_path / file)


def test_class_numbers_of_thousands_of_millions_are_but_numbers(tmp_path: Path) -> None:
    path = tmp_path / "data.yaml"
    path.write_text("names: {1000000000: cat, 9223372036854775807: dog}")
    assert read_class_names(path) == {10**9: "cat", 2**63 - 1: "dog"}
    (tmp_path / "b.json").write_text(json.dumps([{"image_id": 1, "category_id": 10**9, "bbox": [1, 2, 3, 4]}]))
    assert read_detections(tmp_path / "b.json").classes == {10**9: "1000000000"}


def test_a_part_of_the_body_is_a_class(tmp_path: Path) -> None:
    path = tmp_path / "parts.toml"
    path.write_text('["a\\nb"]\nforeground = ["nose"]\n')
    with pytest.raises(InputError, match="a class needs a name of 1 to 200 printable characters"):
        read_parts(["a\nb"], path)


@pytest.mark.parametrize("key", ["images", "annotations", "categories"])
def test_an_id_that_leaves_none_for_what_is_new(tmp_path: Path, key: str) -> None:
    content = coco("cat")
    content[key] = [{**content[key][0], "id": 2**63 - 1}]
    if key == "images":
        content["annotations"] = [{**BOX, "image_id": 2**63 - 1}]
    with pytest.raises(InputError, match=r"c\.json has an id of 9223372032559808511 or more"):
        LabelFile(tmp_path / "c.json", content, ["a.jpg"])

"""YOLO's rows and labelme's shapes give the masks back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image, ImageDraw

from nanosam_cli.core.masks import Mask
from nanosam_cli.core.prompting.request import PromptLabel, Request
from nanosam_cli.core.segmentation.label_formats import class_names, data_yaml, labelme, yolo_segments
from nanosam_cli.core.segmentation.result import Found, PhotoResult
from nanosam_cli.core.timing import Stopwatch
from nanosam_cli.core.types import Segmentation

HW = 60, 90
RING = np.hypot(*np.ogrid[-30:30, -30:60]) < 20
RING &= ~(np.hypot(*np.ogrid[-30:30, -30:60]) < 8)
PARTS = np.zeros(HW, bool)
PARTS[5:20, 5:30] = PARTS[40:55, 50:80] = PARTS[10:20, 70:85] = True
EMPTY = np.zeros(HW, bool)
TAGS = [PromptLabel("ring", 7, 0.5), PromptLabel("parts", 3), PromptLabel("nothing", 7)]


def result(*masks: Mask) -> PhotoResult:
    found = [Found(Segmentation(mask, 0.5, np.zeros((256, 256), np.float32)), row) for row, mask in enumerate(masks)]
    request = Request(np.zeros((len(masks), 4), np.float32), tags=TAGS[: len(masks)])
    return PhotoResult(Path("photos/a.jpg"), np.zeros((*HW, 3), np.uint8), request, found, Stopwatch())


def filled(rings: list[list[float]]) -> Mask:
    """As the tools that read these files fill outlines: corners are pixels, and of the mask."""
    picture = Image.new("1", HW[::-1])
    for ring in rings:
        ImageDraw.Draw(picture).polygon([tuple(point) for point in np.reshape(ring, (-1, 2)).tolist()], fill=1)
    return np.asarray(picture)


def iou(one: Mask, other: Mask) -> float:
    return float((one & other).sum() / (one | other).sum())


def test_yolo_rows_are_the_masks() -> None:
    rows = yolo_segments(result(RING, PARTS, EMPTY), {3: "parts", 7: "ring"}).splitlines()
    assert [row.split()[0] for row in rows] == ["1", "0"]  # in the order of their category ids; nothing has no row
    for row, mask in zip(rows, (RING, PARTS)):
        shares = np.array(row.split()[1:], float).reshape(-1, 2)
        assert shares.min() >= 0
        assert shares.max() <= 1
        for whole in (np.trunc, np.round):  # ultralytics, supervision
            found = filled([whole(shares * HW[::-1]).ravel().tolist()])
            assert (found[mask]).all()
            assert iou(found, mask) > (0.95 if mask is PARTS else 0.999)  # a row's parts are joined by a line each


def test_the_parts_of_a_yolo_row_are_joined_by_the_shortest_lines() -> None:
    apart = np.zeros(HW, bool)
    apart[10:14, 10:14] = apart[10:14, 20:24] = apart[10:14, 30:34] = apart[50:54, 30:34] = True
    (row,) = yolo_segments(result(apart), {}).splitlines()
    found = filled([(np.array(row.split()[1:], float).reshape(-1, 2) * HW[::-1]).ravel().tolist()])
    assert found[apart].all()
    assert (found & ~apart).sum() == 6 + 6 + 36  # the pixels between neighbours


def test_shapes_of_all_sizes_are_what_they_were() -> None:
    """Down to a pixel; where outlines ran along the borders of the pixels, the smallest grew fourfold."""
    for side in (1, 2, 5, 20):
        small = np.zeros(HW, bool)
        small[7 : 7 + side, 9 : 9 + side] = True
        (shape,) = labelme(result(small), "a.jpg")["shapes"]
        assert len(shape["points"]) == 4
        np.testing.assert_array_equal(filled([np.ravel(shape["points"]).tolist()]), small)


@pytest.mark.parametrize(
    ("classes", "folders", "content"),
    [
        ({}, ["."], {"train": ".", "val": ".", "names": {0: "object"}}),
        ({7: "no", 3: 'Ä: "b"'}, ["a", "b"], {"train": ["a", "b"], "val": ["a", "b"], "names": {0: 'Ä: "b"', 1: "no"}}),
    ],
)
def test_data_yaml(classes: dict[int, str], folders: list[str], content: dict[str, object]) -> None:
    assert yaml.safe_load(data_yaml(classes, folders)) == content


def test_labelme_shapes_are_the_masks() -> None:
    content = labelme(result(RING, PARTS, EMPTY), "photos/a.jpg")
    assert (content["imagePath"], content["imageHeight"], content["imageWidth"]) == ("photos/a.jpg", *HW)
    assert [(shape["label"], shape["group_id"]) for shape in content["shapes"]] == [("ring", 1), *[("parts", 2)] * 3]
    assert content["shapes"][0]["description"] == "score 0.500"
    for number, mask in ((1, RING), (2, PARTS)):
        rings = [np.ravel(s["points"]).tolist() for s in content["shapes"] if s["group_id"] == number]
        np.testing.assert_array_equal(filled(rings), mask)


def test_simplified() -> None:
    """Both formats give nearly the same masks with a fraction of the corners."""
    exact, simple = (yolo_segments(result(RING), {}, pixels).split()[1:] for pixels in (0.0, 1.0))
    assert len(simple) < len(exact) / 2
    from_yolo = (np.array(simple, float).reshape(-1, 2) * HW[::-1]).ravel()
    (shape,) = labelme(result(RING), "photos/a.jpg", 1.0)["shapes"]
    assert len(shape["points"]) == len(simple) / 2
    for ring in (from_yolo, np.ravel(shape["points"])):
        found = filled([ring.tolist()])
        assert (found & RING).sum() / (found | RING).sum() > 0.9


@pytest.mark.parametrize(("classes", "text"), [({7: "b", 3: "a"}, "a\nb\n"), ({}, "object\n"), ({0: "zero"}, "zero\n")])
def test_class_names(classes: dict[int, str], text: str) -> None:
    assert class_names(classes) == text

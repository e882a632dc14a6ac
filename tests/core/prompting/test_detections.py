"""Which boxes become prompts."""

from __future__ import annotations

import numpy as np
import pytest

from nanosam_cli.core.errors import UsageError
from nanosam_cli.core.prompting.detections import (
    BoxFilter,
    Detection,
    PhotoDetections,
    box_ious,
    boxes_request,
    known_classes,
)

HW = 80, 100
BLANK = np.zeros((*HW, 3), np.uint8)


def boxes(*rows: Detection, choice: BoxFilter | None = None) -> list[list[float]]:
    found = boxes_request(rows, HW, choice or BoxFilter()).boxes
    assert found is not None
    assert found.dtype == np.float32
    return [[float(side) for side in box] for box in found]


@pytest.mark.parametrize(
    ("box", "relative", "wanted"),
    [
        ((10, 20, 30, 40), False, [10, 20, 30, 40]),
        ((0.1, 0.25, 0.5, 0.5), True, [10, 20, 50, 40]),  # of the width and of the height
        ((-5, 70, 20, 90), False, [0, 70, 20, 80]),
        ((-0.1, 0.5, 1.1, 1.5), True, [0, 40, 100, 80]),
        ((0, 0, 100, 80), False, [0, 0, 100, 80]),
    ],
)
def test_boxes_in_pixels_of_the_photo(box: tuple[float, ...], relative: bool, wanted: list[float]) -> None:
    (found,) = boxes(Detection(box, relative=relative))  # type: ignore[arg-type]
    assert found == pytest.approx(wanted, abs=1e-4)


@pytest.mark.parametrize(
    ("box", "note"),
    [
        ((10, 10, 10, 20), "1 of 2 boxes dropped: without area"),
        ((30, 10, 10, 20), "1 of 2 boxes dropped: without area"),
        ((100, 10, 120, 20), "1 of 2 boxes dropped: outside the photo"),
        ((10, -20, 20, 0), "1 of 2 boxes dropped: outside the photo"),
        ((90, 10, 120, 20), "1 of 2 boxes clipped to the photo"),
    ],
)
def test_faulty_boxes_are_counted(box: tuple[float, ...], note: str) -> None:
    request = boxes_request([Detection(box), Detection((1, 1, 9, 9))], HW, BoxFilter())  # type: ignore[arg-type]
    assert list(request.notes) == [note]
    assert len(request.tags) == (2 if "clipped" in note else 1)


CAT, DOG = (Detection((10, 10, 50, 50), number, name) for number, name in ((1, "cat"), (2, "dog")))


def scored(detection: Detection, score: float, shift: float = 0) -> Detection:
    x0, y0, x1, y1 = detection.box
    return Detection((x0 + shift, y0, x1 + shift, y1), detection.category_id, detection.name, score)


MANY = [scored(CAT, 0.5), scored(CAT, 0.9, 5), scored(DOG, 0.7), scored(CAT, 0.2, 30), CAT]


@pytest.mark.parametrize(
    ("choice", "rows"),
    [
        (BoxFilter(), [0, 1, 2, 3, 4]),
        (BoxFilter(min_score=0.5), [0, 1, 2, 4]),  # what has no score is kept
        (BoxFilter(classes=["dog"]), [2]),
        (BoxFilter(classes=["2", "cat"]), [0, 1, 2, 3, 4]),
        (BoxFilter(top_k=2), [1, 4]),
        (BoxFilter(nms=0.5), [2, 3, 4]),  # the dog lies on the cats, which are another class
        (BoxFilter(nms=1.0), [0, 1, 2, 3, 4]),
        (BoxFilter(min_score=0.6, classes=["cat"], nms=0.5, top_k=1), [4]),
        (BoxFilter(min_score=0.95, classes=["dog"]), []),
    ],
)
def test_choice(choice: BoxFilter, rows: list[int]) -> None:
    request = PhotoDetections(MANY, choice, ["1 crowds left out"]).request_for(BLANK)
    assert [(tag.name, tag.score) for tag in request.tags] == [(MANY[row].name, MANY[row].score) for row in rows]
    assert request.boxes is not None
    assert request.boxes.shape == (len(rows), 4)
    assert list(request.notes) == ["1 crowds left out"] + ([] if rows else ["no box is left of 5"])


@pytest.mark.parametrize("fields", [{"nms": 1.5}, {"nms": -0.1}, {"top_k": 0}])
def test_choices_that_make_no_sense(fields: dict[str, float]) -> None:
    with pytest.raises(UsageError):
        BoxFilter(**fields)  # type: ignore[arg-type]


def test_overlap_of_boxes() -> None:
    others = np.array([[0, 0, 10, 10], [5, 0, 15, 10], [10, 0, 20, 10], [0, 0, 5, 5]], float)
    assert box_ious(others[0], others) == pytest.approx([1, 1 / 3, 0, 0.25])


@pytest.mark.parametrize(
    ("wanted", "hint"),
    [("dgo", "did you mean dog?"), ("7", "known are cat, dog"), ("zebra", "known are cat, dog")],
)
def test_unknown_classes(wanted: str, hint: str) -> None:
    assert known_classes(["cat", "2"], {1: "cat", 2: "dog"}) == ["cat", "2"]
    with pytest.raises(UsageError, match=f"unknown class: {wanted}") as caught:
        known_classes([wanted], {1: "cat", 2: "dog"})
    assert caught.value.hint == hint

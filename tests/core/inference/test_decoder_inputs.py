from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from nanosam_cli.core.errors import InputError, UsageError
from nanosam_cli.core.frame import Frame
from nanosam_cli.core.inference.decoder_inputs import check_prompt, decoder_points, mask_to_logits
from nanosam_cli.core.types import Prompt

PHOTO = (427, 640)
GOOD = [10, 20, 300, 400]


@pytest.mark.parametrize(
    ("box", "message"),
    [
        ([300, 20, 10, 400], r"object 2: box 300,20,10,400 is empty or inverted; the photo is 640x427 pixels"),
        ([10, 400, 300, 20], r"object 2: box 10,400,300,20 is empty or inverted"),
        ([10, 20, 10, 400], r"object 2: box 10,20,10,400 is empty or inverted"),
        ([10, 20, 300, 20], r"object 2: box 10,20,300,20 is empty or inverted"),
        ([640, 20, 700, 400], r"object 2: box 640,20,700,400 lies outside the photo; the photo is 640x427 pixels"),
        ([10, 427, 300, 500], r"object 2: box 10,427,300,500 lies outside"),
        ([-50, 20, 0, 400], r"object 2: box -50,20,0,400 lies outside"),
        ([10, -9.5, 300, -1], r"object 2: box 10,-9.5,300,-1 lies outside"),
    ],
)
def test_bad_boxes(box: list[float], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        check_prompt(Prompt.from_boxes([GOOD, box]), PHOTO)


@pytest.mark.parametrize(
    ("box", "clipped"),
    [
        (GOOD, GOOD),
        ([0, 0, 640, 427], [0, 0, 640, 427]),
        ([-5, -7, 650, 500], [0, 0, 640, 427]),
        ([639.5, 426.5, 800, 800], [639.5, 426.5, 640, 427]),
    ],
)
def test_boxes_are_clipped_to_the_photo(box: list[float], clipped: list[float]) -> None:
    given = Prompt.from_boxes([box])
    assert np.array_equal(check_prompt(given, PHOTO).boxes, [clipped])  # type: ignore[arg-type]
    assert np.array_equal(given.boxes, [box])  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("points", "labels", "message"),
    [
        ([[640, 5]], [1], r"object 1: point 640,5 lies outside the photo; the photo is 640x427 pixels"),
        ([[5, 427]], [0], r"object 1: point 5,427 lies outside"),
        ([[3, 3], [-0.5, 5]], [1, 1], r"object 1: point -0.5,5 lies outside"),
        ([[5, -1]], [1], r"object 1: point 5,-1 lies outside"),
        ([[5, 5]], [2], r"object 1: point label 2 is unknown"),
        ([[5, 5], [6, 6]], [1, 0.5], r"object 1: point label 0.5 is unknown"),
        ([[5, 5]], [-1], r"object 1 has no prompt"),
    ],
)
def test_bad_points(points: Any, labels: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        check_prompt(Prompt.from_points(points, labels), PHOTO)


def test_the_object_is_named_among_several() -> None:
    points = np.full((3, 2, 2), 5, np.float32)
    labels = np.ones((3, 2), np.float32)
    points[2, 1] = [700, 6]
    with pytest.raises(UsageError, match="object 3: point 700,6"):
        check_prompt(Prompt(points=points, labels=labels), PHOTO)
    labels[2, 1] = -1  # padding may lie anywhere
    assert len(check_prompt(Prompt(points=points, labels=labels), PHOTO)) == 3
    labels[1] = -1
    with pytest.raises(UsageError, match="object 2 has no prompt"):
        check_prompt(Prompt(points=points, labels=labels), PHOTO)
    assert len(check_prompt(Prompt(np.array([GOOD] * 3, np.float32), points, labels), PHOTO)) == 3


WINDOW = (100, 50, 300, 250)


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        (
            Prompt.from_boxes([[10, 60, 100, 90]]),
            "box 10,60,100,90 lies outside the window; the window is 100,50,300,250",
        ),
        (Prompt.from_points([[99, 60]]), "point 99,60 lies outside the window; the window is 100,50,300,250"),
        (Prompt.from_points([[300, 60]]), "point 300,60 lies outside the window"),
    ],
)
def test_what_a_window_does_not_show_is_refused(prompt: Prompt, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        check_prompt(prompt, PHOTO, WINDOW)


def test_boxes_are_clipped_to_the_window() -> None:
    boxes = check_prompt(Prompt.from_boxes([[10, 60, 400, 90]]), PHOTO, WINDOW).boxes
    assert boxes is not None
    assert boxes.tolist() == [[100, 60, 300, 90]]


@pytest.mark.parametrize("point", [[0, 0], [639, 426], [639.9, 426.9]])
def test_points_on_the_rim(point: list[float]) -> None:
    assert len(check_prompt(Prompt.from_points([point]), PHOTO)) == 1


BOXES = np.array([[0, 0, 64, 64], [64, 0, 128, 64]], np.float32)
POINTS = np.array([[[10, 20], [30, 40]], [[50, 60], [9, 9]]], np.float32)
LABELS = np.array([[1, 0], [1, -1]], np.float32)
MASKS = np.zeros((2, 256, 256), np.float32)


@pytest.mark.parametrize(
    ("prompt", "count", "coords", "labels"),
    [
        # a 128x128 photo: the frame is 8 times as large
        (Prompt(boxes=BOXES), None, [[[0, 0], [512, 512]], [[512, 0], [1024, 512]]], [[2, 3], [2, 3]]),
        (
            Prompt(points=POINTS, labels=LABELS),
            None,
            [[[80, 160], [240, 320], [0, 0]], [[400, 480], [0, 0], [0, 0]]],
            [[1, 0, -1], [1, -1, -1]],
        ),
        (
            Prompt(boxes=BOXES, points=POINTS, labels=LABELS),
            None,
            [[[80, 160], [240, 320], [0, 0], [512, 512]], [[400, 480], [0, 0], [512, 0], [1024, 512]]],
            [[1, 0, 2, 3], [1, -1, 2, 3]],
        ),
        # of a slice only the columns that are used, so that a single prompt meets the decoder just as alone
        (Prompt(points=POINTS, labels=LABELS)[1:], None, [[[400, 480], [0, 0]]], [[1, -1]]),
        (Prompt(mask_logits=MASKS), None, [[[0, 0]], [[0, 0]]], [[-1], [-1]]),
        (Prompt(mask_logits=MASKS, boxes=BOXES)[:1], None, [[[0, 0], [512, 512]]], [[2, 3]]),
        (Prompt(boxes=BOXES)[:1], 4, [[[0, 0], [512, 512], [0, 0], [0, 0]]], [[2, 3, -1, -1]]),
        (Prompt(points=POINTS, labels=LABELS)[:1], 3, [[[80, 160], [240, 320], [0, 0]]], [[1, 0, -1]]),
    ],
)
def test_decoder_points(prompt: Prompt, count: int | None, coords: Any, labels: Any) -> None:
    found_coords, found_labels = decoder_points(prompt, Frame((128, 128), 512), count)
    assert found_coords.dtype == found_labels.dtype == np.float32
    assert found_coords.tolist() == coords
    assert found_labels.tolist() == labels


def test_more_points_than_the_decoder_takes() -> None:
    with pytest.raises(UsageError, match=r"takes 2 points an object \(a box counts as two\), not 4"):
        decoder_points(Prompt(boxes=BOXES, points=POINTS, labels=LABELS), Frame((128, 128), 512), 2)


@pytest.mark.parametrize("original_hw", [(427, 640), (640, 427), (100, 130)])
def test_mask_to_logits_and_back(original_hw: tuple[int, int]) -> None:
    height, width = original_hw
    frame = Frame(original_hw, 512)
    mask = np.zeros(original_hw, np.bool_)
    mask[height // 4 : height // 2, width // 3 : width - 10] = True
    logits = mask_to_logits(mask, frame)
    assert logits.shape == (256, 256)
    assert logits.dtype == np.float32
    assert np.isclose(logits.max(), 6.9068, atol=1e-3)
    assert np.isclose(logits.min(), -6.9068, atol=1e-3)
    assert (logits[-1] if width > height else logits[:, -1]).max() < -6.9  # padding is background
    back = frame.masks_to_original(logits) > 0
    assert np.count_nonzero(mask & back) / np.count_nonzero(mask | back) > 0.97


def test_a_mask_smaller_than_a_cell_is_not_lost() -> None:
    mask = np.zeros((3000, 4000), np.bool_)
    mask[1000:1003, 2000:2003] = True  # a cell is 16x16 pixels
    logits = mask_to_logits(mask, Frame(mask.shape, 512))
    assert np.argwhere(logits > 6).tolist() == [[64, 128]]


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (np.ones((640, 427), np.bool_), "the mask is 427x640 pixels, the photo 640x427"),
        (np.ones((427, 640, 1), np.bool_), "the mask is 1x640x427 pixels"),
        (np.ones((427, 640), np.uint8), "must be bool, not uint8"),
        (np.zeros((427, 640), np.bool_), "the mask is empty"),
    ],
)
def test_bad_masks(mask: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        mask_to_logits(mask, Frame(PHOTO, 512))

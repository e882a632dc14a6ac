"""Overlapping masks, each pixel to one."""

from __future__ import annotations

import numpy as np
import pytest

from nanosam_cli.core.prompting.request import PromptLabel, Request
from nanosam_cli.core.segmentation.result import Found, score, without_overlap
from nanosam_cli.core.types import Segmentation


def found(row: int, columns: slice, iou: float) -> Found:
    mask = np.zeros((4, 12), bool)
    mask[:, columns] = True
    return Found(Segmentation(mask, iou, np.zeros((256, 256), np.float32)), row)


@pytest.mark.parametrize(
    ("scores", "areas"),
    [
        ([None, None, None], [16, 12, 8]),  # by predicted IoU 0.4, 0.9, 0.6: the middle one keeps all of its own
        ([0.9, 0.1, 0.5], [24, 0, 12]),
        ([0.1, 0.2, 0.9], [16, 4, 16]),
        ([0.5, 0.5, 0.5], [24, 4, 8]),  # the first of equals
    ],
)
def test_the_best_has_the_pixel(scores: list[float | None], areas: list[int]) -> None:
    objects = [found(0, slice(0, 6), 0.4), found(1, slice(4, 7), 0.9), found(2, slice(5, 9), 0.6)]
    request = Request(tags=[PromptLabel(score=one) for one in scores])
    kept = without_overlap(objects, request)
    assert [one.segmentation.area for one in kept] == areas
    masks = np.stack([one.segmentation.mask for one in kept])
    assert masks.sum(0).max() == 1
    np.testing.assert_array_equal(masks.any(0), np.stack([one.segmentation.mask for one in objects]).any(0))
    assert [one.prompt for one in kept] == [0, 1, 2]


def test_scores() -> None:
    assert without_overlap([], Request()) == []
    assert score(found(0, slice(0, 1), 0.4), Request()) == 0.4
    assert score(found(0, slice(0, 1), 0.4), Request(tags=[PromptLabel(score=0.0)])) == 0.0

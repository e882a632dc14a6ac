"""Masks without a prompt, on a decoder that draws two squares around each click: 48 and 16 frame pixels wide."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nanosam_cli.core.errors import UsageError
from nanosam_cli.core.inference.predictor import Predictor
from nanosam_cli.core.inference.session import open_session
from nanosam_cli.core.media.mask_codes import mask_to_rle, rle_ious
from nanosam_cli.core.segmentation.everything import Everything, crops, distinct, segment_everything, stability
from tests.fake_models import Recorder

IMAGE = np.full((480, 640, 3), 110, np.uint8)  # near the mean, so that the predicted IoU is that of `IOUS`
ALL = {"min_iou": 0.0, "min_stability": 0.0}


@pytest.fixture
def predictor(own_files: tuple[Path, Path]) -> Iterator[Predictor]:
    encoder, decoder = (Recorder(open_session(path)) for path in own_files)
    with Predictor(encoder, decoder) as opened:  # type: ignore[arg-type]
        yield opened


def calls(predictor: Predictor) -> list[int]:
    """How many clicks each decoder call had."""
    return [len(call["point_coords"]) for call in predictor.decoder.calls]  # type: ignore[attr-defined]


def test_a_grid_of_clicks(predictor: Predictor) -> None:
    request, masks = segment_everything(predictor, IMAGE, Everything(grid=4, **ALL))
    assert request.points is not None
    places = {(float(x), float(y)) for x, y in request.points[:, 0]}
    assert places == {(80 + 160 * column, 60 + 120 * row) for column in range(4) for row in range(4)}
    assert len(masks) == 2 * 16  # both squares of each
    assert calls(predictor) == [16]
    for (x, y), mask in zip(request.points[:, 0], masks):
        assert mask.mask[int(y), int(x)]
        assert mask.mask.shape == (480, 640)
    scores = [mask.predicted_iou for mask in masks]
    assert scores == sorted(scores, reverse=True)
    assert {mask.index for mask in masks} == {1, 2}  # of four masks the first is for clear prompts


@pytest.mark.parametrize(
    ("fields", "count"),
    [
        ({}, 32),
        ({"min_iou": 0.8}, 16),  # the small square has 0.9, the large one 0.7
        ({"min_iou": 1.0}, 0),
        ({"min_stability": 1.0}, 32),  # the squares' edges are steep
        ({"min_area": 400}, 16),
        ({"max_overlap": 0.05}, 16),  # the large one lies around the small one, which is better
    ],
)
def test_filters(predictor: Predictor, fields: dict[str, Any], count: int) -> None:
    request, masks = segment_everything(predictor, IMAGE, Everything(grid=4, **{**ALL, **fields}))
    assert len(masks) == count
    assert list(request.notes) == ([] if count else ["nothing was found that is sure enough"])


@pytest.mark.parametrize(("grid", "batch"), [(4, 64), (4, 5), (4, 1), (9, 64)])
def test_batches_change_nothing(predictor: Predictor, grid: int, batch: int) -> None:
    _, masks = segment_everything(predictor, IMAGE, Everything(grid=grid, batch=batch, **ALL))
    seen = calls(predictor)
    assert len(seen) == math.ceil(grid * grid / batch)
    assert max(seen) == min(batch, grid * grid)
    _, naive = segment_everything(predictor, IMAGE, Everything(grid=grid, batch=1, **ALL))
    assert len(masks) == len(naive)
    for one, other in zip(masks, naive):
        np.testing.assert_array_equal(one.mask, other.mask)


def test_doubles_are_left_out(predictor: Predictor) -> None:
    """A dense grid clicks on one thing many times: the small squares lie in the large ones, and these on each other."""
    _, dense = segment_everything(predictor, IMAGE, Everything(grid=16, max_overlap=0.1, **ALL))
    ious = rle_ious([mask_to_rle(one.mask) for one in dense])
    assert ious[~np.eye(len(ious), dtype=bool)].max() < 0.2  # as measured in full resolution
    assert 16 < len(dense) < 2 * 16**2


def test_crops_find_what_is_small(predictor: Predictor) -> None:
    """A square of 48 frame pixels is a quarter as large in a crop of half the sides."""
    _, whole = segment_everything(predictor, IMAGE, Everything(grid=4, min_iou=0.6, min_stability=0.7))
    _, closer = segment_everything(predictor, IMAGE, Everything(grid=4, crop_layers=1, min_iou=0.6, min_stability=0.7))
    assert len(predictor.encoder.calls) == 1 + 1 + 4  # type: ignore[attr-defined]
    assert len(closer) > len(whole)
    assert min(one.area for one in closer) < min(one.area for one in whole)
    for one in closer:  # usable as the next prompt, whatever crop it is of
        assert one.low_res_logits.shape == (256, 256)
        again = predictor.encode_image(IMAGE).frame.mask_to_original(one.low_res_logits, 0)
        assert np.count_nonzero(again & one.mask) / np.count_nonzero(again | one.mask) > 0.5


@pytest.mark.parametrize(
    ("edge", "share"),
    [
        ([5, 5, -5, -5], 1.0),
        ([5, 0.5, -0.5, -5], 1 / 3),  # between -1 and 1 it could be anything
        ([0.5, 0.2, -5, -5], 0.0),
        ([-5, -5, -5, -5], 0.0),
    ],
)
def test_stability(edge: list[float], share: float) -> None:
    assert stability(np.array([edge], np.float32)) == share


@pytest.mark.parametrize(
    ("original_hw", "layer", "count"), [((480, 640), 0, 1), ((480, 640), 1, 4), ((480, 640), 2, 16), ((3, 2), 2, 6)]
)
def test_crops_cover_the_photo(original_hw: tuple[int, int], layer: int, count: int) -> None:
    found = crops(original_hw, layer)
    covered = np.zeros(original_hw, int)
    for x0, y0, x1, y1 in found:
        assert 0 <= x0 < x1 <= original_hw[1]
        assert 0 <= y0 < y1 <= original_hw[0]
        covered[y0:y1, x0:x1] += 1
    assert covered.min() >= 1
    assert len(found) <= count
    if layer == 1 and original_hw == (480, 640):
        assert covered.max() == 4  # neighbours overlap in the middle


def test_of_doubles_the_best_stays() -> None:
    masks = np.zeros((4, 8, 8), bool)
    masks[0, :4] = masks[1, :5] = masks[2, 5:] = masks[3, 3:5] = True
    rles = [mask_to_rle(mask) for mask in masks]
    assert distinct(rles, [0.5, 0.6, 0.4, 0.3], 0.7) == [1, 2, 3]
    assert distinct(rles, [0.6, 0.5, 0.4, 0.3], 0.7) == [0, 2, 3]
    assert distinct(rles, [0.6, 0.5, 0.4, 0.3], 0.9) == [0, 1, 2, 3]
    assert distinct([], [], 0.5) == []


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"min_iou": 1.5}, "--min-iou is from 0 to 1"),
        ({"min_stability": -1}, "--min-stability is from 0 to 1"),
        ({"max_overlap": 2}, "--nms is from 0 to 1"),
        ({"batch": 0}, "--batch is from 1 to 64"),
        ({"batch": 65}, "--batch is from 1 to 64"),
        ({"grid": 0}, "--grid is from 1"),
        ({"crop_layers": 9}, "--crops from 0 to 4"),
    ],
)
def test_numbers_that_make_no_sense(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        Everything(**fields)

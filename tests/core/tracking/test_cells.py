"""Geometry between boxes, cells and low-resolution masks; what one kernel regression knows."""

from __future__ import annotations

import numpy as np
import pytest

from nanosam_cli.core.frame import Frame
from nanosam_cli.core.tracking.appearance import KernelRegression, balanced, random_frequencies
from nanosam_cli.core.tracking.cells import (
    CellSpace,
    box_iou,
    connected_part,
    grid_hw,
    join_cells,
    mask_box,
    places_in,
    split_cells,
    widened,
    window_around,
)
from nanosam_cli.core.types import ImageEmbedding


@pytest.mark.parametrize(
    ("original_hw", "cells"),
    [((480, 640), (48, 64)), ((427, 640), (43, 64)), ((640, 1), (64, 1)), ((64, 64), (64, 64))],
)
def test_only_cells_of_the_picture_count(original_hw: tuple[int, int], cells: tuple[int, int]) -> None:
    assert grid_hw(Frame(original_hw, 512)) == cells


def test_space() -> None:
    """Cells of the first frame are 1 apart on average; boxes go there and back."""
    features = (
        np.random.default_rng(0).normal(5, [[[1.0]]] * 3 + [[[100.0]]] * 253, (1, 256, 64, 64)).astype(np.float32)
    )
    embedding = ImageEmbedding(features, Frame((427, 641), 512))
    space = CellSpace.of(embedding, 256)
    cells = space.project(embedding).reshape(-1, 256)
    some = np.random.default_rng(1).permutation(len(cells))
    apart = np.linalg.norm(cells - cells[some], axis=1)
    assert np.sqrt((apart**2).mean()) == pytest.approx(1, abs=0.02)
    boxes = np.array([[10.0, 20, 300, 400], [0, 0, 641, 427]])
    np.testing.assert_allclose(space.to_pixels(space.to_cells(boxes)), boxes, atol=1e-3)
    assert space.to_cells(boxes)[1, 2] == pytest.approx(64)


def test_split_and_join() -> None:
    low_res = np.arange(256 * 256, dtype=np.float32).reshape(256, 256)
    window = slice(3, 10), slice(20, 64)
    joined = join_cells(split_cells(low_res)[window], window, -1)
    np.testing.assert_array_equal(joined[12:40, 80:], low_res[12:40, 80:])
    assert (joined[:12] == -1).all()
    np.testing.assert_array_equal(split_cells(low_res)[2, 5].reshape(4, 4), low_res[8:12, 20:24])


@pytest.mark.parametrize(
    ("box", "size", "rows", "columns"),
    [
        ((10, 20, 14, 30), 1.0, slice(18, 32), slice(8, 16)),
        ((10, 20, 14, 30), 2.0, slice(13, 37), slice(6, 18)),
        ((60, 44, 70, 60), 1.0, slice(42, 48), slice(58, 64)),
        ((90, 90, 99, 99), 1.0, slice(47, 48), slice(63, 64)),
        ((-30, -30, -20, -20), 1.0, slice(0, 1), slice(0, 1)),
    ],
)
def test_windows(box: tuple[float, ...], size: float, rows: slice, columns: slice) -> None:
    assert window_around(np.array(box, float), (48, 64), size) == (rows, columns)


def test_places() -> None:
    places = places_in(np.array([2.0, 1, 4, 5]), (slice(1, 5), slice(2, 4)))
    np.testing.assert_allclose(places[0], [-0.5, -0.75])
    np.testing.assert_allclose(places[-1], [0.5, 0.75])


def test_masks() -> None:
    mask = np.zeros((256, 256), bool)
    assert mask_box(mask) is None
    mask[40:80, 100:140] = mask[200:208, 100:140] = True
    np.testing.assert_array_equal(mask_box(mask), [25, 10, 35, 52])
    kept = connected_part(mask, np.array([25.0, 10, 35, 20]))
    assert kept.sum() == 1600
    assert kept[40:80, 100:140].all()
    assert box_iou(np.array([0.0, 0, 2, 2]), np.array([1.0, 0, 3, 2])) == pytest.approx(1 / 3)
    assert box_iou(np.zeros(4), np.zeros(4)) == 0


def test_widened() -> None:
    cells = np.zeros((5, 8), bool)
    cells[2, 3] = True
    grown = widened(cells, 1)
    assert grown[1:4, 2:5].all()
    assert grown.sum() == 9
    np.testing.assert_array_equal(widened(cells, 0), cells)


def test_regression_knows_what_it_learnt_and_nothing_else() -> None:
    random = np.random.default_rng(0)
    model = KernelRegression(random_frequencies(np.full(8, 0.5), 512, 1), first=0.5, decay=0.9, ridge=1e-3)
    one, other, new = (random.normal(centre, 0.05, (50, 8)) for centre in (0.0, 0.6, -0.9))
    shares = np.repeat([1.0, 0.0], 50)
    weights = balanced(shares, 0.3)
    assert weights[:50].sum() == pytest.approx(0.3, abs=1e-6)
    assert weights.sum() == pytest.approx(1, abs=1e-6)
    model.learn(np.concatenate([one, other]), shares[:, None], weights)
    assert model.predict(one).mean() == pytest.approx(1, abs=0.1)
    assert abs(model.predict(other).mean()) < 0.1
    assert abs(model.predict(new).mean()) < 0.25  # what was never seen is background
    for _ in range(30):
        model.learn(new, np.ones((50, 1)), np.full(50, 0.02))
    assert model.predict(new).mean() > 0.8
    assert model.predict(one).mean() > 0.8  # the first sample is not forgotten

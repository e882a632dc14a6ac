"""J and F against a second implementation that counts pixel by pixel."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest

from nanosam_cli.core.errors import InputError
from nanosam_cli.core.evaluation.davis_measures import (
    boundary,
    boundary_accuracy,
    dilate_disk,
    region_similarity,
    scored_frames,
)
from nanosam_cli.core.masks import Mask


def disc(x: float, y: float, radius: float, hw: tuple[int, int] = (60, 80)) -> Mask:
    rows, columns = np.mgrid[: hw[0], : hw[1]]
    return np.asarray((columns - x) ** 2 + (rows - y) ** 2 <= radius**2)


def edge_pixels(mask: Mask) -> set[tuple[int, int]]:
    """The definition, pixel by pixel: `seg2bmap` of the toolkit."""
    height, width = mask.shape
    found = set()
    for y, x in product(range(height), range(width)):
        right, below = min(x + 1, width - 1), min(y + 1, height - 1)
        if any(mask[y, x] != mask[other] for other in ((y, right), (below, x), (below, right))):
            found.add((y, x))
    return found


def f_by_distance(found: Mask, truth: Mask) -> float:
    reach = math.ceil(0.008 * math.sqrt(found.shape[0] ** 2 + found.shape[1] ** 2))
    edges, wanted = edge_pixels(found), edge_pixels(truth)

    def matched(these: set[tuple[int, int]], those: set[tuple[int, int]]) -> float:
        near = [any((y - v) ** 2 + (x - u) ** 2 <= reach**2 for v, u in those) for y, x in these]
        return sum(near) / len(near) if near else 1.0

    precision, recall = matched(edges, wanted), matched(wanted, edges)
    if not edges and wanted:
        precision, recall = 1.0, 0.0
    if edges and not wanted:
        precision, recall = 0.0, 1.0
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def j_by_sets(found: Mask, truth: Mask) -> float:
    a, b = set(zip(*np.nonzero(found))), set(zip(*np.nonzero(truth)))
    return len(a & b) / len(a | b) if a | b else 1.0


NOTHING, ALL = np.zeros((60, 80), bool), np.ones((60, 80), bool)
NOISE = np.random.default_rng(0).random((2, 60, 80)) < 0.3
PAIRS = {
    "same": (disc(40, 30, 15), disc(40, 30, 15)),
    "shifted": (disc(40, 30, 15), disc(43, 31, 15)),
    "larger": (disc(40, 30, 19), disc(40, 30, 15)),
    "apart": (disc(15, 15, 8), disc(60, 45, 8)),
    "at the rim": (disc(0, 59, 20), disc(79, 59, 20)),
    "cut by the rim": (disc(75, 5, 20), disc(78, 3, 21)),
    "one pixel": (disc(40, 30, 0), disc(41, 31, 0)),
    "nothing found": (NOTHING, disc(40, 30, 15)),
    "nothing there": (disc(40, 30, 15), NOTHING),
    "both empty": (NOTHING, NOTHING),
    "everything": (ALL, disc(40, 30, 15)),
    "both everything": (ALL, ALL),
    "noise": (NOISE[0], NOISE[1]),
    "large picture": (disc(100, 70, 50, (140, 260)), disc(106, 73, 52, (140, 260))),
}


@pytest.mark.parametrize(("found", "truth"), PAIRS.values(), ids=PAIRS)
def test_against_counting(found: Mask, truth: Mask) -> None:
    assert region_similarity(found, truth) == pytest.approx(j_by_sets(found, truth), abs=1e-12)
    assert boundary_accuracy(found, truth) == pytest.approx(f_by_distance(found, truth), abs=1e-12)


@pytest.mark.parametrize(("found", "truth"), PAIRS.values(), ids=PAIRS)
def test_boundary(found: Mask, truth: Mask) -> None:
    for mask in (found, truth):
        assert set(zip(*np.nonzero(boundary(mask)))) == edge_pixels(mask)


@pytest.mark.parametrize("radius", [0, 1, 2, 5, 8, 100])
def test_disk(radius: int) -> None:
    mask = np.zeros((20, 30), bool)
    mask[3, 4] = mask[19, 29] = True
    y, x = np.mgrid[:20, :30]
    near = (y - 3) ** 2 + (x - 4) ** 2 <= radius**2
    np.testing.assert_array_equal(dilate_disk(mask, radius), near | ((y - 19) ** 2 + (x - 29) ** 2 <= radius**2))


def test_void_pixels_do_not_count() -> None:
    truth = disc(40, 30, 15)
    void = np.zeros_like(truth)
    void[:, 50:] = True
    found = truth.copy()
    found[20:40, 60:70] = True
    assert region_similarity(found, truth) < 1
    assert region_similarity(found, truth, void) == 1
    assert boundary_accuracy(found, truth, void) == 1


def test_first_and_last_frame_do_not_count() -> None:
    assert list(scored_frames(5)) == [1, 2, 3]
    with pytest.raises(InputError, match="2 frames"):
        scored_frames(2)


def test_sizes_must_agree() -> None:
    with pytest.raises(InputError, match="different sizes"):
        region_similarity(NOTHING, NOTHING[:, 1:])

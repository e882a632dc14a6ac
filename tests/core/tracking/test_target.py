"""One object's memory: what it takes from frames, on made-up cells."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from nanosam_cli.core.tracking.target import Answer, Target, TrackerSettings, TrackState

HW, DIMENSIONS = (36, 64), 16
HERE, BESIDE = slice(20, 28), slice(34, 42)  # columns in cells: the object, and a double that comes later
AWAY = slice(50, 58)
ROWS = slice(10, 20)


def scene(double: bool, seed: int) -> NDArray[np.float32]:
    """(h, w, D) of a ground, the object, and, if it is there, something much like it."""
    random = np.random.default_rng(seed)
    cells = random.normal(0, 0.15, (*HW, DIMENSIONS)).astype(np.float32)
    cells[ROWS, HERE, 0] += 1
    if double:
        cells[ROWS, BESIDE, 0] += 0.9
        cells[ROWS, BESIDE, 1] += 0.5
    return cells


def looks(*columns: slice) -> NDArray[np.float32]:
    """(h, w, D) of a ground and the same thing at any number of places."""
    cells = np.random.default_rng(0).normal(0, 0.15, (*HW, DIMENSIONS)).astype(np.float32)
    for there in columns:
        cells[ROWS, there, 0] += 1
    return cells


def mask() -> NDArray[np.float32]:
    """(256, 256) logits of the object."""
    logits = np.full((256, 256), -6, np.float32)
    logits[ROWS.start * 4 : ROWS.stop * 4, HERE.start * 4 : HERE.stop * 4] = 6
    return logits


def looks_after(settings: TrackerSettings, frames: int) -> tuple[float, float]:
    """How much the object and the double look like the object in the end."""
    target = Target(1, scene(False, 0), (mask() > 0).astype(np.float32), settings)
    for frame in range(1, frames):
        cells = scene(True, frame)
        proposals = target.propose(cells, cut=False)
        answer = target.choose(proposals, np.stack([mask()] * len(proposals)), np.ones(len(proposals)))
        assert target.settle(cells, answer) is TrackState.tracked
    look = target.propose(scene(True, frames), cut=False)[0].look
    return float(look[ROWS, HERE].mean()), float(look[ROWS, BESIDE].mean())


def test_a_double_beside_the_object_is_learnt_as_such() -> None:
    settings = TrackerSettings(dimensions=DIMENSIONS)
    before, after = looks_after(settings, 1), looks_after(settings, 12)
    assert before[1] > 0.8  # what has never been seen looks like the object
    assert after[0] > 0.7
    assert after[1] < 0.6


def test_a_double_is_not_taken_for_the_object_when_it_is_gone() -> None:
    """What was there beside the object is not it, however alike; what comes back elsewhere is."""
    target = Target(1, looks(HERE, AWAY), (mask() > 0).astype(np.float32), TrackerSettings(dimensions=DIMENSIONS))
    gone = looks(AWAY)
    (near,) = target.propose(gone, cut=False)
    none = target.choose([near], np.full((1, 256, 256), -9, np.float32), np.ones(1, np.float32))
    assert target.settle(gone, none) is TrackState.lost
    assert target.propose(gone, cut=False)[0].look.max() < 0.5
    assert target.propose(looks(AWAY, HERE), cut=False)[0].look[ROWS, HERE].mean() > 0.7
    assert target.propose(gone, cut=True)[0].look[ROWS, AWAY].mean() > 0.7  # another scene has other doubles


@pytest.mark.parametrize(("rows_seen", "learnt"), [(9, True), (5, False)], ids=["most of it", "half of it"])
def test_what_goes_behind_something_is_not_learnt_from(rows_seen: int, learnt: bool) -> None:
    """What covers it would be learnt with it: the mask's rim lies on both."""
    target = Target(1, scene(False, 0), (mask() > 0).astype(np.float32), TrackerSettings(dimensions=DIMENSIONS))
    seen = mask()
    seen[(ROWS.start + rows_seen) * 4 :] = -6
    before = target.propose(scene(True, 1), cut=False)[0]
    assert target.settle(scene(True, 1), Answer(before, seen, 1, 1, 1, 1, 1)) is TrackState.tracked
    assert (target.propose(scene(True, 1), cut=False)[0].look != before.look).any() == learnt


@pytest.mark.parametrize(
    ("stranger", "state"), [(0.0, TrackState.tracked), (1.1, TrackState.lost)], ids=["itself", "a stranger"]
)
def test_what_is_found_after_a_cut_is_the_object_on_the_whole(stranger: float, state: TrackState) -> None:
    """Cells of a new scene may each look much like the object, and all differ from it in the same way."""
    target = Target(1, scene(False, 0), (mask() > 0).astype(np.float32), TrackerSettings(dimensions=DIMENSIONS))
    cells = looks(AWAY)
    cells[ROWS, AWAY, 1] += stranger
    there = np.full((256, 256), -6, np.float32)
    there[ROWS.start * 4 : ROWS.stop * 4, AWAY.start * 4 : AWAY.stop * 4] = 6
    proposals = target.propose(cells, cut=True)
    answer = target.choose(proposals, np.stack([there] * len(proposals)), np.ones(len(proposals), np.float32))
    assert answer.likeness > 0.7
    assert target.settle(cells, answer) is state

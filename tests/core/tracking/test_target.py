"""One object's memory: what it takes from frames, on made-up cells."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from nanosam_cli.core.tracking.target import State, Target, TrackerSettings

HW, DIMENSIONS = (36, 64), 16
HERE, BESIDE = slice(20, 28), slice(34, 42)  # columns in cells: the object, and a double that comes later
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
        assert target.settle(cells, answer) is State.tracked
    look = target.propose(scene(True, frames), cut=False)[0].look
    return float(look[ROWS, HERE].mean()), float(look[ROWS, BESIDE].mean())


def test_a_double_beside_the_object_is_learnt_as_such() -> None:
    settings = TrackerSettings(dimensions=DIMENSIONS)
    before, after = looks_after(settings, 1), looks_after(settings, 12)
    assert before[1] > 0.5  # what has never been seen looks like the object
    assert after[0] > 0.7
    assert after[1] < 0.4

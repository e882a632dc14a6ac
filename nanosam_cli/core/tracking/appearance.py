"""What one object looks like, learnt while it is tracked: kernel ridge regression from an embedding's cells to masks.

The kernel is Gaussian, approximated by random cosines (Rahimi and Recht, "Random Features for Large-Scale Kernel
Machines", 2007), so that learning is one small linear system whatever number of frames it has seen. Targets are 0 and 1
and there is no constant: what is unlike everything seen is background.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from nanosam_cli.core.frame import Array

Moments = tuple[Array, Array]  # (F, F) of the features, (F, T) of features and targets


class KernelRegression:
    """(n, D) inputs -> (n, T) targets. It remembers the first sample for good and later ones ever less."""

    def __init__(self, frequencies: Array, *, first: float, decay: float, ridge: float, seed: int = 0) -> None:
        """`frequencies` (D, F) of the cosines; `first` is the first sample's share, `decay` what a sample keeps of its
        weight when the next one comes."""
        self._frequencies = frequencies
        phases = np.random.default_rng(seed).uniform(0, 2 * np.pi, frequencies.shape[1])
        self._phases = np.asarray(phases, np.float32)
        self._first_share, self._decay, self._ridge = first, decay, ridge
        self._first: Moments | None = None
        self._recent: Moments | None = None
        self._weights: Array | None = None

    def learn(self, inputs: Array, targets: Array, weights: Array) -> None:
        """Add a sample; `weights` (n,) of its rows, whose sum is what it counts."""
        root = np.sqrt(weights)[:, None]
        features = self._features(inputs) * root
        sample = features.T @ features, features.T @ np.asarray(targets * root, np.float32)
        if self._first is None or self._recent is None:
            self._first = self._recent = sample
        else:
            self._recent = _mix(self._recent, sample, self._decay)
        squares, cross = _mix(self._first, self._recent, self._first_share)
        squares[np.diag_indices_from(squares)] += self._ridge
        self._weights = np.asarray(np.linalg.solve(squares, cross))

    def predict(self, inputs: Array) -> Array:
        """(n, D) -> (n, T), about 1 for what was learnt as 1, about 0 for all else."""
        assert self._weights is not None
        return np.asarray(self._features(inputs) @ self._weights)

    def state(self) -> dict[str, Any]:
        """What was learnt, for `restore`."""
        first, recent = self._first or (None, None), self._recent or (None, None)
        return {"first": first[0], "first_cross": first[1], "recent": recent[0], "recent_cross": recent[1]} | {
            "weights": self._weights
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from what another one of the same frequencies had learnt."""
        self._first = None if state["first"] is None else (state["first"], state["first_cross"])
        self._recent = None if state["recent"] is None else (state["recent"], state["recent_cross"])
        self._weights = state["weights"]

    def _features(self, inputs: Array) -> Array:
        phases = np.asarray(inputs @ self._frequencies)
        phases += self._phases
        return np.cos(phases, out=phases)  # in place: for a whole frame, fresh memory costs as much as the cosines


def _mix(one: Moments, other: Moments, share: float) -> Moments:
    return share * one[0] + (1 - share) * other[0], share * one[1] + (1 - share) * other[1]


def random_frequencies(widths: Array, count: int, seed: int) -> Array:
    """(D, count) frequencies of a Gaussian kernel that is `widths` (D,) wide; an infinite width ignores an input."""
    drawn = np.random.default_rng(seed).normal(size=(len(widths), count))
    return np.asarray(drawn / widths[:, None], np.float32)


def balanced(shares: Array, foreground: float) -> Array:
    """(n,) weights by (n,) shares of the object: its cells weigh `foreground` together, all others the rest."""
    inside = shares > 0.5
    count = max(1, int(np.count_nonzero(inside)))
    others = max(1, len(shares) - count)
    return np.where(inside, foreground / count, (1 - foreground) / others).astype(np.float32)

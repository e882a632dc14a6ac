"""Matrix products piece by piece, each small enough for OpenBLAS to stay in one thread.

Its other threads would keep a processor busy while they wait, long after the product, and take it from the model's
runtime: the tracker's work then costs a multiple of its time.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]

ONE_THREAD = 2**18  # multiplications
EDGE = 48  # of the cubes that a Gram matrix is made of; those on its diagonal may be no larger


def product(one: Array, other: Array) -> Array:
    """(n, k) times (k, m)."""
    if other.shape[1] == 1:  # BLAS would take threads for much less
        return np.asarray(np.einsum("nk,km->nm", one, other))
    pieces = -(-len(one) * other.size // ONE_THREAD)
    edges = np.linspace(0, len(one), pieces + 1).astype(int).tolist()  # about equal: a row alone would take threads too
    out = np.empty((len(one), other.shape[1]), np.float32)
    for start, stop in pairwise(edges):
        np.matmul(one[start:stop], other, out=out[start:stop])
    return out


def gram(features: Array) -> Array:
    """(n, F) -> (F, F), the products of its columns."""
    count, size = features.shape
    out = np.zeros((size, size), np.float32)
    for first in range(0, count, EDGE):
        rows = features[first : first + EDGE]
        for top in range(0, size, EDGE):
            some = slice(top, top + EDGE)
            for left in range(0, top + 1, EDGE):
                others = slice(left, left + EDGE)
                out[some, others] += rows[:, some].T @ rows[:, others]
    for top in range(0, size, EDGE):
        out[:top, top : top + EDGE] = out[top : top + EDGE, :top].T
    return out


def solve(matrix: Array, targets: Array) -> Array:
    """x of `matrix` (F, F) @ x = `targets` (F, T) by halves; the matrix is positive definite."""
    half = len(matrix) // 2
    if half < EDGE:
        return np.asarray(np.linalg.solve(matrix, targets))
    beside, below = matrix[:half, half:], matrix[half:, :half]
    solved = solve(matrix[:half, :half], np.concatenate([beside, targets[:half]], axis=1))
    beside, above = solved[:, : beside.shape[1]], solved[:, beside.shape[1] :]
    second = solve(matrix[half:, half:] - product(below, beside), targets[half:] - product(below, above))
    return np.concatenate([above - product(beside, second), second])

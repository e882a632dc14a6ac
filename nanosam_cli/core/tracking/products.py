"""Matrix products piece by piece, each small enough for OpenBLAS to stay in one thread.

Its other threads would keep a processor busy while they wait, long after the product, and take it from the model's
runtime: the tracker's work then costs a multiple of its time.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]

ONE_THREAD = 2**18  # multiplications
DEPTH = 64  # of the pieces of a Gram matrix, and half of their sides


def product(one: Array, other: Array) -> Array:
    """(n, k) times (k, m)."""
    if other.shape[1] == 1:  # BLAS would take threads for much less
        return np.asarray(np.einsum("nk,km->nm", one, other))
    height = max(1, ONE_THREAD // other.size)
    out = np.empty((len(one), other.shape[1]), np.float32)
    for start in range(0, len(one), height):
        np.matmul(one[start : start + height], other, out=out[start : start + height])
    return out


def gram(features: Array) -> Array:
    """(n, F) -> (F, F), the products of its columns."""
    count, size = features.shape
    out = np.zeros((size, size), np.float32)
    for first in range(0, count, DEPTH):
        rows = features[first : first + DEPTH]
        for top in range(0, size, DEPTH):
            some = slice(top, top + DEPTH)
            for left in range(0, top + 1, DEPTH):
                others = slice(left, left + DEPTH)
                out[some, others] += rows[:, some].T @ rows[:, others]
    for top in range(0, size, DEPTH):
        out[:top, top : top + DEPTH] = out[top : top + DEPTH, :top].T
    return out

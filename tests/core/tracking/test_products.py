"""Products in pieces are the same as in one."""

from __future__ import annotations

import numpy as np
import pytest

from nanosam_cli.core.tracking.products import gram, product, solve


@pytest.mark.parametrize(("count", "depth", "width"), [(1, 1, 1), (700, 66, 192), (2560, 256, 64), (130, 192, 1)])
def test_product(count: int, depth: int, width: int) -> None:
    random = np.random.default_rng(0)
    one = random.normal(size=(depth, count)).astype(np.float32).T  # as a frame's cells lie
    other = random.normal(size=(depth, width)).astype(np.float32)
    np.testing.assert_allclose(product(one, other), one @ other, atol=1e-3)


@pytest.mark.parametrize(("count", "size"), [(1, 5), (400, 192), (130, 100)])
def test_gram(count: int, size: int) -> None:
    features = np.random.default_rng(0).normal(size=(count, size)).astype(np.float32)
    np.testing.assert_allclose(gram(features), features.T @ features, atol=1e-3)


@pytest.mark.parametrize(("size", "targets"), [(5, 1), (192, 16), (391, 3)])
def test_solve(size: int, targets: int) -> None:
    random = np.random.default_rng(0)
    features = random.normal(size=(2 * size, size)).astype(np.float32)
    known = random.normal(size=(size, targets)).astype(np.float32)
    matrix = features.T @ features / size
    np.testing.assert_allclose(solve(matrix, matrix @ known), known, atol=1e-3)

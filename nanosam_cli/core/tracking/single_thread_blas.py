"""numpy's matrix products in one thread.

A tracker's products are small. The threads that BLAS would share them out to keep a processor busy while they wait,
long after the product, and take it from the model's runtime: the tracker's work then costs a multiple of its time.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import numpy as np  # noqa: F401  # whose BLAS has to be there when it is looked for
from threadpoolctl import ThreadpoolController


@contextmanager
def one_thread() -> Iterator[None]:
    """For the time of a `with` block or a function, in all threads of the process."""
    with _libraries().limit(limits=1, user_api="blas"):
        yield


@cache
def _libraries() -> ThreadpoolController:
    return ThreadpoolController()

"""The smallest part of a set that is still enough, by bisection."""

from __future__ import annotations

from collections.abc import Callable, Sequence

MOST_TESTS = 24  # each is a proof


def smallest(items: Sequence[str], enough: Callable[[Sequence[str]], bool], most: int = MOST_TESTS) -> list[str]:
    """A small part of `items`, all of which are enough, that is enough too; in their order.

    Delta debugging (Zeller and Hildebrandt 2002): leave out halves, then quarters and so on, and begin anew with what
    is left. After `most` tests it is what has been reached; else nothing more can be left out.
    """
    kept, parts, tests = list(items), 2, 0
    while kept and tests < most:
        parts = min(parts, len(kept))
        for part in _parts(len(kept), parts):
            tests += 1
            less = [*kept[: part.start], *kept[part.stop :]]
            if enough(less):
                kept, parts = less, max(parts - 1, 2)
                break
            if tests == most:
                break
        else:
            if parts == len(kept):
                break
            parts *= 2
    return kept


def _parts(length: int, count: int) -> list[slice]:
    return [slice(length * index // count, length * (index + 1) // count) for index in range(count)]

from __future__ import annotations

from collections.abc import Sequence

import pytest

from nanosam_cli.core.precision.search import smallest

ITEMS = [str(number) for number in range(40)]


@pytest.mark.parametrize(
    "needed", [[], ["0"], ["39"], ["3", "17"], ["0", "13", "26", "39"], ITEMS[:20]], ids=lambda needed: len(needed)
)
def test_the_smallest_part_is_found(needed: list[str]) -> None:
    assert smallest(ITEMS, lambda kept: set(needed) <= set(kept), most=400) == needed


@pytest.mark.parametrize("items", [[], ["a"], ["a", "b"]])
def test_few_items(items: list[str]) -> None:
    assert smallest(items, lambda kept: list(kept) == items) == items
    assert smallest(items, lambda kept: True) == []


def test_tests_are_counted() -> None:
    """Each test is a proof of seconds: what was reached by then is enough all the same."""
    tests: list[Sequence[str]] = []

    def enough(kept: Sequence[str]) -> bool:
        tests.append(kept)
        return {"0", "13", "26", "39"} <= set(kept)

    found = smallest(ITEMS, enough, most=10)
    assert len(tests) == 10
    assert {"0", "13", "26", "39"} <= set(found)
    assert len(found) < len(ITEMS)

"""Whole numbers in every spelling."""

from __future__ import annotations

from typing import Any

import pytest

from nanosam_cli.core.errors import InputError
from nanosam_cli.core.ids import LARGEST_ID, read_id, whole_number


@pytest.mark.parametrize("value", [7, "7", 7.0, "7.0", " 7 ", "+7", "007", "7."])
def test_every_spelling_is_the_same_number(value: Any) -> None:
    assert whole_number(value) == 7
    assert type(whole_number(value)) is int


@pytest.mark.parametrize(
    "value",
    [True, None, 7.5, "7.5", "x", "", "\N{ARABIC-INDIC DIGIT SEVEN}", [7], {}, float("nan"), 10**400, "9" * 30, 1e300],
)
def test_what_is_no_whole_number(value: Any) -> None:
    with pytest.raises(ValueError, match="is no whole number"):
        whole_number(value)


def test_the_largest() -> None:
    assert whole_number(str(LARGEST_ID)) == LARGEST_ID
    assert whole_number(-LARGEST_ID) == -LARGEST_ID


def test_a_bad_id_names_file_entry_key_and_value() -> None:
    with pytest.raises(InputError, match=r"a.json, entry 3: category_id '1,5' is no whole number") as caught:
        read_id({"category_id": "1,5"}, "category_id", "a.json, entry 3")
    assert caught.value.hint
    with pytest.raises(KeyError):
        read_id({}, "id", "a.json")

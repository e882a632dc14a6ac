from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import pytest

from nanosam_cli.core.messages import quoted
from nanosam_cli.core.schema import Amount, OneOf, Whole, read_section


@dataclass(frozen=True)
class Place:
    """Where."""

    x: float
    y: float = 0.0


@dataclass(frozen=True)
class Record:
    """One of each kind."""

    count: Whole
    name: str | None
    kind: Literal["a", "b"] = "a"
    size: Annotated[int, OneOf((1, 2))] = 1
    weight: Amount = 0.0
    places: tuple[Place, ...] = ()
    pair: tuple[int, int] = (0, 0)
    shares: Mapping[str, float] = field(default_factory=dict)
    rest: Any = None


def test_a_record_comes_back_as_it_was_written() -> None:
    content = {
        **{"count": 3, "name": None, "kind": "b", "size": 2, "weight": 1, "places": [{"x": 1}], "pair": [4, 5]},
        **{"shares": {"small": 1}, "rest": [1, "a"]},
    }
    found = read_section(Record, content)
    assert found == Record(3, None, "b", 2, 1.0, (Place(1.0),), (4, 5), {"small": 1.0}, [1, "a"])
    assert isinstance(found.weight, float)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"count": -1}, "count: must be at least 0, not -1"),
        ({"count": True}, "count: must be int, not True"),
        ({"count": 1.0}, "count: must be int, not 1.0"),
        ({"count": 2**63}, "count: must not be 9223372036854775808: it is too large"),
        ({"count": 10**5000}, "count: must not be <a number of 16610 bits>: it is too large"),
        ({"weight": float("nan")}, "weight: must be at least 0, not nan"),
        ({"weight": float("inf")}, "weight: must be a finite number, not inf"),
        ({"weight": 10**400}, "weight: must not be <a number of 1329 bits>"),
        ({"shares": {"a": float("-inf")}}, "shares.a: must be a finite number, not -inf"),
        ({"shares": []}, "shares: must be a section, not []"),
        ({"name": 3}, "name: must be str, not 3"),
        ({"name": ["a"] * 10_000}, "name: must be str, not ['a', 'a', 'a', 'a', 'a', 'a', ...]"),
        ({"kind": "c"}, "kind: must be one of a, b, not c"),
        ({"size": 3}, "size: must be one of 1, 2, not 3"),
        ({"places": {"x": 1}}, "places: must be a list, not {'x': 1}"),
        ({"places": [{"x": 1}, {"y": 1}]}, "places[1].x: missing"),
        ({"places": [None]}, "places[0]: must be a section, not None"),
        ({"pair": [1]}, "pair: needs 2 values, not 1"),
        ({"cuont": 1}, "cuont: no such key; did you mean count?"),
    ],
)
def test_faults_say_where_and_what(change: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=re.escape(words)):
        read_section(Record, {"count": 0, "name": None, **change})


@pytest.mark.parametrize("content", [None, [], "text", 3, float("nan")])
def test_what_is_no_object_at_all(content: Any) -> None:
    with pytest.raises(ValueError, match="it must be a section"):
        read_section(Record, content)


def test_keys_of_a_later_version_are_passed_over_where_that_is_asked() -> None:
    content = {"count": 0, "name": "a", "later": 1, "places": [{"x": 1, "z": 2}]}
    assert read_section(Record, content, strangers=True).places == (Place(1.0),)
    with pytest.raises(ValueError, match=r"later: no such key.*places\[0\].z: no such key"):
        read_section(Record, content)


def test_a_message_has_not_every_fault_of_a_large_file() -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        read_section(Record, {"count": 0, "name": None, "shares": {str(i): "x" for i in range(10_000)}})
    assert len(str(caught.value)) < 2000


def deep(levels: int) -> Any:
    value: Any = 0
    for _ in range(levels):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("a" * 1000, 60),
        (deep(100_000), 60),
        (list(range(100_000)), 60),
        ({"k" * 1000: "v" * 1000}, 130),
        ([10**9999], 60),
    ],
)
def test_any_value_is_quoted_in_a_line(value: Any, words: int) -> None:
    assert len(quoted(value)) <= words


def test_short_values_are_quoted_whole() -> None:
    assert [quoted(value) for value in ("cat", [1, 2], None, 2**64)] == ["'cat'", "[1, 2]", "None", str(2**64)]

"""Dataclasses from nested plain values, with every fault at once and the nearest valid name.

A key or a section whose type is `X | None` may be left out: what it would turn on is then off. All others are needed.
"""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeVar

from nanosam_cli.core.messages import did_you_mean, quoted

MOST_FAULTS = 20  # of one message
LARGEST = 2**63 - 1  # of whole numbers: what numpy, torch and other tools hold

Section = TypeVar("Section")


@dataclass(frozen=True)
class Range:
    """A rule for numbers; NaN is outside of every range."""

    low: float
    high: float = float("inf")

    def fault(self, value: Any) -> str | None:
        if not value >= self.low:
            return f"must be at least {self.low:g}, not {value}"
        return None if value <= self.high else f"must be at most {self.high:g}, not {value}"


@dataclass(frozen=True)
class OneOf:
    """A rule for names and sizes."""

    choices: tuple[str | int, ...]

    def fault(self, value: Any) -> str | None:
        return None if value in self.choices else f"must be one of {', '.join(map(str, self.choices))}, not {value}"


Count = Annotated[int, Range(1)]
Whole = Annotated[int, Range(0)]
Amount = Annotated[float, Range(0)]
Share = Annotated[float, Range(0, 1)]


def read_section(kind: type[Section], content: Any, *, strangers: bool = False) -> Section:
    """`content`, plain values of a file, as a dataclass. ValueError with every fault where it is none.

    With `strangers`, keys that are not known are passed over, as those of a later version.
    """
    faults: list[str] = []
    section = _Reader(faults, strangers).value(kind, content, "")
    if faults:
        raise ValueError("; ".join(faults[:MOST_FAULTS]))
    assert isinstance(section, kind)
    return section


def read_value(kind: Any, content: Any, where: str, faults: list[str]) -> Any:
    """`content` as an instance of `kind`, or None with the faults noted.

    Kinds are plain types, Literal, Annotated with a rule, tuples, mappings from text, dataclasses, and any of them or
    None. Numbers are finite, and whole ones not beyond LARGEST.
    """
    return _Reader(faults).value(kind, content, where)


@dataclass(frozen=True)
class _Reader:
    """Goes down into nested values. What it gives is None where it has noted a fault."""

    faults: list[str]
    strangers: bool = False  # whether keys that are not known are passed over

    def value(self, kind: Any, content: Any, where: str) -> Any:
        inner = _without_none(kind)
        if inner is not None:
            return None if content is None else self.value(inner, content, where)
        if dataclasses.is_dataclass(kind):
            return self._section(kind, content, where)
        origin, arguments = typing.get_origin(kind), typing.get_args(kind)
        if origin is Annotated:
            plain, rule = arguments
            return self._ruled(rule, self._plain(plain, content, where), where)
        if origin is Literal:
            return self._ruled(OneOf(arguments), self._plain(type(arguments[0]), content, where), where)
        if origin is tuple:
            return self._list(arguments, content, where)
        if origin is Mapping:
            return self._mapping(arguments[1], content, where)
        return content if kind is Any else self._ruled(None, self._plain(kind, content, where), where)

    def _fault(self, where: str, words: str) -> None:
        self.faults.append(f"{where}: {words}" if where else f"it {words}")

    def _ruled(self, rule: Any, value: Any, where: str) -> Any:
        words = None if value is None or rule is None else rule.fault(value)
        if words is None and isinstance(value, float) and not math.isfinite(value):
            words = f"must be a finite number, not {value}"
        if words:
            self._fault(where, words)
        return value

    def _plain(self, kind: Any, content: Any, where: str) -> Any:
        if isinstance(content, int) and abs(content) > LARGEST:
            return self._fault(where, f"must not be {quoted(content)}: it is too large")
        if kind is float and type(content) is int:
            return float(content)
        if type(content) is not kind:
            return self._fault(where, f"must be {kind.__name__}, not {quoted(content)}")
        return content

    def _list(self, arguments: tuple[Any, ...], content: Any, where: str) -> Any:
        if not isinstance(content, list):
            return self._fault(where, f"must be a list, not {quoted(content)}")
        if arguments[-1] is not Ellipsis and len(content) != len(arguments):
            return self._fault(where, f"needs {len(arguments)} values, not {len(content)}")
        kinds = [arguments[0]] * len(content) if arguments[-1] is Ellipsis else arguments
        return tuple(self.value(k, c, f"{where}[{i}]") for i, (k, c) in enumerate(zip(kinds, content)))

    def _mapping(self, kind: Any, content: Any, where: str) -> Any:
        if not isinstance(content, dict):
            return self._fault(where, f"must be a section, not {quoted(content)}")
        return {key: self.value(kind, value, f"{where}.{key}") for key, value in content.items()}

    def _section(self, kind: Any, content: Any, where: str) -> Any:
        if not isinstance(content, dict):
            return self._fault(where, f"must be a section, not {quoted(content)}")
        hints = typing.get_type_hints(kind, include_extras=True)
        prefix = f"{where}." if where else ""
        for key in () if self.strangers else content.keys() - hints.keys():
            hint = did_you_mean(key, hints)
            self.faults.append(f"{prefix}{key}: no such key" + (f"; {hint}" if hint else ""))
        needed = {entry.name for entry in dataclasses.fields(kind) if _is_needed(entry)}
        before = len(self.faults)
        values = {}
        for name, hint in hints.items():
            if name in content:
                values[name] = self.value(hint, content[name], f"{prefix}{name}")
            elif name in needed:
                self.faults.append(f"{prefix}{name}: missing")
        return kind(**values) if len(self.faults) == before else None


def _is_needed(entry: dataclasses.Field[Any]) -> bool:
    return entry.default is dataclasses.MISSING and entry.default_factory is dataclasses.MISSING


def without_defaults(section: Any) -> dict[str, Any]:
    """Nested plain values of a section, without the keys that have their default: as if they had been left out."""
    return {
        entry.name: _plain(getattr(section, entry.name))
        for entry in dataclasses.fields(section)
        if getattr(section, entry.name) != entry.default
    }


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return tuple(_plain(part) for part in value)
    return without_defaults(value) if dataclasses.is_dataclass(value) else value


def _without_none(kind: Any) -> Any:
    """X of `X | None`; None for any other type."""
    if typing.get_origin(kind) not in (typing.Union, types.UnionType):
        return None
    [inner] = [part for part in typing.get_args(kind) if part is not type(None)]
    return inner

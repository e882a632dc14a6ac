"""Dataclasses from nested plain values, with every fault at once and the nearest valid name.

A key or a section whose type is `X | None` may be left out: what it would turn on is then off. All others are needed.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from dataclasses import dataclass
from typing import Annotated, Any

from nanosam_cli.core.messages import did_you_mean


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


def read_value(kind: Any, content: Any, where: str, faults: list[str]) -> Any:
    """`content` as an instance of `kind`, or None with the faults noted."""
    kind = _without_none(kind) or kind
    if dataclasses.is_dataclass(kind):
        return _build_section(kind, content, where, faults)
    if typing.get_origin(kind) is Annotated:
        plain, rule = typing.get_args(kind)
        value = read_value(plain, content, where, faults)
        fault = None if value is None else rule.fault(value)
        if fault:
            faults.append(f"{where}: {fault}")
        return value
    if typing.get_origin(kind) is tuple:
        return _build_list(typing.get_args(kind), content, where, faults)
    if kind is float and isinstance(content, int) and not isinstance(content, bool):
        return float(content)
    if type(content) is not kind:
        faults.append(f"{where}: must be {kind.__name__}, not {content!r}")
        return None
    return content


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


def _build_list(arguments: tuple[Any, ...], content: Any, where: str, faults: list[str]) -> Any:
    if not isinstance(content, list):
        faults.append(f"{where}: must be a list, not {content!r}")
        return None
    if arguments[-1] is not Ellipsis and len(content) != len(arguments):
        faults.append(f"{where}: needs {len(arguments)} values, not {len(content)}")
        return None
    kinds = [arguments[0]] * len(content) if arguments[-1] is Ellipsis else arguments
    return tuple(read_value(k, c, f"{where}[{i}]", faults) for i, (k, c) in enumerate(zip(kinds, content)))


def _build_section(kind: Any, content: Any, where: str, faults: list[str]) -> Any:
    if not isinstance(content, dict):
        faults.append(f"{where or 'recipe'}: must be a section, not {content!r}")
        return None
    hints = typing.get_type_hints(kind, include_extras=True)
    prefix = f"{where}." if where else ""
    for key in content.keys() - hints.keys():
        hint = did_you_mean(key, hints)
        faults.append(f"{prefix}{key}: no such key" + (f"; {hint}" if hint else ""))
    needed = {entry.name for entry in dataclasses.fields(kind) if entry.default is dataclasses.MISSING}
    before = len(faults)
    values = {}
    for name, hint in hints.items():
        if name in content:
            values[name] = read_value(hint, content[name], f"{prefix}{name}", faults)
        elif name in needed:
            faults.append(f"{prefix}{name}: missing")
    return kind(**values) if len(faults) == before else None

"""JSON and TOML that come from outside, read in one place each: what is none of it is an error with words.

Python's own readers raise five kinds of exceptions for bytes that are no text, numbers of a million digits and brackets
of a million levels.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nanosam_cli.core.errors import InputError
from nanosam_cli.core.system.files import MOST_BYTES, read_input

if sys.version_info >= (3, 11):
    import tomllib
else:  # pragma: no cover
    import tomli as tomllib

RECORD_BYTES = 2**26  # of what this program writes beside its own files


def parse_json(text: str | bytes, *, unique: bool = False) -> Any:
    """The value. ValueError, in words, where it is no JSON; with `unique`, where an object has a name twice as well."""
    try:
        return json.loads(text, object_pairs_hook=_unique if unique else None)
    except UnicodeDecodeError as error:
        raise ValueError(f"it is no text: {error.reason} at byte {error.start}") from error
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    except json.JSONDecodeError:
        raise
    except ValueError as error:
        raise ValueError(_reason(error)) from error


def parse_toml(text: str) -> dict[str, Any]:
    """The tables. ValueError, in words, where it is no TOML."""
    try:
        content: dict[str, Any] = tomllib.loads(text)
        return content
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    except ValueError as error:
        raise ValueError(_reason(error)) from error


def read_json(path: Path, hint: str, what: str = "file", *, most: int = MOST_BYTES, unique: bool = False) -> Any:
    """The content of a JSON file. InputError, with a hint, where it is missing, larger than `most` bytes, or none."""
    data = read_input(path, what, most)
    try:
        return parse_json(data, unique=unique)
    except ValueError as error:
        raise InputError(f"{path} is not JSON: {error}", hint) from error


def read_toml(path: Path, hint: str | None = None) -> dict[str, Any]:
    """The content of a TOML file. InputError where it is missing, or none."""
    data = read_input(path, most=RECORD_BYTES)
    try:
        return parse_toml(data.decode())
    except ValueError as error:
        raise InputError(f"{path} is not TOML: {error}", hint) from error


def _reason(error: ValueError) -> str:
    """`Exceeds the limit (4300 digits) for integer string conversion ...` is Python's, and tells nobody anything."""
    return "it has a number of thousands of digits" if "integer string conversion" in str(error) else str(error)


def _unique(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object; ValueError where a name is in it twice, of which JSON would keep the last."""
    for name, count in Counter(name for name, _ in pairs).items():
        if count > 1:
            raise ValueError(f'"{name}" stands in it {count} times')
    return dict(pairs)

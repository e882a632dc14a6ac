"""Ids as other tools write them: 1, "1" and 1.0 are one number."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from nanosam_cli.core.errors import InputError
from nanosam_cli.core.messages import quoted

LARGEST_ID = 2**63 - 1  # what numpy, pycocotools and other tools hold

_WHOLE = re.compile(r"([+-]?[0-9]{1,19})(\.0*)?")


def whole_number(value: Any) -> int:
    """The whole number that a value stands for: an int, a float without a fraction, or either as text.

    ValueError where it stands for none, or for one beyond LARGEST_ID.
    """
    number = None
    if isinstance(value, str):
        found = _WHOLE.fullmatch(value.strip())
        number = int(found[1]) if found else None
    elif isinstance(value, float):
        number = int(value) if value.is_integer() else None
    elif isinstance(value, int) and not isinstance(value, bool):
        number = value
    if number is None or abs(number) > LARGEST_ID:
        raise ValueError(f"{quoted(value)} is no whole number")
    return number


def read_id(entry: Mapping[str, Any], key: str, where: str) -> int:
    """The id below a key of an entry. InputError, which names all three, where it is no whole number.

    KeyError where the key is missing.
    """
    try:
        return whole_number(entry[key])
    except ValueError as error:
        raise InputError(f"{where}: {key} {error}", 'write it as a number, such as 1 or "1"') from error

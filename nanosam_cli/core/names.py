"""Names of classes as other tools write them: one reader, because a name ends up as a line of a file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from unicodedata import category

from nanosam_cli.core.errors import InputError
from nanosam_cli.core.messages import quoted

LONGEST_NAME = 200  # characters of a class

# control characters, lone surrogates, separators of lines and of paragraphs: all at which a line may end, and more
_REFUSED = ("Cc", "Cs", "Zl", "Zp")


def class_name(value: Any) -> str:
    """The name that a value stands for: text without the blanks around it, or the digits of a whole number.

    ValueError where it is none: of another kind, empty, longer than LONGEST_NAME, or not one line of text.
    """
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63:
        return str(value)
    name = value.strip() if isinstance(value, str) else ""
    if not 0 < len(name) <= LONGEST_NAME or any(category(character) in _REFUSED for character in name):
        given = value if isinstance(value, str) else quoted(value)
        raise ValueError(f"a class needs a name of 1 to {LONGEST_NAME} printable characters, not {quoted(given)}")
    return name


def read_name(entry: Mapping[str, Any], key: str, where: str) -> str:
    """The name below a key of an entry. KeyError where the key is missing.

    InputError, which names all three, where it is no name of a class.
    """
    try:
        return class_name(entry[key])
    except ValueError as error:
        raise InputError(f"{where}: {key}: {error}", 'write it as text in one line, such as "cat"') from error

"""Words of messages: lists that are cut short, names that were nearly right, and who is told what is being done."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from difflib import get_close_matches
from reprlib import Repr

Note = Callable[[str], object]  # told what is being done, a sentence a time


def some(names: Sequence[object], limit: int = 5) -> str:
    """A list for a message, cut short."""
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(str(name) for name in names[:limit]) + more


def did_you_mean(name: str, known: Iterable[str], most: int = 1, cutoff: float = 0.6) -> str | None:
    """`did you mean A or B?`, of the names that are nearest to one that is not known; None where none is near."""
    near = get_close_matches(name, [*known], n=most, cutoff=cutoff)
    return f"did you mean {' or '.join(near)}?" if near else None


class _Short(Repr):
    """A value of a file cut to a line, whatever its size and depth."""

    def repr_int(self, number: int, level: int) -> str:
        # beyond some thousand digits Python refuses to write it out
        return str(number) if number.bit_length() <= 128 else f"<a number of {number.bit_length()} bits>"


_SHORT = _Short()
_SHORT.maxlevel, _SHORT.maxstring, _SHORT.maxother = 3, 60, 60


def quoted(value: object) -> str:
    """A value as Python writes it, cut short: for messages about what stands in a file."""
    return _SHORT.repr(value)


_PUBLIC = ("id", "export", "confirm", "download")  # of a query: what published addresses have


def shown(url: str) -> str:
    """An address for people: without user and password, and without what a query or a fragment may hold."""
    bare, _, query = url.partition("#")[0].partition("?")
    bare = re.sub(r"//.*@", "//***@", bare)  # up to the last @: a password may hold any of /, : and @
    fields = (field.partition("=") for field in query.split("&") if field)
    kept = [f"{name}={value if name in _PUBLIC else '***'}" for name, _, value in fields]
    return f"{bare}?{'&'.join(kept)}" if kept else bare

"""Words of messages: lists that are cut short, names that were nearly right, and who is told what is being done."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from difflib import get_close_matches

Note = Callable[[str], object]  # told what is being done, a sentence a time


def some(names: Sequence[object], limit: int = 5) -> str:
    """A list for a message, cut short."""
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(str(name) for name in names[:limit]) + more


def did_you_mean(name: str, known: Iterable[str], most: int = 1, cutoff: float = 0.6) -> str | None:
    """`did you mean A or B?`, of the names that are nearest to one that is not known; None where none is near."""
    near = get_close_matches(name, [*known], n=most, cutoff=cutoff)
    return f"did you mean {' or '.join(near)}?" if near else None

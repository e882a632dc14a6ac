"""Who else may write where this program reads what it trusts: engines of TensorRT are programs."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from pathlib import Path

_ROOT = 0


def others_can_write(places: Iterable[Path]) -> str | None:
    """The first of the places that somebody else could have written, in words; None where none is, or on Windows.

    That is one that everybody may write, but for a directory like `/tmp`, where nobody may rename what is another's; or
    one that belongs to another user than this one and root. Root itself uses what others have mounted for it.
    """
    if os.name != "posix":
        return None
    for place in places:
        about = place.stat()
        sticky = stat.S_ISDIR(about.st_mode) and about.st_mode & stat.S_ISVTX
        if about.st_mode & stat.S_IWOTH and not sticky:
            return f"{place} can be written by everybody"
        if os.geteuid() != _ROOT and about.st_uid not in (_ROOT, os.geteuid()):
            return f"{place} belongs to another user"
    return None

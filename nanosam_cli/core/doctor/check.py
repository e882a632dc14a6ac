"""One line of `nanosam doctor`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

CheckStatus = Literal["ok", "missing", "broken"]


@dataclass(frozen=True)
class Check:
    """Something that was looked at. What is missing is not needed by all; what is broken should be mended."""

    section: str
    name: str
    status: CheckStatus
    detail: str
    fix: str | None = None  # a command to type, or a step

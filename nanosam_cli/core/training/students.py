"""Backbones that are known to serve as students, and what each costs; `nanosam distill --list` reads it without torch.

Any other timm name with a feature pyramid serves too. The table is made by `python benchmarks/students.py NAME ...`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

from nanosam_cli.core import paths

TABLE = "students.json"


@dataclass(frozen=True)
class Student:
    """An image encoder: the backbone with the default neck."""

    backbone: str
    parameters: int
    gmacs_512: float  # 1e9 multiply-accumulates a photo, at 512 and at 1024 pixels
    gmacs_1024: float


def list_students() -> list[Student]:
    """The students of the table, the cheapest first."""
    rows = json.loads(paths.resource(TABLE).read_text(encoding="utf-8"))
    return sorted((Student(**row) for row in rows), key=lambda student: student.gmacs_512)

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from nanosam_cli.core.schema import Whole
from nanosam_cli.core.system.journal import Journal


@dataclass(frozen=True)
class Line:
    """What is looked at of a record."""

    photo: str
    objects: tuple[Whole, ...] = ()


GOOD = b'{"photo": "a.jpg", "objects": [1, 2], "more": null}\n'


@pytest.mark.parametrize(
    "line",
    [
        b"[]\n",
        b"\n",
        b"\xff\n",
        b"[" * 100_000 + b"\n",
        b'{"photo": 3}\n',
        b'{"photo": "b.jpg", "objects": [-1]}\n',
        b'{"objects": []}\n',
        b'{"photo": "b.jpg"}',
    ],
    ids=range(8),
)
def test_a_run_goes_on_before_the_first_line_that_is_none_of_its_own(tmp_path: Path, line: bytes) -> None:
    path = tmp_path / "results.jsonl"
    with Journal(path, {"seed": 0}) as journal:
        journal.write({"photo": "a.jpg", "objects": [1, 2], "more": None})
    whole = path.read_bytes()
    path.write_bytes(whole + line + GOOD)
    with Journal(path, {"seed": 0}, resume=True, kind=Line) as journal:
        assert [record["photo"] for record in journal.records()] == ["a.jpg"]
        journal.write({"photo": "c.jpg"})
        assert [record["photo"] for record in journal.records()] == ["a.jpg", "c.jpg"]
    assert path.read_bytes() == whole + b'{"photo": "c.jpg"}\n'

from __future__ import annotations

import json
from pathlib import Path

import pytest

from nanosam_cli.core.zoo.partial_file import Origin, PartFile, source_key


def part(folder: Path, about: bytes) -> PartFile:
    (folder / "model.bin.part").write_bytes(b"half")
    (folder / "model.bin.part.json").write_bytes(about)
    return PartFile(folder / "model.bin")


def test_what_was_written_beside_a_part_is_read_again(tmp_path: Path) -> None:
    file = PartFile(tmp_path / "model.bin")
    with file.append(0, Origin("https://example.org/model.bin", '"tag"', 9)) as write:
        write(b"half")
    assert PartFile(tmp_path / "model.bin").origin() == Origin(source_key("https://example.org/model.bin"), '"tag"', 9)


@pytest.mark.parametrize(
    "about",
    [
        b"",
        b"[]",
        b"3",
        b"\xff",
        b"[" * 100_000,
        b'{"url": "a"}',
        *(
            json.dumps({"url": "a", "validator": None, "total": 9, **change}).encode()
            for change in ({"url": 3}, {"validator": ["x"]}, {"total": "9"}, {"total": -1}, {"total": 1e300}, {"x": 1})
        ),
    ],
)
def test_a_part_of_which_nothing_sure_is_known_is_not_gone_on_with(tmp_path: Path, about: bytes) -> None:
    assert part(tmp_path, about).origin() is None


def test_nothing_is_there(tmp_path: Path) -> None:
    assert PartFile(tmp_path / "model.bin").origin() is None

from __future__ import annotations

import os
from pathlib import Path

import pytest

from nanosam_cli.core.system.ownership import others_can_write

pytestmark = pytest.mark.skipif(os.name != "posix", reason="modes and owners are those of POSIX")


@pytest.mark.parametrize(
    ("mode", "fault"),
    [(0o755, False), (0o775, False), (0o777, True), (0o702, True), (0o1777, False)],  # the last is /tmp's
)
def test_directories(tmp_path: Path, mode: int, fault: bool) -> None:
    inner = tmp_path / "engines"
    inner.mkdir()
    inner.chmod(mode)
    assert others_can_write([tmp_path, inner]) == (f"{inner} can be written by everybody" if fault else None)


def test_a_file_that_everybody_may_write(tmp_path: Path) -> None:
    path = tmp_path / "encoder.engine"
    path.write_bytes(b"")
    path.chmod(0o646)
    assert others_can_write([path]) == f"{path} can be written by everybody"
    path.chmod(0o1646)  # which keeps nobody from writing a file
    assert others_can_write([path]) is not None


@pytest.mark.parametrize(("me", "owner", "fault"), [(7, 7, False), (7, 0, False), (7, 8, True), (0, 8, False)])
def test_owners(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, me: int, owner: int, fault: bool) -> None:
    about = os.stat_result((0o40755, 1, 1, 2, owner, 0, 0, 0, 0, 0))
    monkeypatch.setattr(Path, "stat", lambda _: about)
    monkeypatch.setattr(os, "geteuid", lambda: me)
    assert others_can_write([tmp_path]) == (f"{tmp_path} belongs to another user" if fault else None)

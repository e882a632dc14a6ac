"""Temporary files of processes that were killed, and of those that live."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from nanosam_cli.core.errors import OutputError
from nanosam_cli.core.system import files
from nanosam_cli.core.system.files import atomic_write, write_text
from nanosam_cli.core.system.temporary import Temporary, clear_left_over

_WRITING = """
import sys
from pathlib import Path
from nanosam_cli.core.system.files import atomic_write
with atomic_write(Path(sys.argv[1]), overwrite=True) as temporary:
    temporary.write_text("half")
    print(temporary, flush=True)
    sys.stdin.read()
"""


@contextmanager
def writing(target: Path) -> Iterator[tuple[subprocess.Popen[str], Path]]:
    """A process amid writing a file, and its temporary one."""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "env": environment}
    with subprocess.Popen([sys.executable, "-c", _WRITING, str(target)], **pipes) as process:
        try:
            yield process, Path(process.stdout.readline().strip())
        finally:
            process.kill()


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_the_next_run_clears_what_a_killed_one_left_and_nothing_of_one_that_lives(tmp_path: Path) -> None:
    with writing(tmp_path / "a.json") as (killed, left), writing(tmp_path / "b.json") as (alive, used):
        assert sorted([left.name, used.name]) == names(tmp_path)
        killed.send_signal(signal.SIGKILL)
        killed.wait()
        for name in (".nanosam-mine", ".nanosam-0123456789abcdeg", "notes.nanosam-0123456789abcdef"):
            (tmp_path / name).touch()
        before = {*names(tmp_path)}
        write_text(tmp_path / "c.json", "whole")
        assert {*names(tmp_path)} == (before - {left.name}) | {"c.json"}
        assert alive.stdin is not None
        alive.stdin.close()
        assert alive.wait() == 0
    assert (tmp_path / "b.json").read_text() == "half"


def test_one_that_is_cleared_before_it_is_locked_is_made_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from nanosam_cli.core.system import temporary

    lock, locked = temporary.flock, []

    def late(handle: int, how: int) -> None:
        if not locked:
            locked.append(handle)
            clear_left_over.cache_clear()
            clear_left_over(tmp_path)
        lock(handle, how)

    monkeypatch.setattr(temporary, "flock", late)
    made = Temporary.beside(tmp_path / "a.png")
    assert names(tmp_path) == [made.path.name]
    made.remove()
    assert names(tmp_path) == []


def test_a_folder_is_looked_through_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    listed = []
    listing = Path.iterdir
    monkeypatch.setattr(Path, "iterdir", lambda self: listed.append(self) or listing(self))
    for number in range(3):
        write_text(tmp_path / f"{number}.txt", "")
    assert listed == [tmp_path]


def test_what_is_durable_is_on_the_disk_before_it_has_its_name_and_its_name_thereafter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[tuple[str, bool]] = []
    target = tmp_path / "a.json"
    monkeypatch.setattr(files, "flush", lambda path: told.append((path.suffix, target.exists())))
    write_text(target, "whole")
    assert told == [(".json", False), ("", True)]
    write_text(tmp_path / "b.json", "whole", durable=False)
    assert len(told) == 2


def test_a_disk_that_fails_at_last_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: int) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OutputError, match=r"a\.json: Input/output error"), atomic_write(tmp_path / "a.json") as path:
        path.write_text("whole")
    assert names(tmp_path) == []

"""`nanosam batch` as people run it, over Ray: the masks of `segment`, killed and resumed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from tests.batch_data import picture
from tests.command_line import run_nanosam

PROGRAM = "from nanosam_cli.app import main; main()"
Start = Callable[..., "subprocess.Popen[str]"]


def test_without_the_extra_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    for name in [name for name in sys.modules if name.startswith("nanosam_cli.core.fleet.")]:
        monkeypatch.delitem(sys.modules, name)
    for words in (("batch", tmp_path, "--everything"), ("batch", "merge", tmp_path)):
        ran = run_nanosam(*words, "-o", tmp_path / "out")
        assert ran.code == 1
        assert "pip install 'nanosam-cli[batch]'" in ran.err


def test_run_is_the_command_where_none_is_named(tmp_path: Path) -> None:
    assert run_nanosam("batch", tmp_path, "--no-such-option", "-o", tmp_path).code == 2
    assert "Parquet shards" in run_nanosam("batch", tmp_path, "--help").out
    assert "merge" in run_nanosam("batch", "--help").out


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for number in range(40):
        picture(tmp_path / "photos" / f"{number:03}.png", number, 100 + 7 * number)
    return tmp_path / "photos"


@pytest.fixture
def start(tmp_path: Path, photos: Path, own_files: tuple[Path, Path]) -> Start:
    def started(*more: object) -> subprocess.Popen[str]:
        words = ["batch", photos, "-o", tmp_path / "out", "--everything", "--grid", "3", "--shard-size", "2"]
        words += ["--encoder", own_files[0], "--decoder", own_files[1], "--threads", "1", "--workers", "1", *more]
        environment = {**os.environ, "TERM": "dumb", "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-c", PROGRAM, *map(str, words)]
        pipe = subprocess.PIPE
        return subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, env=environment)

    return started


def assert_as_segment(folder: Path, photos: Path, files: tuple[Path, Path]) -> None:
    """The shards, merged, are the bytes that `segment` writes."""
    assert run_nanosam("batch", "merge", folder / "out", "-o", folder / "merged.json").code == 0
    ran = run_nanosam(
        *("segment", photos, "--everything", "--grid", "3", "--format", "coco", "-o", folder / "one.json"),
        *("--encoder", files[0], "--decoder", files[1], "--threads", "1"),
    )
    assert ran.code == 0, ran.err
    assert (folder / "merged.json").read_bytes() == (folder / "one.json").read_bytes()


def wait_for(path: Path, process: subprocess.Popen[str]) -> None:
    end = time.monotonic() + 240
    while not path.exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="kill -9 is of POSIX")
def test_killed_and_resumed_it_has_the_masks_of_segment(
    tmp_path: Path, photos: Path, start: Start, own_files: tuple[Path, Path]
) -> None:
    pytest.importorskip("ray", reason="needs the extra `batch`")
    first = start()
    try:
        wait_for(tmp_path / "out" / "manifest.json", first)
        assert start().communicate()[1].count("another run is at work on") == 1
        while not (shards := list((tmp_path / "out").glob("part-*.parquet"))):
            assert first.poll() is None, first.communicate()
            time.sleep(0.01)
    finally:
        first.send_signal(signal.SIGKILL)
        first.communicate()
    kept = {shard: shard.stat().st_mtime_ns for shard in shards}
    assert 0 < len(kept) < 20
    second = start("--resume", "--json")
    out, err = second.communicate(timeout=400)
    assert second.returncode == 0, err
    assert "Traceback" not in err
    (line,) = out.splitlines()  # nothing of Ray's
    assert json.loads(line)["photos"] == 40
    assert {shard: shard.stat().st_mtime_ns for shard in kept} == kept
    assert_as_segment(tmp_path, photos, own_files)


def models_of(driver: int) -> list[int]:
    """Ids of the processes below a driver that hold a model, by Linux's /proc."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has ended
            parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
    found = []
    for process in parents:
        above = process
        while above in parents and above != driver:
            above = parents[above]
        with suppress(OSError):
            if above == driver and b"ray::MapWorker" in Path(f"/proc/{process}/cmdline").read_bytes():
                found.append(process)
    return found


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks for processes in /proc")
def test_a_model_that_is_killed_is_started_anew(
    tmp_path: Path, photos: Path, start: Start, own_files: tuple[Path, Path]
) -> None:
    pytest.importorskip("ray", reason="needs the extra `batch`")
    job = start()
    try:
        wait_for(tmp_path / "out" / "part-00000.parquet", job)
        killed = models_of(job.pid)
        done = len(list((tmp_path / "out").glob("part-*.parquet")))
        for process in killed:
            os.kill(process, signal.SIGKILL)
        out, err = job.communicate(timeout=400)
    finally:
        job.kill()
    assert killed
    assert done < 20
    assert job.returncode == 0, err
    assert out.startswith("40 photos")
    assert_as_segment(tmp_path, photos, own_files)

"""`nanosam track` that was killed: its video plays, and --resume ends with the files of an undisturbed run."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import av
import pytest

from nanosam_cli.core.system.lock import only_run
from nanosam_cli.core.tracking.run import TrackingRun
from tests.command_line import Ran, run_nanosam
from tests.commands.test_track_pose import GREEN, RED, pose, save, save_people
from tests.video_data import save_video

Run = Callable[..., Ran]
COUNT, LAST, STATE = 56, 50, 48  # frames; those that are done before the kill; those before the last state

# the state is kept after every 16th frame, and the process killed in the frame after LAST
_KILLED = f"""
import os, signal
from nanosam_cli.core.tracking import record
from nanosam_cli.core.tracking.run import TrackingRun
record.EVERY, write = 0, record.write_state
record.write_state = lambda path, state: state["frames"] % 16 or write(path, state)
track = TrackingRun._track
def killed(self, frame):
    if frame.index == {LAST}:
        os.kill(os.getpid(), signal.SIGKILL)
    return track(self, frame)
TrackingRun._track = killed
from nanosam_cli.app import main
main()
"""
ARGUMENTS = ("--box", "20,30,50,60", "--prompts", "later.json", "--masks", "found", "-o", "b.mp4", "--json")


@pytest.fixture(autouse=True)
def _place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    save_video(Path("a.mp4"), COUNT)
    Path("later.json").write_text('{"3": {"boxes": [[60, 5, 90, 20]]}, "53": {"boxes": [[90, 60, 120, 90]]}}')


@pytest.fixture
def track(own_files: tuple[Path, Path]) -> Run:
    def run(*arguments: object) -> Ran:
        return run_nanosam("track", *arguments, "--encoder", own_files[0], "--decoder", own_files[1])

    return run


@pytest.fixture
def kill(own_files: tuple[Path, Path]) -> Callable[..., None]:
    def run(*arguments: str) -> None:
        models = ["--encoder", str(own_files[0]), "--decoder", str(own_files[1])]
        environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
        program = [sys.executable, "-c", _KILLED, "track", *arguments, *models]
        done = subprocess.run(program, env=environment, capture_output=True)
        assert done.returncode == -signal.SIGKILL, done.stderr

    return run


def names(folder: Path = Path()) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def contents(folder: str) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in Path(folder).iterdir()}


def video(path: str) -> list[bytes]:
    """An MP4's bytes; a WebM's pictures, because each of those has a random name of its own in it."""
    if path.endswith(".mp4"):
        return [Path(path).read_bytes()]
    with av.open(path) as container:
        return [frame.to_ndarray(format="rgb24").tobytes() for frame in container.decode(video=0)]


def frames_of(path: str) -> int:
    with av.open(path) as container:
        return sum(1 for _ in container.decode(video=0))


@pytest.mark.parametrize("suffix", [".mp4", pytest.param(".webm", marks=pytest.mark.slow)])
def test_it_goes_on_to_the_same_files(
    track: Run, kill: Callable[..., None], suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = [word.replace(".mp4", suffix) for word in ARGUMENTS]
    whole = track("a.mp4", *arguments)
    assert whole.code == 0, whole.err
    expected = video(f"b{suffix}"), contents("found")
    Path(f"b{suffix}").unlink()
    Path("found").rename("whole")
    kill("a.mp4", *arguments)
    assert {f"b.part{suffix}", f".b{suffix}.run"} < {*names()}
    assert f"b{suffix}" not in names()
    assert frames_of(f"b.part{suffix}") >= LAST - 30  # one second, and what the encoder looks ahead
    assert len(contents("found")) - (".masks.lock" in names(Path("found"))) == LAST

    refused = track("a.mp4", *arguments)
    assert (refused.code, refused.out) == (1, "")
    assert f"b{suffix}, found: a run was not finished --resume goes on with it, --force starts anew" in refused.words
    other = track("a.mp4", *arguments, "--resume", "--max-side", "64")
    assert (other.code, other.out) == (1, "")
    assert "is a run with other settings: max_side was null, is 64" in other.words

    worked: list[int] = []
    each = TrackingRun._track
    monkeypatch.setattr(TrackingRun, "_track", lambda self, frame: worked.append(frame.index) or each(self, frame))
    ran = track("a.mp4", *arguments, "--resume")
    assert ran.code == 0, ran.err
    assert worked == [*range(STATE, COUNT)]
    assert f"{STATE} frames are done already" in ran.err
    assert ran.out == whole.out
    assert (video(f"b{suffix}"), contents("found")) == expected
    assert names() == ["a.mp4", f"b{suffix}", "found", "later.json", "whole"]

    again = track("a.mp4", *arguments, "--resume")
    assert (again.code, again.out) == (0, "")
    assert "the results are there already, and no run that was killed: nothing is done" in again.err


@pytest.mark.slow
def test_masks_alone_go_on_too_and_another_video_is_refused(track: Run, kill: Callable[..., None]) -> None:
    arguments = ("--box", "20,30,50,60", "--masks", "found", "--no-video")
    assert track("a.mp4", *arguments).code == 0
    Path("found").rename("whole")
    kill("a.mp4", *arguments)
    Path("a.mp4").rename("kept.mp4")
    save_video(Path("a.mp4"), COUNT + 1)
    ran = track("a.mp4", *arguments, "--resume")
    assert (ran.code, "other settings: content was" in ran.words) == (1, True)
    Path("kept.mp4").rename("a.mp4")
    for name in ("00003.png", "00049.png"):  # as a power cut leaves them
        Path("found", name).write_bytes(b"")
    assert track("a.mp4", *arguments, "--resume").code == 0
    assert contents("found") == contents("whole")
    kill("a.mp4", *arguments, "--force")
    assert track("a.mp4", *arguments, "--force").code == 0
    assert contents("found") == contents("whole")


@pytest.mark.slow
def test_people_are_the_same_after_it(track: Run, kill: Callable[..., None]) -> None:
    """One is hidden for a while, and found again after the kill by a pose."""
    hidden = range(40, 52)
    clip = save_people(
        [{RED: (40, 20), **({} if index in hidden else {GREEN: (90, 60)})} for index in range(COUNT)],
    )
    poses = save([pose(0, (40, 20)), pose(0, (90, 60)), pose(52, (40, 20)), pose(52, (90, 60))])
    arguments = (clip, "--pose", poses, "--part", "shirt", "-o", "b.mp4", "--json")
    whole = track(*arguments)
    assert whole.code == 0, whole.err
    assert [one["class"] for one in json.loads(whole.out.splitlines()[-1])["objects"]] == ["shirt", "shirt"]
    Path("b.mp4").unlink()
    kill(*arguments)
    ran = track(*arguments, "--resume")
    assert ran.code == 0, ran.err
    assert ran.out == whole.out


def test_a_second_run_is_told_at_once(track: Run) -> None:
    with only_run(Path("b.mp4")):
        ran = track("a.mp4", *ARGUMENTS)
    assert (ran.code, ran.out) == (1, "")
    assert "another run is at work on b.mp4" in ran.words
    Path("found").mkdir()
    with only_run(Path("found"), Path("found/.masks.lock")):
        ran = track("a.mp4", *ARGUMENTS)
    assert (ran.code, ran.out) == (1, "")
    assert "another run is at work on found" in ran.words
    assert names() == ["a.mp4", "found", "later.json"]


@pytest.mark.parametrize(
    ("source", "options", "code", "words"),
    [
        ("7", ("-o", "b.mp4"), 2, "a camera does not show again what it has shown"),
        ("a.mp4", ("--no-video",), 2, "--resume has nothing to go on with: nothing is written"),
        ("a.mp4", ("--force",), 2, "--resume goes on with a run, --force starts anew"),
    ],
)
def test_what_cannot_be_gone_on_with(track: Run, source: str, options: tuple[str, ...], code: int, words: str) -> None:
    ran = track(source, "--box", "20,30,50,60", "--resume", *options)
    assert (ran.code, ran.out) == (code, "")
    assert words in ran.words

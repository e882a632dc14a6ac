"""`nanosam track` from the command line, on models that draw what they are asked for."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

from nanosam_cli.core.errors import InputError
from nanosam_cli.core.evaluation.davis_measures import region_similarity
from nanosam_cli.core.media import video
from nanosam_cli.core.media.mask_codes import rle_to_mask
from nanosam_cli.core.media.render import PALETTE
from nanosam_cli.core.tracking.run import TrackingRun
from nanosam_cli.core.tracking.tracker import Tracker
from tests.command_line import Ran, run_nanosam
from tests.video_data import HW, picture, save_frames, save_video, square

Run = Callable[..., Ran]
Box = "20,30,50,60"  # of the square in frame 0


@pytest.fixture(autouse=True)
def _working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def track(own_files: tuple[Path, Path]) -> Run:
    """`nanosam track` with the fake model."""

    def run(*arguments: object) -> Ran:
        return run_nanosam("track", *arguments, "--encoder", own_files[0], "--decoder", own_files[1])

    return run


@pytest.fixture
def no_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not one frame may be looked at."""

    def refuse(*_: object) -> None:
        raise AssertionError("work was begun")

    monkeypatch.setattr(TrackingRun, "_track", refuse)


def lines(ran: Ran) -> list[dict[str, Any]]:
    return [json.loads(line) for line in ran.out.splitlines()]


def labels(path: Path) -> np.ndarray[Any, Any]:
    with Image.open(path) as image:
        assert image.mode == "P"
        assert image.getpalette()[:9] == PALETTE[:3].ravel().tolist()
        return np.asarray(image)


def frames_of(path: Path) -> int:
    with av.open(str(path)) as container:
        return sum(1 for _ in container.decode(video=0))


def names(folder: Path = Path()) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# what is written


def test_overlay_video_and_table(track: Run) -> None:
    save_video(Path("in/a.mp4"))
    ran = track("in/a.mp4", "--box", Box)
    assert ran.code == 0, ran.err
    assert names() == ["a_track.mp4", "in"]
    for words in ("object", "tracked", "found again", "8 frames", "a_track.mp4"):
        assert words in ran.out
    with av.open("a_track.mp4") as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.frames, stream.average_rate) == ("h264", 8, 10)
        shown = [frame.to_ndarray(format="rgb24") for frame in container.decode(stream)]
    for index in (0, 7):  # the object is tinted, the ground is not
        changed = np.abs(shown[index].astype(int) - picture(index)).sum(axis=2)
        assert changed[square(index)].mean() > 3 * changed[~square(index)].mean()


def test_masks_and_json_lines(track: Run) -> None:
    save_frames(Path("clip"))
    ran = track("clip", "--mask", "clip/00000.png", "--masks", "found", "--no-video", "--json")
    assert ran.code == 0, ran.err
    assert names(Path("found")) == [f"{index:05}.png" for index in range(8)]
    assert names() == ["clip", "found"]
    records = lines(ran)
    assert [record["frame"] for record in records] == list(range(8))
    assert records[6]["seconds"] == 0.25
    assert all(record["schema_version"] == 1 and record["scene_cut"] is False for record in records)
    for index, record in enumerate(records):
        (one,) = record["objects"]
        mask = rle_to_mask(one["segmentation"])
        np.testing.assert_array_equal(mask, labels(Path("found") / f"{index:05}.png") == 1)
        assert region_similarity(mask, square(index)) > 0.7
        assert (one["id"], one["state"], one["area"]) == (1, "tracked", mask.sum())
        x0, y0, x1, y1 = one["box"]
        assert mask[y0:y1, x0:x1].sum() == mask.sum()
        assert 0 < one["score"] <= 1


@pytest.mark.parametrize(("options", "mode"), [((), "P"), (("--grey",), "L")])
def test_masks_have_the_colours_of_davis_unless_they_are_to_be_grey(
    track: Run, options: tuple[str, ...], mode: str
) -> None:
    save_frames(Path("clip"), count=2)
    assert track("clip", "--box", Box, "--masks", "found", "--no-video", *options).code == 0
    with Image.open("found/00001.png") as image:
        assert image.mode == mode
        assert np.unique(np.asarray(image)).tolist() == [0, 1]


def test_several_objects_and_prompts_for_later(track: Run) -> None:
    save_frames(Path("clip"))
    later = {"3": {"boxes": [[26, 30, 56, 60]], "ids": [7]}, "0.25s": {"points": [[45, 45, 1]], "ids": [2]}}
    Path("later.json").write_text(json.dumps(later))
    ran = track("clip", "--box", Box, "--box", "90,5,120,20", "--prompts", "later.json", "--no-video", "--json")
    assert ran.code == 0, ran.err
    ids = [[one["id"] for one in record["objects"]] for record in lines(ran)]
    assert ids == [[1, 2]] * 3 + [[1, 2, 7]] * 5
    restarted = next(one for one in lines(ran)[6]["objects"] if one["id"] == 2)
    assert 20 < restarted["box"][0] < 45


def test_prompts_that_never_come(track: Run) -> None:
    save_frames(Path("clip"), 4)
    Path("later.json").write_text('{"1": {"boxes": [[22, 30, 52, 60]]}, "99": {"boxes": [[22, 30, 52, 60]]}}')
    ran = track("clip", "--prompts", "later.json", "--no-video", "--json")
    assert (ran.code, [len(record["objects"]) for record in lines(ran)]) == (0, [0, 1, 1, 1])
    assert "ended before these prompts: frame 99" in ran.words


@pytest.mark.parametrize(
    ("key", "entry", "words"),
    [
        ("3", {"boxes": [[200, 200, 240, 240]]}, "frame 3: object 1: box 200,200,240,240 lies outside the photo"),
        ("0.25s", {"points": [[45, 45, 1], [500, 10, 0]]}, "0.25 s: object 1: point 500,10 lies outside the photo"),
    ],
)
def test_later_prompt_outside(track: Run, no_work: None, key: str, entry: dict[str, Any], words: str) -> None:
    """It is said at the first frame, which tells the size, and not when the work up to it is done."""
    Path("later.json").write_text(json.dumps({key: entry}))
    ran = track(clip(), "--box", Box, "--prompts", "later.json")
    assert (ran.code, ran.out) == (2, "")
    assert words in ran.words


def test_later_prompt_of_nothing(track: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """What only shows when its moment comes leaves the video up to there."""
    save_frames(Path("clip"))
    Path("later.json").write_text('{"3": {"boxes": [[26, 30, 56, 60]]}}')
    start = Tracker.init

    def refuse(self: Tracker, *arguments: Any) -> Any:
        if self.numbers:
            raise InputError("the prompt gives an empty mask")
        return start(self, *arguments)

    monkeypatch.setattr(Tracker, "init", refuse)
    ran = track("clip", "--box", Box, "--prompts", "later.json")
    assert ran.code == 1
    assert "frame 3: the prompt gives an empty mask" in ran.words
    assert "3 frames" in ran.out
    assert frames_of(Path("clip_track.mp4")) == 3


def test_one_frame(track: Run) -> None:
    save_frames(Path("clip"), 1)
    assert "1 frame," in track("clip", "--box", Box).out


@pytest.mark.parametrize(
    ("options", "frames"),
    [
        (("--start", "2", "--stop", "6"), [2, 3, 4, 5]),
        (("--start", "0.5s"), [5, 6, 7]),
        (("--stride", "3"), [0, 3, 6]),
    ],
)
def test_parts_keep_their_times(track: Run, options: tuple[str, ...], frames: list[int]) -> None:
    save_video(Path("a.mkv"))
    left = 20 + 2 * frames[0]
    ran = track("a.mkv", "--box", f"{left},30,{left + 30},60", *options, "--json", "-o", "b.mp4")
    assert ran.code == 0, ran.err
    assert [record["frame"] for record in lines(ran)] == frames
    with video.open_video("b.mp4") as opened:
        times = [float(frame.time) for frame in opened]
    assert times == pytest.approx([(frame - frames[0]) / 10 for frame in frames], abs=1e-3)


def test_overlay_begins_with_its_first_frame(track: Run) -> None:
    save_video(Path("a.mp4"))
    assert track("a.mp4", "--box", "24,30,54,60", "--start", "4", "-o", "b.webm").code == 0
    with av.open("b.webm") as container:
        assert next(frame.pts for frame in container.decode(video=0)) == 0
    assert track("b.webm", "--box", "24,30,54,60", "--no-video").code == 0  # what it wrote it reads


def test_prompts_before_the_start_are_left_out(track: Run) -> None:
    save_frames(Path("clip"))
    Path("early.json").write_text('{"1": {"boxes": [[90, 5, 120, 20]]}, "5": {"boxes": [[25, 30, 55, 60]]}}')
    ran = track("clip", "--prompts", "early.json", "--start", "5", "--no-video", "--json")
    assert (ran.code, [len(record["objects"]) for record in lines(ran)]) == (0, [1, 1, 1])
    assert "left out, because frames begin at frame 5: the prompts for frame 1" in ran.words


def test_two_requests_in_one_frame_share_no_pixel(track: Run) -> None:
    save_frames(Path("clip"))
    Path("more.json").write_text('{"0": {"boxes": [[40, 20, 90, 70]]}}')
    ran = track("clip", "--box", Box, "--prompts", "more.json", "--stop", "1", "--no-video", "--json")
    assert ran.code == 0, ran.err
    (record,) = lines(ran)
    one, other = (rle_to_mask(found["segmentation"]) for found in record["objects"])
    assert one.any()
    assert other.any()
    assert not (one & other).any()


def test_pipe_that_closes_leaves_the_video(own_files: tuple[Path, Path]) -> None:
    """`nanosam track ... --json | head -1`"""
    save_frames(Path("clip"))
    program = "from nanosam_cli.app import main; main()"
    models = ["--encoder", str(own_files[0]), "--decoder", str(own_files[1])]
    with subprocess.Popen(
        [sys.executable, "-c", program, "track", "clip", "--box", Box, "-o", "a.mp4", "--json", *models],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        said = process.stderr.read()
        process.wait(60)
    assert "cannot write" not in said
    assert frames_of(Path("a.mp4")) >= 1


def test_max_side(track: Run) -> None:
    """Everything is done and written smaller; prompts stay in the video's own pixels."""
    save_frames(Path("clip"))
    ran = track("clip", "--mask", "clip/00000.png", "--max-side", "64", "--masks", "found", "--json", "-o", "a.mp4")
    assert ran.code == 0, ran.err
    assert labels(Path("found/00003.png")).shape == (48, 64)
    x0, y0, x1, y1 = lines(ran)[0]["objects"][0]["box"]
    np.testing.assert_allclose([x0, y0, x1, y1], [10, 15, 25, 30], atol=2)


def test_object_gone_at_the_last_frame(track: Run) -> None:
    save_frames(Path("clip"), 4)
    for index in range(4, 10):
        Image.fromarray(picture(index, there=False)).save(f"clip/{index:05}.jpg", quality=95)
    ran = track("clip", "--box", Box, "--masks", "found", "--json")
    assert ran.code == 0, ran.err
    (last,) = lines(ran)[-1]["objects"]
    assert (last["state"], last["box"], last["area"]) == ("lost", None, 0)
    assert not labels(Path("found/00009.png")).any()
    assert frames_of(Path("clip_track.mp4")) == 10


def test_force(track: Run) -> None:
    save_frames(Path("clip"), 3)
    given = ("clip", "--box", Box, "--masks", "found", "-o", "a.mp4")
    assert track(*given).code == 0
    before = Path("a.mp4").read_bytes()
    again = track(*given)
    assert again.code == 1
    assert "a.mp4 exists already" in again.words
    assert Path("a.mp4").read_bytes() == before
    assert track(*given, "--force").code == 0


# bad input


def test_truncated_video_keeps_the_frames_before(track: Run) -> None:
    path = save_video(Path("a.mkv"), 40)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 6 // 10])
    ran = track("a.mkv", "--box", Box, "--masks", "found")
    assert ran.code == 1
    assert "broken or cut off after" in ran.words
    done = len(names(Path("found")))
    assert 3 < done < 39
    assert frames_of(Path("a_track.mp4")) == done


def garbage() -> str:
    Path("a.mp4").write_text("no video")
    return "a.mp4"


def text() -> str:
    Path("a.txt").write_text("one\ntwo\n" * 99)
    return "a.txt"


def no_frames() -> str:
    with video.VideoWriter(Path("a.mkv"), Fraction(10), Fraction(1, 1000)):
        pass
    return "a.mkv"


def clip() -> str:
    return str(save_frames(Path("clip"), 3))


def black_mask() -> str:
    Image.fromarray(np.zeros(HW, np.uint8)).save("black.png")
    return clip()


def small_mask() -> str:
    Image.fromarray(np.full((10, 10), 255, np.uint8)).save("small.png")
    return clip()


def broken_prompts() -> str:
    Path("p.json").write_text('{"first": {"boxes": [[1, 2, 3, 4]]}}')
    return clip()


def wrong_ids() -> str:
    Path("p.json").write_text('{"0": {"boxes": [[1, 2, 30, 40]], "ids": [1, 2]}}')
    return clip()


@pytest.mark.parametrize(
    ("make", "options", "code", "words"),
    [
        (lambda: "none.mp4", ("--box", Box), 1, "no such file: none.mp4"),
        (garbage, ("--box", Box), 1, "a.mp4 is not a video"),
        (no_frames, ("--box", Box), 1, "a.mkv"),
        (clip, (), 2, "no prompt: say what to follow"),
        (clip, ("--box", "200,200,240,240"), 2, "frame 0: object 1: box 200,200,240,240 lies outside"),
        (clip, ("--point", "500,10"), 2, "frame 0: object 1: point 500,10 lies outside"),
        (black_mask, ("--mask", "black.png"), 1, "all 0, so it marks no object"),
        (small_mask, ("--mask", "small.png"), 1, "frame 0: the mask is 10x10 pixels"),
        (clip, ("--mask", "none.png"), 1, "no such file: none.png"),
        (broken_prompts, ("--prompts", "p.json"), 1, "'first' is not a frame"),
        (wrong_ids, ("--prompts", "p.json"), 1, "ids must name its 1 objects"),
        (clip, ("--box", Box, "--start", "40"), 1, "no frames from frame 40 on"),
        (clip, ("--box", Box, "--start", "4.5"), 2, "not a frame such as 120"),
        (clip, ("--box", Box, "--fps", "0"), 2, "not above 0"),
        (lambda: str(save_video(Path("a.mp4"))), ("--box", Box, "--fps", "5"), 2, "--fps is for folders of frames"),
        (text, ("--box", Box), 1, "a.txt is not a video that can be read: it is text"),
        (clip, ("--box", Box, "-o", "a.xyz"), 2, "no encoder for .xyz"),
        (clip, ("--box", Box, "-o", "a.mp4", "--no-video"), 2, "takes no -o"),
        (clip, ("--box", Box, "--masks", "clip"), 2, "holds the frames that are read"),
        (clip, ("--box", Box, "--grey"), 2, "--grey is for the label PNGs of --masks"),
        (lambda: "7", ("--box", Box), 1, "camera 7 cannot be opened"),
    ],
    ids=[
        *("missing", "no video", "zero frames", "no prompt", "box outside", "point outside", "empty mask"),
        *("mask size", "no mask", "prompt file", "ids", "start", "start text", "fps", "fps of a file", "text"),
        "container",
        *("no video but -o", "masks", "grey", "camera"),
    ],
)
def test_bad_input(track: Run, make: Callable[[], str], options: tuple[str, ...], code: int, words: str) -> None:
    source = make()
    before = names()
    ran = track(source, *options)
    assert (ran.code, "Traceback" in ran.err) == (code, False), ran.err
    assert words in ran.words
    assert "warning" not in ran.words  # the error is all there is to say
    assert ran.out == ""
    assert names() == before  # nothing half done is left, nor claimed


def plain_file() -> str:
    Path("file").write_text("")
    return clip()


@pytest.mark.parametrize("options", [("-o", "file/a.mp4"), ("--masks", "file/found", "--no-video")])
def test_no_directory(track: Run, no_work: None, options: tuple[str, ...]) -> None:
    ran = track(plain_file(), "--box", Box, *options)
    assert (ran.code, ran.out) == (1, "")
    assert "file is not a directory" in ran.words


@pytest.mark.parametrize("options", [("-o", "new/a.mp4"), ("--masks", "new", "--no-video")])
def test_place_that_may_not_be_written(
    track: Run, no_work: None, monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...]
) -> None:
    source = clip()
    monkeypatch.setattr(os, "access", lambda _, mode: not mode & os.W_OK)  # root may write anywhere
    ran = track(source, "--box", Box, *options)
    assert (ran.code, ran.out) == (1, "")
    assert "new: permission denied" in ran.words
    assert names() == ["clip"]


def test_no_encoder_in_this_pyav(track: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(video.ENCODERS, ".mp4", ("none-such",))
    ran = track(clip(), "--box", Box)
    assert ran.code == 1
    assert "none of the encoders none-such" in ran.words


def test_overwriting_the_source(track: Run) -> None:
    save_video(Path("a.mp4"))
    ran = track("a.mp4", "--box", Box, "-o", "a.mp4", "--force")
    assert ran.code == 2
    assert "would overwrite the video that is read" in ran.words


@pytest.mark.skipif(sys.platform == "win32", reason="file size limits are POSIX")
def test_disk_full(own_files: tuple[Path, Path]) -> None:
    """A real refusal to write, by a limit on the size of files."""
    noise = np.random.default_rng(0)
    Path("clip").mkdir()
    for index in range(40):
        Image.fromarray(noise.integers(0, 256, (240, 320, 3)).astype(np.uint8)).save(f"clip/{index:05}.jpg")
    program = (
        "import resource, signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))\n"
        "from nanosam_cli.app import main; main()"
    )
    models = ["--encoder", str(own_files[0]), "--decoder", str(own_files[1])]
    done = subprocess.run(
        [sys.executable, "-c", program, "track", "clip", "--box", Box, "-o", "a.mp4", *models],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 1, done.stderr
    assert "cannot write" in done.stderr
    assert "a.mp4" in done.stderr
    assert "Traceback" not in done.stderr
    assert names() == ["clip"]


# being interrupted


def test_stopped_in_the_middle(track: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    save_frames(Path("clip"))
    each, seen = TrackingRun._track, []

    def stop(self: TrackingRun, frame: Any) -> Any:
        seen.append(1)
        if len(seen) == 5:
            raise KeyboardInterrupt
        return each(self, frame)

    monkeypatch.setattr(TrackingRun, "_track", stop)
    ran = track("clip", "--box", Box, "-o", "a.mp4")
    assert ran.code == 130
    assert "interrupted" in ran.words
    assert frames_of(Path("a.mp4")) == 4
    assert names() == ["a.mp4", "clip"]


@pytest.mark.parametrize(("stop", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signals(own_files: tuple[Path, Path], stop: signal.Signals, code: int) -> None:
    """The real signal to a real process: the video plays up to where it was."""
    save_video(Path("a.mp4"), 600)
    run = "from nanosam_cli.app import main; main()"
    models = ["--encoder", str(own_files[0]), "--decoder", str(own_files[1])]
    process = subprocess.Popen(
        [sys.executable, "-c", run, "track", "a.mp4", "--box", Box, "--json", "-o", "b.mp4", *models],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    for _ in range(5):
        process.stdout.readline()
    process.send_signal(stop)
    out, errors = process.communicate(timeout=60)
    assert process.returncode == code, errors
    assert "Traceback" not in errors
    assert 4 <= frames_of(Path("b.mp4")) <= 6 + out.count("\n")
    assert names() == ["a.mp4", "b.mp4"]


# the window


@pytest.mark.skipif(bool(os.environ.get("DISPLAY")), reason="there is a display")
def test_no_display(track: Run) -> None:
    ran = track(clip(), "--show")
    assert ran.code == 1
    assert "--show needs" in ran.words
    assert names() == ["clip"]

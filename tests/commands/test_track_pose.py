"""`nanosam track --pose`: people are found, followed, and found again by their poses."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from nanosam_cli.core.media.image import read_image
from nanosam_cli.core.paths import resource
from nanosam_cli.core.prompting.body_parts import COCO_KEYPOINTS
from tests.command_line import Ran, run_nanosam
from tests.video_data import save_video, square

Run = Callable[..., Ran]
Corner = tuple[int, int]  # x y of a shirt's upper left corner

HW, SIDE = (96, 128), 30
RED, BLUE, GREEN = (230, 120, 40), (40, 90, 240), (60, 220, 60)


@pytest.fixture(autouse=True)
def _working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def track(own_files: tuple[Path, Path]) -> Run:
    """`nanosam track` with the fake model."""

    def run(*arguments: object) -> Ran:
        return run_nanosam("track", *arguments, "--encoder", own_files[0], "--decoder", own_files[1])

    return run


def save_people(frames: Sequence[Mapping[tuple[int, int, int], Corner]], folder: str = "clip") -> str:
    """A clip whose people are shirts: bright squares of a colour each, over a dark, noisy ground."""
    Path(folder).mkdir()
    for index, shirts in enumerate(frames):
        image = np.random.default_rng(0).integers(0, 60, (*HW, 3)).astype(np.uint8)
        for colour, (x, y) in shirts.items():
            image[y : y + SIDE, x : x + SIDE] = colour
        Image.fromarray(image).save(f"{folder}/{index:05}.jpg", quality=95)
    return folder


def pose(frame: int | str, corner: Corner) -> dict[str, Any]:
    """COCO's result for somebody who wears the square of that corner, and shows nothing but shoulders and hips."""
    x, y = corner
    places = {"left_shoulder": (4, 4), "right_shoulder": (26, 4), "left_hip": (4, 26), "right_hip": (26, 26)}
    marks = [(x + dx, y + dy, 1) for dx, dy in (places.get(name, (0, 0)) for name in COCO_KEYPOINTS)]
    seen = [mark if name in places else (0, 0, 0) for name, mark in zip(COCO_KEYPOINTS, marks)]
    key = "file_name" if isinstance(frame, str) else "image_id"
    return {key: frame, "category_id": 1, "score": 0.9, "keypoints": [number for mark in seen for number in mark]}


def save(content: Any, name: str = "poses.json") -> str:
    Path(name).write_text(json.dumps(content))
    return name


def lines(ran: Ran) -> list[dict[str, Any]]:
    assert ran.code == 0, ran.err
    return [json.loads(line) for line in ran.out.splitlines()]


def places(record: Mapping[str, Any]) -> dict[int, Corner]:
    """Upper left corners of what is not lost, by number."""
    return {one["id"]: tuple(one["box"][:2]) for one in record["objects"] if one["box"]}


def near(place: Sequence[int], corner: Corner) -> bool:
    return bool(np.abs(np.subtract(place, corner)).max() <= 6)


def test_a_shirt(track: Run) -> None:
    """From a pose in the first frame on, through a video file."""
    save_video(Path("a.mkv"))
    ran = track("a.mkv", "--pose", save([pose(0, (20, 30))]), "--part", "shirt", "--no-video", "--json")
    records = lines(ran)
    assert len(records) == 8
    for index, record in enumerate(records):
        (one,) = record["objects"]
        assert (one["id"], one["class"], one["state"]) == (1, "shirt", "tracked")
        x0, y0, x1, y1 = one["box"]
        box = np.zeros(HW, bool)
        box[y0:y1, x0:x1] = True
        assert (box & square(index)).sum() / (box | square(index)).sum() > 0.6
    assert "frame 0: object 1 is the shirt of person 1" in ran.words


@pytest.mark.parametrize("name", [3, "00003.jpg", "elsewhere/00003.png"])
def test_nobody_is_there_at_first(track: Run, name: int | str) -> None:
    """Frames are known by their number and by their name."""
    clip = save_people([{}] * 3 + [{RED: (40, 20)}] * 3)
    ran = track(clip, "--pose", save([pose(name, (40, 20))]), "--part", "shirt", "--no-video", "--json")
    records = lines(ran)
    assert [len(record["objects"]) for record in records] == [0, 0, 0, 1, 1, 1]
    assert near(places(records[3])[1], (40, 20))


def test_one_picture_of_poses_is_that_of_the_first_frame(track: Run) -> None:
    clip = save_people([{RED: (40, 20)}] * 4)
    content = [{"keypoints": [{"name": "left_shoulder", "x": 44, "y": 24}, {"name": "right_hip", "x": 66, "y": 46}]}]
    given = (clip, "--pose", save(content), "--part", "shirt", "--start", "1", "--no-video", "--json")
    assert [len(record["objects"]) for record in lines(track(*given))] == [1, 1, 1]


def test_who_is_lost_is_prompted_again(track: Run) -> None:
    """Somebody walks out and comes back in another shirt: the tracker cannot know it, the pose does."""
    gone = 12
    clip = save_people([{RED: (20, 30)}] * 4 + [{}] * (gone - 4) + [{GREEN: (80, 50)}] * 4)
    poses = save([pose(frame, (20, 30)) for frame in range(4)] + [pose(frame, (80, 50)) for frame in range(gone, 16)])
    records = lines(track(clip, "--pose", poses, "--part", "shirt", "--no-video", "--json"))
    assert records[gone - 1]["objects"][0]["state"] == "lost"
    assert records[gone]["objects"][0]["state"] == "tracked"
    assert all(near(places(record)[1], (80, 50)) for record in records[gone:])
    only_once = lines(track(clip, "--pose", save([pose(0, (20, 30))]), "--part", "shirt", "--no-video", "--json"))
    assert not places(only_once[-1])


def test_people_keep_their_numbers(track: Run) -> None:
    """The file changes their order, and has somebody more, while one of them is away."""
    away = 12
    both = {RED: (10, 10), BLUE: (80, 50)}
    clip = save_people([both] * 4 + [{BLUE: (80, 50)}] * (away - 4) + [{GREEN: (20, 55), BLUE: (80, 50)}] * 3)
    first = [pose(frame, corner) for frame in range(4) for corner in both.values()]
    later = [pose(frame, corner) for frame in range(away, away + 3) for corner in ((80, 50), (20, 55))]
    poses = save(first + [pose(frame, (80, 50)) for frame in range(4, away)] + later)
    records = lines(track(clip, "--pose", poses, "--part", "shirt", "--no-video", "--json"))
    assert [*places(records[0])] == [1, 2]
    assert [*places(records[away - 1])] == [2]  # nobody else's pose is taken for the one who is away
    last = places(records[-1])
    assert near(last[1], (20, 55))
    assert near(last[2], (80, 50))


def test_chosen_person_and_parts(track: Run) -> None:
    """Numbers are given in the order of parts; a part that cannot be seen has none."""
    clip = save_people([{RED: (10, 10), BLUE: (80, 50)}] * 3)
    poses = save([pose(0, (10, 10)), pose(0, (80, 50))])
    ran = track(
        clip, "--pose", poses, "--part", "head", "--part", "pants", "--part", "shirt", "--person", "2", "--json"
    )
    for record in lines(ran):
        assert [(one["id"], one["class"]) for one in record["objects"]] == [(1, "pants"), (2, "shirt")]
    assert "object 2 is the shirt of person 2" in ran.words


def test_prompts_are_in_the_pixels_of_the_video(track: Run) -> None:
    clip = save_people([{RED: (40, 20)}] * 3)
    given = ("--pose", save([pose(0, (40, 20))]), "--part", "shirt", "--max-side", "64", "--no-video", "--json")
    assert all(near(places(record)[1], (20, 10)) for record in lines(track(clip, *given)))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ([], "no person found in 3 frames"),
        ([pose("photo.jpg", (40, 20))], "no person found in 3 frames; poses.json has photo.jpg"),
        ([pose(0, (900, 900))], "no person found in 3 frames"),
    ],
    ids=["nobody", "other names", "outside"],
)
def test_nobody_is_a_result_too(track: Run, content: Any, words: str) -> None:
    clip = save_people([{RED: (40, 20)}] * 3)
    ran = track(clip, "--pose", save(content), "--masks", "found", "-o", "a.mp4", "--json")
    assert [record["objects"] for record in lines(ran)] == [[], [], []]
    assert words in ran.words
    assert len(list(Path("found").iterdir())) == 3
    assert Path("a.mp4").stat().st_size


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        (("--pose", "poses.json", "--box", "1,2,30,40"), 2, "either by --pose or by --box, --point and --mask"),
        (("--pose", "poses.json", "--prompts", "p.json"), 2, "either by --pose or by --prompts, not by both"),
        (("--box", "1,2,30,40", "--part", "shirt"), 2, "--part belongs to --pose, which was not given"),
        (("--pose", "poses.json", "--part", "shrt"), 2, "unknown part: shrt did you mean shirt?"),
        (("--pose", "poses.json", "--person", "0"), 2, "people are counted from 1"),
        (("--pose", "none.json"), 1, "no such file: none.json"),
        (("--pose", "frames.json"), 1, "frames.json is not a file of poses"),
    ],
)
def test_bad_input(track: Run, options: tuple[str, ...], code: int, words: str) -> None:
    clip = save_people([{RED: (40, 20)}])
    save([pose(0, (40, 20))])
    save({"fps": 25}, "frames.json")
    before = sorted(Path().iterdir())
    ran = track(clip, *options)
    assert (ran.code, "Traceback" in ran.err) == (code, False), ran.err
    assert words in ran.words
    assert sorted(Path().iterdir()) == before


def test_extra_not_installed(track: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mediapipe", None)
    ran = track(save_people([{RED: (40, 20)}]), "--pose", "auto")
    assert ran.code == 1
    assert "needs mediapipe, which is not installed pip install 'nanosam-cli[pose]'" in ran.words
    assert [path.name for path in Path().iterdir()] == ["clip"]


@pytest.mark.filterwarnings(
    "ignore::DeprecationWarning", "ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"
)
def test_mediapipe_and_the_model_in_the_box() -> None:
    """The astronaut's face as a camera sees it that turns to the right, after a frame without anybody."""
    pytest.importorskip("mediapipe", reason="the extra `pose` is not installed")
    photo = read_image(resource("examples", "astronaut.jpg"))
    Path("clip").mkdir()
    for index in range(5):
        shown = np.full_like(photo, 90) if index == 0 else np.roll(photo, -4 * index, axis=1)
        Image.fromarray(shown).save(f"clip/{index}.png")
    ran = run_nanosam("track", "clip", "--pose", "auto", "--part", "head", "--no-video", "--json")
    records = lines(ran)
    assert not records[0]["objects"]
    for index, record in enumerate(records[1:], 1):
        (one,) = record["objects"]
        assert one["class"] == "head"
        x0, y0, x1, y1 = one["box"]
        assert x0 < 224 - 4 * index < x1
        assert y0 < 130 < y1
        assert 8_000 < one["area"] < 30_000

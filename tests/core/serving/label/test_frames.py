"""A video's frames become photos once, and are found again."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from nanosam_cli.core.errors import InputError, OutputError
from nanosam_cli.core.masks import mask_iou
from nanosam_cli.core.media.image import read_image
from nanosam_cli.core.serving.label.frames import with_frames
from tests.serving_data import save_photo
from tests.video_data import save_video, square


@pytest.fixture
def video(tmp_path: Path) -> Path:
    return save_video(tmp_path / "clips" / "clip.mp4", 7)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_frames_are_written_once_and_found_again(video: Path, tmp_path: Path) -> None:
    photo = save_photo(tmp_path / "a.jpg")
    notes: list[str] = []
    given = [str(photo), str(video)]
    arguments = with_frames(given, tmp_path, 1, notes.append)
    folder = tmp_path / "clip_frames"
    assert arguments == [str(photo), str(folder)]
    assert names(folder) == [*(f"{index:05}.jpg" for index in range(7)), "frames.json"]
    assert mask_iou(read_image(folder / "00005.jpg")[..., 0] > 150, square(5)) > 0.95
    assert json.loads((folder / "frames.json").read_text())["rate"] == 10
    (folder / "00003.jpg").write_bytes(b"mine")
    assert (with_frames(given, tmp_path, 1, notes.append), len(notes)) == (arguments, 1)
    assert (folder / "00003.jpg").read_bytes() == b"mine"


def test_every_third_frame_keeps_its_number(video: Path, tmp_path: Path) -> None:
    with_frames([str(video)], tmp_path, 3, lambda _: None)
    assert names(tmp_path / "clip_frames") == ["00000.jpg", "00003.jpg", "00006.jpg", "frames.json"]


def test_what_a_killed_start_has_left_is_finished(video: Path, tmp_path: Path) -> None:
    with_frames([str(video)], tmp_path, 1, lambda _: None)
    about = tmp_path / "clip_frames" / "frames.json"
    about.write_text(json.dumps({**json.loads(about.read_text()), "done": False}))
    (tmp_path / "clip_frames" / "00004.jpg").unlink()
    with_frames([str(video)], tmp_path, 1, lambda _: None)
    assert (tmp_path / "clip_frames" / "00004.jpg").exists()


@pytest.mark.parametrize("about", [None, "{", "[]", '{"video": "other.mp4"}'])
def test_a_folder_that_holds_something_else_is_left_alone(video: Path, tmp_path: Path, about: str | None) -> None:
    folder = tmp_path / "clip_frames"
    folder.mkdir()
    (folder / "mine.txt").write_text("mine")
    if about is not None:
        (folder / "frames.json").write_text(about)
    before = names(folder)
    with pytest.raises(OutputError, match="clip_frames is there, and does not hold every frame"):
        with_frames([str(video)], tmp_path, 1, lambda _: None)
    assert names(folder) == before


def test_other_strides_are_not_mixed(video: Path, tmp_path: Path) -> None:
    with_frames([str(video)], tmp_path, 3, lambda _: None)
    with pytest.raises(OutputError, match="--stride 1"):
        with_frames([str(video)], tmp_path, 1, lambda _: None)


def test_what_is_no_video_is_told_and_leaves_no_folder(video: Path, tmp_path: Path) -> None:
    video.write_bytes(b"no video")
    with pytest.raises(InputError, match=r"clip\.mp4 is not a video"):
        with_frames([str(video)], tmp_path, 1, lambda _: None)
    assert names(tmp_path) == ["clips"]


def test_photos_and_folders_are_no_videos(tmp_path: Path) -> None:
    (tmp_path / "folder.mp4").mkdir()
    given = [str(tmp_path / "folder.mp4"), "missing.mp4", str(save_photo(tmp_path / "a.webp"))]
    assert with_frames(given, tmp_path, 1, lambda _: None) == given

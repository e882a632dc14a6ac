"""Clips of every layout, and what is said of them."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from nanosam_cli.core.datasets.clips import ClipLabels, find_clips, read_labels
from nanosam_cli.core.errors import InputError, NanosamError, OutputError, UsageError
from nanosam_cli.core.evaluation.davis_measures import boundary_accuracy, region_similarity
from nanosam_cli.core.evaluation.davis_run import DavisScore, Places, check_clips, score_clip
from nanosam_cli.core.evaluation.followers import CopyFollower, Followed
from nanosam_cli.core.media.image import write_png
from nanosam_cli.core.tracking.target import TrackState
from tests.video_data import HW, save_frames, square

T, U, L = TrackState.tracked, TrackState.uncertain, TrackState.lost


class Told:
    """A follower that says what it was told to say."""

    name = "told"

    def __init__(self, states: Sequence[TrackState], shift: int = 0) -> None:
        self._states, self._shift = states, shift

    def start(self, image: NDArray[np.uint8], masks: NDArray[np.bool_]) -> list[Followed]:
        self._frame = 0
        return [Followed(mask, TrackState.tracked) for mask in masks]

    def step(self, image: NDArray[np.uint8]) -> list[Followed]:
        self._frame += 1
        state = self._states[self._frame]
        mask = np.zeros(HW, bool) if state is TrackState.lost else square(self._frame + self._shift)
        return [Followed(mask, state)]


def test_perfect(tmp_path: Path) -> None:
    save_frames(tmp_path / "a")
    (clip,) = find_clips(tmp_path)
    score = score_clip(clip, Told([T] * 8))
    assert (score.j, score.f, score.tracked, score.reacquired) == (1, 1, 1, 0)
    assert score.frames == 8
    assert score.fps > 0


def test_first_and_last_frames_do_not_count(tmp_path: Path) -> None:
    """Eight frames, lost in the third and in the last: one of the six that count."""
    save_frames(tmp_path / "a")
    (clip,) = find_clips(tmp_path)
    score = score_clip(clip, Told([T, T, L, U, T, T, T, L]))
    assert score.j == pytest.approx(5 / 6)
    assert score.f == pytest.approx(5 / 6)
    assert score.tracked == pytest.approx(4 / 7)
    assert score.reacquired == 1


def test_copy_is_the_floor(tmp_path: Path) -> None:
    save_frames(tmp_path / "a")
    (clip,) = find_clips(tmp_path)
    score = score_clip(clip, CopyFollower())
    assert score.j == pytest.approx(np.mean([region_similarity(square(0), square(index)) for index in range(1, 7)]))
    assert score.f == pytest.approx(np.mean([boundary_accuracy(square(0), square(index)) for index in range(1, 7)]))


def test_means_go_over_objects(tmp_path: Path) -> None:
    """A clip of two objects counts twice; void pixels do not count."""
    save_frames(tmp_path / "a")
    two = save_frames(tmp_path / "b")
    for index in range(8):
        labels = square(index).astype(np.uint8)
        labels[70:90, 5:25] = 2
        labels[:10] = 255
        write_png(two / f"{index:05}.png", labels, overwrite=True)
    scores = [score_clip(clip, CopyFollower()) for clip in find_clips(tmp_path)]
    moving, (same_moving, standing) = scores[0].objects[0], scores[1].objects
    assert (standing.number, standing.j, standing.f) == (2, 1, 1)
    assert moving.j == pytest.approx(same_moving.j)
    result = DavisScore(scores)
    assert result.mean_j == pytest.approx((2 * moving.j + 1) / 3)
    record = result.record()
    assert list(record)[:4] == ["schema_version", "mean_j", "mean_f", "mean_jf"]
    assert record["mean_jf"] == pytest.approx((record["mean_j"] + record["mean_f"]) / 2)
    assert [clip["clip"] for clip in record["clips"]] == ["a", "b"]
    assert [row[0] for row in result.rows()] == ["a", "b", "all"]


def test_masks_of_0_and_255(tmp_path: Path) -> None:
    """As DAVIS 2016 has them: one object, judged as if its label were 1."""
    folder = save_frames(tmp_path / "a")
    for index in range(8):
        write_png(folder / f"{index:05}.png", square(index).astype(np.uint8) * 255, overwrite=True)
    (clip,) = find_clips(tmp_path)
    check_clips([clip])
    score = score_clip(clip, Told([T, T, L, T, T, T, T, T]), Places(masks=tmp_path / "masks"))
    assert [one.number for one in score.objects] == [1]
    assert (score.j, score.f) == (pytest.approx(5 / 6), pytest.approx(5 / 6))
    np.testing.assert_array_equal(read_labels(tmp_path / "masks" / "a" / "00005.png"), square(5))


def test_void_beside_an_object_stays_void(tmp_path: Path) -> None:
    folder = save_frames(tmp_path / "a")
    labels = square(0).astype(np.uint8)
    labels[:10] = 255
    write_png(folder / "00000.png", labels, overwrite=True)
    write_png(folder / "00001.png", square(1).astype(np.uint8) * 255, overwrite=True)
    truth = ClipLabels(find_clips(tmp_path)[0])
    assert list(truth.numbers) == [1]
    for index, values in ((0, {0, 1, 255}), (1, {0, 255}), (2, {0, 1})):
        found = truth.at(index)
        assert found is not None
        assert set(np.unique(found).tolist()) == values


def test_sparse_masks(tmp_path: Path) -> None:
    folder = save_frames(tmp_path / "a")
    for index in (1, 2, 4, 5, 6, 7):
        (folder / f"{index:05}.png").unlink()
    (clip,) = find_clips(tmp_path)
    assert score_clip(clip, Told([T, T, T, L, T, T, T, T])).j == 0  # frame 3 alone counts


def test_pictures(tmp_path: Path) -> None:
    save_frames(tmp_path / "clips" / "a")
    clips = find_clips(tmp_path / "clips")
    places = Places(tmp_path / "sheets", tmp_path / "masks").checked(clips)
    score_clip(clips[0], Told([T] * 8), places)
    np.testing.assert_array_equal(read_labels(tmp_path / "masks" / "a" / "00005.png"), square(5))
    with Image.open(tmp_path / "sheets" / "a.png") as sheet:
        assert sheet.width == 4 * 320
        assert len(np.unique(np.asarray(sheet).reshape(-1, 3), axis=0)) > 100
    with pytest.raises(OutputError, match="exist already"):
        places.checked(clips)
    assert Places(places.sheets, places.masks, force=True).checked(clips)


def davis_layout(folder: Path) -> Path:
    for name in ("dog", "cat"):
        save_frames(folder / "JPEGImages" / "480p" / name, 3)
        (folder / "Annotations" / "480p").mkdir(parents=True, exist_ok=True)
        target = folder / "Annotations" / "480p" / name
        target.mkdir()
        for path in (folder / "JPEGImages" / "480p" / name).glob("*.png"):
            shutil.move(path, target / path.name)
    lists = folder / "ImageSets" / "2017"
    lists.mkdir(parents=True)
    (lists / "val.txt").write_text("dog\n")
    return folder


def test_davis_layout(tmp_path: Path) -> None:
    folder = davis_layout(tmp_path)
    assert [clip.name for clip in find_clips(folder)] == ["cat", "dog"]
    assert [clip.name for clip in find_clips(folder, split="val")] == ["dog"]
    (clip,) = find_clips(folder, ["cat"])
    assert [path.name for path in clip.frames] == ["00000.jpg", "00001.jpg", "00002.jpg"]
    assert all(clip.truths)


@pytest.mark.parametrize("masks", ["JPEGImages/480p", "Annotations/480p", "JPEGImages/../Annotations/480p", "link"])
def test_masks_beside_what_is_read(tmp_path: Path, masks: str) -> None:
    folder = davis_layout(tmp_path)
    (folder / "link").mkdir()
    (folder / "link" / "cat").symlink_to(folder / "Annotations" / "480p" / "dog")
    with pytest.raises(UsageError, match="holds a clip that is read"):
        Places(masks=folder / masks, force=True).checked(find_clips(folder))
    assert Places(masks=folder / "Annotations" / "mine").checked(find_clips(folder))


def test_pictures_in_place_of_what_is_read(tmp_path: Path) -> None:
    """A sheet of the name of a mask, and a link to a mask where one is to be written."""
    clip = save_frames(tmp_path / "clips" / "00003")
    (tmp_path / "masks" / "00003").mkdir(parents=True)
    (tmp_path / "masks" / "00003" / "00001.png").symlink_to(clip / "00001.png")
    for places in (Places(sheets=clip, force=True), Places(masks=tmp_path / "masks", force=True)):
        with pytest.raises(UsageError, match="a clip that is read"):
            places.checked(find_clips(tmp_path / "clips"))


@pytest.mark.parametrize(
    ("places", "hint"),
    [
        (Places(sheets=Path("file")), "--sheets"),
        (Places(sheets=Path("sheets"), force=True), "--sheets"),
        (Places(masks=Path("file", "new")), "--masks"),
        (Places(masks=Path("masks"), force=True), "--masks"),
    ],
)
def test_places_that_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, places: Places, hint: str
) -> None:
    monkeypatch.chdir(tmp_path)
    save_frames(tmp_path / "clips" / "a", 3)
    (tmp_path / "masks").mkdir()
    for file in ("file", "masks/a"):
        (tmp_path / file).write_text("")
    (tmp_path / "sheets" / "a.png").mkdir(parents=True)
    with pytest.raises(OutputError, match="cannot write") as caught:
        places.checked(find_clips(tmp_path / "clips"))
    assert hint in str(caught.value.hint)


def without_first_mask(folder: Path) -> None:
    (save_frames(folder / "a", 4) / "00000.png").unlink()


def without_frames(folder: Path) -> None:
    for path in save_frames(folder / "a", 4).glob("*.jpg"):
        path.unlink()


def empty_first_mask(folder: Path) -> None:
    write_png(save_frames(folder / "a", 4) / "00000.png", np.zeros(HW, np.uint8), overwrite=True)


def two_frames(folder: Path) -> None:
    save_frames(folder / "a", 2)


def other_size(folder: Path) -> None:
    Image.fromarray(np.zeros((50, 60, 3), np.uint8)).save(save_frames(folder / "a", 4) / "00002.jpg")


def broken_mask(folder: Path) -> None:
    (save_frames(folder / "a", 4) / "00001.png").write_bytes(b"no png")


def only_first_and_last(folder: Path) -> None:
    for index in (1, 2):
        (save_frames(folder / "a", 4) if index == 1 else folder / "a").joinpath(f"{index:05}.png").unlink()


def broken_first_mask(folder: Path) -> None:
    (save_frames(folder / "a", 4) / "00000.png").write_bytes(b"no png")


def empty_list(folder: Path) -> None:
    (davis_layout(folder) / "ImageSets" / "2017" / "val.txt").write_text(" \n")


def list_in_latin_1(folder: Path) -> None:
    (davis_layout(folder) / "ImageSets" / "2017" / "val.txt").write_bytes(b"K\xe4fer\n")


def nothing(folder: Path) -> None:
    pass


@pytest.mark.parametrize(
    ("make", "names", "split", "error", "words"),
    [
        (nothing, [], None, InputError, "no annotated clips"),
        (without_first_mask, [], None, InputError, "no mask of its first frame"),
        (without_frames, [], None, InputError, "no frames in"),
        (empty_first_mask, [], None, InputError, "is empty"),
        (two_frames, [], None, InputError, "2 frames"),
        (other_size, [], None, InputError, "60x50 pixels"),
        (broken_mask, [], None, InputError, "00001.png is not a PNG"),
        (only_first_and_last, [], None, InputError, "cannot be scored"),
        (two_frames, ["aa"], None, UsageError, "no annotated clip aa"),
        (davis_layout, [], "test", UsageError, "no list test"),
        (davis_layout, [], "", UsageError, "no list"),
        (davis_layout, ["dog"], "val", UsageError, "not by both"),
        (davis_layout, ["dog"], "test", UsageError, "not by both"),
        (empty_list, [], "val", InputError, r"val\.txt is empty"),
        (list_in_latin_1, [], "val", InputError, r"val\.txt is not a text file"),
    ],
)
def test_bad_clips(
    tmp_path: Path, make: object, names: list[str], split: str | None, error: type[NanosamError], words: str
) -> None:
    def evaluate() -> None:
        for clip in find_clips(tmp_path, names, split):
            score_clip(clip, CopyFollower())

    make(tmp_path)  # type: ignore[operator]
    with pytest.raises(error, match=words):
        evaluate()


@pytest.mark.parametrize("make", [empty_first_mask, two_frames, only_first_and_last, broken_first_mask])
def test_bad_clips_are_known_before_work(tmp_path: Path, make: Callable[[Path], None]) -> None:
    make(tmp_path)
    save_frames(tmp_path / "0")
    clips = find_clips(tmp_path)
    check_clips(clips[:1])
    with pytest.raises(InputError, match=r"clip a|/a/"):
        check_clips(clips)

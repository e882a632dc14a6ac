from __future__ import annotations

import io
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nanosam_cli.core.errors import InputError
from nanosam_cli.core.training.data.image_folder import Unreadable, find_training_photos, fingerprint


def _save(path: Path, colour: tuple[int, int, int] = (200, 10, 10)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (30, 20), colour).save(path)


def _save_shard(path: Path, names: list[str]) -> None:
    """A shard as SA-1B's: a photo and a JSON file of each stem."""
    with tarfile.open(path, "w") as shard:
        for number, name in enumerate(names):
            picture = io.BytesIO()
            Image.new("RGB", (12, 10), (number * 50, 0, 0)).save(picture, format="PNG")
            for member, data in ((f"./{name}.png", picture.getvalue()), (f"./{name}.json", b"{}")):
                info = tarfile.TarInfo(member)
                info.size = len(data)
                shard.addfile(info, io.BytesIO(data))


def test_photos_of_any_layout_and_shards(tmp_path: Path) -> None:
    _save(tmp_path / "a.jpg")
    _save(tmp_path / "deep" / "er" / "b.webp")
    _save(tmp_path / "deep" / "c.PNG")
    _save(tmp_path / ".hidden" / "d.jpg")
    (tmp_path / "notes.txt").write_text("no photo")
    _save_shard(tmp_path / "sa_000000.tar", ["sa_1", "sa_2"])
    photos = find_training_photos(tmp_path)
    names = [Path(photo.name).relative_to(tmp_path).as_posix() for photo in photos]
    assert names == ["a.jpg", "deep/c.PNG", "deep/er/b.webp", "sa_000000.tar/sa_1.png", "sa_000000.tar/sa_2.png"]
    assert [photo.read().shape for photo in photos] == [(20, 30, 3)] * 3 + [(10, 12, 3)] * 2
    assert [int(photo.read()[0, 0, 0]) for photo in photos[3:]] == [0, 50]
    assert find_training_photos(tmp_path / "sa_000000.tar") == photos[3:]


def test_the_fingerprint_is_of_the_photos_not_of_their_place(tmp_path: Path) -> None:
    for place in ("here", "there", "less"):
        _save(tmp_path / place / "a.png")
    _save(tmp_path / "here" / "b.png")
    _save(tmp_path / "there" / "b.png")
    here, there, less = (
        fingerprint(find_training_photos(tmp_path / p), tmp_path / p) for p in ("here", "there", "less")
    )
    assert here == there != less


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("nothing", None, "no such folder of photos"),
        ("notes.txt", b"no photo", "no photos in"),
        ("broken.tar", b"this is no tar file" * 100, "cannot read"),
        ("packed.tar", b"\x1f\x8b\x08\x00" + bytes(600), "cannot read"),
    ],
)
def test_places_without_photos(tmp_path: Path, name: str, content: bytes | None, words: str) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=words):
        find_training_photos(tmp_path / name)


def test_a_broken_photo_in_a_shard_is_named(tmp_path: Path) -> None:
    _save_shard(tmp_path / "x.tar", ["one"])
    [photo] = find_training_photos(tmp_path / "x.tar")
    data = bytearray((tmp_path / "x.tar").read_bytes())
    data[photo.offset : photo.offset + 8] = bytes(8)
    (tmp_path / "x.tar").write_bytes(data)
    with pytest.raises(InputError, match=r"one\.png"):
        photo.read()


@pytest.mark.parametrize(
    ("photos", "tried", "bad", "aborts"),
    [
        (100, 100, 5, False),
        (100, 100, 6, True),
        (100_000, 100, 10, False),  # a few early ones say nothing of a large set
        (100_000, 300, 20, True),
        (100_000, 1000, 20, False),
    ],
)
def test_more_than_a_twentieth_ends_the_run(tmp_path: Path, photos: int, tried: int, bad: int, aborts: bool) -> None:
    workers = [Unreadable(tmp_path / "bad.jsonl", photos) for _ in range(2)]
    for number in range(bad):
        for worker in workers:  # both met it, the second one twice
            worker.add(f"{number}.jpg", InputError(f"{number}.jpg is empty"))
        workers[1].add(f"{number}.jpg", InputError("again"))
    watcher = Unreadable(tmp_path / "bad.jsonl", photos)
    if aborts:
        with pytest.raises(InputError, match=rf"{bad} photos of {min(tried, photos)} cannot be read"):
            list(watcher.news(tried))
        return
    assert list(watcher.news(tried)) == [f"{number}.jpg is empty" for number in range(bad)]
    assert list(watcher.news(tried)) == []
    assert np.count_nonzero((tmp_path / "bad.jsonl").read_text().splitlines()) == 2 * bad


@pytest.mark.parametrize(
    ("photos", "tried", "bad", "words"),
    [
        (8, 4, 4, "4 photos of 8"),  # of all that there are, not of the first four draws
        (8, 100, 4, "4 photos of 8"),
        (100_000, 4, 20, "20 photos of 20"),  # bad ones are replaced, so there are more of them than samples
    ],
)
def test_photos_are_counted_not_draws(tmp_path: Path, photos: int, tried: int, bad: int, words: str) -> None:
    unreadable = Unreadable(tmp_path / "bad.jsonl", photos)
    for number in range(bad):
        unreadable.add(f"{number}.jpg", InputError("empty"))
    with pytest.raises(InputError, match=f"^{words} cannot be read"):
        list(unreadable.news(tried))

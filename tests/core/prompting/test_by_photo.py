"""Which photo a name of another tool's file means."""

from __future__ import annotations

from pathlib import Path
from unicodedata import normalize

import pytest

from nanosam_cli.core.errors import InputError
from nanosam_cli.core.prompting.by_photo import ByPhoto, photo_keys


def file_of(*names: str) -> ByPhoto[str]:
    keys = photo_keys(names)
    return ByPhoto(Path("f.json"), {keys[n]: [n] for n in names}, names={key: name for name, key in keys.items()})


def meant(names: list[str], photos: list[str]) -> list[str | None]:
    """What the file calls each photo."""
    file = file_of(*names)
    keys = file.match([Path(photo) for photo in photos])
    return [file.photos[keys[Path(photo)]][0] if Path(photo) in keys else None for photo in photos]


@pytest.mark.parametrize(
    ("names", "photos", "wanted"),
    [
        (["n/1.jpg", "s/1.jpg"], ["n/1.jpg", "s/1.jpg"], ["n/1.jpg", "s/1.jpg"]),
        (["x/n/1.jpg", "x/s/1.jpg"], ["y/s/1.jpg", "y/n/1.jpg"], ["x/s/1.jpg", "x/n/1.jpg"]),
        (["train/1.jpg"], ["train/1.jpg", "val/1.jpg"], ["train/1.jpg", None]),  # that of the longer path
        (["C:\\x\\1.jpg"], ["elsewhere/1.jpg"], ["C:\\x\\1.jpg"]),
        (["..\\n\\1.jpg"], ["n/1.jpg"], ["..\\n\\1.jpg"]),
        (["2024.05.01-10.00.05"], ["2024.05.01-10.00.05.jpg"], ["2024.05.01-10.00.05"]),
        (["a.rf.1", "a.rf.2", "a"], ["a.rf.2.png", "a.png"], ["a.rf.2", "a"]),  # no more than the image's own suffix
        (["a.jpg"], ["a.webp"], ["a.jpg"]),
        (["a.jpg", "a.png"], ["a.png", "a.webp"], ["a.png", None]),
        (["a"], ["a.JFIF"], ["a"]),
        (["285"], ["000000000285.jpg"], ["285"]),
        (["0"], ["000.jpg"], ["0"]),
        (["a.jpg"], ["a.jpg", "a.png"], ["a.jpg", None]),  # the suffix says which
        ([normalize("NFC", "é.jpg")], [normalize("NFD", "é.jpg")], [normalize("NFC", "é.jpg")]),
        ([normalize("NFD", "é/a.jpg"), "e/a.jpg"], [normalize("NFC", "é/a.jpg")], [normalize("NFD", "é/a.jpg")]),
    ],
)
def test_a_name_means_the_photo_it_is_most_like(names: list[str], photos: list[str], wanted: list[str | None]) -> None:
    assert meant(names, photos) == wanted


@pytest.mark.parametrize(
    ("names", "photos", "words"),
    [
        (["1.jpg"], ["n/1.jpg", "s/1.jpg"], "1.jpg may be any of n/1.jpg, s/1.jpg"),
        (["n/1.jpg", "s/1.jpg"], ["1.jpg"], "several entries that may be 1.jpg: n/1.jpg, s/1.jpg"),
        (["a"], ["a.jpg", "a.png"], "a may be any of a.jpg, a.png"),
        (["7"], ["07.jpg", "007.jpg"], "7 may be any of"),
        (["a"], ["b.jpg"], "names none of the photos; it has a"),
        (["a.1"], ["a.jpg"], "names none of the photos; it has a.1"),
    ],
)
def test_nothing_is_guessed(names: list[str], photos: list[str], words: str) -> None:
    with pytest.raises(InputError, match=words) as caught:
        meant(names, photos)
    assert caught.value.hint


def test_photos_are_called_by_their_file_names_where_these_say_enough() -> None:
    assert photo_keys(["n\\1.jpg", "s/1.jpg", "s/2.jpg"]) == {
        "n\\1.jpg": "n/1.jpg",
        "s/1.jpg": "s/1.jpg",
        "s/2.jpg": "2.jpg",
    }


def test_what_a_file_says_of_one_photo() -> None:
    file = file_of("n/1.jpg", "2.jpg")
    assert file.of(Path("1.jpg")) == ["n/1.jpg"]
    assert file.of(Path("3.jpg")) == ()

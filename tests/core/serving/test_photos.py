"""No name leads to a file that was not opened."""

from __future__ import annotations

from pathlib import Path

import pytest

from nanosam_cli.core.errors import InputError, UsageError
from nanosam_cli.core.serving.answers import NotFoundError
from nanosam_cli.core.serving.photos import OpenedPhotos
from tests.serving_data import save_photo


@pytest.fixture
def place(tmp_path: Path) -> Path:
    for name in ("photos/a.png", "photos/deep/b.png", "secret.png", "photos-2/c.png"):
        save_photo(tmp_path / name)
    (tmp_path / "photos" / "notes.txt").write_text("private")
    return tmp_path


def test_photos_of_a_folder_go_by_their_names(place: Path) -> None:
    photos = OpenedPhotos([str(place / "photos")])
    assert photos.names == ["a.png"]
    assert photos.find("a.png") == (place / "photos" / "a.png").resolve()
    assert photos.find("deep/b.png").name == "b.png"


def test_photos_of_several_places_go_by_their_paths(place: Path) -> None:
    photos = OpenedPhotos([str(place / "photos"), str(place / "photos-2" / "c.png")])
    assert photos.names == ["photos/a.png", "photos-2/c.png"]
    with pytest.raises(NotFoundError):
        photos.find("secret.png")


@pytest.mark.parametrize(
    "name",
    [
        "../secret.png",
        "deep/../../secret.png",
        "{place}/secret.png",
        "//secret.png",
        "..\\secret.png",
        "%2e%2e/secret.png",
        "a.png\0",
        "notes.txt",
        "",
        ".",
        "a.png/../../secret.png",
        "x" * 5000,
    ],
)
def test_a_name_that_leads_elsewhere_is_refused(place: Path, name: str) -> None:
    photos = OpenedPhotos([str(place / "photos")])
    with pytest.raises(NotFoundError):
        photos.find(name.format(place=place))


def test_a_link_out_of_the_folder_is_refused(place: Path) -> None:
    (place / "photos" / "link.png").symlink_to(place / "secret.png")
    (place / "photos" / "around").symlink_to(place)
    photos = OpenedPhotos([str(place / "photos")])
    for name in ("link.png", "around/secret.png"):
        with pytest.raises(NotFoundError, match="leads out"):
            photos.find(name)


def test_a_link_that_was_named_outright_is_followed_where_it_led_then(place: Path) -> None:
    link = place / "photos" / "link.png"
    link.symlink_to(place / "secret.png")
    photos = OpenedPhotos([str(link)])
    assert photos.find("link.png") == (place / "secret.png").resolve()
    link.unlink()
    link.symlink_to(place / "photos-2" / "c.png")
    with pytest.raises(NotFoundError):
        photos.find("link.png")


def test_a_photo_that_went_away_is_told(place: Path) -> None:
    photos = OpenedPhotos([str(place / "photos")])
    (place / "photos" / "a.png").unlink()
    with pytest.raises(NotFoundError, match="no longer there"):
        photos.read("a.png")


def test_what_has_no_photos_is_refused(place: Path) -> None:
    (place / "empty").mkdir()
    with pytest.raises(InputError, match="no images"):
        OpenedPhotos([str(place / "empty")])
    with pytest.raises(UsageError, match="pipe"):
        OpenedPhotos(["-"])

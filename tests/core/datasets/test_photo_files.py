"""Data sets in folders and in zip files, and where they are looked for."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest

from nanosam_cli.core.datasets.coco import read_annotations
from nanosam_cli.core.datasets.photo_files import PhotoFiles, find_data, read_file
from nanosam_cli.core.errors import InputError, UsageError
from tests.evaluation_data import save_data_set, zipped


@pytest.fixture
def places(tmp_path: Path) -> tuple[Path, Path]:
    return save_data_set(tmp_path / "data")


@pytest.mark.parametrize("inside", ["", "val2017/"])
def test_a_zip_file_is_as_good_as_a_folder(places: tuple[Path, Path], tmp_path: Path, inside: str) -> None:
    images, annotations = places
    archive = zipped(images, tmp_path / "photos.zip", inside)
    with PhotoFiles(images) as folder, PhotoFiles(archive) as packed:
        for place, files in ((images, folder), (archive, packed)):
            photo = read_annotations(annotations, place).photos[1]
            assert photo.path in files
            assert place / "none.png" not in files
        np.testing.assert_array_equal(packed.read(photo.path), folder.read(images / photo.path.name))
        for files in (folder, packed):
            with pytest.raises(InputError, match="no such photo"):
                files.read(files.place / "none.png")


def test_names_with_folders_are_found_by_their_plain_name(places: tuple[Path, Path], tmp_path: Path) -> None:
    archive = zipped(places[0], tmp_path / "photos.zip")
    for place in (places[0], archive):
        with PhotoFiles(place) as files:
            assert files.read(place / "train" / "000000000001.png").shape == (60, 80, 3)


def test_annotations_in_a_zip_file(places: tuple[Path, Path], tmp_path: Path) -> None:
    alone = tmp_path / "one.zip"
    with zipfile.ZipFile(alone, "w") as file:
        file.write(places[1], "annotations/instances_val2017.json")
        file.writestr("readme.txt", "")
    whole = read_annotations(places[1])
    assert read_annotations(alone).sha256 == whole.sha256
    assert read_annotations(alone / "annotations" / "instances_val2017.json").sha256 == whole.sha256
    with zipfile.ZipFile(alone, "a") as file:
        file.writestr("annotations/captions.json", "{}")
    with pytest.raises(InputError, match=r"which file of one\.zip is meant"):
        read_annotations(alone)
    with pytest.raises(InputError, match="no such annotation file"):
        read_file(tmp_path / "none.json", "annotation file")


def test_broken_places(tmp_path: Path) -> None:
    broken = tmp_path / "broken.zip"
    broken.write_bytes(b"PK no zip")
    with pytest.raises(InputError, match="cannot read"):
        PhotoFiles(broken)
    with pytest.raises(InputError, match="cannot read"):
        read_file(broken / "x.json")
    with pytest.raises(InputError, match="neither a folder nor a zip file"):
        PhotoFiles(tmp_path / "none")


def test_what_is_not_given_is_found(places: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images, annotations = places
    assert find_data(images, annotations) == find_data(images, None) == find_data(None, annotations) == places
    coco = tmp_path / "datasets" / "coco"
    (coco / "annotations").mkdir(parents=True)
    instances = coco / "annotations" / "instances_val2017.json"
    monkeypatch.setenv("NANOSAM_HOME", str(tmp_path))
    with pytest.raises(InputError, match=r"COCO val2017 is not in") as caught:
        find_data(None, None)
    assert str(caught.value.hint).startswith("nanosam download coco-val2017")
    instances.write_bytes(annotations.read_bytes())
    packed = zipped(images, coco / "val2017.zip", "val2017/")
    assert find_data(None, None) == find_data(packed, None) == (packed, instances)
    (coco / "val2017").mkdir()
    assert find_data(None, None) == find_data(None, instances) == (coco / "val2017", instances)
    instances.unlink()
    archive = zipped(annotations.parent, coco / "annotations_trainval2017.zip", "annotations/")
    with pytest.raises(InputError, match="COCO val2017 is not in"):
        find_data(None, None)
    with zipfile.ZipFile(archive, "a") as file:
        file.write(annotations, "annotations/instances_val2017.json")
    assert find_data(None, None)[1] == archive / "annotations" / "instances_val2017.json"


def test_what_cannot_be_found(places: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file or folder"):
        find_data(tmp_path / "none", places[1])
    places[1].rename(tmp_path / "moved.json")
    with pytest.raises(UsageError, match="no annotation file found beside"):
        find_data(places[0], None)
    with pytest.raises(UsageError, match="no photos found beside"):
        find_data(None, tmp_path / "moved.json")


def test_a_name_that_leads_out_of_the_folder_is_refused(places: tuple[Path, Path], tmp_path: Path) -> None:
    outside = tmp_path / "secret.png"
    outside.write_bytes((places[0] / "000000000001.png").read_bytes())
    with PhotoFiles(places[0]) as files:
        for question in (files.__contains__, files.read, files.orientation):
            with pytest.raises(InputError, match=f"leads out of {places[0]}, to {outside}") as caught:
                question(places[0] / "../../secret.png")
            assert "--images" in (caught.value.hint or "")


def test_a_photo_may_be_a_link_to_a_store(places: tuple[Path, Path], tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    stored = (places[0] / "000000000001.png").rename(tmp_path / "store" / "1f")
    (places[0] / "000000000001.png").symlink_to(stored)
    with PhotoFiles(places[0]) as files:
        assert files.read(places[0] / "000000000001.png").shape == (60, 80, 3)


def test_a_folder_behind_a_link_and_dots_that_stay_inside(places: tuple[Path, Path], tmp_path: Path) -> None:
    linked = tmp_path / "linked"
    linked.symlink_to(places[0])
    with PhotoFiles(linked) as files:
        assert files.read(linked / "000000000001.png").shape == (60, 80, 3)
        assert files.read(linked / ".." / places[0].name / "000000000001.png").shape == (60, 80, 3)
        assert files.read(Path("/elsewhere/000000000001.png")).shape == (60, 80, 3)  # by its plain name
        assert linked / "a\0b.png" not in files

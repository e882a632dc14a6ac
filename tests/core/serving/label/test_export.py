"""Annotations written as other tools' files, and read again by this program's own readers."""

from __future__ import annotations

import errno
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from nanosam_cli.core.errors import InputError, OutputError
from nanosam_cli.core.masks import Mask, mask_iou
from nanosam_cli.core.media.mask_codes import mask_to_rle
from nanosam_cli.core.prompting.detection_files import read_detections
from nanosam_cli.core.serving.label import export as export_module
from nanosam_cli.core.serving.label.export import export_annotations
from nanosam_cli.core.serving.label.label_file import LabelledObject
from nanosam_cli.core.serving.label.labelling import Labelling, open_labelling
from tests.serving_data import HEIGHT, WIDTH, save_photo

HW = HEIGHT, WIDTH


def ring() -> Mask:
    """With a hole, and a part that lies apart."""
    mask = np.zeros(HW, bool)
    mask[10:40, 10:50] = True
    mask[20:30, 20:40] = False
    mask[60:70, 80:95] = True
    return mask


def block() -> Mask:
    mask = np.zeros(HW, bool)
    mask[35:60, 45:60] = True
    return mask


@pytest.fixture
def labelling(tmp_path: Path) -> Iterator[Labelling]:
    """Two objects on one photo, none on another, and one photo that nobody has looked at."""
    for name in ("a.jpg", "below/b.png", "below/open.png"):
        save_photo(tmp_path / "photos" / name)
    places = [str(tmp_path / "photos"), str(tmp_path / "photos" / "below")]
    opened = open_labelling(places, tmp_path / "annotations.json", ["cat", 'a "dog": big'])
    save(opened, "a.jpg", ring(), block())
    save(opened, "below/b.png")
    yield opened
    opened.store.close()


def save(labelling: Labelling, name: str, *masks: Mask) -> None:
    objects = [LabelledObject(number, mask_to_rle(mask)) for number, mask in enumerate(masks, 1)]
    labelling.store.save(name, HW, objects, labelling.store.photo(name, HW).revision)


def files(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def drawn(polygons: list[list[float]]) -> Mask:
    """As labelme draws them."""
    canvas = Image.new("L", (WIDTH, HEIGHT))
    for ring in polygons:
        corners = np.reshape(ring, (-1, 2)).astype(int)
        ImageDraw.Draw(canvas).polygon([(x, y) for x, y in corners.tolist()], fill=1, outline=1)
    return np.asarray(canvas, bool)


def test_yolo_has_rows_photos_and_names(labelling: Labelling, tmp_path: Path) -> None:
    made = export_annotations(labelling, "yolo")
    assert (made.folder, made.photos, made.objects, made.notes) == (tmp_path / "annotations_yolo", 2, 2, [])
    assert files(made.folder) == [
        *("classes.txt", "data.yaml", "images/a.jpg", "images/below/b.png"),
        *("labels/a.txt", "labels/below/b.txt"),
    ]
    assert (made.folder / "images/a.jpg").read_bytes() == (tmp_path / "photos/a.jpg").read_bytes()
    first, second = (made.folder / "labels/a.txt").read_text().splitlines()
    # a row is one outline: a line of a pixel joins the parts
    for row, number, mask, least in ((first, 0, ring(), 0.93), (second, 1, block(), 1.0)):
        category, *sides = row.split()
        assert int(category) == number
        corners = np.array(sides, float).reshape(-1, 2) * (WIDTH, HEIGHT)
        assert mask_iou(drawn([corners.ravel().tolist()]), mask) >= least
    assert (made.folder / "labels/below/b.txt").read_text() == ""
    yaml = (made.folder / "data.yaml").read_text()
    assert 'train: "images"\nval: "images"\nnames:\n  0: "cat"\n  1: "a \\"dog\\": big"\n' in yaml
    read = read_detections(made.folder / "labels")
    assert read.classes == {0: "cat", 1: 'a "dog": big'}


def test_labelme_has_a_file_a_photo_and_the_way_to_it(labelling: Labelling, tmp_path: Path) -> None:
    folder = export_annotations(labelling, "labelme").folder
    assert files(folder) == ["a.json", "below/b.json"]
    content = json.loads((folder / "a.json").read_text())
    assert (folder / content["imagePath"]).resolve() == tmp_path / "photos" / "a.jpg"
    assert [(shape["label"], shape["group_id"]) for shape in content["shapes"]] == [
        *(("cat", 1), ("cat", 1)),
        ('a "dog": big', 2),
    ]
    rings = [np.ravel(shape["points"]).tolist() for shape in content["shapes"] if shape["group_id"] == 1]
    assert (drawn(rings) == ring()).all()


def test_png_has_a_value_for_each_object(labelling: Labelling) -> None:
    folder = export_annotations(labelling, "png").folder
    assert files(folder) == ["a_mask.png", "below/b_mask.png"]
    labels = np.asarray(Image.open(folder / "a_mask.png"))
    assert (labels == np.where(block(), 2, ring())).all()
    assert not np.asarray(Image.open(folder / "below/b_mask.png")).any()


def test_what_is_there_is_never_overwritten(labelling: Labelling, tmp_path: Path) -> None:
    (tmp_path / "annotations_png").mkdir()
    (tmp_path / "annotations_png" / "mine.txt").write_text("mine")
    assert export_annotations(labelling, "png").folder.name == "annotations_png_2"
    assert export_annotations(labelling, "png").folder.name == "annotations_png_3"
    assert files(tmp_path / "annotations_png") == ["mine.txt"]


def test_a_photo_that_is_gone_is_told_and_the_others_are_written(labelling: Labelling, tmp_path: Path) -> None:
    (tmp_path / "photos" / "a.jpg").unlink()
    made = export_annotations(labelling, "labelme")
    assert (made.photos, files(made.folder)) == (1, ["below/b.json"])
    assert made.notes == ["a.jpg is left out: a.jpg is no longer there"]


def test_photos_that_would_share_a_file_are_refused(labelling: Labelling, tmp_path: Path) -> None:
    shutil.copy(tmp_path / "photos/a.jpg", tmp_path / "photos/a.png")
    other = open_labelling([str(tmp_path / "photos")], tmp_path / "other.json")
    with other.store:
        save(other, "a.jpg")
        save(other, "a.png")
        with pytest.raises(InputError, match=r"a\.jpg and a\.png would share the file labels/a\.txt"):
            export_annotations(other, "yolo")


def test_a_full_disk_leaves_nothing_behind(
    labelling: Labelling, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(export_module.shutil, "copyfile", full)
    with pytest.raises(OutputError, match="disk full"):
        export_annotations(labelling, "yolo")
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == ["photos"]

"""Annotations of other tools become the file to go on with."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nanosam_cli.core.errors import InputError
from nanosam_cli.core.masks import mask_iou
from nanosam_cli.core.media.mask_codes import rle_to_mask
from nanosam_cli.core.serving.label.export import export_annotations
from nanosam_cli.core.serving.label.labelling import Labelling, open_labelling
from tests.core.serving.label.test_export import HW, block, ring, save
from tests.serving_data import HEIGHT, WIDTH, save_photo


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for name in ("a.jpg", "b.png", "open.png"):
        save_photo(tmp_path / "photos" / name)
    return tmp_path / "photos"


@pytest.fixture
def begin(photos: Path) -> Callable[[Path], Labelling]:
    def opened(source: Path) -> Labelling:
        return open_labelling([str(photos)], photos.parent / "new.json", begin_with=source)

    return opened


def annotate(photos: Path) -> Labelling:
    """By this program: two objects on one photo, none on another."""
    labelling = open_labelling([str(photos)], photos.parent / "annotations.json", ["cat", "dog"])
    save(labelling, "a.jpg", ring(), block())
    save(labelling, "b.png")
    return labelling


@pytest.mark.parametrize(("kind", "least"), [("yolo", 0.93), ("labelme", 1.0), ("coco", 1.0)])
def test_what_was_exported_comes_back(
    photos: Path, begin: Callable[[Path], Labelling], kind: str, least: float
) -> None:
    """Pixel by pixel, but for the line of a pixel that joins the parts of an object in YOLO's row."""
    labelling = annotate(photos)
    with labelling.store:
        source = labelling.store.path if kind == "coco" else export_annotations(labelling, kind).folder
    with begin(source / "labels" if kind == "yolo" else source).store as store:
        assert store.categories == {1: "cat", 2: "dog"}
        first, second = store.photo("a.jpg", HW).objects
        assert (first.category_id, second.category_id) == (1, 2)
        assert mask_iou(rle_to_mask(first.rle), ring()) >= least
        assert (rle_to_mask(second.rle) == block()).all()
        assert [one.done for one in store.photos()] == [True, True, False]


def test_a_file_that_is_there_is_gone_on_with(photos: Path, begin: Callable[[Path], Labelling]) -> None:
    labelling = annotate(photos)
    labelling.store.close()
    opened = begin(labelling.store.path)
    save(opened, "a.jpg")
    opened.store.close()
    again = begin(labelling.store.path)
    with again.store:
        assert not again.store.photo("a.jpg", HW).objects
        assert [note for note in again.notes if "is not read again" in note]


def shape(kind: str, *points: list[float], label: str = "cat", group: int | None = None) -> dict[str, Any]:
    return {"label": label, "points": points, "shape_type": kind, "group_id": group}


def labelme(folder: Path, *shapes: dict[str, Any], scale: int = 1) -> Path:
    folder.mkdir()
    size = {"imageHeight": HEIGHT * scale, "imageWidth": WIDTH * scale}
    (folder / "a.json").write_text(json.dumps({"shapes": shapes, "imagePath": "a.jpg", **size}))
    return folder


def test_boxes_without_outlines_are_counted_and_left_out(
    photos: Path, begin: Callable[[Path], Labelling], tmp_path: Path
) -> None:
    source = labelme(
        tmp_path / "labelme",
        shape("polygon", [10, 10], [30, 10], [30, 20]),
        shape("rectangle", [10, 10], [30, 20]),
        shape("polygon", [200, 200], [210, 200], [210, 220]),
    )
    labelling = begin(source)
    with labelling.store:
        (one,) = labelling.store.photo("a.jpg", HW).objects
        assert rle_to_mask(one.rle).sum() == pytest.approx(115, abs=10)
        assert "2 objects of" in labelling.notes[0]


def test_outlines_of_a_larger_copy_are_brought_to_the_photo(
    photos: Path, begin: Callable[[Path], Labelling], tmp_path: Path
) -> None:
    source = labelme(tmp_path / "labelme", shape("polygon", [20, 40], [79, 40], [79, 79], [20, 79]), scale=2)
    with begin(source).store as store:
        (one,) = store.photo("a.jpg", HW).objects
        expected = np.zeros(HW, bool)
        expected[20:40, 10:40] = True
        assert (rle_to_mask(one.rle) == expected).all()


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("other.json", '{"shapes": [], "imagePath": "elsewhere.jpg"}', "names none of the photos"),
        ("other.json", '{"images": [], "annotations": 5}', "is not a COCO data set"),
        ("other.json", "{", "is not JSON"),
        ("a.txt", "0 0.1 0.1 many", "a.txt"),
    ],
)
def test_what_cannot_be_imported_is_refused_and_no_file_is_begun(
    photos: Path, begin: Callable[[Path], Labelling], tmp_path: Path, name: str, content: str, words: str
) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(InputError, match=words):
        begin(tmp_path / name)
    assert not (tmp_path / "new.json").exists()

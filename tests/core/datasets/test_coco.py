"""COCO's instances as others write them, broken in every way that a reader could stumble over."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from nanosam_cli.core.datasets.coco import read_annotations
from nanosam_cli.core.errors import InputError
from nanosam_cli.core.serving.label.label_file import LabelFile

IMAGE = {"id": 1, "file_name": "a.jpg", "height": 20, "width": 10}
RING = [1, 1, 8, 1, 8, 9, 1, 9]
OBJECT = {"id": 1, "image_id": 1, "category_id": 3, "bbox": [1, 1, 7, 8], "area": 56, "segmentation": [RING]}


def content(image: dict[str, Any] | None = None, entry: dict[str, Any] | None = None) -> dict[str, Any]:
    return {
        "images": [IMAGE | (image or {})],
        "annotations": [OBJECT | (entry or {})],
        "categories": [{"id": 3, "name": "cat"}],
    }


def save(folder: Path, written: Any) -> Path:
    path = folder / "a.json"
    path.write_text(json.dumps(written))
    return path


def test_a_polygon(tmp_path: Path) -> None:
    (photo,) = read_annotations(save(tmp_path, content())).photos
    assert photo.original_hw == (20, 10)
    assert photo.objects[0].mask().sum() == 56


@pytest.mark.parametrize(
    ("height", "width"), [(0, 10), (-5, 10), (20, -1), (10**9, 10**9), (2**63 - 1, 2), (178_956_971, 1)]
)
def test_sizes_that_no_photo_has(tmp_path: Path, height: int, width: int) -> None:
    """pycocotools takes a negative side for a huge one, and makes a mask of as many pixels as it is told."""
    path = save(tmp_path, content({"height": height, "width": width}))
    with pytest.raises(InputError, match=f"a.json: image 1 has the size {width}x{height}"):
        read_annotations(path)


BROKEN: dict[str, Any] = {
    "a number for a ring": [5],
    "a ring of nothing": [RING, None],
    "text for numbers": [["a"] * 6],
    "not a number": [[float("nan")] * 6],
    "far outside": [[1e9] * 6],
    "no counts": {"size": [20, 10]},
    "no size": {"counts": [200]},
    "size of nothing": {"size": None, "counts": "0"},
    "size of text": {"size": "20", "counts": "0"},
    "another size": {"size": [10, 20], "counts": [200]},
    "negative runs": {"size": [20, 10], "counts": [-1, 201]},
    "too long a run": {"size": [20, 10], "counts": [2**40]},
    "a number": 3,
    "text": "polygon",
}


@pytest.mark.parametrize("broken", BROKEN)
def test_a_segmentation_that_is_none(tmp_path: Path, broken: str) -> None:
    written = content(entry={"segmentation": BROKEN[broken]})
    with pytest.raises(InputError, match=r"a\.json: annotation 1 has a "):
        read_annotations(save(tmp_path, written)).photos[0].objects[0].mask()
    with pytest.raises(InputError, match="annotation 1 has a "):
        LabelFile(tmp_path / "a.json", json.loads(json.dumps(written)), ["a.jpg"]).photo("a.jpg", (20, 10))

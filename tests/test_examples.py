"""The example photos and their masks: complete, consistent, small and with a licence."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw

EXAMPLES = Path(__file__).parents[1] / "examples"
CONTENT = json.loads((EXAMPLES / "instances.json").read_text(encoding="utf-8"))
IMAGES = {image["id"]: image for image in CONTENT["images"]}


@pytest.mark.parametrize("image", CONTENT["images"], ids=lambda image: image["file_name"])
def test_photos(image: dict[str, Any]) -> None:
    with Image.open(EXAMPLES / image["file_name"]) as photo:
        assert photo.size == (image["width"], image["height"])
        assert max(photo.size) <= 640
    assert any(annotation["image_id"] == image["id"] for annotation in CONTENT["annotations"])
    assert f"| `{image['file_name']}` |" in (EXAMPLES / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("annotation", CONTENT["annotations"], ids=lambda annotation: str(annotation["id"]))
def test_masks(annotation: dict[str, Any]) -> None:
    """Box and area are those of the polygons, to within the pixels that rasterisers disagree about: the outline's."""
    image = IMAGES[annotation["image_id"]]
    canvas = Image.new("1", (image["width"], image["height"]))
    polygons = [np.array(polygon).reshape(-1, 2) for polygon in annotation["segmentation"]]
    outline = 0.0
    for polygon in polygons:
        ImageDraw.Draw(canvas).polygon([tuple(point) for point in polygon.tolist()], fill=1)
        outline += float(np.linalg.norm(polygon - np.roll(polygon, 1, axis=0), axis=1).sum())
    assert abs(int(np.asarray(canvas).sum()) - annotation["area"]) < outline
    corners = np.concatenate(polygons)
    x, y, width, height = annotation["bbox"]
    assert np.abs(corners.min(axis=0) - (x, y)).max() <= 1
    assert np.abs(corners.max(axis=0) - (x + width, y + height)).max() <= 1
    assert annotation["iscrowd"] == 0
    assert annotation["category_id"] in {category["id"] for category in CONTENT["categories"]}


def test_they_are_small() -> None:
    assert sum(path.stat().st_size for path in EXAMPLES.iterdir()) < 700_000

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from nanosam_cli.core.errors import InputError, OutputError
from nanosam_cli.core.media.mask_codes import (
    coco_annotation,
    coco_image,
    coco_results,
    join_rings,
    mask_to_polygons,
    mask_to_rle,
    rle_to_mask,
)
from nanosam_cli.core.paths import resource
from nanosam_cli.core.types import Segmentation


def drawn(drawing: str) -> NDArray[np.bool_]:
    """A mask drawn as rows of `#` and `.`, split by blanks."""
    return np.array([[pixel == "#" for pixel in row] for row in drawing.split()])


def rasterised(polygons: list[list[float]], mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """What pycocotools makes of the polygons."""
    if not polygons:
        return np.zeros_like(mask)
    rle = coco_mask.merge(coco_mask.frPyObjects(polygons, *mask.shape))
    return rle_to_mask(rle)


def shoelace(polygon: list[float]) -> float:
    """Signed area, positive where the outline runs clockwise on the screen."""
    here = np.array(polygon).reshape(-1, 2)
    following = np.roll(here, -1, axis=0)
    return float((here[:, 0] * following[:, 1] - following[:, 0] * here[:, 1]).sum() / 2)


def segmentation(mask: NDArray[np.bool_], iou: float = 0.5) -> Segmentation:
    return Segmentation(mask, iou, np.zeros((256, 256), np.float32))


@pytest.mark.parametrize(
    ("drawing", "runs"),
    [
        ("#", [0, 1]),
        (".", [1]),
        ("..# ..#", [4, 2]),  # down the columns
        ("#.. ..#", [0, 1, 4, 1]),
        (".#. ###", [1, 3, 1, 1]),
    ],
)
def test_rle(drawing: str, runs: list[int]) -> None:
    mask = drawn(drawing)
    rle = mask_to_rle(mask)
    assert rle == json.loads(json.dumps(rle))
    assert rle["size"] == [mask.shape[0], mask.shape[1]]
    plain = {"size": mask.shape, "counts": runs}
    as_bytes = {"size": rle["size"], "counts": rle["counts"].encode()}
    for code in (rle, as_bytes, plain, coco_mask.frPyObjects({"size": rle["size"], "counts": runs}, *mask.shape)):
        back = rle_to_mask(code)
        np.testing.assert_array_equal(back, mask)
        assert back.dtype == bool
        assert back.flags.c_contiguous


def test_long_runs_survive() -> None:
    mask = np.zeros((1500, 2000), bool)
    mask[3, 5] = mask[1400:, 1990:] = mask[:, 1000:1300] = True
    np.testing.assert_array_equal(rle_to_mask(mask_to_rle(mask)), mask)


@pytest.mark.parametrize(
    "rle",
    [
        {},
        {"size": [2, 3]},
        {"counts": "06"},
        {"size": [2], "counts": "06"},
        {"size": [2, 3, 1], "counts": "06"},
        {"size": 6, "counts": "06"},
        {"size": ["2", "3"], "counts": "06"},
        {"size": [2.5, 3], "counts": "06"},
        {"size": [-2, -3], "counts": "06"},
        {"size": [0, 0], "counts": ""},
        {"size": [10**6, 10**6], "counts": [10**12]},
        {"size": [2, 3], "counts": None},
        {"size": [2, 3], "counts": 6},
        {"size": [2, 3], "counts": ""},
        {"size": [2, 3], "counts": "05"},
        {"size": [2, 3], "counts": "07"},
        {"size": [2, 3], "counts": "0V"},  # cut off within a number
        {"size": [2, 3], "counts": "0" + "o" * 10**5},  # a number without end
        {"size": [2, 3], "counts": "0é"},  # pycocotools aborts the process on this one
        {"size": [2, 3], "counts": "0 6"},
        {"size": [2, 3], "counts": [0, 5]},
        {"size": [2, 3], "counts": [-1, 7]},
        {"size": [2, 3], "counts": [0.5, 5.5]},
        {"size": [2, 3], "counts": [[0, 6]]},
        {"size": [2, 3], "counts": ["0", "6"]},
    ],
)
def test_broken_rle(rle: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="COCO run-length code") as caught:
        rle_to_mask(rle)
    assert caught.value.hint


@pytest.mark.parametrize(
    ("drawing", "polygons"),
    [
        ("...", []),
        ("#", [[0, 0, 1, 0, 1, 1, 0, 1]]),
        ("... .#. ...", [[1, 1, 2, 1, 2, 2, 1, 2]]),
        (".... .##. .##.", [[1, 1, 3, 1, 3, 3, 1, 3]]),  # no point on a straight line
        ("#. ##", [[0, 0, 1, 0, 1, 1, 2, 1, 2, 2, 0, 2]]),
        ("#.#", [[0, 0, 1, 0, 1, 1, 0, 1], [2, 0, 3, 0, 3, 1, 2, 1]]),
        ("#. .#", [[0, 0, 1, 0, 1, 1, 0, 1], [1, 1, 2, 1, 2, 2, 1, 2]]),  # touching at a corner: two parts
        (".# #.", [[1, 0, 2, 0, 2, 1, 1, 1], [0, 1, 1, 1, 1, 2, 0, 2]]),
        # a hole: down its bridge from the outline above, round it the other way, and up again
        ("### #.# ###", [[0, 0, 1, 0, 1, 2, 2, 2, 2, 1, 1, 1, 1, 0, 3, 0, 3, 3, 0, 3]]),
    ],
)
def test_polygons(drawing: str, polygons: list[list[float]]) -> None:
    assert mask_to_polygons(drawn(drawing)) == polygons


@pytest.mark.parametrize(
    "drawing",
    [
        "##### #.#.# #####",  # two holes on one edge
        "##### #...# ##### #...# #####",  # one hole hangs on another
        "###### #.#### ##.### ######",  # a hole that touches itself at a corner
        "##### #...# #.#.# #...# #####",  # an island in a hole
        "#.#.# .#.#. #.#.#",
        "##### #.##. ##### .##.# #####",
        "####### #.....# #.###.# #.#.#.# #.###.# #.....# #######",
    ],
)
def test_polygons_rasterise_to_the_same_mask(drawing: str) -> None:
    for mask in (drawn(drawing), drawn(drawing).T, drawn(drawing)[::-1], drawn(drawing)[:, ::-1]):
        polygons = mask_to_polygons(mask)
        np.testing.assert_array_equal(rasterised(polygons, mask), mask)
        assert sum(shoelace(polygon) for polygon in polygons) == mask.sum()


def test_polygons_of_random_masks_are_exact_too() -> None:
    random = np.random.default_rng(0)
    for _ in range(300):
        mask = random.random(random.integers(1, 14, 2)) < random.choice([0.2, 0.5, 0.8, 0.95])
        polygons = mask_to_polygons(mask)
        np.testing.assert_array_equal(rasterised(polygons, mask), mask)
        assert sum(shoelace(polygon) for polygon in polygons) == mask.sum()


@pytest.mark.parametrize("diameter", [2, 10, 200])
def test_polygons_of_discs(diameter: int) -> None:
    rows, columns = np.mgrid[:240, :320]
    mask = (rows - 100.3) ** 2 + (columns - 150.7) ** 2 < (diameter / 2) ** 2
    polygons = mask_to_polygons(mask)
    assert len(polygons) == 1
    np.testing.assert_array_equal(rasterised(polygons, mask), mask)


def filled(polygons: list[list[float]], mask: NDArray[np.bool_], whole: Any) -> NDArray[np.bool_]:
    """What a tool makes of the polygons that takes corners, made whole numbers, for pixels, and fills those too."""
    found = np.zeros_like(mask)
    for polygon in polygons:
        picture = Image.new("1", mask.shape[::-1])
        corners = whole(np.reshape(polygon, (-1, 2))).astype(int)
        ImageDraw.Draw(picture).polygon([tuple(corner) for corner in corners.tolist()], fill=1)
        found |= np.asarray(picture)
    return found


@pytest.mark.parametrize("whole", [np.trunc, np.round])
def test_inclusive_polygons_are_exact_where_corners_are_filled_too(whole: Any) -> None:
    random = np.random.default_rng(0)
    for _ in range(200):
        mask = random.random(random.integers(1, 14, 2)) < random.choice([0.2, 0.5, 0.8, 0.95])
        polygons = mask_to_polygons(mask, inclusive=True)
        np.testing.assert_array_equal(filled(polygons, mask, whole), mask)
        assert len(polygons) == len(mask_to_polygons(mask))
        assert all(len(polygon) >= 8 for polygon in polygons)  # a pixel too has an outline with an area


def test_simplified_inclusive_polygons_are_nearly_the_mask() -> None:
    rows, columns = np.mgrid[:240, :320]
    mask = np.hypot(rows - 100.3, columns - 150.7) < 80
    mask &= ~(np.hypot(rows - 100.3, columns - 150.7) < 30)
    (exact,), (simple,) = mask_to_polygons(mask, inclusive=True), mask_to_polygons(mask, 1.0, inclusive=True)
    assert len(simple) < len(exact) / 4
    assert iou(filled([simple], mask, np.trunc), mask) > 0.98


def test_rings_are_joined_by_the_shortest_ways() -> None:
    near, far = [0, 0, 1, 0, 1, 1], [9, 9, 10, 9, 10, 10]
    middle = [4, 4, 5, 4, 5, 5]
    joined = [0, 0, 1, 0, 1, 1, *[4, 4, 5, 4, 5, 5], *[9, 9, 10, 9, 10, 10, 9, 9], 5, 5, 4, 4, 1, 1]
    assert join_rings([near, far, middle]) == joined
    assert join_rings([near]) == near
    assert join_rings([]) == []


def iou(one: NDArray[np.bool_], other: NDArray[np.bool_]) -> float:
    return float((one & other).sum() / (one | other).sum())


def test_simplified_outlines_of_the_examples() -> None:
    """As a labeller wants them: a quarter of the corners and less, and the same mask but for a hair."""
    content = json.loads(resource("examples", "instances.json").read_bytes())
    sizes = {image["id"]: (image["height"], image["width"]) for image in content["images"]}
    for annotation in content["annotations"]:
        size = sizes[annotation["image_id"]]
        mask = rasterised(annotation["segmentation"], np.zeros(size, bool))
        exact, simple = mask_to_polygons(mask), mask_to_polygons(mask, 1.0)
        assert sum(map(len, simple)) < sum(map(len, exact)) / 4
        assert iou(rasterised(simple, mask), mask) > 0.97
        assert sum(map(shoelace, simple)) == pytest.approx(mask.sum(), rel=0.03)


@pytest.mark.parametrize("pixels", [0.5, 1.0, 5.0, 50.0])
def test_simplified_outlines_keep_parts_and_holes(pixels: float) -> None:
    rows, columns = np.ogrid[:120, :160]
    mask = np.zeros((120, 160), bool)
    mask |= np.hypot(rows - 55, columns - 55) < 50
    for x in (35, 75):
        mask &= ~(np.hypot(rows - 55, columns - x) < 12)
    mask[100:118, 120:150] = True
    exact, simple = mask_to_polygons(mask), mask_to_polygons(mask, pixels)
    assert len(simple) == 2
    assert len(simple[0]) < len(exact[0])
    found = rasterised(simple, mask)
    assert found[105, 145]
    assert found[55, 55]
    assert not found[55, 35]
    assert not found[55, 75]
    if pixels <= 1:
        assert iou(found, mask) > 0.97
        assert len(simple[1]) == 8  # corners that are corners stay


def test_simplified_outlines_of_random_masks_are_sound() -> None:
    """Whatever touches whatever: as many parts as before, clockwise, none without area."""
    random = np.random.default_rng(0)
    for _ in range(100):
        mask = random.random(random.integers(1, 14, 2)) < random.choice([0.2, 0.5, 0.8, 0.95])
        simple = mask_to_polygons(mask, 1.0)
        assert len(simple) == len(mask_to_polygons(mask))
        assert all(shoelace(polygon) > 0 for polygon in simple)


MASKS = [drawn("...... .####. .#..#. .####. ......"), drawn("###### ...... ...... ...... ......")]


@pytest.mark.parametrize("polygon", [False, True])
def test_annotation(polygon: bool) -> None:
    annotation = coco_annotation(segmentation(MASKS[0], 0.25), 7, 42, category_id=3, polygon=polygon)
    code = annotation.pop("segmentation")
    assert code == (mask_to_polygons(MASKS[0]) if polygon else mask_to_rle(MASKS[0]))
    assert annotation == {
        "id": 7,
        "image_id": 42,
        "category_id": 3,
        "score": 0.25,
        "bbox": [1.0, 1.0, 4.0, 3.0],
        "area": 10,
        "iscrowd": 0,
    }


def test_annotation_of_nothing() -> None:
    annotation = coco_annotation(segmentation(np.zeros((5, 6), bool)), 1, 1)
    assert (annotation["bbox"], annotation["area"]) == ([0, 0, 0, 0], 0)
    assert not rle_to_mask(annotation["segmentation"]).any()


@pytest.mark.parametrize("polygon", [False, True])
def test_pycocotools_reads_the_files(tmp_path: Path, capsys: pytest.CaptureFixture[str], polygon: bool) -> None:
    annotations = [coco_annotation(segmentation(mask), k + 1, 42, polygon=polygon) for k, mask in enumerate(MASKS)]
    images = [coco_image(42, "photo.jpg", (5, 6))]
    assert images == [{"id": 42, "file_name": "photo.jpg", "width": 6, "height": 5}]
    categories = [{"id": 1, "name": "object"}]
    truth = tmp_path / "instances.json"
    truth.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))
    coco = COCO(str(truth))
    for annotation, mask in zip(coco.loadAnns([1, 2]), MASKS):
        np.testing.assert_array_equal(rle_to_mask(coco.annToRLE(annotation)), mask)

    results = tmp_path / "results.json"
    rle_annotations = [coco_annotation(segmentation(mask), k + 1, 42) for k, mask in enumerate(MASKS)]
    results.write_text(json.dumps(coco_results(rle_annotations)))
    found = coco.loadRes(str(results))
    for annotation, mask in zip(found.loadAnns([1, 2]), MASKS):
        np.testing.assert_array_equal(rle_to_mask(annotation["segmentation"]), mask)
        assert annotation["area"] == mask.sum()  # not the box's
        assert (annotation["image_id"], annotation["category_id"], annotation["score"]) == (42, 1, 0.5)


@pytest.mark.parametrize(
    ("annotations", "message"),
    [
        ([], "cannot be empty"),
        ([coco_annotation(segmentation(MASKS[0]), 1, 1, polygon=True)], "not polygons"),
    ],
)
def test_results_that_loadres_could_not_read(annotations: list[dict[str, Any]], message: str) -> None:
    with pytest.raises(OutputError, match=message) as caught:
        coco_results(annotations)
    assert caught.value.hint

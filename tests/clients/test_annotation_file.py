"""What `nanosam label` keeps, and its exports, are read by the tools that people go on with."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from nanosam_cli.core.masks import Mask, mask_iou
from nanosam_cli.core.media.mask_codes import mask_to_rle
from nanosam_cli.core.serving.label.export import export_annotations
from nanosam_cli.core.serving.label.label_file import LabelledObject
from nanosam_cli.core.serving.label.labelling import Labelling, open_labelling
from tests.clients.conftest import client

HW = 80, 100
CLASSES = ["cat", "a dog"]

pytestmark = pytest.mark.filterwarnings("ignore")  # they are the tools' own


def masks_of(name: str) -> list[Mask]:
    """With a hole and two parts, a small one that overlaps it, and on the other photo none."""
    if name != "a.jpg":
        return []
    first, second = np.zeros(HW, bool), np.zeros(HW, bool)
    first[10:40, 10:50] = True
    first[20:30, 20:40] = False
    first[60:70, 80:95] = True
    second[35:60, 45:60] = True
    return [first, second]


@pytest.fixture
def labelling(tmp_path: Path) -> Iterator[Labelling]:
    """Closed, so that the file is whole; the photos are at hand still."""
    (tmp_path / "photos").mkdir()
    for name in ("a.jpg", "b.png"):
        noise = np.random.default_rng(0).integers(0, 256, (*HW, 3), np.uint8)
        Image.fromarray(noise).save(tmp_path / "photos" / name)
    opened = open_labelling([str(tmp_path / "photos")], tmp_path / "annotations.json", CLASSES)
    for name in opened.photos.names:
        objects = [LabelledObject(number, mask_to_rle(mask)) for number, mask in enumerate(masks_of(name), 1)]
        opened.store.save(name, HW, objects, opened.store.photo(name, HW).revision)
    yield opened
    opened.store.close()


@pytest.fixture
def coco_file(labelling: Labelling) -> Path:
    labelling.store.close()
    return labelling.store.path


def same(found: Any, least: float = 1.0) -> None:
    """Two masks, as they were labelled."""
    assert len(found) == 2
    for mask, wanted in zip(found, masks_of("a.jpg")):
        assert mask_iou(np.asarray(mask, bool), wanted) >= least


def test_pycocotools(coco_file: Path) -> None:
    coco = client("pycocotools.coco").COCO(str(coco_file))
    photo, empty = coco.loadImgs(coco.getImgIds())
    same([coco.annToMask(entry) for entry in coco.imgToAnns[photo["id"]]])
    assert coco.imgToAnns[empty["id"]] == []
    assert [one["name"] for one in coco.loadCats(coco.getCatIds())] == CLASSES


def test_supervision(coco_file: Path) -> None:
    sets = client("supervision").DetectionDataset
    photos = coco_file.parent / "photos"
    data = sets.from_coco(str(photos), str(coco_file), force_masks=True)
    found = data.annotations[str(photos / "a.jpg")]
    same(found.mask)
    assert [data.classes[number] for number in found.class_id] == CLASSES
    assert len(data.annotations[str(photos / "b.png")]) == 0


def test_supervision_reads_yolo(labelling: Labelling) -> None:
    sets = client("supervision").DetectionDataset
    folder = export_annotations(labelling, "yolo").folder
    data = sets.from_yolo(str(folder / "images"), str(folder / "labels"), str(folder / "data.yaml"), force_masks=True)
    found = data.annotations[str(folder / "images" / "a.jpg")]
    same(found.mask, least=0.9)  # a line of a pixel joins the parts of an object
    assert [data.classes[number] for number in found.class_id] == CLASSES


def test_datumaro_which_is_what_cvat_imports_with(coco_file: Path, tmp_path: Path) -> None:
    """CVAT's "COCO 1.0" is Datumaro's importer over a folder `annotations/instances_*.json` beside `images/`."""
    datumaro = client("datumaro")
    place = tmp_path / "cvat"
    (place / "annotations").mkdir(parents=True)
    (place / "annotations" / "instances_default.json").write_bytes(coco_file.read_bytes())
    (place / "images").mkdir()
    (tmp_path / "photos").rename(place / "images" / "default")
    data = datumaro.Dataset.import_from(str(place), "coco_instances")
    names = [one.name for one in data.categories()[datumaro.AnnotationType.label]]
    kind = datumaro.AnnotationType.mask  # there is a box for each, too
    objects = {item.id: [one for one in item.annotations if one.type == kind] for item in data}
    assert sorted(objects) == ["a", "b"]
    assert objects["b"] == []
    found = sorted(objects["a"], key=lambda one: int(one.id))
    same([one.image for one in found])
    assert [names[one.label] for one in found] == CLASSES

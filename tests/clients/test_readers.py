"""COCO's own API, supervision, ultralytics, labelme and OpenCV read the files as the masks that they are made of."""

from __future__ import annotations

import json
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.clients.conftest import Report, Written, ious

pytestmark = pytest.mark.filterwarnings("ignore")  # they are the tools' own


def test_pycocotools_reads_a_data_set(written: Written, report: Report) -> None:
    from pycocotools.coco import COCO

    data = COCO(str(written.folder / "coco-dataset.json"))
    for image in data.dataset["images"]:
        entries = data.imgToAnns[image["id"]]
        found = ious(written.masks[image["file_name"]], [data.annToMask(entry) for entry in entries])
        assert found == [1.0] * len(found)
        names = [data.cats[entry["category_id"]]["name"] for entry in entries]
        assert names == written.classes[image["file_name"]]
    every = [data.annToMask(entry) for entry in data.dataset["annotations"]]
    wanted = [mask for image in data.dataset["images"] for mask in written.masks[image["file_name"]]]
    report("pycocotools", "coco-dataset (`COCO`)", ious(wanted, every))


def test_pycocotools_evaluates_results(written: Written, report: Report) -> None:
    """Held against the data set of the same run, nothing is missed: ids and masks of the two fit."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    truth = COCO(str(written.folder / "coco-dataset.json"))
    results = truth.loadRes(str(written.folder / "coco.json"))
    evaluation = COCOeval(truth, results, "segm")
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    report("pycocotools", "coco (`loadRes`, `COCOeval`: AP)", [float(evaluation.stats[0])])


@pytest.mark.parametrize("kind", ["coco", "yolo"])
def test_supervision_reads_data_sets(written: Written, report: Report, kind: str) -> None:
    from supervision import DetectionDataset

    images = str(written.folder / "set/images")
    if kind == "coco":
        data = DetectionDataset.from_coco(images, str(written.folder / "coco-dataset.json"), force_masks=True)
    else:
        labels = written.folder / "set/labels"
        data = DetectionDataset.from_yolo(images, str(labels), str(labels / "data.yaml"), force_masks=True)
    found = []
    for photo in written.photos:
        detections = data.annotations[str(photo)]
        found += ious(written.masks[photo.name], detections.mask)
        assert [data.classes[number] for number in detections.class_id] == written.classes[photo.name]
    if kind == "coco":  # it fills the borders of exact polygons too
        report("supervision", "coco-dataset (`from_coco`)", found, least=0.95)
    else:
        report("supervision", "yolo (`from_yolo`)", found)


def test_supervision_takes_segmentations(written: Written, report: Report) -> None:
    from nanosam_cli import Segmentation, to_supervision

    name = written.photos[0].name
    logits = np.zeros((256, 256), np.float32)
    masks = [*written.masks[name], np.zeros_like(written.masks[name][0])]
    found = [Segmentation(mask, 0.5 + row / 10, logits) for row, mask in enumerate(masks)]
    detections = to_supervision(found, classes=[*written.classes[name], "nothing"])
    assert detections.confidence.tolist() == pytest.approx([0.5 + row / 10 for row in range(len(masks) - 1)])
    assert detections["class_name"].tolist() == written.classes[name]
    boxes = [one.bbox for one in found[:-1]]
    assert detections.xyxy.tolist() == [[x, y, x + width, y + height] for x, y, width, height in boxes]
    assert len(to_supervision(found[-1:])) == 0
    report("supervision", "`to_supervision`", ious(written.masks[name], detections.mask))


def test_ultralytics_takes_the_data_set(written: Written, report: Report, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its own check, its own reader, and the outlines as it resamples and fills them for training."""
    monkeypatch.setenv("YOLO_OFFLINE", "true")
    from ultralytics.data import utils
    from ultralytics.data.dataset import YOLODataset
    from ultralytics.utils import ops

    checked = utils.check_det_dataset(str(written.folder / "set/labels/data.yaml"), autodownload=False)
    assert Path(checked["train"]) == (written.folder / "set/images").resolve()
    data = YOLODataset(img_path=checked["train"], data=checked, task="segment")
    assert len(data) == len(written.photos)
    found = []
    for label in data.labels:
        name = Path(label["im_file"]).name
        height, width = label["shape"]
        segments = ops.resample_segments([one * (width, height) for one in label["segments"]], 1000)
        filled = [utils.polygon2mask((height, width), [one.ravel()]) for one in segments]
        found += ious(written.masks[name], filled)
        assert [checked["names"][int(number)] for number in label["cls"][:, 0]] == written.classes[name]
    report("ultralytics", "yolo (`check_det_dataset`, `YOLODataset`)", found)


def test_labelme_opens_its_files(written: Written, report: Report) -> None:
    from labelme.utils import shape_to_mask

    label_file = import_module("labelme._label_file" if find_spec("labelme._label_file") else "labelme.label_file")
    found = []
    for photo in written.photos:
        file = label_file.LabelFile(str(written.folder / "labelme" / f"{photo.stem}.json"))
        hw = written.masks[photo.name][0].shape
        groups: dict[int, Any] = {}
        for shape in file.shapes:
            part = shape_to_mask(hw, shape["points"], shape["shape_type"])
            groups[shape["group_id"]] = groups.get(shape["group_id"], np.zeros(hw, bool)) | part
        found += ious(written.masks[photo.name], [groups[number] for number in sorted(groups)])
    report("labelme", "labelme (`LabelFile`, `shape_to_mask`)", found)


def test_opencv_reads_grey_labels_as_they_are(written: Written, report: Report) -> None:
    import cv2

    found = []
    for photo in written.photos:
        grey = cv2.imread(str(written.folder / "grey" / f"{photo.stem}_mask.png"), cv2.IMREAD_UNCHANGED)
        coloured = cv2.imread(str(written.folder / "colours" / f"{photo.stem}_mask.png"), cv2.IMREAD_UNCHANGED)
        assert (grey.ndim, coloured.ndim) == (2, 3)  # which is why there is --grey
        texts = (written.folder / "grey" / f"{photo.stem}_mask.png").read_bytes()
        (start, end) = texts.index(b"[{"), texts.index(b"}]") + 2
        areas = [one["area"] for one in json.loads(texts[start:end])]
        found += [float(np.count_nonzero(grey == value)) / area for value, area in enumerate(areas, 1)]
    assert found == [1.0] * len(found)
    report("opencv-python", "png `--grey` (`imread`)", found)


def test_opencv_finds_the_outlines_that_are_written(written: Written, report: Report) -> None:
    """The corners of labelme's shapes, cut off, fill to the mask in `fillPoly`."""
    import cv2

    found = []
    for photo in written.photos:
        shapes = json.loads((written.folder / "labelme" / f"{photo.stem}.json").read_text())["shapes"]
        for number, mask in enumerate(written.masks[photo.name], 1):
            canvas = np.zeros(mask.shape, np.uint8)
            for shape in shapes:
                if shape["group_id"] == number:
                    cv2.fillPoly(canvas, [np.array(shape["points"]).astype(np.int32)], 1)
            found += ious([mask], [canvas])
    report("opencv-python", "labelme (`fillPoly`)", found)

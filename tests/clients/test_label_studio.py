"""Label Studio's own converter reads the data set."""

from __future__ import annotations

import json

import numpy as np
import pytest

from nanosam_cli.core.media.mask_codes import rle_to_mask
from tests.clients.conftest import Report, Written, ious

pytestmark = pytest.mark.filterwarnings("ignore")  # they are the tool's own


def test_label_studio_imports_a_coco_data_set(written: Written, report: Report) -> None:
    from label_studio_sdk.converter.imports.coco import convert_coco_to_ls
    from pycocotools import mask as coco_mask

    out = written.folder / "tasks.json"
    convert_coco_to_ls(str(written.folder / "coco-dataset.json"), str(out), out_type="annotations")
    found = []
    for task in json.loads(out.read_text()):
        name = task["data"]["image"].rpartition("=")[2]
        (annotation,) = task["annotations"]
        polygons = [one for one in annotation["result"] if one["type"] == "polygonlabels"]
        height, width = written.masks[name][0].shape
        rings = [(np.array(one["value"]["points"]) * (width / 100, height / 100)).ravel() for one in polygons]
        parts = [rle_to_mask(coco_mask.frPyObjects([ring.tolist()], height, width)[0]) for ring in rings]
        union = np.any(written.masks[name], axis=0)
        found += ious([union], [np.any(parts, axis=0)])  # parts of one object are polygons of their own there
        labels = {label for one in polygons for label in one["value"]["polygonlabels"]}
        assert labels == {*written.classes[name]}
    report("label-studio-sdk", "coco-dataset (`convert_coco_to_ls`)", found)

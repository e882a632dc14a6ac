"""AnyLabeling's and X-AnyLabeling's own code loads what `nanosam export anylabeling` writes, and gives the same masks.

Both packages are imported as `anylabeling`, so that one environment has one of them. These are the tests of both.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from importlib.metadata import distributions, version
from typing import Any

import numpy as np
import pytest
import yaml
from numpy.typing import NDArray

from nanosam_cli import Predictor, Prompt, load_predictor, read_image
from nanosam_cli.core.masks import mask_iou
from nanosam_cli.core.paths import resource
from tests.clients.conftest import Report
from tests.command_line import run_nanosam

Box = tuple[float, float, float, float]
PHOTOS: dict[str, list[Box]] = {
    name: entry["boxes"] for name, entry in json.loads(resource("examples", "prompts.json").read_text()).items()
}
CLIENT = next(
    (known for one in distributions() if (known := one.metadata["Name"]) in ("anylabeling", "x-anylabeling-cvhub")), ""
)


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The tool's reading of the file that its `load custom model` is given."""
    folder = tmp_path_factory.mktemp("model")
    ran = run_nanosam("export", "anylabeling", "-o", str(folder))
    assert ran.code == 0, ran.err
    found = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
    return {**found, "config_file": str(folder / "config.yaml")}


@pytest.fixture(scope="module")
def model(config: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """The tool's adapter, as its model manager makes it."""
    home = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(home))
        patch.setenv("QT_QPA_PLATFORM", "offscreen")
        from anylabeling import config as settings

        if CLIENT == "x-anylabeling-cvhub":  # what its window does before it makes a model
            settings.set_work_directory(str(home))
            patch.setattr(settings, "current_config_file", "{}")
        from anylabeling.services.auto_labeling.segment_anything import SegmentAnything
        from PyQt6.QtWidgets import QApplication

        application = QApplication.instance() or QApplication([])
        made = SegmentAnything(config, on_message=lambda _: None)
        yield made
        made.unload()
        del application


@pytest.fixture(scope="module")
def predictor() -> Iterator[Predictor]:
    """What `nanosam segment` runs."""
    with load_predictor() as opened:
        yield opened


def photo_of(name: str, turned: bool) -> tuple[NDArray[np.uint8], list[Box]]:
    image, boxes = read_image(resource("examples", name)), PHOTOS[name]
    if not turned:
        return image, boxes
    return np.ascontiguousarray(image.transpose(1, 0, 2)), [(y0, x0, y1, x1) for x0, y0, x1, y1 in boxes]


def test_the_config_has_every_key_that_this_version_asks_for(config: dict[str, Any], model: Any) -> None:
    wanted = {*model.Meta.required_config_names, "input_size", "max_width", "max_height"}
    assert wanted <= config.keys(), f"{CLIENT} {version(CLIENT)} asks for {sorted(wanted - config.keys())}"
    assert config["type"] == "segment_anything"


def test_boxes_give_the_masks_of_segment(model: Any, predictor: Predictor, report: Report) -> None:
    """Landscape and portrait: a portrait covers a part of the tool's picture, whose shape is fixed."""
    ious = {}
    for name in PHOTOS:
        for turned in (False, True):
            image, boxes = photo_of(name, turned)
            embedding = model.model.encode(image)
            wanted = predictor.predict(predictor.encode_image(image), Prompt.from_boxes(boxes))
            for number, (box, one) in enumerate(zip(boxes, wanted, strict=True)):
                masks = model.model.predict_masks(embedding, [{"type": "rectangle", "data": list(box)}])
                way = "portrait" if image.shape[0] > image.shape[1] else "landscape"
                ious[f"{name} {number} {way} {turned}"] = mask_iou(np.asarray(masks[0][0]) > 0, one.mask)
    report(CLIENT, f"its SegmentAnything adapter, mean {np.mean([*ious.values()]):.4f}", [*ious.values()], least=0.97)
    assert np.mean([*ious.values()]) >= 0.99, ious


def test_a_click_on_the_picture_gives_the_outline_of_the_mask(model: Any, predictor: Predictor) -> None:
    """Through `predict_shapes`, as a click in the window does: an outline around what `nanosam segment` finds."""
    from PyQt6.QtGui import QImage

    image, (box,) = photo_of("raccoon.jpg", turned=False)
    height, width = image.shape[:2]
    picture = QImage(image.tobytes(), width, height, 3 * width, QImage.Format.Format_RGB888)
    model.set_auto_labeling_marks([{"type": "rectangle", "data": list(box)}])
    (shape,) = model.predict_shapes(picture, str(resource("examples", "raccoon.jpg"))).shapes
    corners = np.array([(point.x(), point.y()) for point in shape.points])
    (wanted,) = predictor.predict(predictor.encode_image(image), Prompt.from_boxes([box]))
    assert wanted.bbox is not None
    x, y, w, h = wanted.bbox
    np.testing.assert_allclose([*corners.min(axis=0), *corners.max(axis=0)], [x, y, x + w - 1, y + h - 1], atol=5)

"""A small COCO-format folder of drawn shapes, and a recipe small enough to train in a test."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from nanosam_cli.core.training.recipe import Recipe, load_recipe

TINY = """
[model]
name = "tiny"
backbone = "test_resnet"
pretrained = false
image_size = 512
neck_width = 16
finest_stride = 8
decoder = "{decoder}"

[data]
root = "{root}"
crop = {crop}
scale = [0.3, 0.8]
whole = 0.3
full = {full}
objects = 2
copy_paste = 0.3
colour = 0.2
grey = 0.1
workers = {workers}
sources = [{{ path = "shapes", weight = 1 }}]

[prompts]
point = 0.3
box_and_point = 0.2
box_jitter = 0.01
rough_boxes = 0.1
refine = 0.5

[loss]
bce = 1.0
dice = 1.0
iou = 0.5
click = 0.5

[optimiser]
steps = {steps}
batch = 2
learning_rate = 1e-3
weight_decay = 0.01
warmup = 2
clip = 1.0
ema = 0.9
precision = "fp32"

[run]
seed = 3
device = "cpu"
threads = 1
checkpoint_every = {checkpoint_every}
evaluate_every = 0
evaluate_on = "{evaluate_on}"
evaluate_limit = 1
"""


def save_shapes(folder: Path, photos: int = 3) -> None:
    """Bright ellipses and rectangles on noise, with polygons, a crowd region as run lengths and one bare annotation."""
    random = np.random.default_rng(0)
    (folder / "images").mkdir(parents=True)
    images, annotations = [], []
    for number in range(photos):
        width, height = 120 + 20 * number, 100
        noise = random.integers(0, 90, (height, width, 3), np.uint8)
        picture = Image.fromarray(noise)
        draw = ImageDraw.Draw(picture)
        for left, top, colour in ((10, 12, "orange"), (60, 50, "cyan")):
            polygon = [(left, top), (left + 40, top + 5), (left + 35, top + 30), (left + 5, top + 28)]
            draw.polygon(polygon, fill=colour)
            annotations.append(
                _annotation(len(annotations) + 1, number, [[float(v) for point in polygon for v in point]], left, top)
            )
        images.append({"id": number, "file_name": f"{number}.png", "width": width, "height": height})
        picture.save(folder / "images" / f"{number}.png")
    counts = [0, 500, 100 * 120 - 500]
    crowd = _annotation(len(annotations) + 1, 0, {"size": [100, 120], "counts": counts}, 0, 0) | {"iscrowd": 1}
    bare = _annotation(len(annotations) + 2, 0, [], 0, 0)
    content = {"images": images, "annotations": [*annotations, crowd, bare], "categories": [{"id": 1, "name": "shape"}]}
    (folder / "instances.json").write_text(json.dumps(content))


def _annotation(identity: int, image: int, segmentation: Any, left: float, top: float) -> dict[str, Any]:
    box = [left, top, 40.0, 30.0]
    return {
        "id": identity,
        "image_id": image,
        "category_id": 1,
        "segmentation": segmentation,
        "bbox": box,
        "area": 950.0,
        "iscrowd": 0,
    }


def tiny_recipe(
    root: Path,
    *,
    steps: int = 4,
    decoder: str = "region",
    workers: int = 0,
    checkpoint_every: int = 2,
    evaluate_on: str = "",
    crop: int = 64,
    full: float = 0.0,
    masks: bool = True,
    overrides: Sequence[str] = (),
) -> Recipe:
    """A recipe over `root/shapes`, which `save_shapes` made; without `masks` it needs a teacher."""
    text = TINY.format(
        root=root.as_posix(),
        steps=steps,
        decoder=decoder,
        workers=workers,
        checkpoint_every=checkpoint_every,
        evaluate_on=evaluate_on,
        crop=crop,
        full=full,
    )
    if not masks:
        text = text[: text.index("[prompts]")] + text[text.index("[optimiser]") :]
    path = root / "tiny.toml"
    path.write_text(text)
    return load_recipe(path, overrides)


def teacher(encoder: Path | str, **changes: object) -> str:
    """The override that adds a teacher to a recipe."""
    values = {"encoder": str(encoder), "loss": "huber", "per_channel": False, "weight": 1.0, "masks": "annotated"}
    return "teacher={" + ", ".join(f"{key} = {json.dumps(value)}" for key, value in (values | changes).items()) + "}"

"""A small COCO-format data set that has every kind of annotation, and result files as NVIDIA's tool writes them."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from nanosam_cli.core.media.mask_codes import mask_to_rle

HW = 60, 80
CATEGORIES = [{"id": 1, "name": "person"}, {"id": 18, "name": "dog"}, {"id": 44, "name": "Bottle"}]

POLYGON, COMPRESSED, CROWD, EMPTY, FLAT_BOX, OUTSIDE_BOX, BARE = 11, 12, 13, 14, 15, 16, 17


def save_data_set(folder: Path, photos: int = 4) -> tuple[Path, Path]:
    """-> images folder, annotation file. Photo k has objects 100 k + kind; the odd kinds are in photo 1 alone."""
    images = folder / "images"
    images.mkdir(parents=True)
    noise = np.random.default_rng(0)
    records, entries = [], []
    for number in range(1, photos + 1):
        name = f"{number:012}.png"
        Image.fromarray(noise.integers(0, 256, (*HW, 3), np.uint8)).save(images / name)
        records.append({"id": number, "file_name": name, "height": HW[0], "width": HW[1]})
        entries += _annotations(number, odd=number == 1)
    path = folder / "instances.json"
    path.write_text(json.dumps({"images": records, "annotations": entries, "categories": CATEGORIES}))
    return images, path


def _annotations(photo: int, odd: bool) -> list[dict[str, Any]]:
    left = 4 + 3 * photo
    square = [left, 10, left + 30, 10, left + 30, 40, left, 40]
    disc = np.hypot(*np.ogrid[-30:30, -50:30]) < 8 + photo
    x, y = 50 - 8 - photo, 30 - 8 - photo
    side = 2 * (8 + photo)
    kinds = [
        _entry(photo, POLYGON, [square, [0, 0, 5, 0, 5, 5, 0, 5]], (0, 0, left + 30, 40), 900, 1),
        _entry(photo, COMPRESSED, mask_to_rle(disc), (x, y, side, side), float(disc.sum()), 18),
    ]
    if odd:
        size = list(HW)
        crowd = {"size": size, "counts": [600, 1200, HW[0] * HW[1] - 1800]}
        kinds += [
            _entry(photo, CROWD, crowd, (10, 0, 20, 60), 1200, 1, crowd=1),
            _entry(photo, EMPTY, {"size": size, "counts": [HW[0] * HW[1]]}, (20, 20, 10, 10), 0.5, 1),
            _entry(photo, FLAT_BOX, [[5, 50, 25, 50, 25, 52, 5, 52]], (5, 51, 20, 0), 40, 44),
            _entry(photo, OUTSIDE_BOX, [[70, 50, 79, 50, 79, 59, 70, 59]], (90, 70, 5, 5), 81, 44),
            _entry(photo, BARE, [], (1, 1, 5, 5), 25, 1),
        ]
    return kinds


def _entry(
    photo: int, kind: int, segmentation: Any, bbox: tuple[float, ...], area: float, category: int, crowd: int = 0
) -> dict[str, Any]:
    return {
        "id": 100 * photo + kind,
        "image_id": photo,
        "category_id": category,
        "iscrowd": crowd,
        "area": area,
        "bbox": list(bbox),
        "segmentation": segmentation,
    }


def zipped(folder: Path, target: Path, inside: str = "") -> Path:
    """The files of a folder in a zip file, below `inside`."""
    with zipfile.ZipFile(target, "w") as file:
        for path in sorted(folder.iterdir()):
            file.write(path, f"{inside}{path.name}")
    return target


def nanosam_results(count: int, photos: int = 10, seed: int = 0) -> list[dict[str, Any]]:
    """Rows as NVIDIA NanoSAM's `eval_coco.py` writes them; the first two lie on the borders of the sizes."""
    random = np.random.default_rng(seed)
    areas = [32**2, 96**2, *np.exp(random.uniform(4, 11, count - 2)).tolist()]
    return [
        {
            "id": 1000 + number,
            "area": area,
            "category_id": int(random.choice([1, 18, 44])),
            "iscrowd": 0,
            "image_id": number % photos,
            "box": [1.5, 2.0, 11.5, 22.0],
            "iou": float(random.uniform()),
        }
        for number, area in enumerate(areas[:count])
    ]

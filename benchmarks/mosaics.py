"""Mosaics of photos: what shrinking a large photo costs, and how much of it `--zoom` wins back.

    python benchmarks/mosaics.py data/coco-val/images data/coco-val/instances.json mosaics/
    nanosam eval coco --images data/coco-val/images --annotations mosaics/alone.json -o alone.json
    nanosam eval coco --images mosaics --annotations mosaics/instances.json -o mosaics.json
    nanosam eval coco --images mosaics --annotations mosaics/instances.json -o zoom.json --zoom

A mosaic has `--side` x `--side` photos of at most 640 x 480 pixels, each as it is in a cell of that size, the rest
grey. Their objects are the same, and so is every pixel of them: `alone.json` names the same photos one by one.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from nanosam_cli import read_image
from nanosam_cli.core.datasets.coco import AnnotatedObject, AnnotatedPhoto, read_annotations
from nanosam_cli.core.media.mask_codes import mask_to_rle

CELL_HW = (480, 640)
GREY = 116

Named = tuple[str, tuple[int, int]]  # an image's file name, and its height and width


def mosaics(photos: Sequence[AnnotatedPhoto], side: int) -> Iterator[tuple[Image.Image, list[AnnotatedObject]]]:
    """Each `side` x `side` photos as one picture, with their objects in its pixels; what is left over is left out."""
    count = side * side
    for start in range(0, len(photos) - count + 1, count):
        pixels = np.full((CELL_HW[0] * side, CELL_HW[1] * side, 3), GREY, np.uint8)
        objects = []
        for place, photo in enumerate(photos[start : start + count]):
            y, x = (place // side * CELL_HW[0], place % side * CELL_HW[1])
            height, width = photo.original_hw
            pixels[y : y + height, x : x + width] = read_image(photo.path)
            for target in photo.objects:
                mask = np.zeros(pixels.shape[:2], np.bool_)
                mask[y : y + height, x : x + width] = target.mask()
                left, top, *size = target.bbox
                box = (left + x, top + y, size[0], size[1])
                objects.append(replace(target, bbox=box, rle=mask_to_rle(mask)))
        yield Image.fromarray(pixels), objects


def annotation(target: AnnotatedObject, image_id: int) -> dict[str, Any]:
    """For a COCO file."""
    return {
        "id": target.id,
        "image_id": image_id,
        "category_id": target.category_id,
        "bbox": list(target.bbox),
        "area": target.area,
        "iscrowd": int(target.iscrowd),
        "segmentation": mask_to_rle(target.mask()),
    }


def save(path: Path, names: Sequence[Named], objects: Sequence[Sequence[AnnotatedObject]]) -> None:
    """A COCO file of images by name and size, each with its objects."""
    images = [
        {"id": number, "file_name": name, "height": height, "width": width}
        for number, (name, (height, width)) in enumerate(names, 1)
    ]
    annotations = [annotation(one, number) for number, some in enumerate(objects, 1) for one in some]
    categories = [{"id": one, "name": str(one)} for one in sorted({row["category_id"] for row in annotations})]
    path.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", type=Path)
    parser.add_argument("annotations", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--side", type=int, default=4)
    options = parser.parse_args()
    found = read_annotations(options.annotations, options.images)
    fitting = [one for one in found.photos if one.original_hw[0] <= CELL_HW[0] and one.original_hw[1] <= CELL_HW[1]]
    options.output.mkdir(parents=True, exist_ok=True)
    names: list[Named] = []
    all_objects = []
    for number, (picture, objects) in enumerate(mosaics(fitting, options.side), 1):
        name = f"mosaic{number}.png"
        picture.save(options.output / name, compress_level=1)
        names.append((name, (picture.height, picture.width)))
        all_objects.append(objects)
    used = fitting[: len(names) * options.side**2]
    save(options.output / "instances.json", names, all_objects)
    alone = [(one.path.name, one.original_hw) for one in used]
    save(options.output / "alone.json", alone, [one.objects for one in used])
    print(f"{len(names)} mosaics of {len(used)} photos with {sum(map(len, all_objects))} objects in {options.output}")


if __name__ == "__main__":
    main()

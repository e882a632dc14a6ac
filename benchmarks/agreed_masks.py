"""Masks of what nobody marked in annotated photos, on which two models agree: one more source to train on.

    nanosam download mobile-sam
    python benchmarks/agreed_masks.py DATA/train/coco DATA/train/coco-agreed

Clicks of both models propose boxes, and each box is asked of both. Where their masks overlap, the mask of both logits
together is kept, which is better than either model's (recipes/results/nanosam-lite2-agreed.md). What is marked already
is left out. Most of the time, some five seconds of one core a photo, is MobileSAM's. A broken-off run goes on.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nanosam_cli import ImageEmbedding, Predictor, Prompt, Segmentation, console, load_predictor, read_image
from nanosam_cli.core.datasets.coco import AnnotatedPhoto, read_coco
from nanosam_cli.core.masks import mask_iou
from nanosam_cli.core.media.mask_codes import coco_image, mask_to_rle, rle_box, rle_to_mask
from nanosam_cli.core.prompting.detections import box_ious
from nanosam_cli.core.segmentation.everything import Everything, distinct, segment_everything
from nanosam_cli.core.system.files import write_text
from nanosam_cli.core.system.journal import Journal

Array = NDArray[np.float32]
Rle = dict[str, Any]

GRID = 8  # clicks a side of the model in the box
PARTNER_GRID = 4  # of MobileSAM, whose clicks cost more
PARTNER_SURE = 0.85  # predicted IoU of a reading of such a click that proposes a box
WHOLE = 0.97  # of the photo's width and height: its boundary is no object
KNOWN_BOX, SAME_BOX = 0.85, 0.75  # IoU with a marked box, or with another proposal, beyond which a box is dropped
MOST = 20  # boxes a photo

PARTNER_SHARE = 0.5  # of tanh(x / 4) of MobileSAM's logits, beside ours / 5: best of 0.25, 0.5, 1 and 2
BOX_SURE = 0.75  # predicted IoU that MobileSAM has to give a box's mask
AGREED = 0.5  # least IoU of both masks
FILLED = 0.75  # least IoU of the box that was asked with that of the mask
DOUBLE = 0.6  # IoU of masks beyond which they show the same
LEAST_AREA = 80  # pixels


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, help="folder with instances.json and images/")
    parser.add_argument("output", type=Path, help="folder for the new source; its images/ is a link")
    options = parser.parse_args()

    photos = read_coco(options.source / "instances.json")
    with (
        Journal(options.output / "agreed.jsonl", {"source": str(options.source.resolve())}, resume=True) as journal,
        load_predictor() as ours,
        load_predictor("mobile-sam", note=console.info) as partner,
    ):
        found = {record["photo"]: record["masks"] for record in journal.records()}
        with console.progress("agreed masks", len(photos), "photos", done=len(found)) as advance:
            for photo in photos:
                if photo.id not in found:
                    found[photo.id] = agreed_masks(photo, ours, partner)
                    journal.write({"photo": photo.id, "masks": found[photo.id]})
                    advance(1, masks=len(found[photo.id]))
    images = options.output / "images"
    if not images.is_symlink():
        images.symlink_to(os.path.relpath(options.source / "images", options.output), target_is_directory=True)
    content = dataset([photo for photo in photos if found[photo.id]], found)
    write_text(options.output / "instances.json", json.dumps(content), overwrite=True)
    print(f"{options.output}: {len(content['annotations'])} masks in {len(content['images'])} photos")


def agreed_masks(photo: AnnotatedPhoto, ours: Predictor, partner: Predictor) -> list[Rle]:
    """Masks that a photo has beside its marked ones, those with the best agreement first."""
    image = read_image(photo.path)
    embedding, partner_embedding = ours.encode_image(image), partner.encode_image(image)
    _, segmentations = segment_everything(ours, image, Everything(grid=GRID, min_iou=0.4))
    segmentations += sure_readings(partner, partner_embedding, np.random.default_rng(photo.id))
    boxes = distinct_boxes(photo, [np.array(rle_box(mask_to_rle(one.mask)), np.float32) for one in segmentations])
    prompt = Prompt(boxes=boxes)
    logits, _ = ours.predict_logits(embedding, prompt, select="argmax")
    partner_logits, sure = partner.predict_logits(partner_embedding, prompt, select="single")
    found: list[Rle] = [target.rle for target in photo.objects]
    marked, ranks = len(found), [2.0] * len(found)
    for row in np.flatnonzero(sure >= BOX_SURE):
        here = embedding.frame.masks_to_original(logits[row])
        there = partner_embedding.frame.masks_to_original(partner_logits[row])
        agreement = mask_iou(here > 0, there > 0)
        mask = here / 5 + PARTNER_SHARE * np.tanh(there / 4) > 0
        rle = mask_to_rle(mask)
        filled = box_ious(np.array(rle_box(rle), np.float32), boxes[row][None])[0]
        if agreement >= AGREED and filled >= FILLED and mask.sum() >= LEAST_AREA:
            found.append(rle)
            ranks.append(agreement)
    return [found[row] for row in distinct(found, ranks, DOUBLE) if row >= marked]


def sure_readings(predictor: Predictor, embedding: ImageEmbedding, rng: np.random.Generator) -> list[Segmentation]:
    """What clicks on a grid find whose rows and columns lie anywhere in their cells."""
    height, width = embedding.original_hw
    rows, columns = (np.arange(PARTNER_GRID) + rng.uniform(0.2, 0.8, (2, PARTNER_GRID))) / PARTNER_GRID
    clicks = np.stack(np.meshgrid(columns * width, rows * height), axis=-1).reshape(-1, 1, 2).astype(np.float32)
    prompt = Prompt(points=clicks, labels=np.ones(clicks.shape[:2], np.float32))
    readings = chain.from_iterable(predictor.predict_multimask(embedding, prompt))
    return [one for one in readings if one.predicted_iou > PARTNER_SURE]


def distinct_boxes(photo: AnnotatedPhoto, proposed: Sequence[Array]) -> Array:
    """(P, 4) of the proposals, at random: MOST that are neither marked, nor the whole photo, nor there already."""
    height, width = photo.original_hw
    proposed = [proposed[row] for row in np.random.default_rng(photo.id).permutation(len(proposed))]
    marked = np.array([target.box for target in photo.objects], np.float32).reshape(-1, 4)
    kept = np.empty((0, 4), np.float32)
    for box in proposed:
        sides = box[2:] - box[:2]
        whole = (sides > WHOLE * np.array([width, height])).all()
        known = (box_ious(box, marked) > KNOWN_BOX).any() or (box_ious(box, kept) > SAME_BOX).any()
        if len(kept) < MOST and sides.min() > 0 and not whole and not known:
            kept = np.concatenate([kept, box[None]])
    return kept


def dataset(photos: Sequence[AnnotatedPhoto], found: dict[int, list[Rle]]) -> dict[str, Any]:
    """A COCO instances file."""
    annotations: list[dict[str, Any]] = []
    for photo in photos:
        for rle in found[photo.id]:
            x0, y0, x1, y1 = rle_box(rle)
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": photo.id,
                    "category_id": 1,
                    "bbox": [x0, y0, x1 - x0, y1 - y0],
                    "area": int(rle_to_mask(rle).sum()),
                    "iscrowd": 0,
                    "segmentation": rle,
                }
            )
    images = [coco_image(photo.id, photo.path.name, photo.original_hw) for photo in photos]
    return {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "thing"}]}


if __name__ == "__main__":
    main()

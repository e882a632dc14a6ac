"""What `segment --everything` finds of the objects that people marked, by its settings: recall against number of masks.

    NANOSAM_TEST_DATA=data python benchmarks/everything_defaults.py
    NANOSAM_TEST_DATA=data python benchmarks/everything_defaults.py --encoder encoder.onnx --decoder decoder.onnx

The photos are the packaged examples, and some of each source of NANOSAM_TEST_DATA that has masks of whole objects. A
photo's clicks are decoded once, in the finest grid; a third of it is another (every third row and column). Filters and
doubles are then tried on what is there, with the command's own functions, at the decoder's resolution. An object is
found where a mask that is kept has this IoU with it; objects smaller than 0.1 % of the photo are left out.
"""

from __future__ import annotations

import argparse
import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from nanosam_cli import Predictor, Prompt, load_predictor, read_image
from nanosam_cli.core.datasets.coco import AnnotatedPhoto, read_coco
from nanosam_cli.core.inference.decoder_inputs import mask_to_logits
from nanosam_cli.core.inference.predictor import MAX_PROMPTS, first_reading
from nanosam_cli.core.media.mask_codes import mask_to_rle, rle_ious
from nanosam_cli.core.segmentation.everything import Everything, stability
from nanosam_cli.core.types import FOREGROUND

SOURCES = {"coco": 8, "voc2007": 6, "pennfudan": 3, "cats": 3}  # photos of each
MIN_IOU = 0.2, 0.3, 0.35, 0.4, 0.5, 0.6, 0.7, 0.8
MIN_STABILITY = 0.0, 0.4, 0.5, 0.6, 0.7, 0.85
MAX_OVERLAP = 0.5, 0.6, 0.7
SMALLEST = 0.001  # of the photo


@dataclass(frozen=True, eq=False)
class Readings:
    """What a photo's clicks gave, and how it fits what people marked."""

    coarse: NDArray[np.bool_]  # (R,) whether the click is of every third row and column
    ious: NDArray[np.float32]  # (R,) predicted
    stability: NDArray[np.float64]  # (R,)
    overlaps: NDArray[np.float64]  # (R, R) IoU of every two
    fits: NDArray[np.float64]  # (R, T) IoU with each marked object


def photos() -> Iterator[AnnotatedPhoto]:
    examples = Path(__file__).parents[1] / "examples"
    yield from read_coco(examples / "instances.json", examples)
    if folder := os.environ.get("NANOSAM_TEST_DATA"):
        for source, count in SOURCES.items():
            found = read_coco(Path(folder) / "train" / source / "instances.json")
            yield from found[:: len(found) // count][:count]


def read(predictor: Predictor, photo: AnnotatedPhoto, grid: int) -> Readings:
    image = read_image(photo.path)
    embedding = predictor.encode_image(image)
    frame, side = embedding.frame, np.arange(grid)
    height, width = (math.ceil(length * 256 / frame.input_size) for length in frame.input_hw)  # without the padding
    rows, columns = (axis.ravel() for axis in np.meshgrid(side, side, indexing="ij"))
    points = np.stack([columns + 0.5, rows + 0.5], axis=1) / grid * image.shape[1::-1]
    third = (rows % 3 == 1) & (columns % 3 == 1)
    coarse, ious, steady, rles = [], [], [], []
    for start in range(0, len(points), MAX_PROMPTS):
        batch = points[start : start + MAX_PROMPTS, None].astype(np.float32)
        prompt = Prompt(points=batch, labels=np.full(batch.shape[:2], FOREGROUND, np.float32))
        ((_, masks, scores),) = predictor.decode(embedding, prompt)
        first = first_reading(scores)
        for row, reading in np.argwhere(scores[:, first:] >= min(MIN_IOU)):
            logits = masks[row, first + reading, :height, :width]
            if (logits > 0).any():
                coarse.append(third[start + row])
                ious.append(scores[row, first + reading])
                steady.append(stability(logits))
                rles.append(mask_to_rle(logits > 0))
    marked = [one.mask() for one in photo.objects if not one.iscrowd and one.area >= SMALLEST * image[..., 0].size]
    truth = [mask_to_rle(mask_to_logits(mask, frame)[:height, :width] > 0) for mask in marked]
    fits = (
        np.asarray(coco_mask.iou(rles, truth, [0] * len(truth)))
        if rles and truth
        else np.zeros((len(rles), len(truth)))
    )
    return Readings(np.array(coarse, bool), np.array(ious), np.array(steady), rle_ious(rles), fits)


def keep(found: Readings, rows: NDArray[np.bool_], max_overlap: float) -> list[int]:
    """As `everything.distinct`, on overlaps that are known."""
    kept: list[int] = []
    for row in np.argsort(-found.ious, kind="stable"):
        if rows[row] and not (found.overlaps[row, kept] > max_overlap).any():
            kept.append(int(row))
    return kept


def figures(every: Sequence[Readings], coarse: bool, min_iou: float, steady: float, overlap: float) -> list[float]:
    """Masks a photo, recall at IoU 0.5 and 0.75, and mean IoU of the best mask."""
    counts, best = [], []
    for found in every:
        rows = (found.ious >= min_iou) & (found.stability >= steady) & (found.coarse | (not coarse))
        kept = keep(found, rows, overlap)
        counts.append(len(kept))
        best += [found.fits[kept, truth].max(initial=0) for truth in range(found.fits.shape[1])]
    found_best = np.array(best)
    return [float(np.mean(counts)), *((found_best >= iou).mean() for iou in (0.5, 0.75)), float(found_best.mean())]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--grid", type=int, default=Everything.grid)
    parser.add_argument("--photos", type=int, help="the first so many")
    parser.add_argument("--encoder", type=Path)
    parser.add_argument("--decoder", type=Path)
    parser.add_argument("--threads", type=int)
    options = parser.parse_args()

    files: dict[str, Any] = {"encoder": options.encoder, "decoder": options.decoder, "threads": options.threads}
    with load_predictor(**files) as predictor:
        every = [read(predictor, photo, options.grid) for photo in list(photos())[: options.photos]]
    count = sum(found.fits.shape[1] for found in every)
    upper = [
        float(np.mean(np.concatenate([found.fits.max(0, initial=0) for found in every]) >= iou)) for iou in (0.5, 0.75)
    ]
    print(f"{len(every)} photos, {count} objects; found by any reading at all: {upper[0]:.3f} / {upper[1]:.3f}")
    print("| grid | min IoU | stability | doubles | masks | recall 0.5 | recall 0.75 | mean IoU |")
    print("|---|---|---|---|---|---|---|---|")
    for coarse, *setting in product((False, True)[: 2 - bool(options.grid % 3)], MIN_IOU, MIN_STABILITY, MAX_OVERLAP):
        masks, half, three_quarters, mean = figures(every, coarse, *setting)
        shown = f"{options.grid // 3 if coarse else options.grid} | " + " | ".join(f"{value:g}" for value in setting)
        print(f"| {shown} | {masks:.1f} | {half:.3f} | {three_quarters:.3f} | {mean:.3f} |")


if __name__ == "__main__":
    main()

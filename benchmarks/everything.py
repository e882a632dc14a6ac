"""What `segment --everything` takes, against the naive loop: a decoder call a click, every reading at the photo's size.

    python benchmarks/everything.py
    python benchmarks/everything.py --grid 16 --min-iou 0 --repeats 5

Both alternate in one run with the same clicks and filters. The loop looks for doubles among masks of the photo's size.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from statistics import median
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

from nanosam_cli import Predictor, Prompt, Segmentation, load_predictor, read_image
from nanosam_cli.core.media.mask_codes import mask_to_rle
from nanosam_cli.core.segmentation.everything import Everything, distinct, segment_everything, stability


def naive(predictor: Predictor, image: NDArray[np.uint8], settings: Everything) -> list[Segmentation]:
    """The same without any care for time."""
    embedding = predictor.encode_image(image)
    height, width = image.shape[:2]
    places = (np.arange(settings.grid) + 0.5) / settings.grid
    kept = []
    for y in places * height:
        for x in places * width:
            for reading in predictor.predict_multimask(embedding, Prompt.from_points([[x, y]]))[0]:
                sure = reading.predicted_iou >= settings.min_iou
                if sure and reading.area and stability(reading.low_res_logits) >= settings.min_stability:
                    kept.append(reading)
    rles = [mask_to_rle(one.mask) for one in kept]
    return [kept[row] for row in distinct(rles, [one.predicted_iou for one in kept], settings.max_overlap)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    examples = Path(__file__).parents[1] / "examples"
    parser.add_argument("--photo", type=Path, default=examples / "raccoon.jpg", help="else a 640x480 example")
    parser.add_argument("--grid", type=int, default=Everything.grid)
    parser.add_argument("--min-iou", type=float, default=Everything.min_iou)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()

    settings = replace(Everything(), grid=options.grid, min_iou=options.min_iou)
    image = read_image(options.photo)
    batched, looped = [], []
    with load_predictor() as predictor:
        for _ in range(options.repeats):
            start = perf_counter()
            _, masks = segment_everything(predictor, image, settings)
            middle = perf_counter()
            others = naive(predictor, image, settings)
            batched.append(middle - start)
            looped.append(perf_counter() - middle)
    print(f"{settings.grid**2} clicks, median of {options.repeats}")
    print(f"in batches of {settings.batch}: {median(batched):.2f} s, {len(masks)} masks")
    print(f"naive loop:       {median(looped):.2f} s, {len(others)} masks")
    print(f"ratio:            {median(a / b for a, b in zip(batched, looped)):.2f}")


if __name__ == "__main__":
    main()

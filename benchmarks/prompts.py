"""What it is worth to send many prompts through the decoder together: 32 boxes in one call against 32 calls.

    python benchmarks/prompts.py
    python benchmarks/prompts.py --boxes 100
    python benchmarks/prompts.py --boxes 64 --encoder encoder.onnx --decoder decoder.onnx

Both ways alternate in one run, so that a machine whose speed drifts is fair to each; the image is encoded once. The
masks at the photo's size are part of both.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from math import ceil
from pathlib import Path
from statistics import median
from time import perf_counter

from nanosam_cli import Predictor, Prompt, load_predictor, read_image
from nanosam_cli.core.inference.predictor import MAX_PROMPTS


def boxes(count: int, height: int, width: int) -> list[list[float]]:
    """So many boxes x0 y0 x1 y1 with a quarter of the photo's sides, spread along its diagonals."""
    found = []
    for index in range(count):
        step = 0.75 * index / max(1, count - 1)
        x, y = step * width, (step if index % 2 else 0.75 - step) * height
        found.append([x, y, x + width / 4, y + height / 4])
    return found


def measure(predictor: Predictor, photo: Path, count: int, repeats: int) -> tuple[list[float], list[float]]:
    """Milliseconds of one call with all boxes, and of a call a box, by repeat."""
    image = read_image(photo)
    embedding = predictor.encode_image(image)
    found = boxes(count, *image.shape[:2])
    together, single = Prompt.from_boxes(found), [Prompt.from_boxes([box]) for box in found]

    def one_by_one() -> None:
        for prompt in single:
            predictor.predict(embedding, prompt)

    ways: tuple[Callable[[], object], ...] = (lambda: predictor.predict(embedding, together), one_by_one)
    times: tuple[list[float], list[float]] = ([], [])
    for turn in range(repeats + 2):
        for way, kept in zip(ways, times):
            start = perf_counter()
            way()
            if turn >= 2:  # the first two warm up
                kept.append((perf_counter() - start) * 1000)
    return times


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    examples = Path(__file__).parents[1] / "examples"
    parser.add_argument("--photo", type=Path, default=examples / "raccoon.jpg", help="else a 640x480 example")
    parser.add_argument("--boxes", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--model", help="else the default one")
    parser.add_argument("--encoder", type=Path)
    parser.add_argument("--decoder", type=Path)
    parser.add_argument("--threads", type=int)
    options = parser.parse_args()
    if options.boxes < 1 or options.repeats < 1:
        parser.error("--boxes and --repeats must be 1 or more")

    files = {"encoder": options.encoder, "decoder": options.decoder, "threads": options.threads}
    with load_predictor(options.model, **files) as predictor:
        together, single = measure(predictor, options.photo, options.boxes, options.repeats)
        calls = ceil(options.boxes / (predictor.contract.prompts or MAX_PROMPTS))
        print(f"{predictor.decoder.backend}, {options.boxes} boxes, median of {options.repeats}")
    print(f"together:    {median(together):.1f} ms, decoder calls: {calls}")
    print(f"one by one:  {median(single):.1f} ms, decoder calls: {options.boxes}")
    print(f"ratio:       {median(a / b for a, b in zip(together, single)):.2f} (below 1: together is faster)")


if __name__ == "__main__":
    main()

"""What an evaluation costs besides the model, how `metrics` takes 36,000 objects, and whether IoU is pycocotools'.

python benchmarks/evaluation.py --annotations coco-val/instances.json
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from nanosam_cli import load_predictor
from nanosam_cli.core.datasets.coco import read_coco
from nanosam_cli.core.evaluation.loop import evaluate
from nanosam_cli.core.evaluation.protocols import PROTOCOLS, select_objects
from nanosam_cli.core.evaluation.segmenters import ModelSegmenter
from nanosam_cli.core.inference.session import Session
from nanosam_cli.core.media.mask_codes import mask_to_rle

NANOSAM = (sys.executable, "-c", "from nanosam_cli.app import main; main()")


class Timed:
    """A session that adds up the seconds of its runs."""

    def __init__(self, session: Session) -> None:
        self._session, self.seconds = session, 0.0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)

    def run(self, feeds: Mapping[str, Any]) -> Any:
        start = perf_counter()
        outputs = self._session.run(feeds)
        self.seconds += perf_counter() - start
        return outputs


def overhead(annotations: Path) -> None:
    """Wall time of the loop less that of the two sessions, and IoU against run-length IoU."""
    photos = select_objects(read_coco(annotations), PROTOCOLS["nanosam"])
    with load_predictor() as predictor:
        predictor.encoder, predictor.decoder = encoder, decoder = Timed(predictor.encoder), Timed(predictor.decoder)
        start, count, compare, worst = perf_counter(), 0, 0.0, 0.0
        for done in evaluate(ModelSegmenter(predictor, "argmax"), photos):
            count += len(done.results)
            paused = perf_counter()
            for target, found, result in zip(done.photo.objects, done.masks, done.results, strict=True):
                iou = coco_mask.iou([mask_to_rle(found.mask)], [target.rle], [0])[0, 0]
                worst = max(worst, abs(float(iou) - result.iou))
            compare += perf_counter() - paused
        total = perf_counter() - start - compare
    left = total - encoder.seconds - decoder.seconds
    print(f"{count} objects in {total:.1f} s, outside the sessions {left / count * 1000:.2f} ms an object")
    print(f"largest difference to pycocotools' IoU: {worst:.1e}")


def metrics(objects: int, repeats: int) -> None:
    """`nanosam metrics` in a fresh process on so many made-up results."""
    random = np.random.default_rng(0)
    rows = [
        {
            "id": i,
            "area": float(a),
            "category_id": i % 80,
            "iscrowd": 0,
            "image_id": i // 7,
            "box": [0, 0, 9, 9],
            "iou": v,
        }
        for i, (a, v) in enumerate(zip(random.lognormal(8, 2, objects), random.random(objects).tolist()))
    ]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "results.json"
        path.write_text(json.dumps(rows))
        seconds = []
        for _ in range(repeats):
            start = perf_counter()
            subprocess.run([*NANOSAM, "metrics", str(path)], check=True, capture_output=True)
            seconds.append(perf_counter() - start)
    print(f"nanosam metrics on {objects} objects: median {median(seconds):.2f} s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--annotations", type=Path, required=True, help="COCO instances with images/ beside")
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    overhead(options.annotations)
    metrics(36_000, options.repeats)


if __name__ == "__main__":
    main()

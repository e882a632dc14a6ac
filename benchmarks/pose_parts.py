"""What a box drawn around keypoints is worth beside the points: mean IoU of parts of people, with and without.

    python benchmarks/pose_parts.py instances.json poses.json --part person=person --part pants=pants,jeans

`instances.json` has masks of the parts as categories, and its photos in `images/` beside it; `poses.json` has the
people of each photo, as `nanosam segment --pose` reads them. Photos with one person are used; masks of the categories
that make a part are put together.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import numpy as np

from nanosam_cli import load_predictor, read_image
from nanosam_cli.core.datasets.coco import read_annotations
from nanosam_cli.core.prompting.body_parts import read_parts
from nanosam_cli.core.prompting.pose import PoseChoice, pose_request
from nanosam_cli.core.prompting.pose_files import read_poses

WAYS = ("points", "box", "points and box")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("instances", type=Path)
    parser.add_argument("poses", type=Path)
    parser.add_argument("--part", action="append", required=True, metavar="PART=CATEGORY,...")
    parser.add_argument("--limit", type=int)
    options = parser.parse_args()

    wanted = {
        name: set(categories.split(",")) for name, _, categories in (part.partition("=") for part in options.part)
    }
    annotations, poses = read_annotations(options.instances), read_poses(options.poses)
    keys = poses.match([photo.path for photo in annotations.photos])
    ious: dict[tuple[str, str], list[float]] = defaultdict(list)
    with load_predictor() as predictor:
        for photo in annotations.photos[: options.limit]:
            people = poses.photos[keys[photo.path]] if photo.path in keys else []
            if len(people) != 1:
                continue
            embedding = predictor.encode_image(read_image(photo.path))
            for part in read_parts(list(wanted)):
                masks = [
                    one.mask() for one in photo.objects if annotations.categories[one.category_id] in wanted[part.name]
                ]
                request = pose_request(people, photo.original_hw, PoseChoice([part]))
                if not masks or not request.tags:
                    continue
                truth = np.logical_or.reduce(masks)
                for way, asked in zip(
                    WAYS, (replace(request, boxes=None), replace(request, points=None, labels=None), request)
                ):
                    mask = predictor.predict(embedding, asked.prompt(embedding.frame))[0].mask
                    ious[part.name, way].append(np.count_nonzero(mask & truth) / np.count_nonzero(mask | truth))
    for part in wanted:
        figures = ", ".join(f"{way} {np.mean(ious[part, way]):.3f}" for way in WAYS)
        print(f"{part} ({len(ious[part, WAYS[0]])} masks): {figures}")


if __name__ == "__main__":
    main()

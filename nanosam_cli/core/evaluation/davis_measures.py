"""Region and boundary measures of video object segmentation, as the DAVIS 2017 toolkit defines them.

J is the Jaccard index of two masks, F the harmonic mean of precision and recall of their boundaries (Perazzi et al.,
"A Benchmark Dataset and Evaluation Methodology for Video Object Segmentation", CVPR 2016), J&F their mean. The first
and the last frame of a clip do not count, pixels of label 255 are void, and means go over objects, not over clips
(Pont-Tuset et al., "The 2017 DAVIS Challenge on Video Object Segmentation", arXiv 1704.00675).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from nanosam_cli.core.errors import InputError
from nanosam_cli.core.masks import Mask, mask_iou

TOLERANCE = 0.008  # of the picture's diagonal: how far apart boundaries may run


def region_similarity(found: Mask, truth: Mask, void: Mask | None = None) -> float:
    """J of two masks (H, W): intersection over union; 1 where both are empty."""
    found, truth = _without(void, _checked(found, truth))
    return mask_iou(found, truth)


def boundary_accuracy(found: Mask, truth: Mask, void: Mask | None = None) -> float:
    """F of two masks (H, W): boundaries match where they run within TOLERANCE of each other; 1 where both are empty."""
    found, truth = _without(void, _checked(found, truth))
    window = _joint_window(found, truth)
    if window is None:
        return 1.0
    radius = math.ceil(TOLERANCE * math.hypot(*truth.shape))
    edge_of_found, edge_of_truth = boundary(found)[window], boundary(truth)[window]
    counts = int(np.count_nonzero(edge_of_found)), int(np.count_nonzero(edge_of_truth))
    if 0 in counts:  # one boundary without the other; a mask of the whole picture has none
        return 1.0 if counts == (0, 0) else 0.0
    precision = int(np.count_nonzero(edge_of_found & dilate_disk(edge_of_truth, radius))) / counts[0]
    recall = int(np.count_nonzero(edge_of_truth & dilate_disk(edge_of_found, radius))) / counts[1]
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def boundary(mask: Mask) -> Mask:
    """Pixels (H, W) that differ from the one to the right, below, or below to the right; beyond the picture's rim the
    last row and column go on. The rule of Martin's `seg2bmap`, which the toolkit took over."""
    after = np.pad(mask, ((0, 1), (0, 1)), mode="edge")
    right, below, diagonal = after[:-1, 1:], after[1:, :-1], after[1:, 1:]
    return np.asarray((mask ^ right) | (mask ^ below) | (mask ^ diagonal))


def dilate_disk(mask: Mask, radius: int) -> Mask:
    """Every pixel (H, W) with one of the mask's no farther than `radius` pixels from it, centre to centre."""
    height, width = mask.shape
    sums = np.zeros((height, width + 1), np.int32)
    np.cumsum(mask, axis=1, out=sums[:, 1:])
    columns = np.arange(width)
    grown = np.zeros_like(mask)
    for shift in range(min(radius, height - 1) + 1):  # the disk's rows: runs of the mask's row, so far up and down
        reach = math.isqrt(radius**2 - shift**2)
        low, high = np.maximum(columns - reach, 0), np.minimum(columns + reach + 1, width)
        near = sums[:, high] > sums[:, low]
        grown[shift:] |= near[: height - shift]
        grown[: height - shift] |= near[shift:]
    return grown


def scored_frames(frames: int) -> range:
    """Which frames of a clip count: all but the first, which is given, and the last.

    InputError where none is left.
    """
    if frames < 3:
        raise InputError(f"a clip of {frames} frames cannot be scored", "the first and the last frame do not count")
    return range(1, frames - 1)


def _checked(*masks: Mask) -> tuple[Mask, ...]:
    if len({mask.shape for mask in masks}) > 1:
        raise InputError(f"masks of different sizes: {', '.join(str(mask.shape) for mask in masks)}")
    return masks


def _without(void: Mask | None, masks: Sequence[Mask]) -> list[Mask]:
    return list(masks) if void is None else [mask & ~void for mask in masks]


def _joint_window(found: Mask, truth: Mask) -> tuple[slice, slice] | None:
    """Rows and columns that hold both masks and their boundaries; None where both are empty."""
    either = found | truth
    rows, columns = np.flatnonzero(either.any(axis=1)), np.flatnonzero(either.any(axis=0))
    if not len(rows):
        return None
    return slice(max(rows[0] - 1, 0), rows[-1] + 2), slice(max(columns[0] - 1, 0), columns[-1] + 2)

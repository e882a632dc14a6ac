"""Trackers side by side on annotated clips: this project's, NVIDIA NanoSAM's algorithm, and the first mask copied.

NVIDIA NanoSAM's `nanosam/utils/tracker.py`, in its own words "experimental": a linear token is fitted to the first
mask by least squares; in each frame its response gives a rough mask, whose median point and logits prompt the decoder;
the token then moves a little towards a new fit. `--keep` is how much of it stays: 0.8, or 0.995 as in its file today.
It runs on the same embeddings and the same decoder.

python benchmarks/nanosam_tracker.py DIR [--prompt box] [--json]
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nanosam_cli import Predictor, load_predictor
from nanosam_cli.core.datasets.clips import find_clips
from nanosam_cli.core.evaluation.davis_run import DavisScore, score_clip
from nanosam_cli.core.evaluation.followers import CopyFollower, Followed, Follower, PromptKind, TrackerFollower, box_of
from nanosam_cli.core.inference.decoder_inputs import mask_to_logits
from nanosam_cli.core.tracking.target import TrackState
from nanosam_cli.core.types import ImageEmbedding, Prompt

Array = NDArray[np.float32]


class NvidiaFollower:
    """NVIDIA NanoSAM's tracking algorithm, one object at a time. The predictor stays its owner's to close."""

    def __init__(self, predictor: Predictor, keep: float, prompt: PromptKind = "mask") -> None:
        self.name = f"NVIDIA NanoSAM's algorithm, {keep:g}/{1 - keep:g}"
        self._predictor, self._keep, self._prompt = predictor, keep, prompt
        self._tokens: list[Array] = []

    def start(self, image: NDArray[np.uint8], masks: NDArray[np.bool_]) -> list[Followed]:
        embedding = self._predictor.encode_image(image)
        logits = np.stack([mask_to_logits(mask, embedding.frame) for mask in masks])
        if self._prompt == "box":
            boxes = Prompt.from_boxes([box_of(mask) for mask in masks])
            logits, _ = self._predictor.predict_logits(embedding, boxes, select="argmax")
        self._tokens = [fit_token(embedding, mask) for mask in logits]
        return [Followed(mask, TrackState.tracked) for mask in masks]

    def step(self, image: NDArray[np.uint8]) -> list[Followed]:
        embedding = self._predictor.encode_image(image)
        return [self._follow(embedding, row) for row in range(len(self._tokens))]

    def _follow(self, embedding: ImageEmbedding, row: int) -> Followed:
        rough = enlarged(apply_token(embedding, self._tokens[row]))
        seen = embedding.frame.mask_to_original(rough, 0.0)
        if np.count_nonzero(seen) <= 1:
            return Followed(np.zeros_like(seen), TrackState.lost)
        y, x = (float(np.median(places)) for places in np.nonzero(seen))
        prompt = Prompt(
            points=np.array([[[x, y]]], np.float32), labels=np.ones((1, 1), np.float32), mask_logits=rough[None]
        )
        logits, _ = self._predictor.predict_logits(embedding, prompt, select="argmax")
        fresh = fit_token(embedding, logits[0])
        self._tokens[row] = self._keep * self._tokens[row] + (1 - self._keep) * fresh
        return Followed(embedding.frame.mask_to_original(logits[0], 0.0), TrackState.tracked)


def fit_token(embedding: ImageEmbedding, logits: Array) -> Array:
    """(256,) whose product with the cells comes nearest to the mask's logits (256, 256), averaged to 64 x 64."""
    cells = embedding.numpy()[0].reshape(256, -1).T
    small = logits.reshape(64, 4, 64, 4).mean(axis=(1, 3)).reshape(-1)
    return np.asarray(np.linalg.lstsq(cells, small, rcond=None)[0], np.float32)


def apply_token(embedding: ImageEmbedding, token: Array) -> Array:
    """(64, 64) the product of the token with every cell."""
    return np.tensordot(token, embedding.numpy()[0], axes=1)


def enlarged(grid: Array) -> Array:
    """(64, 64) -> (256, 256), bilinear."""
    positions = np.clip((np.arange(256) + 0.5) / 4 - 0.5, 0, 63)
    low = np.minimum(positions.astype(int), 62)
    share = (positions - low).astype(np.float32)
    rows = grid[low] * (1 - share)[:, None] + grid[low + 1] * share[:, None]
    return np.asarray(rows[:, low] * (1 - share) + rows[:, low + 1] * share, np.float32)


def report(follower: Follower, score: DavisScore) -> None:
    clips = ", ".join(f"{clip.name} {(clip.j + clip.f) / 2:.3f}" for clip in score.clips)
    print(f"| {follower.name} | {score.mean_j:.3f} | {score.mean_f:.3f} | {score.mean_jf:.3f} | {clips} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, metavar="DIR", help="annotated clips, as `nanosam eval davis` takes them")
    parser.add_argument("--prompt", choices=("mask", "box"), default="mask")
    parser.add_argument("--keep", type=float, nargs="+", default=[0.8, 0.995])
    parser.add_argument("--clip", action="append", default=[])
    parser.add_argument("--json", action="store_true", help="one line a tracker")
    options = parser.parse_args()
    clips = find_clips(options.folder, options.clip)
    with load_predictor() as predictor:
        followers: Sequence[Follower] = (
            CopyFollower(),
            *(NvidiaFollower(predictor, keep, options.prompt) for keep in options.keep),
            TrackerFollower(predictor, options.prompt, name=f"nanosam track, {options.prompt} prompt"),
        )
        print("| tracker | J | F | J&F | J&F by clip |\n|---|---|---|---|---|")
        for follower in followers:
            score = DavisScore([score_clip(clip, follower) for clip in clips])
            if options.json:
                print(json.dumps({"tracker": follower.name, **score.record()}))
            report(follower, score)


if __name__ == "__main__":
    main()

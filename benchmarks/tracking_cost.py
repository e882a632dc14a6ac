"""What tracking costs: milliseconds a frame by stage and object, and memory over a long video.

The frames are a made clip (`synthetic_clips.py`) played to and fro, encoded anew each time. Everything runs in one
thread and its processor time is counted, so that what else the machine does changes little.

python benchmarks/tracking_cost.py [--frames 2000] [--objects 1 2 4]
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from fractions import Fraction
from itertools import cycle, islice
from pathlib import Path
from statistics import median
from time import process_time
from typing import Any

import numpy as np
from synthetic_clips import Clip, make_clips

from nanosam_cli import Prompt, Tracker, load_predictor
from nanosam_cli.core.inference.session import Session
from nanosam_cli.core.media.video import VideoFrame
from nanosam_cli.core.media.video_time import VideoTime
from nanosam_cli.core.prompting.request import Request
from nanosam_cli.core.tracking.run import TrackingRun
from nanosam_cli.core.tracking.timed_requests import TimedRequest

USED = 12  # frames of the clip, before its object is gone


class Timed:
    """A session that notes the processor seconds of its runs."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self.seconds: list[float] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)

    def run(self, feeds: Mapping[str, Any]) -> Any:
        start = process_time()
        outputs = self._session.run(feeds)
        self.seconds.append(process_time() - start)
        return outputs


def to_and_fro(clip: Clip, frames: int) -> Iterator[VideoFrame]:
    there = list(clip.frames[:USED])
    for index, image in enumerate(islice(cycle(there + there[-2:0:-1]), frames)):
        yield VideoFrame(index, Fraction(index, 25), image, f"{index:05}")


def resident_mb() -> float:
    """Of this process, now (Linux)."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / 2**20


def boxes(clip: Clip, objects: int) -> np.ndarray:
    """The clip's object, and for more of them places of the ground beside it."""
    y, x = np.nonzero(clip.masks[0])
    first = [x.min(), y.min(), x.max() + 1, y.max() + 1]
    others = [[300 + 50 * number, 40 + 60 * number, 380 + 50 * number, 120 + 60 * number] for number in range(3)]
    return np.array([first, *others], np.float32)[:objects]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=2000, help="of the long run, with one object")
    parser.add_argument("--objects", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--encoder", type=Path, help="in place of the model in the box")
    parser.add_argument("--decoder", type=Path)
    options = parser.parse_args()
    clip = next(one for one in make_clips() if one.scenario == "leaving")
    print("| objects | encoder ms | decoder ms | tracker ms, median | largest |\n|---|---|---|---|---|")
    with load_predictor(encoder=options.encoder, decoder=options.decoder, threads=1) as predictor:
        predictor.encoder, predictor.decoder = encoder, decoder = Timed(predictor.encoder), Timed(predictor.decoder)
        for objects in options.objects:
            tracker = Tracker(predictor)
            encoder.seconds, decoder.seconds, times = [], [], []
            for frame in to_and_fro(clip, 60):
                embedding = predictor.encode_image(frame.image)
                if not frame.index:
                    tracker.init(embedding, Prompt(boxes=boxes(clip, objects)))
                    continue
                start = process_time()
                tracker.update(embedding)
                times.append(process_time() - start - decoder.seconds[-1])
            values = (median(encoder.seconds), median(decoder.seconds[1:]), median(times), max(times))
            print(f"| {objects} | {' | '.join(f'{value * 1000:.1f}' for value in values)} |", flush=True)
        print("\n| frame | resident MB |\n|---|---|")
        run = TrackingRun(predictor, [TimedRequest(VideoTime(0), Request(boxes=boxes(clip, 1)))])
        for tracked in run.frames(to_and_fro(clip, options.frames)):
            encoder.seconds, decoder.seconds = [], []
            if tracked.frame.index % 200 == 0 or tracked.frame.index == options.frames - 1:
                print(f"| {tracked.frame.index} | {resident_mb():.1f} |", flush=True)
    print(f"\n{run.summary.rows()[0]} (object, tracked, uncertain, lost, found again)")


if __name__ == "__main__":
    main()

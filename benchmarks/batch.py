"""Photos a second of `nanosam batch` against a plain loop of the same predictor, its start-up and its driver's memory.

    python benchmarks/batch.py photos/ --limit 200
    python benchmarks/batch.py photos/ --limit 200 --workers 2 --threads 1

The loop reads, encodes and decodes one photo after the other with the same threads. A job's photos a second are those
between its first and its last table, so that what Ray takes to start stands by itself. Where a folder has fewer photos
than `--limit`, they are linked under more names.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter

import pyarrow as pa

from nanosam_cli.core.fleet.cluster import LOCAL, Workers, connected, segment_shards
from nanosam_cli.core.fleet.decode import Decoder, ShardWork
from nanosam_cli.core.fleet.run import BatchPlan, plan_batch, run_batch
from nanosam_cli.core.fleet.segmenter import SegmenterSpec
from nanosam_cli.core.fleet.sources import open_source
from nanosam_cli.core.loading.choice import ModelChoice
from nanosam_cli.core.loading.load import open_predictor
from nanosam_cli.core.media.find_photos import find_photos
from nanosam_cli.core.media.mask_codes import mask_to_rle
from nanosam_cli.core.prompting.options import PromptOptions
from nanosam_cli.core.segmentation.job import make_job
from nanosam_cli.core.segmentation.segment_photo import MaskOptions, segment_photo


@dataclass
class Watched:
    """When tables came, and how large this process was then."""

    start: float = field(default_factory=perf_counter)
    times: list[float] = field(default_factory=list)
    counts: list[int] = field(default_factory=list)
    megabytes: list[float] = field(default_factory=list)

    def tables(self, tables: Iterator[pa.Table]) -> Iterator[pa.Table]:
        for table in tables:
            self.times.append(perf_counter() - self.start)
            self.counts.append(table.num_rows)
            self.megabytes.append(_resident())
            yield table

    @property
    def pace(self) -> float:
        """Photos a second after the first table."""
        return sum(self.counts[1:]) / (self.times[-1] - self.times[0]) if len(self.times) > 1 else float("nan")


def _resident() -> float:
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * 4096 / 2**20


def linked(folder: Path, limit: int, target: Path) -> Path:
    """A folder of `limit` photos."""
    photos = find_photos([str(folder)])
    for number in range(limit):
        photo = photos[number % len(photos)].resolve()
        (target / f"{number:06}{photo.suffix}").symlink_to(photo)
    return target


def loop(folder: Path, asked: PromptOptions, choice: ModelChoice) -> float:
    """Photos a second of one process."""
    photos = find_photos([str(folder)])
    job = make_job(photos, asked)
    with open_predictor(choice) as predictor:
        segment_photo(predictor, job, photos[0], photos[0], MaskOptions())  # the first is slower
        start = perf_counter()
        for photo in photos:
            for mask in segment_photo(predictor, job, photo, photo, MaskOptions()).masks:
                mask_to_rle(mask)
        return len(photos) / (perf_counter() - start)


def batch(plan: BatchPlan, folder: Path, workers: Workers) -> Watched:
    """A job of its own Ray."""
    watched = Watched()

    def engine(works: Iterator[ShardWork], decoder: Decoder, spec: SegmenterSpec) -> Iterator[pa.Table]:
        with connected(LOCAL):
            yield from watched.tables(segment_shards(works, decoder, spec, workers))

    run_batch(plan, folder, engine)
    return watched


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", type=Path)
    parser.add_argument("--limit", type=int, default=200)
    parser.add_argument("--grid", type=int, default=4)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--shard-size", type=int, default=64)
    options = parser.parse_args()
    choice = ModelChoice(threads=options.threads)
    asked = PromptOptions(everything=True, grid=options.grid)
    with tempfile.TemporaryDirectory() as scratch:
        (Path(scratch) / "photos").mkdir()
        folder = linked(options.photos, options.limit, Path(scratch) / "photos")
        plain = loop(folder, asked, choice)
        print(f"loop, {options.threads} threads: {plain:.2f} photos/s", flush=True)
        with open_predictor(choice) as predictor:
            source = open_source(str(folder))
            plan = plan_batch(source, asked, predictor, choice, shard_size=options.shard_size)
        watched = batch(plan, Path(scratch) / "out", Workers(options.workers, 0.5 * options.threads))
        again = loop(folder, asked, choice)
    print(f"loop again: {again:.2f} photos/s")
    print(f"batch, {options.workers} models of {options.threads} threads: {watched.pace:.2f} photos/s, ", end="")
    print(f"{watched.pace / ((plain + again) / 2):.2f} of the loop; first table after {watched.times[0]:.1f} s")
    print(f"driver: {watched.megabytes[0]:.0f} MB at the first table, {watched.megabytes[-1]:.0f} MB at the last")


if __name__ == "__main__":
    main()

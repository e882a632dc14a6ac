"""A job from its plan to its last shard, whatever runs it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from time import monotonic
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.compute as pc

from nanosam_cli.core.errors import InputError, OutputError
from nanosam_cli.core.fleet.decode import Decoder, ShardWork, shard_work
from nanosam_cli.core.fleet.output import Counts, Manifest, ShardFolder
from nanosam_cli.core.fleet.prompts import BatchPrompts, plan_prompts
from nanosam_cli.core.fleet.segmenter import SegmenterSpec
from nanosam_cli.core.fleet.sources import PhotoSource
from nanosam_cli.core.inference.predictor import Predictor
from nanosam_cli.core.loading.choice import ModelChoice
from nanosam_cli.core.prompting.options import PromptOptions
from nanosam_cli.core.system.lock import only_run
from nanosam_cli.version import __version__

SHARD_SIZE = 512  # photos: a megabyte of rows, and what a kill may cost
# decodes and segments shards -> tables of SEGMENTED, as they come
Engine = Callable[[Iterator[ShardWork], Decoder, SegmenterSpec], Iterator[pa.Table]]


class Advance(Protocol):
    """Told of photos that are done."""

    def __call__(self, amount: int = 1, /, **fields: object) -> None: ...


@dataclass(frozen=True)
class BatchPlan:
    """Everything that decides a job."""

    source: PhotoSource
    prompts: BatchPrompts
    manifest: Manifest
    decoder: Decoder
    spec: SegmenterSpec

    def work(self, number: int) -> ShardWork:
        """The work of a shard."""
        start = number * self.manifest.shard_size
        return shard_work(number, self.source, self.prompts, start, start + self.manifest.rows(number))


def plan_batch(
    source: PhotoSource,
    asked: PromptOptions,
    predictor: Predictor,
    choice: ModelChoice,
    *,
    threshold: float = 0.0,
    shard_size: int = SHARD_SIZE,
) -> BatchPlan:
    """Match prompts and photos, and cut them into shards. Errors are those of `plan_prompts`."""
    prompts = plan_prompts(source, asked)
    model = predictor.describe()
    settings = {"nanosam": __version__, "model": model, **asked.settings(), "threshold": threshold}
    ids = sha256()
    for place in prompts.places:
        ids.update(f"{source.ids[place]}\n".encode("utf-8", "surrogateescape"))
    settings["ids_sha256"] = ids.hexdigest()
    job = sha256(json.dumps([settings, shard_size], sort_keys=True).encode()).hexdigest()[:16]
    manifest = Manifest(job, settings, len(prompts.places), shard_size, prompts.classes)
    everything = prompts.everything
    decoder = Decoder(
        predictor.contract.image_size,
        predictor.contract.coordinate_size,
        everything=everything is not None,
        whole=everything is not None and everything.crop_layers > 0,
        class_ids=prompts.class_ids,
    )
    return BatchPlan(source, prompts, manifest, decoder, SegmenterSpec(choice, model, everything, threshold))


def run_batch(
    plan: BatchPlan,
    folder: Path,
    engine: Engine,
    *,
    resume: bool = False,
    max_errors: int = 1000,
    progress: Callable[[int], AbstractContextManager[Advance]] = lambda _: nullcontext(lambda *_, **__: None),
) -> Counts:
    """Do the shards that are left, each written once all of its photos are there; -> what came of all of the job.

    `progress` is told how many an earlier run has done, and gives what is told of each that follows. Whatever ends the
    job leaves whole shards, and a manifest that counts them.

    Raises:
        OutputError: another run is at work there, a job is there already, or it cannot be written.
        InputError: `resume` finds other settings, or more than `max_errors` photos have an error.
    """
    output = ShardFolder(folder)
    with only_run(folder):
        output.check(plan.manifest, resume=resume)
        done = output.done(plan.manifest)
        total = Counts()
        for counts in done.values():
            total.add(counts)
        _check_errors(total, max_errors, [])
        left = [number for number in range(plan.manifest.shards) if number not in done]
        finished = len(done)
        output.write_manifest(plan.manifest, total, finished)
        try:
            with progress(total.photos) as advance:
                gathering = _Gathering(plan.manifest, max_errors - total.errors, advance)
                tables = engine(map(plan.work, left), plan.decoder, plan.spec) if left else iter(())
                for number, rows in gathering.shards(tables):
                    total.add(output.write(plan.manifest, number, rows))
                    finished += 1
        finally:
            with suppress(OutputError):  # of a disk whose fullness has been said
                output.write_manifest(plan.manifest, total, finished)
    return total


class _Gathering:
    """Puts the photos of shards together, in whatever order workers give them."""

    def __init__(self, manifest: Manifest, errors_left: int, advance: Advance) -> None:
        self._manifest, self._errors_left, self._advance = manifest, errors_left, advance
        self._parts: dict[int, list[pa.Table]] = {}
        self._done = self._errors = self._first = 0
        self._last: list[str] = []
        self._start: float | None = None  # when the first photos came

    def shards(self, tables: Iterator[pa.Table]) -> Iterator[tuple[int, pa.Table]]:
        """The shards that are whole, with their rows in order."""
        for table in tables:
            self._count(table)
            for number in table["shard"].unique().to_pylist():
                mask = pc.equal(table["shard"], number)
                parts = self._parts.setdefault(number, [])
                parts.append(table.filter(mask))
                if sum(part.num_rows for part in parts) == self._manifest.rows(number):
                    yield number, pa.concat_tables(self._parts.pop(number)).sort_by("place")

    def _count(self, table: pa.Table) -> None:
        broken = [error for error in table["error"].to_pylist() if error is not None]
        self._done += table.num_rows
        self._errors += len(broken)
        self._last = (self._last + broken)[-3:]
        if self._start is None:  # the workers are up
            self._start, self._first = monotonic(), self._done
        pace = (self._done - self._first) / max(monotonic() - self._start, 1e-6)
        self._advance(table.num_rows, **{"photos/s": pace}, failed=self._errors)
        _check_errors(Counts(errors=self._errors), self._errors_left, self._last)


def _check_errors(counts: Counts, most: int, last: Sequence[str]) -> None:
    if counts.errors > most:
        shown = f", the last: {'; '.join(last)}" if last else ""
        raise InputError(
            f"more photos have an error than --max-errors allows{shown}",
            "mend the source, or allow more, and run it again with --resume",
        )


def counts_record(counts: Counts, manifest: Manifest, folder: Path) -> Mapping[str, Any]:
    """For JSON."""
    return {"schema_version": 1, **asdict(counts), "shards": manifest.shards, "output": str(folder)}

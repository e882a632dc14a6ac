"""What a command line asks of a job, brought together: source, model, Ray, run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from nanosam_cli.core.fleet.cluster import LOCAL, Workers, connected, plan_workers, segment_shards
from nanosam_cli.core.fleet.decode import Decoder, ShardWork
from nanosam_cli.core.fleet.output import Counts
from nanosam_cli.core.fleet.run import SHARD_SIZE, counts_record, plan_batch, run_batch
from nanosam_cli.core.fleet.segmenter import SegmenterSpec
from nanosam_cli.core.fleet.sources import open_source
from nanosam_cli.core.loading.choice import ModelChoice
from nanosam_cli.core.loading.load import open_predictor
from nanosam_cli.core.messages import Note
from nanosam_cli.core.prompting.options import PromptOptions

Progress = Callable[..., AbstractContextManager[Any]]  # description, total, unit, done


@dataclass(frozen=True)
class BatchRequest:
    """Everything that a command line says."""

    source: str
    output: Path
    asked: PromptOptions
    choice: ModelChoice
    image_column: str = "image"
    id_column: str | None = None
    threshold: float = 0.0
    shard_size: int = SHARD_SIZE
    resume: bool = False
    max_errors: int = 1000
    ray: str = LOCAL
    workers: int | None = None
    gpus_each: float = 1.0


def run_job(request: BatchRequest, say: Note, warn: Note, progress: Progress) -> tuple[Counts, dict[str, Any]]:
    """Do a job, or what is left of it -> what came of it, and the same for JSON. Errors are those of `run_batch`."""
    source = open_source(request.source, request.image_column, request.id_column)
    with open_predictor(request.choice, say) as predictor:  # before any worker: what is wrong with it is said at once
        on_gpu = predictor.encoder.backend != "" and "cuda" in predictor.encoder.backend.lower()
        plan = plan_batch(
            source,
            request.asked,
            predictor,
            request.choice,
            threshold=request.threshold,
            shard_size=request.shard_size,
        )
    for note in plan.prompts.notes:
        warn(note)
    manifest = plan.manifest
    say(f"{manifest.photos} photos in {manifest.shards} shards of {manifest.shard_size}")

    def engine(works: Iterator[ShardWork], decoder: Decoder, spec: SegmenterSpec) -> Iterator[pa.Table]:
        with connected(request.ray):
            workers = plan_workers(on_gpu, request.choice.threads, request.gpus_each)
            if request.workers is not None:
                workers = Workers(request.workers, workers.cpus, workers.gpus)
            say(f"Ray is up: {workers.count} models at work")
            yield from segment_shards(works, decoder, spec, workers)

    counts = run_batch(
        plan,
        request.output,
        engine,
        resume=request.resume,
        max_errors=request.max_errors,
        progress=lambda done: progress("batch", manifest.photos, "photos", done=done),
    )
    return counts, dict(counts_record(counts, manifest, request.output))

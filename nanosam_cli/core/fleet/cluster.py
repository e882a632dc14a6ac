"""Ray: on this machine or on a cluster, tasks that decode and actors that segment, joined by Ray Data."""

from __future__ import annotations

import logging
import os
import pickle
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import ray
import ray.data as ray_data
import ray.exceptions

from nanosam_cli.core.errors import BackendError, NanosamError
from nanosam_cli.core.fleet.decode import Decoder, ShardWork
from nanosam_cli.core.fleet.segmenter import SegmenterSpec, ShardSegmenter
from nanosam_cli.core.system.ending import ENDING

LOCAL = "local"
_BLOCK_BYTES = 8 << 20  # of photos that travel together: a dozen, so that actors get some soon
_DECODE_CPUS = 0.25  # of a task: an encoder takes ten times as long as a decoder

# where the user does not say otherwise
_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",  # it would tell its makers
    "RAY_BACKEND_LOG_LEVEL": "fatal",  # lower ones go to the terminal; all are in Ray's log folder
    # of a local job: at Ray's 15, its workers would stand still for minutes wherever another program fills the CPUs
    "RAY_worker_niceness": "0",
}


@dataclass(frozen=True)
class Workers:
    """How many actors, and what each holds."""

    count: int
    cpus: float
    gpus: float = 0.0


@contextmanager
def connected(address: str, cpus: int | None = None) -> Iterator[None]:
    """Start Ray on this machine, or join a cluster, quietly. BackendError where it cannot be reached."""
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    handlers = {number: signal.getsignal(number) for number in ENDING}
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    try:
        with _unheard():
            if address == LOCAL:
                ray.init(address=LOCAL, num_cpus=cpus, include_dashboard=False, **quiet)
            else:
                ray.init(address=address, **quiet)
    except (ConnectionError, RuntimeError, ValueError, OSError) as error:
        raise BackendError(
            f"cannot use Ray at {address}: {error}", "--ray local, or an address such as auto"
        ) from error
    for number, handler in handlers.items():  # Ray's own would end the process without a word
        signal.signal(number, handler)
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    with redirect_stdout(sys.stderr):  # Ray prints that a worker has died, at the end too
        try:
            yield
        finally:
            ray.shutdown()


@contextmanager
def _unheard() -> Iterator[None]:
    """Ray's core writes past Python into stderr as it starts; what goes wrong comes as an exception."""
    sys.stderr.flush()
    kept = os.dup(2)
    with Path(os.devnull).open("wb") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def plan_workers(device_is_gpu: bool, threads: int | None, gpus_each: float = 1.0) -> Workers:
    """One actor for each `threads` CPUs, or one a GPU. A quarter of the CPUs is left to those who decode."""
    resources = ray.cluster_resources()
    cpus = int(resources.get("CPU", 1))
    if device_is_gpu:
        count = int(resources.get("GPU", 0) / gpus_each)
        if not count:
            raise BackendError("the cluster has no GPU that Ray knows of", "--device cpu")
        return Workers(count, 1.0, gpus_each)
    each = threads or cpus
    return Workers(max(1, cpus // each), 0.5 * min(each, cpus))


def segment_shards(
    works: Iterator[ShardWork], decoder: Decoder, spec: SegmenterSpec, workers: Workers
) -> Iterator[pa.Table]:
    """Tables of SEGMENTED, in whatever order they are ready. Errors of workers come as what they are."""
    context = ray_data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.target_max_block_size = _BLOCK_BYTES
    items = [{"work": pickle.dumps(work)} for work in works]

    def decode(table: pa.Table) -> Iterator[pa.Table]:
        for text in table["work"].to_pylist():
            yield from decoder.tables(pickle.loads(text))

    pipeline = ray_data.from_items(items, override_num_blocks=len(items))
    pipeline = pipeline.map_batches(decode, batch_size=1, batch_format="pyarrow", num_cpus=_DECODE_CPUS)
    pipeline = pipeline.map_batches(
        ShardSegmenter,
        fn_constructor_args=(spec,),
        batch_size=None,
        batch_format="pyarrow",
        num_cpus=workers.cpus,
        num_gpus=workers.gpus or None,
        compute=ray_data.ActorPoolStrategy(size=workers.count),
    )
    try:
        yield from pipeline.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=1)
    except ray.exceptions.RayError as error:
        known = _cause(error)
        if known is not None:
            raise known from error
        raise BackendError(f"a worker failed: {error}", "--resume goes on with the shards that are left") from error


def _cause(error: BaseException | None) -> NanosamError | None:
    """The error with words that a worker raised, however often Ray has wrapped it."""
    while error is not None:
        if isinstance(error, NanosamError):
            return error
        error = getattr(error, "cause", None) or error.__cause__
    return None

"""Several processes for one run, as `torchrun` starts them: who is who, and what they share."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
from torch import Tensor, distributed, nn
from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous
from torch.nn.parallel import DistributedDataParallel

from nanosam_cli.core.errors import BackendError

PATIENCE = timedelta(hours=1)  # the others wait while the first evaluates


@dataclass(frozen=True)
class Ranks:
    """This process among those of the run."""

    device: torch.device
    rank: int = 0
    ranks: int = 1
    backend: str | None = None  # None without torchrun

    @property
    def first(self) -> bool:
        """Whether it is the one that writes and reports."""
        return self.rank == 0

    def mean(self, values: Tensor) -> Tensor:
        """The mean over all processes."""
        if self.backend is not None:
            distributed.all_reduce(values)
            values = values / self.ranks
        return values

    def wait(self) -> None:
        """Until all have come here."""
        if self.backend is not None:
            distributed.barrier()

    def wrap(self, module: nn.Module) -> nn.Module:
        """Average gradients over all processes. Parts may go unused in a step, such as a decoder without prompts."""
        return module if self.backend is None else DistributedDataParallel(module, find_unused_parameters=True)


@contextmanager
def join(device_name: str) -> Iterator[Ranks]:
    """Take part in the run that torchrun started, by NCCL on CUDA and gloo on CPU; alone without torchrun.

    `device_name` is auto, cpu or cuda. BackendError where CUDA was asked for and is not there.
    """
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        yield Ranks(choose_device(device_name))
        return
    local = int(os.environ["LOCAL_RANK"])
    device = choose_device(device_name, local)
    backend = "nccl" if device.type == "cuda" else "gloo"
    store, rank, ranks = next(rendezvous("env://", timeout=PATIENCE))
    # torchrun's own store outlives a restart: under the same keys, processes would look for the dead ones' addresses
    own = PrefixStore(f"restart-{os.environ.get('TORCHELASTIC_RESTART_COUNT', 0)}", store)
    distributed.init_process_group(backend, store=own, rank=rank, world_size=ranks, timeout=PATIENCE)
    try:
        yield Ranks(device, rank, ranks, backend)
    finally:
        distributed.destroy_process_group()


def is_first() -> bool:
    """Whether this process may print: the first of those that torchrun started, or the only one."""
    return os.environ.get("RANK", "0") == "0"


def was_restarted() -> bool:
    """Whether torchrun started this run again because a process had died."""
    return os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") != "0"


def choose_device(name: str, local: int = 0) -> torch.device:
    """auto, cpu or cuda -> a device, the `local`-th of its kind.

    BackendError where CUDA was asked for and is not there, or has fewer devices than processes.
    """
    if name == "cuda" and not torch.cuda.is_available():
        raise BackendError("run.device is cuda, but torch sees no CUDA device", "--set run.device=cpu")
    if name == "cpu" or not torch.cuda.is_available():
        return torch.device("cpu")
    if local >= torch.cuda.device_count():
        raise BackendError(
            f"process {local + 1} on this machine finds {torch.cuda.device_count()} CUDA device(s)",
            "lower torchrun's --nproc-per-node, or --set run.device=cpu",
        )
    torch.cuda.set_device(local)
    return torch.device("cuda", local)

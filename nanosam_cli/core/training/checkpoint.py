"""Training state as safetensors plus metadata: no pickle, written whole or not at all."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer

from nanosam_cli.core.errors import InputError
from nanosam_cli.core.files import write_bytes

AVERAGE = "ema."  # before the names of the moving average's tensors


@dataclass(frozen=True)
class TrainingState:
    """What a run needs to go on exactly: tensors by name, and plain values."""

    tensors: dict[str, Tensor]
    metadata: dict[str, Any]

    def part(self, prefix: str) -> dict[str, Tensor]:
        """The tensors below a prefix, without it."""
        return {name[len(prefix) :]: tensor for name, tensor in self.tensors.items() if name.startswith(prefix)}


def save_state(
    path: Path, model: nn.Module, average: nn.Module, optimiser: Optimizer, metadata: dict[str, Any]
) -> None:
    """Write model (`model.`), its moving average (`ema.`) and optimiser (`optimiser.`); replaces `path` atomically."""
    tensors = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    tensors |= {f"{AVERAGE}{name}": tensor for name, tensor in average.state_dict().items()}
    for number, values in optimiser.state_dict()["state"].items():
        tensors |= {f"optimiser.{number}.{name}": value for name, value in values.items()}
    save_tensors(path, tensors, metadata)


def save_weights(path: Path, checkpoint: Path) -> None:
    """Write only what other runs start from and files are exported from: the moving average, an eighth of it.

    Kernels are kept in half precision; norms and biases, whose range is wide, in single. Replaces `path` atomically.
    """
    state = load_state(checkpoint)
    prefix = f"{AVERAGE}module."
    tensors = {
        prefix + name: tensor.half() if tensor.ndim > 1 else tensor for name, tensor in state.part(prefix).items()
    }
    # of the recipe the model alone: where its photos lay is nobody's business
    model = state.metadata["recipe"]["model"]
    save_tensors(path, tensors, {"step": state.metadata["step"], "recipe": {"model": model}})


def save_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> None:
    """Write tensors and plain values; replaces `path` atomically. OutputError where that fails: it stays as it was."""
    from safetensors.torch import save

    own = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    # as bytes, because safetensors' own writing hides the reason where it fails, such as a full disk
    write_bytes(path, save(own, {"nanosam": json.dumps(metadata)}), overwrite=True)


def keep_numbered(path: Path, step: int, keep: int) -> None:
    """Keep a copy of a checkpoint under its step's number; of such copies the newest `keep` stay."""
    if keep:
        write_bytes(path.with_name(f"step-{step:07}{path.suffix}"), path.read_bytes(), overwrite=True)
    numbered = sorted(path.parent.glob(f"step-*{path.suffix}"))
    for old in numbered[: len(numbered) - keep]:
        old.unlink()


def load_state(path: Path) -> TrainingState:
    """Read a file that `save_state` wrote. Raises InputError where it is missing, broken or of another kind."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            metadata = (file.metadata() or {}).get("nanosam")
            if metadata is None:
                raise InputError(f"{path} is not a checkpoint of this program: its metadata has no 'nanosam' entry")
            return TrainingState({name: file.get_tensor(name) for name in file.keys()}, json.loads(metadata))  # noqa: SIM118
    except FileNotFoundError as error:
        raise InputError(f"no such checkpoint: {path}") from error
    except (SafetensorError, json.JSONDecodeError) as error:
        raise InputError(f"{path} is not a whole safetensors file: {error}", "use an earlier checkpoint") from error


def restore(state: TrainingState, model: nn.Module, average: nn.Module, optimiser: Optimizer) -> None:
    """Put a saved state back where it was; every name must fit."""
    model.load_state_dict(state.part("model."))
    average.load_state_dict(state.part(AVERAGE))
    values: dict[int, dict[str, Tensor]] = {}
    for name, tensor in state.part("optimiser.").items():
        number, _, key = name.partition(".")
        values.setdefault(int(number), {})[key] = tensor
    optimiser.load_state_dict({**optimiser.state_dict(), "state": values})

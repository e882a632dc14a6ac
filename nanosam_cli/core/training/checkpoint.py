"""Training state as safetensors plus metadata: no pickle, written whole or not at all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer

from nanosam_cli.core.errors import InputError, fault
from nanosam_cli.core.modeling.checkpoint import AVERAGE, TrainingState, load_state, put_weights, save_tensors
from nanosam_cli.core.system.files import write_bytes


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


def keep_numbered(path: Path, step: int, keep: int) -> None:
    """Keep a copy of a checkpoint under its step's number; of such copies the newest `keep` stay."""
    if keep:
        write_bytes(path.with_name(f"step-{step:07}{path.suffix}"), path.read_bytes(), overwrite=True)
    numbered = sorted(path.parent.glob(f"step-*{path.suffix}"))
    for old in numbered[: len(numbered) - keep]:
        old.unlink()


def restore(state: TrainingState, model: nn.Module, average: nn.Module, optimiser: Optimizer) -> None:
    """Put a saved state back where it was; every name must fit."""
    put_weights(model, state.part("model."), state.path)
    put_weights(average, state.part(AVERAGE), state.path)
    values: dict[int, dict[str, Tensor]] = {}
    try:
        for name, tensor in state.part("optimiser.").items():
            number, _, key = name.partition(".")
            values.setdefault(int(number), {})[key] = tensor
        optimiser.load_state_dict({**optimiser.state_dict(), "state": values})
    except (ValueError, KeyError, RuntimeError) as error:
        raise InputError(f"{state.path} holds no state of this optimiser: {fault(error)}") from error

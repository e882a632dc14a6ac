"""Weights as safetensors plus metadata: no pickle, written whole or not at all."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from torch import Tensor, nn

from nanosam_cli.core.errors import InputError
from nanosam_cli.core.messages import some
from nanosam_cli.core.modeling.design import ModelSection
from nanosam_cli.core.schema import Whole, read_section
from nanosam_cli.core.system.documents import parse_json
from nanosam_cli.core.system.files import write_bytes

AVERAGE = "ema."  # before the names of the moving average's tensors


_EARLIER = "use an earlier checkpoint"


@dataclass(frozen=True)
class _KeptRecipe:
    """What is looked at of a run's recipe."""

    model: ModelSection | None = None
    teacher: Mapping[str, Any] | None = None
    optimiser: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Place:
    """Where a tensor is that the checkpoint leaves to an ONNX file beside it."""

    file: str
    tensor: str  # its name in the graph
    how: Literal["same", "transposed", "folded"] = "same"  # folded: times the scale of a batch norm
    norm: str = ""  # that norm
    eps: float = 0.0


@dataclass(frozen=True)
class StateMetadata:
    """What a checkpoint says of itself."""

    step: Whole = 0  # steps done
    recipe: _KeptRecipe = field(default_factory=_KeptRecipe)
    fingerprint: str = ""  # of the recipe
    scaler: Mapping[str, Any] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)  # SHA-256 of files beside it that hold the rest of it
    places: Mapping[str, Place] = field(default_factory=dict)  # by the tensor's name in the model


@dataclass(frozen=True)
class TrainingState:
    """What a run needs to go on exactly: tensors by name, and plain values."""

    path: Path
    tensors: dict[str, Tensor]
    metadata: dict[str, Any]  # as written
    about: StateMetadata  # the same, checked

    def part(self, prefix: str) -> dict[str, Tensor]:
        """The tensors below a prefix, without it."""
        return {name[len(prefix) :]: tensor for name, tensor in self.tensors.items() if name.startswith(prefix)}


def save_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> None:
    """Write tensors and plain values; replaces `path` atomically. OutputError where that fails: it stays as it was."""
    from safetensors.torch import save

    own = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    # as bytes, because safetensors' own writing hides the reason where it fails, such as a full disk
    write_bytes(path, save(own, {"nanosam": json.dumps(metadata)}), overwrite=True)


def load_state(path: Path) -> TrainingState:
    """Read a file that `save_state` wrote. Raises InputError where it is missing, broken or of another kind."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            metadata = (file.metadata() or {}).get("nanosam")
            if metadata is None:
                raise InputError(f"{path} is not a checkpoint of this program: its metadata has no 'nanosam' entry")
            content = parse_json(metadata)
            about = read_section(StateMetadata, content, strangers=True)
            return TrainingState(path, {name: file.get_tensor(name) for name in file.keys()}, content, about)  # noqa: SIM118
    except FileNotFoundError as error:
        raise InputError(f"no such checkpoint: {path}") from error
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}", "check the path") from error
    except SafetensorError as error:
        raise InputError(f"{path} is not a whole safetensors file: {error}", _EARLIER) from error
    except (ValueError, TypeError) as error:  # TypeError: of a kind of number that torch does not have
        raise InputError(f"{path} is not a checkpoint of this program: {error}", _EARLIER) from error


def put_weights(module: nn.Module, weights: Mapping[str, Tensor], path: Path) -> None:
    """Give a module its weights. InputError, naming the file, where names or shapes are another model's."""
    own = module.state_dict()
    missing, extra = own.keys() - weights.keys(), weights.keys() - own.keys()
    other = [name for name in own if name in weights and own[name].shape != weights[name].shape]
    faults = {"missing": sorted(missing), "extra": sorted(extra), "of another shape": other}
    if listed := "; ".join(f"{what} {some(names)}" for what, names in faults.items() if names):
        raise InputError(f"{path} does not fit its model: {listed}", _EARLIER)
    module.load_state_dict(weights)

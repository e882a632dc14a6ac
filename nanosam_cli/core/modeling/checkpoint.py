"""Weights as safetensors plus metadata: no pickle, written whole or not at all."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from nanosam_cli.core.errors import InputError
from nanosam_cli.core.system.files import write_bytes

AVERAGE = "ema."  # before the names of the moving average's tensors


@dataclass(frozen=True)
class TrainingState:
    """What a run needs to go on exactly: tensors by name, and plain values."""

    tensors: dict[str, Tensor]
    metadata: dict[str, Any]

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
            return TrainingState({name: file.get_tensor(name) for name in file.keys()}, json.loads(metadata))  # noqa: SIM118
    except FileNotFoundError as error:
        raise InputError(f"no such checkpoint: {path}") from error
    except (SafetensorError, json.JSONDecodeError) as error:
        raise InputError(f"{path} is not a whole safetensors file: {error}", "use an earlier checkpoint") from error

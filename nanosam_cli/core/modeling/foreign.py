"""Checkpoints of other projects, `.pt` and `.pth`: tensors are read from them, code never is."""

from __future__ import annotations

import pickle
import struct
import warnings
from pathlib import Path

import torch
from torch import Tensor

from nanosam_cli.core.errors import InputError

# what torch's reader raises for files that are something else, or are damaged
_BROKEN = (
    pickle.UnpicklingError,
    struct.error,
    RuntimeError,
    EOFError,
    LookupError,
    ValueError,
    TypeError,
    AttributeError,
    AssertionError,
)


def load_tensors(path: Path) -> dict[str, Tensor]:
    """Read a state-dict. InputError where the file is missing, no checkpoint, or holds anything but tensors."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of unusual pickles; what they are is said below
            weights = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise InputError(f"no such checkpoint: {path}") from error
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}", "check the path") from error
    except _BROKEN as error:
        raise InputError(
            f"{path} is no checkpoint of tensors alone: {_reason(error)}",
            "code in a file is never run; give a state-dict that torch.save wrote",
        ) from error
    if not isinstance(weights, dict) or not all(isinstance(weight, Tensor) for weight in weights.values()):
        raise InputError(f"{path} holds something else than a state-dict of tensors")
    return weights


def _reason(error: Exception) -> str:
    """What torch found, without its advice to load the file in an unsafe way."""
    text = str(error)
    found = (text.partition("WeightsUnpickler error:")[2] or text).strip()
    return found.partition("\n")[0].partition(". Please")[0] or "it ends too soon"

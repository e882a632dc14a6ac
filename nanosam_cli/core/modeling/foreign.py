"""Checkpoints of other projects, `.pt` and `.pth`: tensors are read from them, code never is."""

from __future__ import annotations

import pickle
import struct
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeGuard

import torch
from torch import Tensor

from nanosam_cli.core.errors import InputError
from nanosam_cli.core.messages import some

_SAVE = "save the weights alone, in Python: torch.save(checkpoint[{!r}], 'weights.pt')"

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
    weights = _load(path)
    if not _is_state(weights):
        raise InputError(f"{path} holds something else than a state-dict of tensors: {_held(weights)}")
    return dict(weights)


def find_weights(path: Path, wanted: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights of a model, wherever a training script has put them: below keys, behind a prefix such as `module.`.

    They are taken as a whole, by the names and shapes of `wanted`. A file that is one state-dict is given as it is
    where it does not fit, for the model to say what is missing.

    Raises:
        InputError: the file is missing, no checkpoint, holds anything but tensors and plain values, or none of its
            state-dicts, or more than one, is the model's.
    """
    content = _load(path)
    states = dict(_states(content))
    fitting = {place: taken for place, state in states.items() if (taken := _fit(state, wanted)) is not None}
    if len(fitting) == 1:
        return next(iter(fitting.values()))
    if _is_state(content):
        return dict(content)
    if fitting:
        places = some([repr(place) for place in fitting])
        raise InputError(
            f"{path} holds the model's weights more than once, under {places}", _SAVE.format(next(iter(fitting)))
        )
    unlike = [
        f"those under {place!r} are not this model's ({_unlike(state, wanted)})" for place, state in states.items()
    ]
    hint = _SAVE.format(next(iter(states), "model"))
    raise InputError("; ".join([f"{path} holds {_held(content)}", *unlike[:3]]), hint)


def _load(path: Path) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of unusual pickles; what they are is said below
            return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise InputError(f"no such checkpoint: {path}") from error
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}", "check the path") from error
    except _BROKEN as error:
        raise InputError(
            f"{path} is no checkpoint of tensors alone: {_reason(error)}",
            "code in a file is never run; give a state-dict that torch.save wrote",
        ) from error


def _is_state(content: Any) -> TypeGuard[Mapping[str, Tensor]]:
    return isinstance(content, dict) and all(
        isinstance(name, str) and isinstance(value, Tensor) for name, value in content.items()
    )


def _states(content: Any, place: str = "", depth: int = 4) -> Iterator[tuple[str, Mapping[str, Tensor]]]:
    """Every state-dict in nested dicts, by the keys that lead to it."""
    if not isinstance(content, dict) or not depth:
        return
    if content and _is_state(content):
        yield place, content
        return
    for key, value in content.items():
        yield from _states(value, f"{place}.{key}" if place else str(key), depth - 1)


def _fit(state: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> dict[str, Tensor] | None:
    """The tensors that are the model's, all of them and no other behind the prefix that they have in common."""
    first = next(iter(wanted))
    for prefix in {name[: -len(first)] for name in state if name.endswith(first)}:
        own = {name[len(prefix) :]: tensor for name, tensor in state.items() if name.startswith(prefix)}
        same = own.keys() == wanted.keys() and all(own[name].shape == wanted[name].shape for name in own)
        if same and prefix[-1:] in ("", "."):
            return own
    return None


def _unlike(state: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> str:
    missing, extra = [name for name in wanted if name not in state], [name for name in state if name not in wanted]
    shapes = [name for name in wanted if name in state and state[name].shape != wanted[name].shape]
    parts = {"missing": missing, "extra": extra, "of another shape": shapes}
    return "; ".join(f"{what} {some(names, 3)}" for what, names in parts.items() if names)


def _held(content: Any) -> str:
    """What a checkpoint has, in words."""
    if not isinstance(content, dict):
        return f"a {type(content).__name__}"
    entries = [f"{key!r} ({_size(value)})" for key, value in content.items()]
    return some(entries, 6) or "nothing"


def _size(value: Any) -> str:
    if isinstance(value, dict):
        tensors = sum(isinstance(part, Tensor) for part in value.values())
        return f"{tensors} tensors" if tensors else f"{len(value)} entries"
    return type(value).__name__


def _reason(error: Exception) -> str:
    """What torch found, without its advice to load the file in an unsafe way."""
    text = str(error)
    found = (text.partition("WeightsUnpickler error:")[2] or text).strip()
    return found.partition("\n")[0].partition(". Please")[0] or "it ends too soon"

"""The state of a tracker in a file: numbers, names and arrays, and no code."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from struct import error as StructError
from tokenize import TokenError
from typing import Any
from zipfile import BadZipFile
from zlib import error as ZlibError

import numpy as np
from numpy.typing import NDArray

from nanosam_cli.core.errors import InputError
from nanosam_cli.core.system.documents import parse_json
from nanosam_cli.core.system.files import atomic_write

State = Mapping[str, Any]  # nested: plain values for JSON, and arrays

# what NumPy's and Python's readers of such files raise
_BROKEN = (
    *(OSError, ValueError, LookupError, TypeError, AttributeError, EOFError, SyntaxError),
    *(NotImplementedError, RecursionError, TokenError, BadZipFile, ZlibError, StructError),
)
_ABOUT, _ARRAY = "arr_0", "array"  # the entry that holds all but the arrays, and the key by which it names one


def write_state(path: Path, state: State) -> None:
    """Write a state as NumPy's npz, in the place of what is there. OutputError where it cannot be written."""
    arrays: list[NDArray[Any]] = []

    def plain(value: Any) -> Any:
        if isinstance(value, np.ndarray):
            arrays.append(value)
            return {_ARRAY: f"arr_{len(arrays)}"}  # as savez calls it
        return {key: plain(inner) for key, inner in value.items()} if isinstance(value, Mapping) else value

    about = np.frombuffer(json.dumps(plain(state)).encode(), np.uint8)
    with atomic_write(path, overwrite=True) as temporary, temporary.open("wb") as file:
        np.savez(file, about, *arrays)


def read_state(path: Path) -> State:
    """What `write_state` wrote, bit by bit. InputError where a file is broken."""
    try:
        with path.open("rb") as raw, np.load(raw, allow_pickle=False) as file:  # NumPy leaves a broken one open
            arrays = dict(file)
        state = _filled(parse_json(arrays[_ABOUT].tobytes()), arrays)
        if not isinstance(state, dict):
            raise ValueError("it holds no state")
    except _BROKEN as error:
        raise InputError(f"{path} cannot be read: {error}", "`--force` starts anew") from error
    return state


def _filled(value: Any, arrays: Mapping[str, NDArray[Any]]) -> Any:
    if not isinstance(value, dict):
        return value
    if value.keys() == {_ARRAY}:
        return arrays[value[_ARRAY]]
    return {key: _filled(inner, arrays) for key, inner in value.items()}

"""What a killed build leaves of an engine, and how it is cleared."""

from __future__ import annotations

from pathlib import Path

from nanosam_cli.core.errors import ModelError
from nanosam_cli.core.inference.sidecar import read_sidecar, sidecar_path
from nanosam_cli.core.loading.engines import ENGINE_SUFFIXES, is_in_cache
from nanosam_cli.core.messages import Note

AGAIN = "add `--force` to build it again, or give -o DIR"


def is_left_over(engine: Path) -> bool:
    """Whether what is there of an engine is half of it, which nothing loads, and surely this program's.

    That is a side-car that speaks of this engine, which is not there, nor another engine that goes by the same
    side-car; or an engine without a side-car in the folder where only this program keeps engines. Elsewhere an engine
    without a side-car may be anybody's file.
    """
    if engine.exists():
        return not sidecar_path(engine).exists() and is_in_cache(engine)
    if any(engine.with_suffix(suffix).exists() for suffix in ENGINE_SUFFIXES):
        return False
    try:
        return read_sidecar(engine).engine == engine.name
    except ModelError:  # none, or not of this program
        return False


def clear(engine: Path, note: Note) -> None:
    """Remove what a killed run left of an engine."""
    if is_left_over(engine):
        for path in (engine, sidecar_path(engine)):
            if path.exists():
                other = "side-car" if path == engine else "engine"
                note(f"{path} was left by a run that was killed, without its {other}: removed")
                path.unlink()

"""Engines of TensorRT-RTX: built on any machine, finished for the card when they are loaded."""

from __future__ import annotations

from pathlib import Path

from nanosam_cli.core.backends.tensorrt.session import EngineSession, open_engine


def open_file(path: Path, device: str, threads: int | None) -> EngineSession:
    """Load an engine; `threads` are the CPU's, and mean nothing here."""
    return open_engine(path, "tensorrt-rtx", device)

"""Engines of TensorRT: those of a Jetson, and of data centre and desktop GPUs."""

from __future__ import annotations

from pathlib import Path

from nanosam_cli.core.backends.tensorrt.session import EngineSession, open_engine


def open_file(path: Path, device: str, threads: int | None) -> EngineSession:
    """Load an engine; `threads` are the CPU's, and mean nothing here."""
    return open_engine(path, "tensorrt", device)

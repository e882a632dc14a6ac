"""Engines of TensorRT: those of a Jetson, and of data centre and desktop GPUs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nanosam_cli.core.inference.backends.tensorrt.session import EngineKind, EngineSession, open_engine


def open_file(path: Path, device: str, threads: int | None) -> EngineSession:
    """Load an engine; `threads` are the CPU's, and mean nothing here."""
    return open_engine(path, EngineKind("tensorrt", _new_context, records=True), device)


def _new_context(module: Any, engine: Any) -> Any:
    return engine.create_execution_context()

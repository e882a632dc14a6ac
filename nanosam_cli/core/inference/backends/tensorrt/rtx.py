"""Engines of TensorRT-RTX: built on any machine, finished for the card when they are loaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nanosam_cli.core.inference.backends.tensorrt.session import EngineKind, EngineSession, open_engine


def open_file(path: Path, device: str, threads: int | None) -> EngineSession:
    """Load an engine; `threads` are the CPU's, and mean nothing here."""
    return open_engine(path, EngineKind("tensorrt-rtx", _new_context, records=False), device)


def _new_context(module: Any, engine: Any) -> Any:
    """RTX compiles kernels while it runs and knows when that is done, so it records graphs by itself."""
    config = engine.create_runtime_config()
    config.cuda_graph_strategy = module.CudaGraphStrategy.WHOLE_GRAPH_CAPTURE
    return engine.create_execution_context(config)

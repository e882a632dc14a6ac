"""Building engines of TensorRT and TensorRT-RTX with Polygraphy. Precision is the graph's own: strongly typed."""

from __future__ import annotations

import os
import sys
import warnings
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from time import perf_counter
from typing import Any

from polygraphy import config as polygraphy_config

from nanosam_cli.core.errors import BackendError, ModelError
from nanosam_cli.core.inference.sidecar import Flavour, ShapeRange
from nanosam_cli.core.precision.polygraphy_log import polygraphy_errors

MODULES: Mapping[Flavour, str] = {"tensorrt": "tensorrt", "tensorrt-rtx": "tensorrt_rtx"}
_RTX = "POLYGRAPHY_USE_TENSORRT_RTX"
_NO_MEMORY = ("out of memory", "outofmemory", "insufficient memory", "cudaerrormemoryallocation")


@dataclass(frozen=True)
class BuildSettings:
    """What TensorRT's builder is told besides the graph."""

    workspace_mb: int | None = None  # None: as much as the GPU has
    level: int | None = None  # 0 to 5, TensorRT's own default without
    timing_cache: Path | None = None  # TensorRT alone: RTX times nothing when it builds


@dataclass(frozen=True)
class Built:
    """An engine, and what is known of it without running it."""

    engine: bytes
    layers: dict[str, int]  # how many layers of the parsed network give numbers of each type
    seconds: float


def build_tensorrt(
    onnx_file: Path, flavour: Flavour, profile: Mapping[str, ShapeRange], settings: BuildSettings
) -> Built:
    """Parse and build.

    Raises:
        ModelError: the parser does not take the file; the message has the node, and what is wrong with it.
        BackendError: the builder gave up, memory was not enough, or this process has built with the other flavour.
    """
    polygraphy_trt = _polygraphy(flavour)
    start = perf_counter()
    network = _parsed(onnx_file, flavour, polygraphy_trt)
    layers = layer_types(network[1])
    loaded = polygraphy_trt.Profile()
    for name, shape in profile.items():
        loaded.add(name, min=shape.min, opt=shape.opt, max=shape.max)
    options = _config(flavour, loaded, settings)
    cache = settings.timing_cache if flavour == "tensorrt" else None
    if cache:
        cache.parent.mkdir(parents=True, exist_ok=True)
    try:
        with polygraphy_errors(), warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # RTX's, of what Polygraphy still calls
            engine = polygraphy_trt.engine_bytes_from_network(
                network, config=options, save_timing_cache=None if cache is None else str(cache)
            )
    except BackendError as error:
        if any(words in str(error).lower() for words in _NO_MEMORY):
            hint = "give a smaller --workspace, or close what else uses the GPU"
            raise BackendError(f"not enough memory to build {onnx_file.name}: {error}", hint) from error
        raise BackendError(f"{flavour} cannot build {onnx_file.name}: {error}") from error
    return Built(bytes(engine), layers, perf_counter() - start)


def layer_types(network: Any) -> dict[str, int]:
    """How many layers give numbers of each type, such as {"float16": 290, "float32": 2}."""
    names = {"HALF": "float16", "BF16": "bfloat16", "FLOAT": "float32"}
    found = Counter(
        network.get_layer(index).get_output(0).dtype.name
        for index in range(network.num_layers)
        if network.get_layer(index).num_outputs
    )
    return {names.get(kind, kind.lower()): count for kind, count in found.most_common()}


def _polygraphy(flavour: Flavour) -> Any:
    """Polygraphy's TensorRT backend, bound to one flavour: it decides once a process, when it is imported."""
    rtx = flavour == "tensorrt-rtx"
    if "polygraphy.backend.trt" in sys.modules and rtx != polygraphy_config.USE_TENSORRT_RTX:
        other = "tensorrt" if rtx else "tensorrt-rtx"
        raise BackendError(f"this process has built with {other} already", "build each flavour in a process of its own")
    os.environ[_RTX] = "1" if rtx else "0"  # for processes that this one starts
    polygraphy_config.USE_TENSORRT_RTX = rtx
    return import_module("polygraphy.backend.trt")


def _parsed(onnx_file: Path, flavour: Flavour, polygraphy_trt: Any) -> Any:
    try:
        with polygraphy_errors():
            return polygraphy_trt.network_from_onnx_path(str(onnx_file), strongly_typed=True)
    except BackendError as error:
        reasons = parser_errors(onnx_file, flavour) or [str(error)]
        raise ModelError(
            f"{flavour}'s parser does not take {onnx_file.name}: {'; '.join(reasons)}",
            "the file may use operators that this version does not have; --backend onnxruntime runs it",
        ) from error


def parser_errors(onnx_file: Path, flavour: Flavour) -> list[str]:
    """Why the parser refuses a file: `node 7 (Mod): no such operator (importer.cpp:12)`."""
    trt: Any = import_module(MODULES[flavour])
    logger = trt.Logger(trt.Logger.INTERNAL_ERROR)
    network = trt.Builder(logger).create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, logger)
    parser.parse(onnx_file.read_bytes())
    errors = [parser.get_error(index) for index in range(parser.num_errors)]
    return [_reason(error) for error in errors]


def _reason(error: Any) -> str:
    node = error.node()
    place = f"node {node}" if node >= 0 else "the file"
    name = error.node_name() if hasattr(error, "node_name") else ""
    kind = error.node_operator() if hasattr(error, "node_operator") else ""
    named = " ".join(part for part in (name, f"({kind})" if kind else "") if part)
    return f"{place} {named}: {error.desc()} (line {error.line()} of {Path(error.file()).name})"


def _config(flavour: Flavour, profile: Any, settings: BuildSettings) -> Any:
    options: dict[str, Any] = {"profiles": [profile]}
    if settings.level is not None:
        options["builder_optimization_level"] = settings.level
    if settings.workspace_mb is not None:
        trt: Any = import_module(MODULES[flavour])
        options["memory_pool_limits"] = {trt.MemoryPoolType.WORKSPACE: settings.workspace_mb * 2**20}
    if flavour == "tensorrt-rtx":
        return import_module("polygraphy.backend.tensorrt_rtx").CreateConfigRTX(**options)
    cache = settings.timing_cache
    if cache and cache.is_file():
        options["load_timing_cache"] = str(cache)
    return import_module("polygraphy.backend.trt").CreateConfig(**options)

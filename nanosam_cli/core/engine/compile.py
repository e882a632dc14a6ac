"""From a graph that was proved to an engine's bytes, and what precision they really have."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from time import perf_counter

import onnx
from onnx import TensorProto

from nanosam_cli.core.engine.plan import EngineJob
from nanosam_cli.core.engine.tensorrt import BuildSettings, build_tensorrt
from nanosam_cli.core.errors import BackendError
from nanosam_cli.core.inference.sidecar import Flavour
from nanosam_cli.core.precision.ladder_step import Step
from nanosam_cli.core.system.temporary import scratch_folder

# the types of layers by which an engine is recognised, the rarest first
_SIGNS: Mapping[str, str] = {"int8": "int8", "float16": "fp16", "bfloat16": "bf16"}


@dataclass(frozen=True)
class Compiled:
    """An engine."""

    data: bytes
    precision: str  # read off it
    layers: Mapping[str, int]  # how many give numbers of each type
    seconds: float


def compile_step(job: EngineJob, backend: Flavour, step: Step, settings: BuildSettings) -> Compiled:
    """Build. BackendError where the runtime gives up, or the engine has another precision than the graph."""
    start = perf_counter()
    model = step.make()
    if backend == "onnxruntime":
        data, layers = model.SerializeToString(), _onnx_types(model)
    else:
        with scratch_folder() as folder:
            path = folder / job.onnx.name
            onnx.save(model, path)
            built = build_tensorrt(path, backend, job.profile, settings)
        data, layers = built.engine, built.layers
    precision = next((name for kind, name in _SIGNS.items() if layers.get(kind)), "fp32")
    if precision != step.precision:
        raise BackendError(
            f"{backend} built {job.onnx.name} in {precision}, not in {step.precision}; the engine was not kept",
            "this is a fault of this program or of the runtime",
        )
    return Compiled(data, precision, layers, step.made_in + perf_counter() - start)


def _onnx_types(model: onnx.ModelProto) -> dict[str, int]:
    """How many constants there are of each type."""
    names = {TensorProto.FLOAT: "float32", TensorProto.FLOAT16: "float16", TensorProto.BFLOAT16: "bfloat16"}
    names |= {TensorProto.INT8: "int8", TensorProto.UINT8: "uint8", TensorProto.INT64: "int64"}
    kinds = Counter(tensor.data_type for tensor in model.graph.initializer)
    return {names.get(kind, TensorProto.DataType.Name(kind).lower()): count for kind, count in kinds.most_common()}

"""Every name that this project uses of TensorRT and CUDA is there in the versions it is meant for.

The names are those of the real bindings, recorded by `record.py`; no TensorRT is needed here. TensorRT-RTX is looked at
as it is installed.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

import nanosam_cli

CORE = Path(nanosam_cli.__file__).parent / "core"
RECORDED: dict[str, dict[str, dict[str, str]]] = json.loads(
    Path(__file__).with_name("members.json").read_text(encoding="utf-8")
)

# file -> what an expression in it is: a class of the package, or the module itself
TENSORRT: Mapping[str, Mapping[str, str]] = {
    "backends/tensorrt/flavour.py": {"module": "module"},
    "backends/tensorrt/session.py": {
        "self._trt": "module",
        "self._trt.Logger": "Logger",
        "self._runtime": "Runtime",
        "self._context": "IExecutionContext",
    },
    "backends/tensorrt/plain.py": {"engine": "ICudaEngine"},
    "engine/tensorrt.py": {
        "trt": "module",
        "trt.Logger": "Logger",
        "trt.MemoryPoolType": "MemoryPoolType",
        "trt.NetworkDefinitionCreationFlag": "NetworkDefinitionCreationFlag",
        "trt.Builder(logger)": "Builder",
        "parser": "OnnxParser",
        "error": "ParserError",
        "network": "INetworkDefinition",
        "network.get_layer(index)": "ILayer",
        "network.get_layer(index).get_output(0)": "ITensor",
    },
}
RTX: Mapping[str, Mapping[str, str]] = {
    "backends/tensorrt/flavour.py": {"self.module": "module", "self.module.ComputeCapability": "ComputeCapability"},
    "backends/tensorrt/rtx.py": {
        "module": "module",
        "module.CudaGraphStrategy": "CudaGraphStrategy",
        "engine": "ICudaEngine",
        "config": "IRuntimeConfig",
    },
}
CUDA: Mapping[str, Mapping[str, str]] = {
    "backends/tensorrt/cuda.py": {
        "self._runtime": "module",
        "runtime.cudaMemcpyKind": "cudaMemcpyKind",
        "self._runtime.cudaStreamCaptureMode": "cudaStreamCaptureMode",
        "properties": "cudaDeviceProp",
    },
}


def used(expressions: Mapping[str, Mapping[str, str]]) -> set[tuple[str, str]]:
    """(class, attribute) of every attribute that is taken of one of the expressions; each of them must occur."""
    found = set()
    for file, kinds in expressions.items():
        tree = ast.parse((CORE / file).read_text(encoding="utf-8"))
        seen = set()
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and (text := ast.unparse(node.value)) in kinds:
                seen.add(text)
                found.add((kinds[text], node.attr))
        assert seen == kinds.keys(), f"{file} no longer has {kinds.keys() - seen}"
    return found


@pytest.mark.parametrize("version", RECORDED["tensorrt"])
def test_tensorrt(version: str) -> None:
    members = {name: set(names.split()) for name, names in RECORDED["tensorrt"][version].items()}
    assert not {(kind, name) for kind, name in used(TENSORRT) if name not in members[kind]}


def test_tensorrt_rtx() -> None:
    trt: Any = pytest.importorskip("tensorrt_rtx", reason="needs the extra `tensorrt-rtx`")
    lacking = {
        (kind, name)
        for kind, name in used(TENSORRT) | used(RTX)
        if not hasattr(trt if kind == "module" else getattr(trt, kind), name)
    }
    assert not lacking


@pytest.mark.parametrize("version", RECORDED["cuda"])
def test_cuda(version: str) -> None:
    members = {name: set(names.split()) for name, names in RECORDED["cuda"][version].items()}
    assert not {(kind, name) for kind, name in used(CUDA) if name not in members[kind]}


def test_the_oldest_that_is_meant_is_recorded() -> None:
    """JetPack 6.1 and 6.2 have TensorRT 10.3; both majors are there."""
    assert "10.3.0" in RECORDED["tensorrt"]
    assert {version.split(".")[0] for version in RECORDED["tensorrt"]} == {"10", "11"}
    assert {version.split(".")[0] for version in RECORDED["cuda"]} == {"12", "13"}


def test_a_name_that_is_gone_would_be_found() -> None:
    """TensorRT 11 has dropped what every network of 8 was made with."""
    old, new = (
        {name: set(names.split()) for name, names in RECORDED["tensorrt"][version].items()}
        for version in ("10.3.0", "11.4.0")
    )
    assert "EXPLICIT_BATCH" in old["NetworkDefinitionCreationFlag"] - new["NetworkDefinitionCreationFlag"]

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
    "inference/backends/tensorrt/flavour.py": {"module": "module"},
    "inference/backends/tensorrt/session.py": {
        "self._trt": "module",
        "self._trt.Logger": "Logger",
        "self._runtime": "Runtime",
        "self._context": "IExecutionContext",
    },
    "inference/backends/tensorrt/plain.py": {"engine": "ICudaEngine"},
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
    "inference/backends/tensorrt/flavour.py": {
        "self.module": "module",
        "self.module.ComputeCapability": "ComputeCapability",
    },
    "inference/backends/tensorrt/rtx.py": {
        "module": "module",
        "module.CudaGraphStrategy": "CudaGraphStrategy",
        "engine": "ICudaEngine",
        "config": "IRuntimeConfig",
    },
}
CUDA: Mapping[str, Mapping[str, str]] = {
    "inference/backends/tensorrt/cuda.py": {
        "self._runtime": "module",
        "runtime.cudaMemcpyKind": "cudaMemcpyKind",
        "self._runtime.cudaStreamCaptureMode": "cudaStreamCaptureMode",
        "properties": "cudaDeviceProp",
    },
}


# what is taken of these is Python's own: an enumeration's `name`, a version's text
PLAIN = ("network.get_layer(index).get_output(0).dtype", "properties.name")

Uses = set[tuple[str, str]]  # class, attribute


def used(expressions: Mapping[str, Mapping[str, str]]) -> Uses:
    """Every attribute that is taken of one of the expressions in its file."""
    return {
        use for file, kinds in expressions.items() for use in used_in((CORE / file).read_text(encoding="utf-8"), kinds)
    }


def used_in(source: str, kinds: Mapping[str, str]) -> Uses:
    """Each of the expressions must occur, and what is reached through one, such as a module's class, be one too."""
    found, seen = set(), set()
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Attribute):
            continue
        text = ast.unparse(node.value)
        if text in kinds:
            seen.add(text)
            found.add((kinds[text], node.attr))
        elif isinstance(node.value, ast.Attribute) and ast.unparse(node.value.value) in kinds:
            assert text in PLAIN, f"nobody says what {text} is, so its {node.attr} is not looked at"
    assert seen == kinds.keys(), f"no longer used: {kinds.keys() - seen}"
    return found


def lacking(uses: Uses, package: str, version: str) -> Uses:
    """What a version has not."""
    members = {name: set(names.split()) for name, names in RECORDED[package][version].items()}
    return {(kind, name) for kind, name in uses if name not in members[kind]}


@pytest.mark.parametrize("version", RECORDED["tensorrt"])
def test_tensorrt(version: str) -> None:
    assert not lacking(used(TENSORRT), "tensorrt", version)


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
    assert not lacking(used(CUDA), "cuda", version)


def test_no_other_file_imports_them() -> None:
    """What a file that is not listed takes of them, nobody looks at."""
    names = "tensorrt", "tensorrt_rtx", "cuda.bindings"
    found = set()
    for path in CORE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            imported = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            imported += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if any(name == known or name.startswith(f"{known}.") for name in imported for known in names) or (
                isinstance(node, ast.Call) and ast.unparse(node.func) == "import_module" and "MODULES" in ast.dump(node)
            ):
                found.add(path.relative_to(CORE).as_posix())
    assert found == {
        "inference/backends/tensorrt/cuda.py",
        "inference/backends/tensorrt/flavour.py",
        "engine/tensorrt.py",
    }


def test_the_oldest_that_is_meant_is_recorded() -> None:
    """JetPack 6.1 and 6.2 have TensorRT 10.3; both majors are there."""
    assert "10.3.0" in RECORDED["tensorrt"]
    assert {version.split(".")[0] for version in RECORDED["tensorrt"]} == {"10", "11"}
    assert {version.split(".")[0] for version in RECORDED["cuda"]} == {"12", "13"}


# how TensorRT 10 was told its precision, and networks of 8 that their batch is explicit; 11 has dropped both
BUILDER = {"trt": "module", "trt.NetworkDefinitionCreationFlag": "NetworkDefinitionCreationFlag"}
OLD = "builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.EXPLICIT_BATCH))"


@pytest.mark.parametrize(
    ("version", "expected"),
    [("10.3.0", set()), ("10.16.1", set()), ("11.4.0", {("NetworkDefinitionCreationFlag", "EXPLICIT_BATCH")})],
)
def test_a_name_that_is_gone_is_found(version: str, expected: Uses) -> None:
    assert lacking(used_in(OLD, BUILDER), "tensorrt", version) == expected


@pytest.mark.parametrize(
    ("source", "words"),
    [
        (f"{OLD}; config.set_flag(trt.BuilderFlag.FP16)", "nobody says what trt.BuilderFlag is"),
        ("trt.Logger()", "no longer used: {'trt.NetworkDefinitionCreationFlag'}"),
    ],
)
def test_what_is_not_looked_at_is_found(source: str, words: str) -> None:
    with pytest.raises(AssertionError, match=words):
        used_in(source, BUILDER)

"""Record which names TensorRT's and CUDA's Python bindings have, version by version, into `members.json` beside this.

    python -m tests.conformance.record

The bindings of TensorRT are on the package index; the libraries that they link are not needed: their functions are
replaced by empty ones, because nothing is called. Needs pip, a C compiler and `nm`. What JetPack 6.1 and 6.2 bring is
10.3.0.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

TENSORRT = {
    "10.3.0": "tensorrt-cu12-bindings==10.3.0",
    "10.16.1": "tensorrt-cu12-bindings==10.16.1.11",
    "11.4.0": "tensorrt-cu13-bindings==11.4.0.106",
}
CUDA = {"12.8.0": "cuda-bindings==12.8.0", "13.5.0": "cuda-bindings==13.5.0"}
CLASSES = (
    *("ICudaEngine", "IExecutionContext", "ILayer", "INetworkDefinition", "ITensor", "OnnxParser", "ParserError"),
    *("Builder", "Logger", "MemoryPoolType", "NetworkDefinitionCreationFlag", "Runtime"),
)
MEMBERS = Path(__file__).with_name("members.json")

_LIST_TENSORRT = """
import json, tensorrt_bindings as trt
names = {name: sorted(n for n in dir(getattr(trt, name)) if n[0] != "_") for name in %r}
print(json.dumps({"module": sorted(n for n in dir(trt) if n[0] != "_" or n == "__version__"), **names}))
"""
_LIST_CUDA = """
import json
from cuda.bindings import runtime
kinds = {name: sorted(n for n in dir(getattr(runtime, name)) if n[0] != "_")
         for name in ("cudaMemcpyKind", "cudaStreamCaptureMode", "cudaDeviceProp")}
kept = ("cudaFree", "cudaGet", "cudaGraph", "cudaMalloc", "cudaMemcpy", "cudaStream")
module = sorted(n for n in dir(runtime) if n.startswith(kept) and "node" not in n.lower())
print(json.dumps({"module": module, **kinds}))
"""


def unpacked(requirement: str, folder: Path, *, dependencies: bool = False) -> Path:
    """Download a wheel and unpack it."""
    wheels = folder / "wheels"
    alone = [] if dependencies else ["--no-deps"]
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--quiet",
        *alone,
        "--only-binary=:all:",
        "-d",
        wheels,
        requirement,
    ]
    subprocess.run(list(map(str, command)), check=True)
    for wheel in wheels.glob("*.whl"):
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(folder / "site")
    return folder / "site"


def write_stubs(library: Path, folder: Path, major: str) -> None:
    """Empty libraries under the names that the bindings link."""
    listed = subprocess.run(
        ["nm", "-D", "--undefined-only", library], check=True, capture_output=True, text=True
    ).stdout
    words = [line.split() for line in listed.splitlines()]
    # versioned symbols are the C and C++ libraries', Py* the interpreter's
    names = [name for kind, name in words if kind == "U" and "@" not in name and not name.lstrip("_").startswith("Py")]
    source = folder / "stubs.c"
    source.write_text("".join(f"void *{name}(void) {{ return 0; }}\n" for name in names), encoding="utf-8")
    for name, content in (("nvinfer", source), ("nvonnxparser", None), ("nvinfer_plugin", None)):
        file = f"lib{name}.so.{major}"
        command = ["cc", "-w", "-shared", "-fPIC", "-o", folder / file, "-x", "c", content or os.devnull]
        subprocess.run([*map(str, command), f"-Wl,-soname,{file}"], check=True)


def listed(program: str, site: Path, libraries: Path) -> dict[str, list[str]]:
    """Run a program that imports what was unpacked."""
    environment = {**os.environ, "PYTHONPATH": str(site), "LD_LIBRARY_PATH": str(libraries)}
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True, env=environment)
    found: dict[str, list[str]] = json.loads(done.stdout)
    return found


def main() -> None:
    found: dict[str, dict[str, Any]] = {"tensorrt": {}, "cuda": {}}
    for version, requirement in TENSORRT.items():
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            site = unpacked(requirement, folder)
            [library] = site.glob("tensorrt_bindings/tensorrt*.so")
            write_stubs(library, folder, version.partition(".")[0])
            found["tensorrt"][version] = listed(_LIST_TENSORRT % (CLASSES,), site, folder)
    for version, requirement in CUDA.items():
        with tempfile.TemporaryDirectory() as name:
            site = unpacked(requirement, Path(name), dependencies=True)
            found["cuda"][version] = listed(_LIST_CUDA, site, site)
    for package in found.values():
        for classes in package.values():
            classes.update({name: " ".join(names) for name, names in classes.items()})
    MEMBERS.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

"""What an opset is worth on ONNX Runtime's CPU: one checkpoint exported at several, and timed side by side.

    python benchmarks/random_mobile_sam.py mobile_sam.pt
    python benchmarks/opsets.py mobile_sam.pt
    python benchmarks/opsets.py runs/nanosam-lite2/last.safetensors --opsets 17 20

Times are those of the process, so that other work on the machine counts less, and the files take turns.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import process_time

import onnx

from nanosam_cli.core.export.export import to_onnx
from nanosam_cli.core.export.options import ExportOptions
from nanosam_cli.core.export.parts import ExportPart, make_part
from nanosam_cli.core.export.source import load_source
from nanosam_cli.core.inference.backends.onnxruntime import open_file
from nanosam_cli.core.types import DECODER, ENCODER


def runner(part: ExportPart, opset: int, folder: Path) -> Callable[[], object]:
    """Export at an opset; what runs the file once on one thread."""
    path = folder / f"{part.name}-{opset}.onnx"
    onnx.save(to_onnx(part, opset), path)
    session = open_file(path, "cpu", 1)
    feeds = {name: tensor.numpy() for name, tensor in zip(part.inputs, part.examples[-1], strict=True)}
    return lambda: session.run(feeds)


def measure(runs: list[Callable[[], object]], repeats: int) -> list[list[float]]:
    """Milliseconds of the process by file, one a repeat, after one to warm up."""
    times: list[list[float]] = [[] for _ in runs]
    for turn in range(repeats + 1):
        for index in sorted(range(len(runs)), reverse=bool(turn % 2)):
            start = process_time()
            runs[index]()
            if turn:
                times[index].append((process_time() - start) * 1000)
    return times


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--opsets", type=int, nargs="+", default=[17, 18, 20])
    parser.add_argument("--repeats", type=int, default=7)
    options = parser.parse_args()

    source = load_source(options.checkpoint)
    for name in (ENCODER, DECODER):
        part = make_part(name, source, ExportOptions())
        with TemporaryDirectory() as folder:
            runs = [runner(part, opset, Path(folder)) for opset in options.opsets]
            times = measure(runs, options.repeats)
        for opset, taken in zip(options.opsets, times):
            ratio = median(one / first for one, first in zip(taken, times[0]))
            print(
                f"{source.name} {name}, opset {opset}: {median(taken):.1f} ms, {ratio:.2f} of opset {options.opsets[0]}"
            )


if __name__ == "__main__":
    main()

"""What a command costs before it does anything: `nanosam --help`, and a first `nanosam segment` in a fresh process.

    python benchmarks/cold_start.py
    python benchmarks/cold_start.py --photo examples/raccoon.jpg --repeats 20

Every repeat runs each command once. Peak memory is the whole process's, as the system counts it (Linux and macOS). The
files are in the system's cache, so this is the start that follows another, not the first after a reboot.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median
from time import perf_counter

NANOSAM = (sys.executable, "-c", "from nanosam_cli.app import main; main()")
MODULES = """
import sys
sys.argv = ["nanosam", "--help"]
from nanosam_cli.app import main
try:
    main()
finally:
    sys.stderr.write(" ".join(sys.modules))
"""
HEAVY = ("numpy", "PIL", "onnx", "onnxruntime", "pycocotools", "torch", "tensorrt", "polygraphy", "rich")


def run(*arguments: str) -> tuple[float, float]:
    """Seconds, and peak memory in MB, of one `nanosam` process."""
    start = perf_counter()
    process = subprocess.Popen([*NANOSAM, *arguments], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    seconds = perf_counter() - start
    process.returncode = os.waitstatus_to_exitcode(status)  # wait4 took it from under Popen
    if status:
        sys.exit(f"nanosam {' '.join(arguments)} failed")
    return seconds, usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e6


def imported() -> list[str]:
    """Every module that `nanosam --help` loads."""
    done = subprocess.run([sys.executable, "-c", MODULES], capture_output=True, text=True, check=True)
    return done.stderr.split()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    examples = Path(__file__).parents[1] / "examples"
    parser.add_argument("--photo", type=Path, default=examples / "raccoon.jpg", help="else a 640x480 example")
    parser.add_argument("--box", default="160,120,480,360", help="x0,y0,x1,y1 in the photo's pixels")
    parser.add_argument("--encoder", type=Path, help="image encoder file, with --decoder; else the default model")
    parser.add_argument("--decoder", type=Path)
    parser.add_argument("--repeats", type=int, default=10)
    options = parser.parse_args()
    if options.repeats < 1 or (options.encoder is None) != (options.decoder is None):
        parser.error("--repeats must be 1 or more, and --encoder goes with --decoder")

    files = ("--encoder", str(options.encoder), "--decoder", str(options.decoder)) if options.encoder else ()
    measured: dict[str, list[tuple[float, float]]] = {"nanosam --help": [], "nanosam segment": []}
    with tempfile.TemporaryDirectory() as folder:
        segment = ("segment", str(options.photo), "--box", options.box, "-o", f"{folder}/mask.png", "--force", *files)
        for _ in range(options.repeats + 1):
            measured["nanosam --help"].append(run("--help"))
            measured["nanosam segment"].append(run(*segment))
    for name, runs in measured.items():
        seconds, memory = zip(*runs[1:])  # the first fills the system's cache
        print(f"{name}: median {median(seconds):.2f} s, fastest {min(seconds):.2f} s, peak memory {max(memory):.0f} MB")
    modules = imported()
    loaded = sorted({module.split(".")[0] for module in modules} & set(HEAVY))
    print(f"nanosam --help imports {len(modules)} modules; of the heavy packages: {', '.join(loaded) or 'none'}")


if __name__ == "__main__":
    main()

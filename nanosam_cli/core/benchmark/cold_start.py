"""What the first mask costs: a fresh process that imports, opens a model and segments one photo."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nanosam_cli.core.errors import ModelError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

# The parent's import path, so that the child runs the same code; pixels come through stdin, as no decoder is measured.
_PROGRAM = """
import json, sys
job = json.loads(sys.argv[1])
sys.path[:] = job.pop("path")
from nanosam_cli.core.benchmark.cold_start import first_mask
print(json.dumps(first_mask(**job)))
"""


@dataclass(frozen=True)
class ColdStart:
    """From the start of the process; files are in the system's cache."""

    total_ms: float
    start_ms: float  # the interpreter, and this package's imports
    load_ms: float  # the runtime's import, and opening both files
    first_mask_ms: float
    peak_memory_mb: float | None  # of the whole process, None where the system does not tell


def cold_start(
    image: NDArray[np.uint8], box: tuple[float, float, float, float], options: Mapping[str, Any]
) -> ColdStart:
    """Time a fresh process on a photo (H, W, 3) uint8 RGB; `options` are `load_predictor`'s.

    ModelError where the process fails.
    """
    job = {"path": sys.path, "shape": image.shape, "box": box, "options": dict(options), "started": time.time()}
    command = (sys.executable, "-c", _PROGRAM, json.dumps(job, default=str))
    done = subprocess.run(command, input=image.tobytes(), capture_output=True, check=False)
    if done.returncode:
        last = done.stderr.decode(errors="replace").strip().rpartition("\n")[2]
        raise ModelError(f"a fresh process could not segment the photo: {last or f'it ended with {done.returncode}'}")
    return ColdStart(**json.loads(done.stdout))


def first_mask(
    shape: tuple[int, int, int],
    box: tuple[float, float, float, float],
    options: Mapping[str, Any],
    started: float,
) -> dict[str, Any]:
    """The child's part: `shape` of the pixels on stdin, `started` by the wall clock. Gives ColdStart's fields."""
    import numpy as np

    from nanosam_cli.core.loading.load import load_predictor
    from nanosam_cli.core.types import Prompt

    imported = time.time()
    image = np.frombuffer(sys.stdin.buffer.read(), np.uint8).reshape(shape)
    with load_predictor(**options) as predictor:
        loaded = time.time()
        predictor.predict(predictor.encode_image(image), Prompt.from_boxes([box]))
        done = time.time()
    start = ColdStart(
        total_ms=_ms(done - started),
        start_ms=_ms(imported - started),
        load_ms=_ms(loaded - imported),
        first_mask_ms=_ms(done - loaded),
        peak_memory_mb=peak_memory_mb(),
    )
    return asdict(start)


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 3)


def peak_memory_mb() -> float | None:
    """The most memory that this process has held, in 10^6 bytes.

    Linux's getrusage would also count the parent's pages, which a forked child shares until it starts its own program.
    """
    try:
        lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
        return next(int(line.split()[1]) * 1024 / 1e6 for line in lines if line.startswith("VmHWM:"))
    except (OSError, StopIteration):
        pass
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak * (1 if sys.platform == "darwin" else 1024) / 1e6

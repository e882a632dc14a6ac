"""Pictures of a training run."""

from __future__ import annotations

from pathlib import Path

from nanosam_cli.core.files import atomic_write
from nanosam_cli.core.training.run_log import read_evaluations, read_steps


def plot_run(folder: Path) -> Path:
    """`log.csv` and `evaluation.jsonl` of a run -> `loss.png` beside them, with loss, training IoU and mIoU."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = [(int(row["step"]), float(row["loss"]), float(row["iou"])) for row in read_steps(folder)]
    steps = [row[0] for row in rows]
    figure = Figure(figsize=(9, 4), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    left.plot(steps, _smoothed([row[1] for row in rows]), label="training loss")
    right.plot(steps, _smoothed([row[2] for row in rows]), label="training IoU, clear prompts")
    records = read_evaluations(folder)
    for size in [key for key in records[0] if key != "step"] if records else ():
        right.plot([record["step"] for record in records], [record[size] for record in records], ".-", label=size)
    for axes in (left, right):
        axes.set_xlabel("step")
        axes.grid(alpha=0.3)
        axes.legend()
    path = folder / "loss.png"
    with atomic_write(path, overwrite=True) as temporary:
        figure.savefig(temporary, dpi=120)
    return path


def _smoothed(values: list[float], window: int = 50) -> list[float]:
    """Running mean over the last `window` values that are numbers; early ones over what there is."""
    smooth = []
    for end in range(1, len(values) + 1):
        recent = [value for value in values[max(0, end - window) : end] if value == value]
        smooth.append(sum(recent) / len(recent) if recent else float("nan"))
    return smooth

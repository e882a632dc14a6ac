"""Pictures of a training run."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from nanosam_cli.core.system.files import atomic_write
from nanosam_cli.core.training.run_log import read_evaluations, read_steps

LOSSES = (("loss", "training loss"), ("features", "between embeddings, before its weight"))
WINDOW = 50  # steps that a point of a loss is the mean of


class Curve(NamedTuple):
    """A named line."""

    label: str
    steps: list[int]
    values: list[float]
    marker: str = "-"


def plot_run(folder: Path) -> Path:
    """`log.csv` and `evaluation.jsonl` of a run -> `loss.png` beside them: losses; training IoU and mIoU where there
    are any."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    panels = [curves for curves in (list(_losses(folder)), list(_overlaps(folder))) if curves]
    figure = Figure(figsize=(4.5 * len(panels), 4), layout="constrained")
    FigureCanvasAgg(figure)
    for place, curves in enumerate(panels, 1):
        axes = figure.add_subplot(1, len(panels), place)
        for curve in curves:
            axes.plot(curve.steps, curve.values, curve.marker, label=curve.label)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_xlabel("step")
        axes.grid(alpha=0.3)
        axes.legend()
    path = folder / "loss.png"
    with atomic_write(path, overwrite=True) as temporary:
        figure.savefig(temporary, dpi=120)
    return path


def _losses(folder: Path) -> Iterator[Curve]:
    loss, features = (_column(folder, *column) for column in LOSSES)
    yield loss
    if any(features.values) and features.values != loss.values:  # where nothing else is trained they are the same
        yield features


def _overlaps(folder: Path) -> Iterator[Curve]:
    trained = _column(folder, "iou", "training IoU, clear prompts")
    if not all(map(math.isnan, trained.values)):
        yield trained
    records = read_evaluations(folder)
    steps = [int(record["step"]) for record in records]
    for size in [key for key in records[0] if key != "step"] if records else ():
        yield Curve(f"mIoU {size}", steps, [record[size] for record in records], ".-")


def _column(folder: Path, name: str, label: str) -> Curve:
    rows = read_steps(folder)
    return Curve(label, [int(row["step"]) for row in rows], _smoothed([float(row[name]) for row in rows]))


def _smoothed(values: Sequence[float]) -> list[float]:
    """Running mean over the last WINDOW values that are numbers; early ones over what there is."""
    smooth = []
    for end in range(1, len(values) + 1):
        recent = [value for value in values[max(0, end - WINDOW) : end] if not math.isnan(value)]
        smooth.append(sum(recent) / len(recent) if recent else math.nan)
    return smooth

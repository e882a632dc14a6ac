"""Mean IoU against clicks, several results in one picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from nanosam_cli.core.evaluation.clicks_report import WANTED, step_table
from nanosam_cli.core.evaluation.metrics import bootstrap_interval
from nanosam_cli.core.evaluation.results import Results
from nanosam_cli.core.system.files import atomic_write


def plot_clicks(files: Sequence[Results], names: Sequence[str], path: Path, overwrite: bool = False) -> None:
    """Write a PNG, SVG or PDF; the band is the 95 % interval. Results that begin with a box begin at 0 clicks.

    Raises:
        InputError: a file has no steps.
        OutputError: see `atomic_write`.
        ModuleNotFoundError: matplotlib is not installed.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    for number, (file, name) in enumerate(zip(files, names)):
        _, table = step_table(file)
        clicks = np.arange(table.shape[1]) + (file.settings["start"] != "box")
        axes.plot(clicks, table.mean(axis=0), ".-", color=f"C{number}", label=f"{name}, {file.settings['start']} first")
        bands = [band for band in (bootstrap_interval(column, file.image_ids) for column in table.T) if band]
        if len(bands) == len(clicks):
            low, high = np.array(bands).T
            axes.fill_between(clicks, low, high, color=f"C{number}", alpha=0.15, linewidth=0)
    for wanted in WANTED:
        axes.axhline(wanted, color="grey", linewidth=0.8, linestyle="--")
    axes.set(xlabel="clicks", ylabel="mean IoU", ylim=(None, 1))
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right")
    with atomic_write(path, overwrite) as temporary:
        figure.savefig(temporary, dpi=120)

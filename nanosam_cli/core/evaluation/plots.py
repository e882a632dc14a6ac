"""Results as plots: how IoU is distributed, and how it depends on an object's size."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nanosam_cli.core.errors import UsageError
from nanosam_cli.core.evaluation.clicks import is_dialogue
from nanosam_cli.core.evaluation.clicks_plot import plot_clicks
from nanosam_cli.core.evaluation.metrics import SIZES
from nanosam_cli.core.evaluation.results import Results
from nanosam_cli.core.system.files import atomic_write

SUFFIXES = (".png", ".svg", ".pdf")
BINS = 25  # of IoU
_MOST_DOTS = 5000  # a file: more would hide one another and make large SVG files
_BANDS = 12  # of area, for the mean line


def plot_results(files: Sequence[Results], names: Sequence[str], path: Path, overwrite: bool = False) -> None:
    """Write a PNG, SVG or PDF: IoU distribution on the left, IoU against area on the right; of corrections (all files
    must be such) mean IoU against clicks.

    Raises:
        UsageError: another suffix.
        OutputError: see `atomic_write`.
        ModuleNotFoundError: matplotlib is not installed.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise UsageError(f"a plot is a {', '.join(SUFFIXES)} file, not {path}", f"--plot {path.with_suffix('.png')}")
    if files and all(is_dialogue(file.settings) for file in files):
        plot_clicks(files, names, path, overwrite)
        return
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    for number, (file, name) in enumerate(zip(files, names)):
        _draw_distribution(left, file, name, f"C{number}", fill=len(files) == 1)
        _draw_areas(right, file, f"C{number}")
    left.set(xlabel="IoU", ylabel="objects in % (dashed: mean)", xlim=(0, 1))
    right.set(xlabel="annotated area in square pixels", ylabel="IoU", xscale="log", ylim=(0, 1))
    for border in (SIZES["small"][1], SIZES["large"][0]):
        right.axvline(border, color="grey", linewidth=0.8, linestyle="--")
    for axes in (left, right):
        axes.grid(alpha=0.3)
    left.legend(loc="upper left")
    with atomic_write(path, overwrite) as temporary:
        figure.savefig(temporary, dpi=120)


def _draw_distribution(axes: Any, file: Results, name: str, colour: str, fill: bool) -> None:
    counts, edges = np.histogram(file.ious, bins=BINS, range=(0, 1))
    mean = float(file.ious.mean()) if len(file.objects) else None
    label = f"{name}: mIoU {'-' if mean is None else f'{mean:.3f}'}"
    axes.stairs(
        100 * counts / max(counts.sum(), 1), edges, color=colour, fill=fill, alpha=0.7 if fill else 1, label=label
    )
    if mean is not None:
        axes.axvline(mean, color=colour, linestyle="--", linewidth=1)


def _draw_areas(axes: Any, file: Results, colour: str) -> None:
    """A dot an object, and the mean in bands of equally many objects."""
    shown = np.flatnonzero(file.areas > 0)  # an area of 0 has no place on a logarithmic axis
    order = shown[np.argsort(file.areas[shown], kind="stable")]
    dots = order[:: -(-len(order) // _MOST_DOTS) or 1]
    axes.scatter(file.areas[dots], file.ious[dots], s=4, color=colour, alpha=0.25, linewidths=0)
    bands = [band for band in np.array_split(order, _BANDS) if len(band)]
    areas = [np.exp(np.log(file.areas[band]).mean()) for band in bands]
    axes.plot(areas, [file.ious[band].mean() for band in bands], ".-", color=colour)

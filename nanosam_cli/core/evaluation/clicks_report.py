"""What came of corrections, or of masks as prompts: means over objects, clicks and steps, with intervals, by size."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nanosam_cli.core.errors import InputError
from nanosam_cli.core.evaluation.clicks import is_dialogue
from nanosam_cli.core.evaluation.metrics import SIZES, bootstrap_interval, size_rows
from nanosam_cli.core.evaluation.results import Results

WANTED = (0.85, 0.90)  # IoU that clicks are counted to, the field's
SHOWN = (0, 1, 2, 3, 5, 10)  # clicks of which the table has a line
WORSE = 0.01  # of IoU: less is nothing that anybody sees

Numbers = NDArray[np.float64]


@dataclass(frozen=True)
class Mean:
    """Of the values of one size. None where it has none; the interval is None where they are of one photo, too."""

    count: int
    mean: float | None
    interval: tuple[float, float] | None  # 95 %, photos drawn anew

    def record(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {"count": self.count, "mean": self.mean, "interval": self.interval and list(self.interval)}


@dataclass(frozen=True)
class Measure:
    """One line of the report."""

    name: str
    sizes: dict[str, Mean]  # of `metrics.SIZES`
    shown: bool = True  # in the table; the record has all

    def record(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {"measure": self.name, **{size: mean.record() for size, mean in self.sizes.items()}}

    def row(self) -> tuple[str, ...]:
        """Name; all, its interval; small, medium, large."""
        overall, *others = self.sizes.values()
        interval = "-" if overall.interval is None else "{:.3f} to {:.3f}".format(*overall.interval)
        return self.name, _text(overall), interval, *(_text(mean) for mean in others)


def _text(mean: Mean) -> str:
    return "-" if mean.mean is None else f"{mean.mean:.3f}"


@dataclass(frozen=True)
class _Values:
    """Values of objects, or of their clicks or steps."""

    values: Numbers  # (n,)
    owners: NDArray[np.intp]  # (n,) whose


def measures(results: Results) -> list[Measure]:
    """Every line of the report. InputError where the results are not those of `nanosam eval clicks`."""
    return [
        Measure(name, _by_size(values, results), shown)
        for name, values, shown in (_corrected(results) if is_dialogue(results.settings) else _prompted(results))
    ]


def step_table(results: Results) -> tuple[list[str], Numbers]:
    """The steps' names, and the IoU of each object after each of them (objects, steps)."""
    steps = [str(step) for step in results.settings.get("steps", ())]
    if not steps or any(len(result.ious) != len(steps) for result in results.objects):
        raise InputError(f"{results.path} has not the steps of `nanosam eval clicks`", "nanosam eval clicks -o FILE")
    return steps, np.array([result.ious for result in results.objects], float).reshape(-1, len(steps))


def _prompted(results: Results) -> Iterator[tuple[str, _Values, bool]]:
    steps, table = step_table(results)
    for step, column in zip(steps, table.T):
        yield step, _Values(column, np.arange(len(table))), True


def _corrected(results: Results) -> Iterator[tuple[str, _Values, bool]]:
    steps, table = step_table(results)
    first = 0 if results.settings["start"] == "box" else 1  # clicks that the first step has
    clicks = np.arange(len(steps)) + first
    everyone = np.arange(len(table))
    for count, step, column in zip(clicks, steps, table.T):
        yield f"mIoU after {step}", _Values(column, everyone), int(count) in SHOWN or int(count) == clicks[-1]
    for wanted in WANTED:
        there = table >= wanted
        reached = there.any(axis=1)
        needed = np.where(reached, clicks[there.argmax(axis=1)], clicks[-1])
        yield f"clicks to {wanted:.2f}", _Values(needed.astype(float), everyone), True
        yield f"share that gets to {wanted:.2f}", _Values(reached.astype(float), everyone), True
    obeyed = [result.obeyed for result in results.objects]
    owners = np.repeat(everyone, [len(one) for one in obeyed])
    yield "newest click obeyed", _Values(np.array([float(o) for one in obeyed for o in one]), owners), True
    rows, columns = np.nonzero(np.arange(1, len(steps)) + first <= np.array([[len(one)] for one in obeyed] or [[0]]))
    change = table[rows, columns + 1] - table[rows, columns] if len(table) else np.zeros(0)
    yield "steps that worsen", _Values((change < -WORSE).astype(float), rows), True


def _by_size(values: _Values, results: Results) -> dict[str, Mean]:
    areas, photos = results.areas[values.owners], results.image_ids[values.owners]
    means = {}
    for size in SIZES:
        rows = size_rows(areas, size)
        chosen = values.values[rows]
        interval = bootstrap_interval(chosen, photos[rows]) if len(chosen) else None
        means[size] = Mean(len(chosen), float(chosen.mean()) if len(chosen) else None, interval)
    return means


def rows(found: Sequence[Measure]) -> list[tuple[str, ...]]:
    """The table's lines; its heads are HEADS."""
    return [measure.row() for measure in found if measure.shown]


HEADS = ("", "all", "95 % interval", "small", "medium", "large")

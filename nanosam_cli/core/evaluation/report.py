"""What `nanosam metrics` says: one table, for people as cells and for programs as a record."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nanosam_cli.core.evaluation.metrics import THRESHOLDS, Difference, Rows, differences, summarise, worst
from nanosam_cli.core.evaluation.results import Results

SCHEMA_VERSION = 1

_MADE = ("protocol", "prompt", "box_noise", "seed")  # settings that say how results were made
_NONE = "-"


@dataclass(frozen=True)
class MetricReport:
    """A table, and the same as plain values for JSON."""

    title: str
    heads: Sequence[str]
    rows: Sequence[Sequence[object]]
    record: Mapping[str, Any]

    def markdown(self) -> list[str]:
        """The table's lines in Markdown."""
        lines = (self.heads, ["---"] * len(self.heads), *self.rows)
        return [f"| {' | '.join(str(cell).replace('|', chr(92) + '|') for cell in cells)} |" for cells in lines]


def summary_report(results: Results, groups: Mapping[str, Rows], by: str) -> MetricReport:
    """A line a group: mean, interval, share of objects over each threshold."""
    summaries = summarise(results, groups)
    rows = [
        (
            summary.group,
            summary.objects,
            _number(summary.mean_iou),
            _interval(summary.interval),
            *(f"{summary.over[threshold]:.1%}" if summary.over else _NONE for threshold in THRESHOLDS),
        )
        for summary in summaries
    ]
    heads = (by, "objects", "mIoU", "95 %", *(f"IoU>{threshold:g}" for threshold in THRESHOLDS))
    record = {"schema_version": SCHEMA_VERSION, **_about(results), "groups": [s.record() for s in summaries]}
    return MetricReport(_title(results), heads, rows, record)


def comparison_report(files: Sequence[Results], groups: Mapping[str, Rows], by: str) -> MetricReport:
    """A line a group: the mean of each file, and how much each is better than the first. See `common_objects`."""
    first, *others = files
    summaries = [summarise(file, groups) for file in files]
    against = [differences(first, other, groups) for other in others]
    rows = [
        (
            summary.group,
            summary.objects,
            *(_number(each[line].mean_iou) for each in summaries),
            *(_difference(each[line]) for each in against),
        )
        for line, summary in enumerate(summaries[0])
    ]
    names = display_names(files)
    heads = [by, "objects", *names, *(f"{name} - {names[0]} (95 %)" for name in names[1:])]
    made = [{**_about(file), "groups": [s.record() for s in each]} for file, each in zip(files, summaries)]
    better = [
        {"file": str(other.path), "than": str(first.path), "groups": [d.record() for d in each]}
        for other, each in zip(others, against)
    ]
    record = {"schema_version": SCHEMA_VERSION, "files": made, "differences": better}
    return MetricReport("mIoU of the same objects", heads, rows, record)


def worst_report(results: Results, count: int, names: Mapping[int, str]) -> MetricReport:
    """A line an object, the lowest IoU first."""
    found = worst(results, count)
    rows = [
        (
            f"{result.iou:.3f}",
            result.id,
            result.image_id,
            names.get(result.category_id, str(result.category_id)),
            f"{result.area:.0f}",
            " ".join(f"{side:.0f}" for side in result.box),
        )
        for result in found
    ]
    heads = ("IoU", "object", "image", "category", "area", "box x0 y0 x1 y1")
    listed = [{**result.to_dict(), "category": names.get(result.category_id)} for result in found]
    record = {"schema_version": SCHEMA_VERSION, **_about(results), "worst": listed}
    return MetricReport(f"The worst of {len(results.objects)} objects, {_title(results)}", heads, rows, record)


def made_differently(files: Sequence[Results]) -> dict[str, list[str]]:
    """Settings in which recorded files differ, with their values: what else a difference in IoU may come from."""
    values = {key: list(dict.fromkeys(str(file.settings.get(key)) for file in files if file.settings)) for key in _MADE}
    return {key: found for key, found in values.items() if len(found) > 1}


def display_names(files: Sequence[Results]) -> list[str]:
    """Names of models, where these tell the files apart."""
    for names in ([file.name for file in files], [file.path.stem for file in files]):
        if len(set(names)) == len(files):
            return names
    return [str(file.path) for file in files]


def _about(results: Results) -> dict[str, Any]:
    """Which results these are; None where it is not recorded."""
    made = {key: results.settings.get(key) for key in _MADE}
    return {"file": str(results.path), "model": results.meta.get("model"), **made}


def _title(results: Results) -> str:
    settings = results.settings
    if not settings:
        return f"{results.path} (nothing is recorded of how it was made)"
    return f"{results.name}: {settings.get('prompt')} prompts, protocol {settings.get('protocol')}"


def _number(value: float | None) -> str:
    return _NONE if value is None else f"{value:.3f}"


def _interval(interval: tuple[float, float] | None) -> str:
    return _NONE if interval is None else f"{interval[0]:.3f}-{interval[1]:.3f}"


def _difference(difference: Difference) -> str:
    if difference.mean is None:
        return _NONE
    low_high = "" if difference.interval is None else " ({:+.3f} to {:+.3f})".format(*difference.interval)
    return f"{difference.mean:+.3f}{low_high}"

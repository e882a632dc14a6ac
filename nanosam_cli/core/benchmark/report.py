"""Benchmark runs as tables and as files, accuracy beside them, and saved runs put together."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any

from nanosam_cli.core.benchmark.cold_start import ColdStart
from nanosam_cli.core.benchmark.measure import (
    STAGES,
    Accuracy,
    ModelReport,
    Run,
    Timing,
    ratio,
)
from nanosam_cli.core.errors import InputError, UsageError
from nanosam_cli.core.evaluation.metrics import SIZES
from nanosam_cli.core.schema import Amount, Share, read_section
from nanosam_cli.core.system.documents import RECORD_BYTES, parse_json
from nanosam_cli.core.system.files import read_input
from nanosam_cli.core.system.machine import Machine

SCHEMA_VERSION = 1

_NONE = "-"
# what may differ between comparable runs, and is then worth a warning
_COMPARED_CONDITIONS = ("photo_hw", "threads")


def stage_table(models: Sequence[ModelReport]) -> tuple[list[str], list[list[str]]]:
    """Headings and rows for people: a row a stage, a column a model, and each model's time against the first's."""
    first, *others = models
    columns = ["", first.name]
    for model in others:
        columns += [model.name, f"vs {first.name}"]
    rows = []
    for stage, heading in STAGES.items():
        row = [heading, _timing(first.timings[stage])]
        for model in others:
            row += [_timing(model.timings[stage]), _ratio(ratio(model, first, stage))]
        rows.append(row)
    for heading, cells in _figures(models).items():
        row = [heading, cells[0]]
        for cell in cells[1:]:
            row += [cell, ""]
        rows.append(row)
    return columns, rows


def markdown_table(models: Sequence[ModelReport]) -> list[str]:
    """Lines of NVIDIA NanoSAM's table: latency by stage, accuracy by size of object where it is known."""
    columns = ["model", "encoder ms", "decoder ms", "further box ms", "full pipeline ms"]
    known = any(model.accuracy for model in models)
    if known:
        columns += ["mIoU all", "S", "M", "L"]
    lines = [_markdown_row(columns), _markdown_row(["---", *["---:"] * (len(columns) - 1)])]
    for model in models:
        encoder, decoder, full = (model.timings[stage].median_ms for stage in ("encoder", "decoder_1", "full"))
        cells = [model.name, *map(_ms, (encoder, decoder, model.further_box_ms, full))]
        lines.append(_markdown_row(cells + (_accuracy(model) if known else [])))
    return lines


def caption(run: Run) -> str:
    """Where and how the figures were taken, in one sentence."""
    height, width = run.conditions.photo_hw
    modes = (run.settings.power_mode and f"power mode {run.settings.power_mode}", _threads(run.conditions.threads))
    where = ", ".join([str(run.machine), *(mode for mode in modes if mode)])
    backends = ", ".join(dict.fromkeys(file.backend for model in run.models for file in (model.encoder, model.decoder)))
    taken = f"median of {run.conditions.repeats} interleaved repeats, {width}x{height} photo"
    if run.load.busy(run.machine.cores):
        taken += f", while other programs ran (load average {run.load.average})"
    return f"nanosam {run.conditions.nanosam} on {where}; {backends}; {taken}."


def run_record(run: Run) -> dict[str, Any]:
    """Plain values for JSON; `read_run` reads them back."""
    return {"schema_version": SCHEMA_VERSION, **asdict(run), "models": _model_records(run.models)}


def run_text(run: Run) -> str:
    """The content of a saved run."""
    return json.dumps(run_record(run), indent=1, allow_nan=False) + "\n"


def read_run(path: Path) -> Run:
    """What `nanosam benchmark -o FILE` wrote. InputError where it is anything else."""
    hint = "run `nanosam benchmark -o FILE` again"
    data = _read(path)
    try:
        record = parse_json(data)
        if isinstance(record, dict) and record.get("schema_version", SCHEMA_VERSION) != SCHEMA_VERSION:
            raise InputError(f"{path} was written by another version of nanosam", hint)
        run = read_section(Run, record, strangers=True)
        lacking = [stage for model in run.models for stage in STAGES if stage not in model.timings]
        if lacking:
            raise ValueError(f"models.timings.{lacking[0]}: missing")
        return run
    except ValueError as error:
        raise InputError(f"{path} is not a run that `nanosam benchmark -o FILE` saved: {error}", hint) from error


def _read(path: Path) -> bytes:
    if not path.exists():
        raise InputError(f"cannot read {path}: no such file", "check the path")
    return read_input(path)


@dataclass(frozen=True)
class Comparison:
    """Saved runs of one machine, put together."""

    machine: Machine
    models: tuple[ModelReport, ...]
    differences: tuple[str, ...]  # in settings and conditions, which may explain a difference in time

    def record(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "schema_version": SCHEMA_VERSION,
            "machine": asdict(self.machine),
            "differences": list(self.differences),
            "models": _model_records(self.models),
        }


def compare_contenders(files: Sequence[Path]) -> Comparison:
    """Put saved runs together, the first file's first model being what the others are measured against.

    InputError, saying what differs, where the runs are not all from one machine.
    """
    if not files:
        raise UsageError("no runs to compare", "nanosam benchmark --compare before.json after.json")
    runs = {file: read_run(file) for file in files}
    first, *others = runs
    found: list[str] = []
    for other in others:
        hardware = runs[first].machine.differences(runs[other].machine)
        if hardware:
            raise InputError(
                f"{first} and {other} are from different machines, so their times cannot be compared: "
                + "; ".join(_difference(name, pair, (first, other)) for name, pair in hardware.items()),
                "run `nanosam benchmark` for both on one machine",
            )
        pairs = {name: (a, _flat(runs[other])[name]) for name, a in _flat(runs[first]).items()}
        found += [_difference(name, pair, (first, other)) for name, pair in pairs.items() if pair[0] != pair[1]]
    return Comparison(runs[first].machine, _labelled(runs), tuple(found))


def read_accuracy(results: Sequence[tuple[str | None, Path]], models: Sequence[str]) -> dict[str, Accuracy]:
    """Accuracy by model from result files of `eval coco`, (model's name, file).

    A file without a name belongs to the model that `FILE.meta.json` beside it names. UsageError where none or another
    one is named, InputError where a file cannot be read.
    """
    found = {}
    for name, path in results:
        owner = name or _named_model(path)
        if owner is None or owner not in models:
            whose = f"holds results of {owner}, which is not measured here" if owner else "does not say whose it is"
            raise UsageError(
                f"{path} {whose}", f"measured are {', '.join(models)}; `--results NAME={path}` names one of them"
            )
        found[owner] = _mean_iou(path)
    return found


def with_accuracy(run: Run, accuracy: Mapping[str, Accuracy]) -> Run:
    return replace(run, models=tuple(replace(model, accuracy=accuracy.get(model.name)) for model in run.models))


def _figures(models: Sequence[ModelReport]) -> dict[str, list[str]]:
    """What is not a stage: heading -> a cell a model."""
    figures = {
        "decoder, each further box": [f"{_ms(model.further_box_ms)} ms" for model in models],
        "images/s": [f"{model.images_per_s:.1f}" for model in models],
        "cold start": [_cold_start(model.cold_start) for model in models],
        "peak memory": [_megabytes(model.cold_start.peak_memory_mb) for model in models],
        "files": [_megabytes((model.encoder.bytes + model.decoder.bytes) / 1e6) for model in models],
        "runs on": [" + ".join(dict.fromkeys((model.encoder.backend, model.decoder.backend))) for model in models],
    }
    if any(model.accuracy for model in models):
        figures["mIoU all, S, M, L"] = [" ".join(_accuracy(model)) for model in models]
    return figures


def _accuracy(model: ModelReport) -> list[str]:
    if model.accuracy is None:
        return [_NONE] * 4
    return [_NONE if value is None else f"{value:.3f}" for value in model.accuracy.mean_iou.values()]


def _cold_start(start: ColdStart) -> str:
    parts = f"start {_ms(start.start_ms)}, load {_ms(start.load_ms)}, first mask {_ms(start.first_mask_ms)}"
    return f"{_ms(start.total_ms)} ms ({parts})"


def _timing(timing: Timing) -> str:
    return f"{_ms(timing.median_ms)} ms (p95 {_ms(timing.p95_ms)})"


def _ms(value: float) -> str:
    """Three digits, or all before the point."""
    return f"{value:.{2 if value < 10 else 1 if value < 100 else 0}f}"


def _megabytes(value: float | None) -> str:
    return _NONE if value is None else f"{value:.1f} MB"


def _ratio(value: float | None) -> str:
    return _NONE if value is None else f"x{value:.2f}"


def _markdown_row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def _threads(threads: int | None) -> str | None:
    return None if threads is None else f"{threads} thread{'s' * (threads > 1)}"


def _model_records(models: Sequence[ModelReport]) -> list[dict[str, Any]]:
    return [
        {
            **asdict(model),
            "further_box_ms": model.further_box_ms,
            "ratio_to_first": {stage: _rounded(ratio(model, models[0], stage)) for stage in STAGES},
        }
        for model in models
    ]


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)


def _flat(run: Run) -> dict[str, Any]:
    """Settings and conditions that two comparable runs should share."""
    return {**asdict(run.settings), **{name: getattr(run.conditions, name) for name in _COMPARED_CONDITIONS}}


def _difference(name: str, values: tuple[Any, Any], files: tuple[Path, Path]) -> str:
    return f"{name}: " + ", ".join(f"{_shown(value)} ({file})" for value, file in zip(values, files))


def _shown(value: Any) -> str:
    return ", ".join(map(str, value)) or "none" if isinstance(value, tuple) else str(value)


def _labelled(runs: Mapping[Path, Run]) -> tuple[ModelReport, ...]:
    """All models; names that several runs share get their file's."""
    names = Counter(model.name for run in runs.values() for model in run.models)
    stems = Counter(file.stem for file in runs)
    return tuple(
        model
        if names[model.name] == 1
        else replace(model, name=f"{model.name} ({file.stem if stems[file.stem] == 1 else file})")
        for file, run in runs.items()
        for model in run.models
    )


@dataclass(frozen=True)
class _About:
    """What is looked at of the file beside a results file."""

    model: str


@dataclass(frozen=True)
class _Overlap:
    """What is looked at of an object's result."""

    area: Amount
    iou: Share


def _named_model(results: Path) -> str | None:
    """The model that the file beside a results file names."""
    beside = results.with_suffix(".meta.json")
    if not beside.exists():
        return None
    data = read_input(beside, most=RECORD_BYTES)
    try:
        return read_section(_About, parse_json(data), strangers=True).model
    except ValueError as error:
        raise InputError(
            f"{beside} does not say which model {results} is of: {error}", f"give its name: NAME={results}"
        ) from error


def _mean_iou(results: Path) -> Accuracy:
    """The mean IoU of a list of objects with `area` and `iou`, ours or NVIDIA NanoSAM's."""
    data = _read(results)
    try:
        rows = parse_json(data)
        if not isinstance(rows, list):
            raise ValueError("it is no list")
        objects = [read_section(_Overlap, row, strangers=True) for row in rows]
    except ValueError as error:
        raise InputError(f"{results} is not a results file of `nanosam eval coco`: {error}") from error
    pairs = [(one.area, one.iou) for one in objects]
    by_size = {size: [iou for area, iou in pairs if low <= area < high] for size, (low, high) in SIZES.items()}
    return Accuracy({size: fmean(ious) if ious else None for size, ious in by_size.items()}, len(pairs))

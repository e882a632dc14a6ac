"""What a training run tells while it runs: events for whoever watches, and files that outlive it."""

from __future__ import annotations

import csv
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nanosam_cli.core.errors import InputError
from nanosam_cli.core.system.documents import parse_json
from nanosam_cli.core.system.files import atomic_write, write_text

LOG = "log.csv"
EVALUATIONS = "evaluation.jsonl"


@dataclass(frozen=True)
class StepReport:
    """What a step did, for whoever watches."""

    step: int  # steps done, from 1
    loss: float
    iou: float  # of the chosen masks, clear prompts
    learning_rate: float
    images_per_second: float
    waiting: float  # share of the time spent waiting for data
    features: float = 0.0  # loss between student's and teacher's embeddings, before its weight


@dataclass(frozen=True)
class EvaluationReport:
    """mIoU of the averaged weights on the evaluation folder."""

    step: int
    mean_iou: dict[str, float]  # by size: all, and those of small, medium, large that there are


@dataclass(frozen=True)
class RunNote:
    """Something worth knowing about the run."""

    text: str
    warning: bool = False


Event = StepReport | EvaluationReport | RunNote
Report = Callable[[Event], None]


class RunLog:
    """`log.csv`, a line a step, and `evaluation.jsonl`; on resumption, lines after the checkpoint are dropped."""

    HEADER = ("step", "loss", "iou", "learning_rate", "images_per_second", "waiting", "features")

    def __init__(self, folder: Path, keep: int) -> None:
        rows = [row for row in read_steps(folder) if int(row["step"]) <= keep]
        records = [record for record in read_evaluations(folder) if record["step"] <= keep]
        with atomic_write(folder / LOG, overwrite=True) as temporary, temporary.open("w", newline="") as file:
            writer = csv.DictWriter(file, self.HEADER)
            writer.writeheader()
            writer.writerows(rows)
        write_text(folder / EVALUATIONS, "".join(json.dumps(record) + "\n" for record in records), overwrite=True)
        self._steps = (folder / LOG).open("a", newline="")
        self._writer = csv.DictWriter(self._steps, self.HEADER)
        self._evaluations = (folder / EVALUATIONS).open("a")

    def add(self, event: Event) -> None:
        """Add a step or an evaluation; notes are not kept."""
        if isinstance(event, StepReport):
            values = {name: f"{getattr(event, name):.6g}" for name in self.HEADER[1:]}
            self._writer.writerow({"step": event.step, **values})
            self._steps.flush()
        elif isinstance(event, EvaluationReport):
            self._evaluations.write(json.dumps({"step": event.step, **event.mean_iou}) + "\n")
            self._evaluations.flush()

    def close(self) -> None:
        """Close both files."""
        self._steps.close()
        self._evaluations.close()


def read_steps(folder: Path) -> list[dict[str, str]]:
    """The whole lines of `log.csv`; none where there is no such file."""
    if not (folder / LOG).exists():
        return []
    with (folder / LOG).open(newline="", encoding="utf-8", errors="replace") as file:
        try:
            rows = [row for row in csv.DictReader(file) if None not in row.values()]
        except csv.Error as error:
            raise _foreign(folder / LOG) from error
    if any(not row.get("step", "").isdecimal() for row in rows):
        raise _foreign(folder / LOG)
    return rows


def read_evaluations(folder: Path) -> list[dict[str, float]]:
    """The whole lines of `evaluation.jsonl`; a half-written last one is left out."""
    path = folder / EVALUATIONS
    lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
    try:
        records = [parse_json(line) for line in lines if line.endswith(b"\n")]
    except ValueError as error:
        raise _foreign(path) from error
    if not all(map(_is_evaluation, records)):
        raise _foreign(path)
    return records


def _is_evaluation(record: Any) -> bool:
    return (
        isinstance(record, dict)
        and {"step", "all"} <= record.keys()
        and all(type(value) in (int, float) for value in record.values())
    )


def _foreign(path: Path) -> InputError:
    return InputError(f"{path} holds other lines than those of a run", "give another folder, or delete it")


class StepClock:
    """Splits the loop's time into waiting for data and working."""

    def __init__(self) -> None:
        self._begin = self._data = time.perf_counter()

    def waited(self) -> None:
        """Call when a batch has arrived."""
        self._data = time.perf_counter()

    def worked(self) -> tuple[float, float]:
        """Call when the step is done -> seconds of the whole step, share of them spent waiting."""
        now = time.perf_counter()
        seconds, waited = now - self._begin, self._data - self._begin
        self._begin = now
        return seconds, waited / seconds

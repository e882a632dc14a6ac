"""What a build has to say, as tables and records."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from nanosam_cli.core.engine.build import Engine, KeptEngine
from nanosam_cli.core.engine.plan import BuildPlan, EngineJob
from nanosam_cli.core.precision.ladder_step import Step

SCHEMA_VERSION = 1

Table = tuple[tuple[str, ...], list[tuple[object, ...]]]  # columns, rows

_METHODS = {
    "run": "the file itself, run",
    "emulated": "emulated: rounded and range-checked on ONNX Runtime where the engine will round",
}


def plan_table(plan: BuildPlan) -> Table:
    """What would be built."""
    columns = ("part", "from", "backend", "precision", "shapes, smallest to largest", "engine")
    rows: list[tuple[object, ...]] = [
        (job.part, job.onnx, plan.chosen.target.backend, job.precision, _shapes(job), job.engine) for job in plan.jobs
    ]
    return columns, rows


def plan_records(plan: BuildPlan) -> Iterator[dict[str, Any]]:
    for job in plan.jobs:
        yield {
            "schema_version": SCHEMA_VERSION,
            "part": job.part,
            "onnx": str(job.onnx),
            "engine": str(job.engine),
            "backend": plan.chosen.target.backend,
            "why": plan.chosen.why,
            "precision_asked": job.precision_asked,
            "precision": job.precision,
            "shapes": {name: asdict(shape) for name, shape in job.profile.items()},
        }


def proof_table(engine: Engine) -> Table:
    """Each output against the fp32 original's."""
    columns = ("part", "output", "largest error", "mean error", "cosine", "NaN or Inf")
    rows: list[tuple[object, ...]] = [
        (
            engine.sidecar.part,
            error.output,
            f"{error.max_error:.2e}",
            f"{error.mean_error:.2e}",
            f"{error.cosine:.6f}",
            error.not_finite,
        )
        for error in engine.proof.outputs
    ]
    return columns, rows


def proof_line(engine: Engine) -> str:
    """What users feel, and how it was found."""
    proof = engine.proof
    masks = "no masks were made, because there was no decoder"
    if proof.mean_iou is not None and proof.worst_iou is not None:
        masks = (
            f"mask IoU mean {proof.mean_iou:.4f} (at least {proof.thresholds.mean_iou:g}), worst {proof.worst_iou:.4f} "
            f"(at least {proof.thresholds.worst_iou:g}), {proof.prompts} prompts"
        )
    emulated_nothing = proof.method == "emulated" and engine.sidecar.precision_built == "fp32"
    how = "the original itself: fp32 has nothing to emulate" if emulated_nothing else _METHODS[proof.method]
    return f"{masks}, {proof.photos} photos; {how}"


def ladder_table(engine: Engine) -> Table:
    """What was tried, and what each step would have cost."""
    columns = ("step", "passes", "mean IoU", "worst IoU", "weights MB", "work not in fp32", "fp32 nodes", "seconds")
    rows: list[tuple[object, ...]] = [
        (
            step.name,
            "yes" if step.proof.passed else "no",
            _number(step.proof.mean_iou),
            _number(step.proof.worst_iou),
            f"{step.megabytes:.1f}",
            f"{100 * step.cheap_work:.1f} %",
            len(step.keep),
            f"{step.seconds:.1f}",
        )
        for step in engine.steps
    ]
    return columns, rows


def engine_line(engine: Engine) -> str:
    """What was written."""
    found, last = engine.sidecar, engine.steps[-1]
    asked = "" if found.precision_built == found.precision_asked else f", {found.precision_asked} was asked for"
    kept = f" but for {len(found.fp32_nodes)} nodes" if found.fp32_nodes else ""
    cost = f"; {_cost(engine.steps[0], last)}" if len(engine.steps) > 1 else ""
    return (
        f"{engine.path}: {found.precision_built}{kept}{asked}, {found.engine_bytes / 1e6:.1f} MB, "
        f"built in {found.build_seconds:.1f} s, {found.status}{cost}"
    )


def kept_line(engine: KeptEngine) -> str:
    """What was there."""
    found = engine.sidecar
    return f"{engine.path}: {found.precision_built}, {found.engine_bytes / 1e6:.1f} MB, {found.status}; it is kept"


def engine_record(engine: Engine | KeptEngine) -> dict[str, Any]:
    """The side-car and where it is."""
    return {**asdict(engine.sidecar), "schema_version": SCHEMA_VERSION, "path": str(engine.path)}


def _cost(first: Step, last: Step) -> str:
    bigger = last.megabytes - first.megabytes
    return (
        f"against {first.name}: {bigger:+.1f} MB of weights, {100 * last.cheap_work:.1f} % instead of "
        f"{100 * first.cheap_work:.1f} % of the multiplications in the smaller type"
    )


def _shapes(job: EngineJob) -> str:
    ranges = []
    for name, shape in job.profile.items():
        low, high = ("x".join(map(str, sides)) for sides in (shape.min, shape.max))
        ranges.append(f"{name} {low}" if low == high else f"{name} {low} to {high}")
    return "; ".join(ranges) or "any"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"

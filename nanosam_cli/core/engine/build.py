"""Builds what a plan says, and lets nothing leave that was not proved."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from hashlib import sha256
from pathlib import Path

from nanosam_cli.core import paths
from nanosam_cli.core.engine.calibration import calibration_tensors
from nanosam_cli.core.engine.candidates import trials
from nanosam_cli.core.engine.compile import Compiled, compile_step
from nanosam_cli.core.engine.finished import BuildOptions, decisions, find_finished
from nanosam_cli.core.engine.left_over import AGAIN, clear
from nanosam_cli.core.engine.plan import BuildPlan, EngineJob
from nanosam_cli.core.errors import ModelError, OutputError
from nanosam_cli.core.frame import Array
from nanosam_cli.core.inference.backends.onnxruntime import OnnxSession, open_file
from nanosam_cli.core.inference.contract import FACTS, encoder_image_size
from nanosam_cli.core.inference.session import open_session
from nanosam_cli.core.inference.sidecar import (
    EngineTarget,
    ProofStatus,
    SideCar,
    sidecar_path,
)
from nanosam_cli.core.messages import Note
from nanosam_cli.core.precision.ladder_step import Step
from nanosam_cli.core.precision.proof import Method, Proof
from nanosam_cli.core.precision.prover import Prover
from nanosam_cli.core.system.ending import disposable
from nanosam_cli.core.system.files import atomic_write, check_writable, write_text
from nanosam_cli.core.system.lock import only_run
from nanosam_cli.core.system.temporary import scratch_folder
from nanosam_cli.core.types import DECODER, ENCODER

Tell = Callable[[EngineJob, Step], None]

_STATUS: dict[Method, ProofStatus] = {"run": "proved by running", "emulated": "built, not run", "none": "not proved"}


@dataclass(frozen=True)
class Engine:
    """One that was written."""

    path: Path
    sidecar: SideCar
    proof: Proof
    steps: tuple[Step, ...]  # that were tried; the last one is what was built


@dataclass(frozen=True)
class KeptEngine:
    """One that an earlier run of the same command finished and proved."""

    path: Path
    sidecar: SideCar


def build_all(
    plans: Sequence[BuildPlan], settings: BuildOptions, tell: Tell, note: Note
) -> Iterator[Engine | KeptEngine]:
    """The engines of all plans as `build` makes them, but for those that a killed run of the same command finished.

    OutputError where all are finished, an engine of other settings is there, or another run is at work on one.
    """
    jobs = [(plan, job) for plan in plans for job in plan.jobs]
    with ExitStack() as locks:
        for _, job in jobs:
            locks.enter_context(only_run(job.engine))
        kept: dict[Path, SideCar] = {}
        for plan, job in jobs:
            if not job.overwrite:
                clear(job.engine, note)
                if sidecar := find_finished(plan, job, settings):
                    kept[job.engine] = sidecar
        if len(kept) == len(jobs):
            raise OutputError(f"all is built by this very command: {jobs[0][1].engine} exists already", AGAIN)
        for plan in plans:
            for job in plan.jobs:
                if job.engine in kept:
                    yield KeptEngine(job.engine, kept[job.engine])
            left = tuple(job for job in plan.jobs if job.engine not in kept)
            if left:
                yield from build(replace(plan, jobs=left), settings, tell)


def build(plan: BuildPlan, settings: BuildOptions, tell: Tell) -> Iterator[Engine]:
    """One engine after the other, the encoder first. `tell` hears of every step that is tried.

    Raises ModelError where not even the last step passes, BackendError where the runtime gives up. Nothing is left
    behind of an engine that was not finished.
    """
    with ExitStack() as opened:
        originals = {
            part: opened.enter_context(closing(open_file(path, "cpu", None)))
            for part, path in ((ENCODER, plan.encoder), (DECODER, plan.decoder))
            if path is not None
        }
        prover = None
        if ENCODER in originals and settings.prove:  # a decoder alone is not to be proved
            decoder = originals.get(DECODER)
            prover = Prover(originals[ENCODER], decoder, settings.photos, settings.thresholds, plan.spec)
        for job in sorted(plan.jobs, key=lambda job: job.part != ENCODER):
            with disposable():
                builder = _Builder(plan, job, settings, originals[job.part], prover)
                calibration: list[Array] = []
                if job.precision == "int8":
                    size = encoder_image_size(originals[job.part])
                    calibration = calibration_tensors(settings.calibration, size, plan.spec)
                engine = builder.build(calibration, tell)
            yield engine


def timing_cache(target: EngineTarget) -> Path:
    """Where the builder keeps what it has timed on a GPU with a version of TensorRT."""
    gpu = "-".join((target.gpu or "any").lower().split())
    return paths.home() / "timing-caches" / f"{gpu}-{target.backend}-{target.version}.cache"


def check_timing_cache(target: EngineTarget) -> None:
    """OutputError where it could not be written. Runtimes other than TensorRT have nothing to keep."""
    if target.backend == "tensorrt":
        check_writable(timing_cache(target).parent, f"set {paths.HOME.name} to a directory that can be written")


class _Builder:
    """One job's."""

    def __init__(
        self, plan: BuildPlan, job: EngineJob, settings: BuildOptions, original: OnnxSession, prover: Prover | None
    ) -> None:
        self._plan, self._job, self._settings = plan, job, settings
        self._original, self._prover = original, prover
        self._target = plan.chosen.target
        self._decisions = decisions(plan, job, settings)

    def build(self, calibration: Sequence[Array], tell: Tell) -> Engine:
        """Try until a version passes; on a GPU it is the engine itself that has to."""
        steps: list[Step] = []
        for step in trials(self._job, self._target.backend, self._prover, calibration):
            steps.append(step)
            tell(self._job, step)
            if not step.proof.passed:
                continue
            compiled = compile_step(self._job, self._target.backend, step, self._settings.builder)
            if step.proof.method == "emulated" and self._plan.chosen.runs_here:
                step = replace(step, name=f"{step.name}, the engine itself", proof=self._run(compiled, steps))
                steps.append(step)
                tell(self._job, step)
                if not step.proof.passed:
                    continue
            return self._write(compiled, steps)
        faults = "; ".join(steps[-1].proof.faults())
        raise ModelError(
            f"no version of {self._job.onnx.name} passes its proof on {self._target.backend}: {faults}",
            "no engine was kept; --mean-iou and --worst-iou set what has to be reached",
        )

    def _run(self, compiled: Compiled, steps: Sequence[Step]) -> Proof:
        """Load the engine as users will, and prove it."""
        assert self._prover is not None
        with scratch_folder() as folder:
            path = folder / self._job.engine.name
            path.write_bytes(compiled.data)
            write_text(sidecar_path(path), self._sidecar(compiled, steps).text())
            with closing(open_session(path, backend=self._target.backend, device="cuda")) as session:
                return self._prover.prove(self._job.part, session, "run")

    def _write(self, compiled: Compiled, steps: list[Step]) -> Engine:
        """Engine and side-car. In between a kill leaves a side-car without its engine, which nothing loads."""
        path, sidecar = self._job.engine, self._sidecar(compiled, steps)
        with atomic_write(path, self._job.overwrite) as temporary:
            temporary.write_bytes(compiled.data)
            write_text(sidecar_path(path), sidecar.text(), self._job.overwrite)
        return Engine(path, sidecar, steps[-1].proof, tuple(steps))

    def _sidecar(self, compiled: Compiled, steps: Sequence[Step]) -> SideCar:
        job, last = self._job, steps[-1]
        return SideCar(
            **self._decisions,
            engine=job.engine.name,
            engine_sha256=sha256(compiled.data).hexdigest(),
            engine_bytes=len(compiled.data),
            onnx=job.onnx.name,
            part=job.part,
            precision_built=compiled.precision,
            status=_STATUS[last.proof.method],
            inputs=self._original.inputs,
            outputs=self._original.outputs,
            metadata={**FACTS[job.part], **self._original.metadata},
            rebuild=job.rebuild,
            fp32_nodes=last.keep,
            layers=compiled.layers,
            ladder=tuple(step.record() for step in steps),
            proof=None if last.proof.method == "none" else last.proof.record(),
            build_seconds=round(compiled.seconds, 3),
            created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        )

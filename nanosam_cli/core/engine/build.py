"""Builds what a plan says, and lets nothing leave that was not proved."""

from __future__ import annotations

import tempfile
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
from nanosam_cli.core.engine.plan import BuildPlan, EngineJob
from nanosam_cli.core.engine.tensorrt import BuildSettings
from nanosam_cli.core.errors import ModelError
from nanosam_cli.core.frame import Array
from nanosam_cli.core.graphs.graph import external_files
from nanosam_cli.core.inference.backends.onnxruntime import OnnxSession, open_file
from nanosam_cli.core.inference.contract import FACTS, encoder_image_size
from nanosam_cli.core.inference.session import open_session
from nanosam_cli.core.inference.sidecar import EngineTarget, ProofStatus, SideCar, sidecar_path
from nanosam_cli.core.precision.agreement import Thresholds
from nanosam_cli.core.precision.ladder_step import Step
from nanosam_cli.core.precision.photos import ProofPhoto
from nanosam_cli.core.precision.proof import Method, Proof
from nanosam_cli.core.precision.prover import Prover
from nanosam_cli.core.system.files import atomic_write, check_writable, file_sha256, write_text
from nanosam_cli.core.types import DECODER, ENCODER
from nanosam_cli.version import __version__

Tell = Callable[[EngineJob, Step], None]

_STATUS: dict[Method, ProofStatus] = {"run": "proved by running", "emulated": "built, not run", "none": "not proved"}


@dataclass(frozen=True)
class BuildOptions:
    """How to build, and what to prove with."""

    builder: BuildSettings
    thresholds: Thresholds
    photos: Sequence[ProofPhoto]
    calibration: Sequence[ProofPhoto]  # for int8
    prove: bool = True


@dataclass(frozen=True)
class Engine:
    """One that was written."""

    path: Path
    sidecar: SideCar
    proof: Proof
    steps: tuple[Step, ...]  # that were tried; the last one is what was built


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
            builder = _Builder(plan, job, settings, originals[job.part], prover)
            calibration: list[Array] = []
            if job.precision == "int8":
                size = encoder_image_size(originals[job.part])
                calibration = calibration_tensors(settings.calibration, size, plan.spec)
            yield builder.build(calibration, tell)


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
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, self._job.engine.name)
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
            engine=job.engine.name,
            engine_sha256=sha256(compiled.data).hexdigest(),
            engine_bytes=len(compiled.data),
            onnx=job.onnx.name,
            onnx_sha256=file_sha256(job.onnx),
            onnx_data={name: file_sha256(job.onnx.parent / name) for name in external_files(job.onnx)},
            part=job.part,
            target=self._target,
            precision_asked=job.precision_asked,
            precision_built=compiled.precision,
            status=_STATUS[last.proof.method],
            inputs=self._original.inputs,
            outputs=self._original.outputs,
            metadata={**FACTS[job.part], **self._original.metadata},
            rebuild=job.rebuild,
            fp32_nodes=last.keep,
            layers=compiled.layers,
            shapes=job.profile,
            ladder=tuple(step.record() for step in steps),
            proof=None if last.proof.method == "none" else last.proof.record(),
            build_seconds=round(compiled.seconds, 3),
            created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
            nanosam=__version__,
        )

"""What decides an engine, and whether one that is there was built so: then a killed build need not repeat it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from hashlib import sha256
from typing import Any

from nanosam_cli.core.engine.left_over import AGAIN
from nanosam_cli.core.engine.plan import BuildPlan, EngineJob
from nanosam_cli.core.engine.tensorrt import BuildSettings
from nanosam_cli.core.errors import ModelError, OutputError
from nanosam_cli.core.graphs.graph import external_files
from nanosam_cli.core.inference.sidecar import SideCar, check_engine, read_sidecar
from nanosam_cli.core.precision.agreement import Thresholds
from nanosam_cli.core.precision.photos import ProofPhoto
from nanosam_cli.core.system.files import file_sha256
from nanosam_cli.core.system.journal import differences
from nanosam_cli.core.types import DECODER
from nanosam_cli.version import __version__


@dataclass(frozen=True)
class BuildOptions:
    """How to build, and what to prove with."""

    builder: BuildSettings
    thresholds: Thresholds
    photos: Sequence[ProofPhoto]
    calibration: Sequence[ProofPhoto]  # for int8
    prove: bool = True


def find_finished(plan: BuildPlan, job: EngineJob, settings: BuildOptions) -> SideCar | None:
    """The side-car of an engine that is there and was built as it would be now; None where there is none.

    OutputError where it was built in another way, which is named, or is not what its side-car describes.
    """
    if not job.engine.exists():
        return None
    try:
        sidecar = read_sidecar(job.engine)
        check_engine(job.engine, sidecar)
    except ModelError as error:
        raise OutputError(f"{job.engine} exists already, and is broken: {error}", AGAIN) from error
    now = decisions(plan, job, settings)
    before = {name: getattr(sidecar, name) for name in now}
    if changed := differences(_flat(before), _flat(now)):
        raise OutputError(f"{job.engine} exists already, built with other settings: {changed}", AGAIN)
    return sidecar


def decisions(plan: BuildPlan, job: EngineJob, settings: BuildOptions) -> dict[str, Any]:
    """The entries of a side-car that decide the engine, but for chance: known before it is built."""
    other = plan.encoder if job.part == DECODER else plan.decoder
    return {
        "onnx_sha256": file_sha256(job.onnx),
        "onnx_data": {name: file_sha256(job.onnx.parent / name) for name in external_files(job.onnx)},
        "target": plan.chosen.target,
        "precision_asked": job.precision_asked,
        "shapes": job.profile,
        "nanosam": __version__,
        "options": {
            "model": plan.spec.name,
            "workspace": settings.builder.workspace_mb,
            "builder_level": settings.builder.level,
            "calibration": _digest(settings.calibration) if job.precision == "int8" else None,
            "proof": {
                "photos": _digest(settings.photos),
                "with": None if other is None else file_sha256(other),
                **asdict(settings.thresholds),
            }
            if settings.prove
            else None,
        },
    }


def _flat(decisions: Mapping[str, Any]) -> dict[str, Any]:
    """Plain values, one a name, so that a message names what differs and no more."""
    options = decisions["options"]
    proof = options.get("proof")
    proof = proof if isinstance(proof, dict) else {}  # whatever stands in a side-car
    plain = {**decisions, **options, **{f"proof {name}": value for name, value in proof.items()}}
    plain["proof"] = bool(proof)
    plain["target"] = asdict(decisions["target"])
    plain["shapes"] = {name: asdict(shape) for name, shape in decisions["shapes"].items()}
    del plain["options"]
    flat: dict[str, Any] = json.loads(json.dumps(plain))
    return flat


def _digest(photos: Sequence[ProofPhoto]) -> str:
    """What tells photos from others."""
    digest = sha256()
    for photo in photos:
        digest.update(f"{photo.name} {photo.image.shape}".encode())
        digest.update(photo.image.tobytes())
    return digest.hexdigest()[:16]

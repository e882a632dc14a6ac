"""The versions of a file that a build tries, one after the other, each with its proof."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from time import perf_counter

import onnx

from nanosam_cli.core.engine.int8 import CPU, TENSORRT, Int8Ladder
from nanosam_cli.core.engine.ort_optimize import optimized
from nanosam_cli.core.engine.plan import EngineJob
from nanosam_cli.core.frame import Array
from nanosam_cli.core.graphs.graph import set_metadata, widened
from nanosam_cli.core.graphs.half_plan import BF16, FP16
from nanosam_cli.core.graphs.rewrites import rewrite
from nanosam_cli.core.inference.backends.onnxruntime import open_file
from nanosam_cli.core.inference.sidecar import Flavour
from nanosam_cli.core.precision.ladder import Ladder
from nanosam_cli.core.precision.ladder_step import Candidate, Prove, Step
from nanosam_cli.core.precision.proof import UNPROVED, Method, Proof
from nanosam_cli.core.precision.prover import Prover
from nanosam_cli.core.system.temporary import scratch_folder

QUICK_PROOF_PHOTOS = 3  # photos that a search looks at


def trials(job: EngineJob, backend: Flavour, prover: Prover | None, calibration: Sequence[Array]) -> Iterator[Step]:
    """Versions of one file, the one asked for first, the float32 original last. Without a prover none is proved."""
    model = widened(onnx.load(job.onnx))  # a builder takes what is stored in half for what computes in it
    # ONNX Runtime runs int8 and float32 as they are; what another runtime will do is emulated
    exact = backend == "onnxruntime" and job.precision in ("fp32", "int8")
    prove = _prove(job.part, prover, "run" if exact else "emulated")
    quick_proof = _prove(
        job.part, prover.narrowed(QUICK_PROOF_PHOTOS) if prover else None, "run" if exact else "emulated"
    )
    if job.precision == "fp32":
        yield _float_step(model, backend, prove)
    elif job.precision == "int8":
        scheme = CPU if backend == "onnxruntime" else TENSORRT
        yield from Int8Ladder(model, calibration, scheme, prove, quick_proof).steps()
    else:
        yield from Ladder(model, FP16 if job.precision == "fp16" else BF16, prove, quick_proof).steps()


def _float_step(model: onnx.ModelProto, backend: Flavour, prove: Prove) -> Step:
    """What ONNX Runtime's optimiser and the rewrites make of a file; TensorRT does all that by itself."""
    start = perf_counter()
    made = optimized(rewrite(optimized(model, "basic")), "extended") if backend == "onnxruntime" else model
    set_metadata(made, precision="fp32")
    made_in = perf_counter() - start
    proof, size = prove(Candidate(made)), made.ByteSize() / 1e6
    return Step("all in fp32", "fp32", (), proof, size, 0.0, perf_counter() - start, lambda: made, made_in)


def _prove(part: str, prover: Prover | None, method: Method) -> Prove:
    def prove(candidate: Candidate) -> Proof:
        if prover is None:
            return UNPROVED
        with scratch_folder() as folder:
            path = folder / "candidate.onnx"
            onnx.save(candidate.model, path)
            with closing(open_file(path, "cpu", None, fuse_int8=method == "run")) as session:
                return prover.prove(part, session, method, candidate.emulation)

    return prove

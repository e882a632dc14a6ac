"""What an export can be asked for: which files, in which shapes and precision, in whose contract."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from nanosam_cli.core.errors import UsageError
from nanosam_cli.core.types import DECODER, ENCODER

Precision = Literal["fp32", "fp16", "fp16-weights"]  # the last computes in float32, with weights stored in half

# The TorchScript exporter's opsets with LayerNormalization. 17, 18 and 20 give equal times on ONNX Runtime
# (docs/experiments/export.md); the oldest is read by the most runtimes.
OPSET = 17
ContractName = Literal["nanosam", "sam", "samexporter"]  # whose names and shapes the files have
CONTRACTS: tuple[ContractName, ...] = get_args(ContractName)
TEACHER, WHOLE, ALL = "teacher", "model", "all"
WHATS = (ENCODER, DECODER, TEACHER, ALL)


@dataclass(frozen=True)
class ExportOptions:
    """How files are made."""

    precision: Precision = "fp32"
    opset: int = OPSET
    batch: int | None = None  # images a run of the encoder; None: any number
    max_points: int | None = None  # N of the decoder; None: any number
    single_file: bool = False
    contract: ContractName = "nanosam"
    trainable: bool = False  # leave what the files lack, so that training can go on from them

    def names(self, what: str) -> tuple[str, ...]:
        """The files that exporting one of WHATS makes, without suffix. UsageError where an option has no use there."""
        if self.single_file and what != ALL:
            raise UsageError(f"--single-file is the whole model, not the {what} alone", "nanosam export all SOURCE ...")
        self._check_contract(what)
        if self.trainable and (what != ALL or self.single_file or self.contract != "nanosam"):
            raise UsageError("--trainable goes with encoder and decoder, in two files", "nanosam export all SOURCE ...")
        if self.batch is not None and (what == DECODER or self.single_file):
            raise UsageError("--batch is for image encoders", "leave it out")
        if self.max_points is not None and what in (ENCODER, TEACHER):
            raise UsageError("--max-points is for mask decoders", "leave it out")
        if self.single_file:
            return (WHOLE,)
        return (ENCODER, DECODER) if what == ALL else (what,)

    @property
    def is_plain(self) -> bool:
        """Whether nothing is asked of shapes and precision, so that ONNX files that are there will do."""
        return self == ExportOptions(contract=self.contract)

    def _check_contract(self, what: str) -> None:
        if self.contract == "nanosam":
            return
        if what == TEACHER or self.single_file:
            given = "--single-file" if self.single_file else "the teacher"
            raise UsageError(f"{given} has nanosam's contract alone", "leave --contract out")
        if self.contract == "sam" and what == ENCODER:
            raise UsageError(
                "sam is the contract of a mask decoder: segment-anything publishes no image encoder",
                "leave --contract out, or --contract samexporter for an encoder that takes pixels",
            )
        if self.contract == "samexporter" and self.batch is not None:
            raise UsageError("samexporter's image encoder takes one photo a run", "leave --batch out")

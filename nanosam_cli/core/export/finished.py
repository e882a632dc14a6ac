"""What an export has finished: each file's card ends with a record, by which the same command knows the file again."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from nanosam_cli.core.errors import OutputError
from nanosam_cli.core.export.options import Precision
from nanosam_cli.core.export.proof import ExportProof
from nanosam_cli.core.precision.agreement import MaskAgreement
from nanosam_cli.core.system.documents import parse_json
from nanosam_cli.core.system.files import file_sha256
from nanosam_cli.core.system.journal import differences

_BEGIN, _END = "<!-- nanosam export ", " -->"  # of the record, which Markdown does not show
AGAIN = "add `--force` to overwrite it, or give another folder"


@dataclass(frozen=True)
class Exported:
    """One file, and how far it is from the torch module it was made of."""

    part: str
    path: Path
    card: Path
    bytes: int
    precision: Precision
    proof: ExportProof

    def record(self) -> dict[str, Any]:
        """Plain values for JSON."""
        about = {"part": self.part, "path": str(self.path), "card": str(self.card)}
        return {**about, "bytes": self.bytes, "precision": self.precision, **asdict(self.proof)}


def card_path(path: Path) -> Path:
    """`encoder.onnx` -> `encoder.md`."""
    return path.with_suffix(".md")


def record_line(sha256: str, settings: Mapping[str, Any], proof: ExportProof) -> str:
    """The last line of a card: the file's hash, what it was made with, and its proof."""
    return f"{_BEGIN}{json.dumps({'sha256': sha256, 'settings': settings, 'proof': asdict(proof)})}{_END}\n"


def find_finished(path: Path, settings: Mapping[str, Any]) -> Exported | None:
    """The file that an earlier run finished and proved with the same `settings`; None where it is to be made.

    A card whose file is not there is what a killed run left, and in nobody's way. OutputError where there is a file of
    other settings, which are named, or of which no card says what it is.
    """
    card = card_path(path)
    record = _read_record(card)
    if record is None:
        for there in (path, card):
            if there.exists():
                raise OutputError(f"{there} exists already", AGAIN)
        return None
    sha256, before, proof = record
    if not path.exists():
        return None
    if file_sha256(path) != sha256:
        raise OutputError(f"{path} exists already, and is not the file that {card.name} speaks of", AGAIN)
    if changed := differences(before, settings):
        raise OutputError(f"{path} exists already, made with other settings: {changed}", AGAIN)
    return Exported(path.stem, path, card, path.stat().st_size, settings["precision"], proof)


def is_left_over(path: Path) -> bool:
    """Whether there is a card whose file never came."""
    return not path.exists() and _read_record(card_path(path)) is not None


def _read_record(card: Path) -> tuple[str, Mapping[str, Any], ExportProof] | None:
    """Hash, settings and proof in a card; None where there is no card of this program."""
    if not card.is_file():
        return None
    line = card.read_bytes().rstrip(b"\n").rpartition(b"\n")[2]
    if not (line.startswith(_BEGIN.encode()) and line.endswith(_END.encode())):
        return None
    try:
        record = parse_json(line[len(_BEGIN) : -len(_END)])
        masks = record["proof"]["mask_iou"]
        agreement = None if masks is None else MaskAgreement(**masks)
        return (
            str(record["sha256"]),
            dict(record["settings"]),
            ExportProof(**{**record["proof"], "mask_iou": agreement}),
        )
    except (ValueError, TypeError, KeyError, RecursionError):
        return None

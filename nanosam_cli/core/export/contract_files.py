"""A model's ONNX files in another tool's contract, without torch: each is proved against the file it was made of."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import onnx
from google.protobuf.message import DecodeError

from nanosam_cli.core.errors import ModelError, OutputError
from nanosam_cli.core.export.contract_proof import ContractProof, ContractProver, Original
from nanosam_cli.core.export.model_card import CardFacts, card_text
from nanosam_cli.core.export.options import ContractName
from nanosam_cli.core.graphs.contracts import sam_decoder, samexporter_encoder
from nanosam_cli.core.graphs.graph import metadata_of, set_metadata
from nanosam_cli.core.inference.backends.onnxruntime import open_file
from nanosam_cli.core.inference.contract import FACTS, encoder_image_size
from nanosam_cli.core.messages import Note
from nanosam_cli.core.system.files import atomic_write, check_writable, file_sha256, write_text
from nanosam_cli.core.types import DECODER, ENCODER
from nanosam_cli.version import __version__


@dataclass(frozen=True)
class Converted:
    """One file in another contract."""

    part: str
    path: Path
    card: Path
    bytes: int
    contract: ContractName
    original: Path
    proof: ContractProof

    def record(self) -> dict[str, Any]:
        """Plain values for JSON."""
        about = {"part": self.part, "path": str(self.path), "card": str(self.card), "bytes": self.bytes}
        return {**about, "contract": self.contract, "original": str(self.original), **asdict(self.proof)}


def convert_files(
    original: Original,
    folder: Path,
    contract: ContractName,
    *,
    overwrite: bool = False,
    note: Note = lambda _: None,
) -> list[Converted]:
    """Write `encoder.onnx`, `decoder.onnx` or both into `folder` in another contract, and a card beside each.

    Where the contract has nothing of its own to say of a part, such as sam of the encoder, that file is a copy.

    Raises:
        ModelError: a file is broken or outside this project's contract, or a converted one does not do the same.
        OutputError: a file exists already, or cannot be written.
    """
    places = {part: folder / f"{part}.onnx" for part in original.wanted}
    check_free(folder, [one for path in places.values() for one in (path, path.with_suffix(".md"))], overwrite)
    with ExitStack() as opened:
        proof = ContractProver(original, opened)
        return [_convert(part, path, contract, proof, overwrite, note) for part, path in places.items()]


def check_free(folder: Path, paths: Iterable[Path], overwrite: bool) -> None:
    """OutputError, before any work is done, where a file exists already or the folder cannot be written."""
    check_writable(folder)
    for path in paths:
        if path.exists() and not overwrite:
            raise OutputError(f"{path} exists already", "add `--force` to overwrite it, or give another folder")


def _convert(
    part: str, path: Path, contract: ContractName, prover: ContractProver, overwrite: bool, note: Note
) -> Converted:
    source = prover.original.files[part]
    model = read_model(source)
    image_size = _image_size(model, prover, part)
    note(f"{source.name} in the contract {contract}")
    if part == DECODER:
        model = sam_decoder(model, image_size)
    elif contract == "samexporter":
        model = samexporter_encoder(model, image_size, prover.original.mean, prover.original.std)
    stated = {**FACTS[part], **_OWN_FACTS.get((part, contract), {}), "nanosam.image_size": str(image_size)}
    entries = {key.removeprefix("nanosam."): value for key, value in stated.items()}
    source_sha256 = file_sha256(source)
    set_metadata(model, **{**entries, "contract": contract, "part": part, "onnx_sha256": source_sha256})
    with atomic_write(path, overwrite) as temporary:
        onnx.save(model, temporary)
        with closing(open_file(temporary, "cpu", None)) as session:
            note(f"proving {part}.onnx against {source.name}")
            proof = prover.prove(part, session, contract, image_size)
            inputs, outputs = session.inputs, session.outputs
    card = path.with_suffix(".md")
    facts = metadata_of(model)
    text = card_text(
        CardFacts(
            title=f"{facts.get('nanosam.model', source.stem)}: {_TITLES[part]}, contract {contract}",
            kind=part,
            file=path.name,
            sha256=file_sha256(path),
            made_from=source.name,
            source_sha256=source_sha256,
            licence=facts.get("nanosam.licence", "that of the file it was made from"),
            exporter=f"nanosam {__version__}, from ONNX",
            precision=facts.get("nanosam.precision", "as the file it was made from"),
            image_size=image_size,
            inputs=inputs,
            outputs=outputs,
            proof={
                **{f"largest difference of `{name}`": f"{value:.1e}" for name, value in proof.max_difference.items()},
                **({} if proof.mask_iou is None else {proof.mask_iou.title: proof.mask_iou.figures}),
            },
            remark="",
            contract=contract,
            proved="This file and the one it was made from",
        )
    )
    write_text(card, text, overwrite)
    return Converted(part, path, card, path.stat().st_size, contract, source, proof)


_TITLES = {ENCODER: "image encoder", DECODER: "mask decoder"}
_DECODERS = {
    "nanosam.masks": "logits at orig_im_size (height, width), the first output; the object is where they are above 0",
}
_OWN_FACTS: Mapping[tuple[str, str], Mapping[str, str]] = {
    (ENCODER, "samexporter"): {
        "nanosam.image": "input_image (height, width, 3), RGB from 0 to 255, longest side 1024; it is resized, "
        "normalised and padded inside",
    },
    (DECODER, "sam"): _DECODERS,
    (DECODER, "samexporter"): _DECODERS,
}


def read_model(path: Path) -> onnx.ModelProto:
    """An ONNX file. ModelError where it is none."""
    try:
        return onnx.load(path)
    except (DecodeError, OSError) as error:
        raise ModelError(f"{path} is not a whole ONNX file: {error}", "download or export it again") from error


def _image_size(model: onnx.ModelProto, prover: ContractProver, part: str) -> int:
    """S: of the encoder, which a decoder needs to know how photos were rounded."""
    if ENCODER in prover.sessions:
        return encoder_image_size(prover.sessions[ENCODER])
    text = metadata_of(model).get("nanosam.image_size")
    if text is None or not text.isdigit():
        raise ModelError(
            f"{prover.original.files[part]} does not say which image size it goes with",
            "nanosam export all MODEL --contract sam, of a model whose image encoder is there too",
        )
    return int(text)

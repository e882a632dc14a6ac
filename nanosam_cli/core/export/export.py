"""Checkpoint to ONNX files, each proved against torch before it gets its name, each with a model card beside it."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import onnx
import torch

from nanosam_cli.core.errors import OutputError
from nanosam_cli.core.export.finished import AGAIN, Exported, card_path, find_finished, is_left_over, record_line
from nanosam_cli.core.export.model_card import CardFacts, card_text
from nanosam_cli.core.export.options import ALL, WHOLE, ExportOptions, Precision
from nanosam_cli.core.export.parts import ExportPart, make_part
from nanosam_cli.core.export.proof import LIMITS, ExportProof, PhotoProof, prove_half
from nanosam_cli.core.export.source import ExportSource, load_source, with_decoder
from nanosam_cli.core.export.trainable import save_trainable
from nanosam_cli.core.frame import COORDINATE_SIZE
from nanosam_cli.core.graphs.half_convert import convert_to_fp16, stored_in_half
from nanosam_cli.core.graphs.half_emulate import emulate_half
from nanosam_cli.core.graphs.half_plan import FP16
from nanosam_cli.core.inference.backends.onnxruntime import open_file
from nanosam_cli.core.inference.contract import FACTS
from nanosam_cli.core.inference.session import Session, TensorInfo
from nanosam_cli.core.messages import Note
from nanosam_cli.core.precision.ranges import RangeWatch
from nanosam_cli.core.system.ending import disposable
from nanosam_cli.core.system.files import atomic_write, check_writable, file_sha256, write_text
from nanosam_cli.core.system.lock import only_run
from nanosam_cli.core.system.temporary import scratch_folder
from nanosam_cli.core.types import DECODER, ENCODER
from nanosam_cli.version import __version__

TRAINABLE = "weights.safetensors"
_CONVERSIONS: Mapping[Precision, Callable[[onnx.ModelProto], onnx.ModelProto]] = {
    "fp32": lambda model: model,
    "fp16": convert_to_fp16,
    "fp16-weights": stored_in_half,
}
_TITLES = {ENCODER: "image encoder", DECODER: "mask decoder", WHOLE: "photo and prompts to masks, in one file"}


def export_model(
    checkpoint: Path,
    folder: Path,
    what: str,
    options: ExportOptions | None = None,
    *,
    overwrite: bool = False,
    note: Note = lambda _: None,
) -> list[Exported]:
    """Write `encoder.onnx`, `decoder.onnx`, `teacher.onnx` or `model.onnx` into `folder`, and a card beside each.

    `what` is one of WHATS. `note` is told what is being done. Files that a run of the same settings finished before it
    was killed are kept, and what it left unfinished is cleared; where all are finished, nothing is to be done.

    Raises:
        InputError: the checkpoint is missing, broken, or another model's.
        ModelError: a file does not compute what torch does; that file is not kept.
        OutputError: a file exists already, is another run's, or cannot be written.
        UsageError: an option has no use for `what`.
    """
    options = options or ExportOptions()
    places = {name: folder / f"{name}.onnx" for name in options.names(what)}
    check_writable(folder)  # known before minutes are spent
    if options.trainable and (folder / TRAINABLE).exists() and not overwrite:
        raise OutputError(f"{folder / TRAINABLE} exists already", AGAIN)
    with disposable(), only_run(folder / "export"):
        kept = {} if overwrite else _find_kept(places, checkpoint, options, note)
        note(f"reading {checkpoint}")
        source = load_source(checkpoint)
        if what == ALL:
            source = with_decoder(source, note)
        parts = [make_part(name, source, options) for name in places]  # all of them, before one takes its time
        photos = None
        if source.decoder is not None:
            note("torch's own masks of the example photos")
            photos = PhotoProof(source.encoder, source.decoder, source.image_size, options.max_points)
        files = [
            kept.get(part.name) or export_part(part, source, path, options, photos, overwrite=overwrite, note=note)
            for part, path in zip(parts, places.values())
        ]
        if options.trainable:
            save_trainable(folder / TRAINABLE, source, places)
            note(f"{folder / TRAINABLE}: what training needs besides the two files")
        return files


def _find_kept(places: Mapping[str, Path], checkpoint: Path, options: ExportOptions, note: Note) -> dict[str, Exported]:
    """Files by part that need not be made again. OutputError where that is true of all, or other things are there."""
    if not any(place.exists() for path in places.values() for place in (path, card_path(path))):
        return {}
    sha256 = file_sha256(checkpoint) if checkpoint.is_file() else ""
    found = {name: find_finished(path, _settings(name, sha256, options)) for name, path in places.items()}
    kept = {name: file for name, file in found.items() if file is not None}
    if len(kept) == len(places):
        path = next(iter(places.values()))
        raise OutputError(f"{path} exists already, finished and proved by the same command", AGAIN)
    for file in kept.values():
        note(f"{file.path} is finished and proved by the same command: it is kept")
    for path in filter(is_left_over, places.values()):
        note(f"{card_path(path)} was left by a run that was killed, without its file: removed")
        card_path(path).unlink()
    return kept


def export_part(
    part: ExportPart,
    source: ExportSource,
    path: Path,
    options: ExportOptions,
    photos: PhotoProof | None,
    *,
    overwrite: bool = False,
    note: Note = lambda _: None,
) -> Exported:
    """Write and prove one file. `photos` are of the same source and options; None where it has no decoder."""
    note(f"tracing {part.name}")
    traced = to_onnx(part, options.opset)
    onnx.helper.set_model_props(traced, _metadata(part, source, options))
    card = card_path(path)
    with atomic_write(path, overwrite) as temporary:
        onnx.save(_CONVERSIONS[options.precision](traced), temporary)
        with _opened(temporary) as session:
            inputs, outputs = session.inputs, session.outputs
            if options.precision == "fp16":
                proof = _prove_half(part, traced, session, photos, note)
            else:
                proof = ExportProof.of(part, session, photos, LIMITS[options.precision], note)
        exported = Exported(part.name, path, card, temporary.stat().st_size, options.precision, proof)
        sha256 = file_sha256(temporary)
        facts = _card_facts(part, source, options, exported, sha256, inputs, outputs)
        record = record_line(sha256, _settings(part.name, source.sha256, options), proof)
        # before the file has its name: a kill leaves a card alone, and never a file of which nothing is known
        write_text(card, f"{card_text(facts)}\n{record}", overwrite)
    return exported


def _prove_half(
    part: ExportPart, traced: onnx.ModelProto, file: Session, photos: PhotoProof | None, note: Note
) -> ExportProof:
    emulation = emulate_half(traced, FP16)
    with scratch_folder() as folder:
        path = folder / f"{part.name}.onnx"
        onnx.save(emulation.model, path)
        with _opened(path) as session:
            return prove_half(part, file, RangeWatch(session, emulation), photos, note)


@contextmanager
def _opened(path: Path) -> Iterator[Session]:
    session = open_file(path, "cpu", None)
    try:
        yield session
    finally:
        session.close()


def to_onnx(part: ExportPart, opset: int) -> onnx.ModelProto:
    """Trace a part's module."""
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        # the TorchScript exporter is deprecated, and tracing remarks on shapes that are constants; the proof tells
        warnings.simplefilter("ignore")
        torch.onnx.export(
            part.module,
            part.examples[-1],
            buffer,  # type: ignore[arg-type]  # the TorchScript exporter takes streams
            input_names=list(part.inputs),
            output_names=list(part.outputs),
            dynamic_axes={name: dict(axes) for name, axes in part.free_axes.items()},
            opset_version=opset,
            dynamo=False,
        )
    model = onnx.load_from_string(buffer.getvalue())
    _declare_sides(model, part)
    onnx.checker.check_model(model)
    return model


def _declare_sides(model: onnx.ModelProto, part: ExportPart) -> None:
    """Say how long the fixed sides of outputs are, where the exporter could not tell."""
    unknown = [
        (dimension, index, axis)
        for index, value in enumerate(model.graph.output)
        for axis, dimension in enumerate(value.type.tensor_type.shape.dim)
        if not dimension.HasField("dim_value") and axis not in part.free_axes.get(value.name, {})
    ]
    if not unknown:
        return
    outputs = part.run(part.examples[0])
    for dimension, index, axis in unknown:
        dimension.dim_value = outputs[index].shape[axis]


def _metadata(part: ExportPart, source: ExportSource, options: ExportOptions) -> dict[str, str]:
    return {
        "nanosam.model": source.name,
        "nanosam.part": part.kind,
        "nanosam.image_size": str(source.image_size),
        "nanosam.coordinate_size": str(COORDINATE_SIZE),
        "nanosam.precision": "fp16" if options.precision == "fp16" else "fp32",
        "nanosam.source_sha256": source.sha256,
        "nanosam.exporter": _exporter(options),
        "nanosam.licence": source.licence,
        **(FACTS[part.kind] if part.kind in FACTS else {**FACTS[ENCODER], **FACTS[DECODER]}),
        **({} if source.steps is None else {"nanosam.steps": str(source.steps)}),
    }


def _exporter(options: ExportOptions) -> str:
    return f"nanosam {__version__}, torch {torch.__version__}, opset {options.opset}"


def _settings(name: str, sha256: str, options: ExportOptions) -> dict[str, Any]:
    """What decides a file, from a checkpoint with this hash."""
    return {
        "checkpoint": sha256,
        "exporter": _exporter(options),
        "precision": options.precision,
        "batch": None if name in (DECODER, WHOLE) else options.batch,
        "max_points": options.max_points if name in (DECODER, WHOLE) else None,
    }


def _card_facts(
    part: ExportPart,
    source: ExportSource,
    options: ExportOptions,
    exported: Exported,
    sha256: str,
    inputs: Sequence[TensorInfo],
    outputs: Sequence[TensorInfo],
) -> CardFacts:
    differences, masks = exported.proof.max_difference, exported.proof.mask_iou
    return CardFacts(
        title=f"{source.name}: {_TITLES[part.kind]}",
        kind=part.kind,
        file=exported.path.name,
        sha256=sha256,
        made_from=source.checkpoint.name,
        source_sha256=source.sha256,
        licence=source.licence,
        exporter=_exporter(options),
        precision=options.precision,
        image_size=source.image_size,
        inputs=inputs,
        outputs=outputs,
        proof={
            **{f"largest difference of `{name}`": f"{value:.1e}" for name, value in differences.items()},
            **({} if masks is None else {masks.title: masks.figures}),
        },
        remark=exported.proof.remark,
    )

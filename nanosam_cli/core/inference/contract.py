"""The two-file contract: what an image encoder and a mask decoder must look like, and what a pair leaves open."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from nanosam_cli.core.errors import ModelError
from nanosam_cli.core.frame import COORDINATE_SIZE, SAM_MEAN, SAM_STD
from nanosam_cli.core.inference.session import Session, TensorInfo
from nanosam_cli.core.types import DECODER, ENCODER

Shape = tuple[int | None, ...]

LARGEST_SIDE = 4096  # pixels of an encoder's square: four times Segment Anything's, 0.2 GB a photo
MOST_POINTS = 65_536  # of a decoder that takes so many, no fewer: each call is filled up to them

# Names are Segment Anything's and NVIDIA NanoSAM's; None where files differ. Order is free, other outputs are ignored.
INPUTS: Mapping[str, Mapping[str, Shape]] = {
    ENCODER: {"image": (None, 3, None, None)},
    DECODER: {
        "image_embeddings": (1, 256, 64, 64),
        "point_coords": (None, None, 2),
        "point_labels": (None, None),
        "mask_input": (None, 1, 256, 256),
        "has_mask_input": (None,),
    },
}
OUTPUTS: Mapping[str, Mapping[str, Shape]] = {
    ENCODER: {"image_embeddings": (None, 256, 64, 64)},
    DECODER: {"iou_predictions": (None, None), "low_res_masks": (None, None, 256, 256)},
}

# What a program must know beyond names and shapes, as every file says it of itself and every engine's side-car does.
# docs/contract.md is the same at length.
FACTS: Mapping[str, Mapping[str, str]] = {
    ENCODER: {
        "nanosam.contract": "nanosam",
        "nanosam.image": "RGB, longest side resized to the image size, (0..255 - mean) / std, then padded with zeros "
        "at the bottom and right",
        "nanosam.mean": ",".join(map(str, SAM_MEAN)),
        "nanosam.std": ",".join(map(str, SAM_STD)),
    },
    DECODER: {
        "nanosam.contract": "nanosam",
        "nanosam.point_coords": "x y in pixels of the photo, times the coordinate size / its longest side",
        "nanosam.point_labels": "1 on the object, 0 beside it, 2 and 3 a box's top left and bottom right, -1 padding, "
        "which also stands for a box that is not given",
        "nanosam.low_res_masks": "logits over the square: resize to the coordinate size, cut off the padding, resize "
        "to the photo; the object is where they are above 0. Mask 0 answers boxes, the others are readings of a point",
    },
}

_KNOWN = "give a file that `nanosam export`, segment-anything's own exporter or samexporter wrote"


@dataclass(frozen=True)
class Contract:
    """What one pair of files leaves open in the contract. Sides that are None are dynamic."""

    image_size: int  # S, side of the encoder's input
    coordinate_size: int  # side of the square that prompt coordinates live in
    prompts: int | None  # P: 1 where the decoder takes one prompt a call
    points: int | None  # N
    mask_prompts: int | None  # P of mask_input: 1 where one mask is shared by all prompts
    has_mask_prompts: int | None  # P of has_mask_input
    masks: int | None  # K


def read_contract(encoder: Session, decoder: Session) -> Contract:
    """What two files leave open. ModelError, naming the file, where one of them breaks the contract."""
    if _looks_like(DECODER, encoder) and _looks_like(ENCODER, decoder):
        raise ModelError(
            f"these look swapped: {encoder.path} is a mask decoder, {decoder.path} an image encoder",
            f"--encoder {decoder.path} --decoder {encoder.path}",
        )
    for part, session in ((ENCODER, encoder), (DECODER, decoder)):
        check_part(part, session)
    prompts, points, _ = _shape(decoder, "point_coords")
    if points is not None and points > MOST_POINTS:
        raise ModelError(f"{decoder.path} takes exactly {points} points a prompt; expected {MOST_POINTS} or fewer")
    if prompts not in (None, 1):
        raise ModelError(f"{decoder.path} takes exactly {prompts} prompts a call; expected 1 or any number")
    return Contract(
        image_size=_image_size(encoder),
        coordinate_size=_number(decoder, "nanosam.coordinate_size") or COORDINATE_SIZE,
        prompts=prompts,
        points=points,
        mask_prompts=_shape(decoder, "mask_input")[0],
        has_mask_prompts=_shape(decoder, "has_mask_input")[0],
        masks=next((info.shape[1] for info in decoder.outputs if info.name == "low_res_masks" and info.shape), None),
    )


def encoder_image_size(encoder: Session) -> int:
    """S of an image encoder alone. ModelError, naming the file, where it breaks the contract."""
    check_part(ENCODER, encoder)
    return _image_size(encoder)


def part_of(session: Session) -> str | None:
    """Which part of a model a file is, by its inputs; None where it is neither."""
    return next((part for part in INPUTS if _looks_like(part, session)), None)


def _looks_like(part: str, session: Session) -> bool:
    return {info.name for info in session.inputs} == INPUTS[part].keys()


def check_part(part: str, session: Session) -> None:
    """ModelError where a file breaks its part's side of the contract."""
    other = DECODER if part == ENCODER else ENCODER
    kind = {ENCODER: "an image encoder", DECODER: "a mask decoder"}
    if not _looks_like(part, session) or not OUTPUTS[part].keys() <= {info.name for info in session.outputs}:
        found = f"{_join(session.inputs)} -> {_join(session.outputs)}"
        what = kind[other] if _looks_like(other, session) else "not a SAM model file"
        raise ModelError(
            f"{session.path}, given as {part}, is {what}: "
            f"expected {', '.join(INPUTS[part])} -> {', '.join(OUTPUTS[part])}; found {found}",
            _KNOWN,
        )
    for tables, infos in ((INPUTS, session.inputs), (OUTPUTS, session.outputs)):
        for info in infos:
            wanted = tables[part].get(info.name)
            if wanted is None or (tables is OUTPUTS and not info.shape):  # some exporters give outputs no shape at all
                continue
            if info.dtype != "float32" or not _fits(wanted, info.shape):
                expected = TensorInfo(info.name, wanted, "float32")
                raise ModelError(f"{session.path} is not a usable {part}: expected {expected}; found {info}")


def _fits(wanted: Shape, found: Shape) -> bool:
    return len(wanted) == len(found) and all(want is None or got in (None, want) for want, got in zip(wanted, found))


def _image_size(encoder: Session) -> int:
    batch, _, height, width = _shape(encoder, "image")
    if batch not in (None, 1):
        raise ModelError(f"{encoder.path} takes exactly {batch} images a run; expected 1 or any number")
    size = height or width or _number(encoder, "nanosam.image_size")
    if size is None:
        raise ModelError(
            f"{encoder.path} takes images of any size and does not say which it was made for",
            "add its metadata entry nanosam.image_size, or export it with a fixed input size",
        )
    if size > LARGEST_SIDE:
        raise ModelError(f"{encoder.path} takes images of {size} pixels a side; expected {LARGEST_SIDE} or fewer")
    if (height or size) != (width or size):
        raise ModelError(f"{encoder.path} takes images of {width}x{height} pixels; expected a square")
    return size


def _shape(session: Session, name: str) -> Shape:
    return next(info.shape for info in session.inputs if info.name == name)


def _number(session: Session, key: str) -> int | None:
    text = session.metadata.get(key)
    if text is None:
        return None
    number = int(text) if text.isascii() and text.isdigit() and len(text) < 10 else 0
    if not 0 < number <= LARGEST_SIDE:
        raise ModelError(
            f"{session.path} has metadata {key}={text}; expected a number of pixels, {LARGEST_SIDE} at most"
        )
    return number


def _join(infos: tuple[TensorInfo, ...]) -> str:
    return ", ".join(info.name for info in infos)

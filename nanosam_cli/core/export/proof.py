"""An exported file against the torch module it was made of: its outputs on examples, and masks on real photos."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from nanosam_cli.core.datasets.coco import AnnotatedPhoto
from nanosam_cli.core.datasets.examples import example_photos
from nanosam_cli.core.errors import ModelError
from nanosam_cli.core.export.options import WHOLE, Precision
from nanosam_cli.core.export.parts import ExportPart
from nanosam_cli.core.graphs.half_plan import FP16
from nanosam_cli.core.inference.backends.torch import TorchSession
from nanosam_cli.core.inference.decoder_inputs import decoder_points
from nanosam_cli.core.inference.predictor import Predictor, PreparedImage
from nanosam_cli.core.inference.session import Session, host
from nanosam_cli.core.media.image import read_image
from nanosam_cli.core.messages import Note
from nanosam_cli.core.precision.agreement import MaskAgreement, Thresholds
from nanosam_cli.core.precision.ranges import RangeWatch
from nanosam_cli.core.types import DECODER, ENCODER, ImageEmbedding, Prompt

Masks = list[NDArray[np.bool_]]  # (H, W) each
_FAULT = "no file was kept; this is a fault of the exporter or of the model's code"
_TOO_COARSE = "no file was kept; --precision fp32"


@dataclass(frozen=True)
class Limits:
    """What a file may be off by."""

    output: float  # largest difference of an output, as a share of its largest value
    masks: Thresholds
    hint: str  # where it is off by more
    clicks: bool  # whether outputs of clicks alone are judged


# Where two readings of a click are about equally good, rounding to half may make a decoder take the other one.
LIMITS: Mapping[Precision, Limits] = {
    "fp32": Limits(1e-4, Thresholds(0.999, 0.99), _FAULT, clicks=True),
    "fp16": Limits(1e-2, Thresholds(), _TOO_COARSE, clicks=False),
    "fp16-weights": Limits(1e-2, Thresholds(0.99, 0.95), _TOO_COARSE, clicks=False),
}


@dataclass(frozen=True)
class ExportProof:
    """How far a file is from torch."""

    max_difference: dict[str, float]  # by output: largest absolute difference over all examples
    mask_iou: MaskAgreement | None  # None of an encoder that was trained for another model's decoder
    largest: float | None = None  # magnitude anywhere in a graph of half precision

    @property
    def remark(self) -> str:
        """What an fp16 proof is a proof of; empty for fp32."""
        if self.largest is None:
            return ""
        clicks = (
            " Clicks alone are left out of the differences: of two readings that are about equally good, half "
            "precision may take the other one."
        )
        return (
            "ONNX Runtime's CPU computes fp16 graphs in float32, so the figures are those of an emulation that rounds "
            f"after every node; the largest number in it is {self.largest:.4g}, and fp16 ends at {FP16.largest:g}."
            + (clicks if "iou_predictions" in self.max_difference else "")
        )

    @staticmethod
    def of(part: ExportPart, session: Session, photos: PhotoProof | None, limits: Limits, note: Note) -> ExportProof:
        """Compare a file, or the emulation of one, with torch. Raises ModelError beyond the limits."""
        note(f"proving {part.name} on made-up inputs")
        differences = prove_outputs(part, session, limits)
        if photos is None:
            return ExportProof(differences, None)
        note(f"proving {part.name} on the example photos")
        return ExportProof(differences, photos.compare(part.kind, session, limits))


def prove_half(
    part: ExportPart, file: Session, watched: RangeWatch, photos: PhotoProof | None, note: Note
) -> ExportProof:
    """The proof of an fp16 file.

    ONNX Runtime's CPU computes fp16 graphs in float32 and so hides what half precision loses. The file itself is only
    held against torch's outputs; the proof is that of its emulation, with the range of every node watched.
    """
    limits = LIMITS["fp16"]
    prove_outputs(part, file, limits)
    try:
        proof = ExportProof.of(part, watched, photos, limits, note)
    except ModelError:
        _check_range(part, watched)  # the cause, where that is it
        raise
    _check_range(part, watched)
    return replace(proof, largest=watched.largest)


def _check_range(part: ExportPart, watched: RangeWatch) -> None:
    """ModelError where a node left fp16's range: the first one, for what follows it is its fault."""
    if overflows := watched.overflows():
        raise ModelError(
            f"the {part.name} does not fit into fp16, which ends at {FP16.largest:g}: {overflows[0].place} reaches "
            f"{overflows[0].largest:.3g}",
            _TOO_COARSE,
        )


def prove_outputs(part: ExportPart, session: Session, limits: Limits) -> dict[str, float]:
    """Largest |torch - ONNX Runtime| of each output over the part's examples. Raises ModelError above the limit."""
    differences = dict.fromkeys(part.outputs, 0.0)
    for inputs in part.examples:
        left_out = () if limits.clicks or inputs is not part.examples[-1] else part.clicks
        found = session.run({name: tensor.numpy() for name, tensor in zip(part.inputs, inputs, strict=True)})
        for name, tensor in zip(part.outputs, part.run(inputs), strict=True):
            array = host(found[name])
            if array.dtype != np.float32 or not np.isfinite(array).all():
                raise ModelError(f"the exported {part.name} gives {name} as {_unlike(array)}", _FAULT)
            rows = [row for row in range(len(array)) if row not in left_out]
            difference = float(np.abs(array - tensor.numpy())[rows].max())
            differences[name] = max(differences[name], difference)
            if not difference <= limits.output * max(1.0, float(tensor.abs().max())):
                raise ModelError(
                    f"the exported {part.name} does not compute what torch does: {name} is off by {difference:.3g}",
                    limits.hint,
                )
    return differences


def _unlike(array: NDArray[Any]) -> str:
    return "numbers that are not finite" if array.dtype == np.float32 else f"{array.dtype}, not float32"


@dataclass(frozen=True, eq=False)
class _Reference:
    """What torch makes of one photo's annotated boxes."""

    photo: PreparedImage
    prompt: Prompt
    embedding: ImageEmbedding
    masks: Masks


class PhotoProof:
    """Torch's masks of the example photos, made once for all files of a model.

    `max_points` is that of the files: SAM's decoder gives padding points a say, so both sides need the same number.
    """

    def __init__(self, encoder: nn.Module, decoder: nn.Module, image_size: int, max_points: int | None = None) -> None:
        metadata = {"nanosam.image_size": str(image_size)}
        shapes = {"point_coords": (None, max_points, 2), "point_labels": (None, max_points)}
        self._predictor = Predictor(
            TorchSession(encoder, ENCODER, metadata), TorchSession(decoder, DECODER, {}, shapes)
        )
        self._references = [self._reference(photo) for photo in example_photos()]

    def compare(self, kind: str, session: Session, limits: Limits) -> MaskAgreement:
        """The file in the place of its part of the model. Raises ModelError below the limits."""
        run: Mapping[str, Callable[[Session, _Reference], Masks]] = {
            ENCODER: self._with_encoder,
            DECODER: self._with_decoder,
            WHOLE: self._with_both,
        }
        found = [mask for reference in self._references for mask in run[kind](session, reference)]
        wanted = [mask for reference in self._references for mask in reference.masks]
        agreement = MaskAgreement.of(found, wanted, len(self._references))
        if not agreement.reaches(limits.masks):
            raise ModelError(
                f"the exported {kind} gives other masks than torch: mean IoU {agreement.mean:.4f}, worst "
                f"{agreement.worst:.4f}; at least {limits.masks.mean_iou:g} and {limits.masks.worst_iou:g} are needed",
                limits.hint,
            )
        return agreement

    def _reference(self, photo: AnnotatedPhoto) -> _Reference:
        prepared = self._predictor.prepare_image(read_image(photo.path))
        prompt = Prompt.from_boxes([target.box for target in photo.objects])
        embedding = self._predictor.encode_image(prepared)
        return _Reference(prepared, prompt, embedding, _masks(self._predictor, embedding, prompt))

    def _with_encoder(self, session: Session, reference: _Reference) -> Masks:
        batch = session.inputs[0].shape[0] or 1
        found = session.run({"image": np.repeat(reference.photo.tensor, batch, axis=0)})["image_embeddings"]
        embedding = ImageEmbedding(host(found)[:1], reference.photo.frame)
        return _masks(self._predictor, embedding, reference.prompt)

    def _with_decoder(self, session: Session, reference: _Reference) -> Masks:
        return _masks(Predictor(self._predictor.encoder, session), reference.embedding, reference.prompt)

    def _with_both(self, session: Session, reference: _Reference) -> Masks:
        frame = reference.photo.frame
        coords, labels = decoder_points(reference.prompt, frame, self._predictor.contract.points)
        size = np.array(frame.original_hw, np.float32)
        inputs = {"image": reference.photo.tensor, "point_coords": coords, "point_labels": labels, "orig_im_size": size}
        return [masks[0] > 0 for masks in host(session.run(inputs)["masks"])]


def _masks(predictor: Predictor, embedding: ImageEmbedding, prompt: Prompt) -> Masks:
    return [segmentation.mask for segmentation in predictor.predict(embedding, prompt, select="single")]

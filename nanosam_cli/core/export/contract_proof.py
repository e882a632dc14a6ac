"""A file in another tool's contract against the file it was made of: its outputs, and masks of the example photos."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nanosam_cli.core.errors import ModelError
from nanosam_cli.core.export.options import ContractName
from nanosam_cli.core.frame import COORDINATE_SIZE, SAM_MEAN, SAM_STD, Array, Frame
from nanosam_cli.core.inference.backends.onnxruntime import open_file
from nanosam_cli.core.inference.contract import check_part
from nanosam_cli.core.inference.decoder_inputs import decoder_points
from nanosam_cli.core.inference.predictor import Predictor
from nanosam_cli.core.inference.session import Session, Tensor, host
from nanosam_cli.core.masks import Mask
from nanosam_cli.core.precision.agreement import MaskAgreement, Thresholds
from nanosam_cli.core.precision.photos import ProofPhoto, example_object_photos
from nanosam_cli.core.types import DECODER, ENCODER, ImageEmbedding, Prompt

_FAULT = "no file was kept; this is a fault of the conversion, please report it"
_LARGEST = 1e-4  # difference of an output, as a share of its largest value
_LARGEST_ROUNDED = 5e-2  # where the original rounds, as int8 does: a small difference of an input may become a step
# Pixels that go through 1,024 a side on their way to the model's size are resampled twice
_LIMITS = Thresholds(mean_iou=0.99, worst_iou=0.97)
_ODD_SIZES = ((427, 640), (611, 300), (301, 301))  # (height, width) of made-up photos


@dataclass(frozen=True)
class ContractProof:
    """How far a converted file is from the one it was made of."""

    max_difference: dict[str, float]  # by output: largest absolute difference
    mask_iou: MaskAgreement | None  # of the example photos; None without the other part of the model
    remark: str = ""


@dataclass(frozen=True)
class Original:
    """The files that are converted, and what they expect of a photo."""

    files: Mapping[str, Path]  # ENCODER, DECODER or both
    wanted: tuple[str, ...]  # the parts that are asked for; the others serve the proof
    mean: tuple[float, float, float] = SAM_MEAN
    std: tuple[float, float, float] = SAM_STD


class ContractProver:
    """The originals, opened, and what they make of made-up inputs and of the example photos."""

    def __init__(self, original: Original, opened: ExitStack) -> None:
        self.original = original
        self.sessions = {
            part: opened.enter_context(closing(open_file(path, "cpu", None))) for part, path in original.files.items()
        }
        for part, session in self.sessions.items():
            check_part(part, session)
            _check_frame(session)
        self._photos = example_object_photos() if len(self.sessions) == 2 else []

    def predictor(self) -> Predictor:
        """The originals together."""
        return Predictor(self.sessions[ENCODER], self.sessions[DECODER], self.original.mean, self.original.std)

    def prove(self, part: str, session: Session, contract: ContractName, image_size: int) -> ContractProof:
        """ModelError where the converted file does not do what the original does."""
        if part == ENCODER:
            differences = self._encoder_differences(session, contract, image_size)
        else:
            differences = self._decoder_differences(session, image_size)
        return ContractProof(differences, self._agreement(part, session) if self._photos else None)

    def _encoder_differences(self, session: Session, contract: ContractName, image_size: int) -> dict[str, float]:
        original, found = self.sessions[ENCODER], 0.0
        for number, original_hw in enumerate(_ODD_SIZES):
            frame_hw = Frame(original_hw, COORDINATE_SIZE).input_hw
            pixels = _noise(number).integers(0, 256, (*frame_hw, 3)).astype(np.float32)
            image = _resized_input(pixels, image_size, self.original)
            feeds: dict[str, Tensor] = {"input_image": pixels} if contract == "samexporter" else {"image": image}
            wanted = host(original.run({"image": image})["image_embeddings"])
            found = max(
                found, _difference(original, "image_embeddings", host(session.run(feeds)["image_embeddings"]), wanted)
            )
        return {"image_embeddings": found}

    def _decoder_differences(self, session: Session, image_size: int) -> dict[str, float]:
        original = self.sessions[DECODER]
        found = dict.fromkeys(("masks", "iou_predictions", "low_res_masks"), 0.0)
        for feeds, original_hw in zip(_made_up_prompts(original), _ODD_SIZES):
            wanted = {name: host(array) for name, array in original.run(feeds).items()}
            wanted["masks"] = Frame(original_hw, image_size).masks_to_original(wanted["low_res_masks"])
            outputs = session.run({**feeds, "orig_im_size": np.array(original_hw, np.float32)})
            for name in found:
                found[name] = max(found[name], _difference(original, name, host(outputs[name]), wanted[name]))
        return found

    def _agreement(self, part: str, session: Session) -> MaskAgreement:
        """Masks of boxes on the example photos, with the converted file in the place of the original."""
        mean, std = self.original.mean, self.original.std
        sessions = self.sessions
        plain = self.predictor()
        embeddings = [plain.encode_image(photo.image) for photo in self._photos]
        wanted = [
            segmentation.mask
            for photo, embedding in zip(self._photos, embeddings)
            for segmentation in plain.predict(embedding, photo.prompts, select="single")
        ]
        if part == DECODER:
            pairs = zip(self._photos, embeddings)
            masks = (_photo_masks(session, embedding, photo.prompts) for photo, embedding in pairs)
        else:
            other = Predictor(session, sessions[DECODER], mean, std)
            masks = (_read_masks(other, photo) for photo in self._photos)
        found = [mask for of_photo in masks for mask in of_photo]
        agreement = MaskAgreement.of(found, wanted, len(self._photos))
        if not agreement.reaches(_LIMITS):
            raise ModelError(
                f"the converted {part} gives other masks than the original: {agreement.figures}; at least "
                f"{_LIMITS.mean_iou:g} and {_LIMITS.worst_iou:g} are needed",
                _FAULT,
            )
        return agreement


def _read_masks(predictor: Predictor, photo: ProofPhoto) -> list[Mask]:
    embedding = predictor.encode_image(photo.image)
    return [segmentation.mask for segmentation in predictor.predict(embedding, photo.prompts, select="single")]


def _photo_masks(decoder: Session, embedding: ImageEmbedding, prompts: Prompt) -> list[Mask]:
    """What a client of segment-anything's decoder does: one prompt a call, masks at the photo's size."""
    points = next(info.shape[1] for info in decoder.inputs if info.name == "point_labels")
    coords, labels = decoder_points(prompts, embedding.frame, points)
    size = np.array(embedding.original_hw, np.float32)
    found = []
    for row in range(len(prompts)):
        feeds = no_mask_feeds(embedding.numpy(), coords[row : row + 1], labels[row : row + 1])
        found.append(np.asarray(host(decoder.run({**feeds, "orig_im_size": size})["masks"])[0, 0] > 0))
    return found


def _made_up_prompts(decoder: Session) -> Iterator[dict[str, Tensor]]:
    """Decoder inputs without end: a point, a box, and several points, over noise."""
    points = next(info.shape[1] for info in decoder.inputs if info.name == "point_labels")
    for number, marks in enumerate(([1, -1], [2, 3], [1, 0, 1, -1])):
        random = _noise(number)
        count = points or len(marks)
        labels = np.array([(marks + [-1] * count)[:count]], np.float32)
        coords = random.uniform(100, 300, (1, count, 2)).astype(np.float32)
        coords[:, 1] += 200
        yield no_mask_feeds(random.standard_normal((1, 256, 64, 64), np.float32), coords, labels)


def no_mask_feeds(embedding: Array, coords: Array, labels: Array) -> dict[str, Tensor]:
    """The decoder's inputs for one prompt without a mask: (1, ., 64, 64), (1, N, 2) and (1, N)."""
    return {
        "image_embeddings": embedding,
        "point_coords": coords,
        "point_labels": labels,
        "mask_input": np.zeros((1, 1, 256, 256), np.float32),
        "has_mask_input": np.zeros(1, np.float32),
    }


def _resized_input(pixels: Array, image_size: int, original: Original) -> Array:
    """(H, W, 3) in the frame -> (1, 3, S, S): area averages, normalised, zero-padded."""
    height, width = pixels.shape[:2]
    cells = Frame((height, width), image_size).input_hw
    rows, columns = (_area_weights(count, side) for count, side in zip((height, width), cells))
    small = np.einsum("ih,hwc,jw->ijc", rows, pixels, columns, optimize=True)
    tensor = np.zeros((1, 3, image_size, image_size), np.float32)
    tensor[0, :, : cells[0], : cells[1]] = ((small - original.mean) / original.std).transpose(2, 0, 1)
    return tensor


def _area_weights(pixels: int, cells: int) -> NDArray[np.float64]:
    """(cells, pixels) share of each pixel in each cell."""
    edges = np.arange(cells + 1) * pixels / cells
    starts = np.arange(pixels)
    overlap = np.minimum(edges[1:, None], starts + 1) - np.maximum(edges[:-1, None], starts)
    return np.asarray(np.clip(overlap, 0, None) * cells / pixels)


def _difference(original: Session, name: str, found: NDArray[np.float32], wanted: NDArray[np.float32]) -> float:
    exact = original.metadata.get("nanosam.precision", "fp32") == "fp32"
    largest = _LARGEST if exact else _LARGEST_ROUNDED
    difference = float(np.abs(found - wanted).max())
    if not difference <= largest * max(1.0, float(np.abs(wanted).max())):
        raise ModelError(f"the file converted from {original.path} has {name} off by {difference:.3g}", _FAULT)
    return difference


def _check_frame(session: Session) -> None:
    """ModelError where prompts live in another square than other tools take for granted."""
    found = session.metadata.get("nanosam.coordinate_size", str(COORDINATE_SIZE))
    if found != str(COORDINATE_SIZE):
        raise ModelError(
            f"{session.path} has prompts in a square of {found}; the contracts of other tools have {COORDINATE_SIZE}",
            "nanosam export all SOURCE, without --contract",
        )


def _noise(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)

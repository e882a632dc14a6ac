"""Photo and prompts to masks: an image encoder run once a photo, a mask decoder run once for up to 64 prompts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from nanosam_cli.core.errors import InputError, ModelError, UsageError
from nanosam_cli.core.frame import SAM_MEAN, SAM_STD, Array, Frame, PixelBox
from nanosam_cli.core.inference.contract import read_contract
from nanosam_cli.core.inference.decoder_inputs import check_prompt, decoder_points, split_prompts
from nanosam_cli.core.inference.other_contracts import as_contract
from nanosam_cli.core.inference.session import Session, Tensor, host
from nanosam_cli.core.media.image import read_image
from nanosam_cli.core.system.files import file_sha256
from nanosam_cli.core.timing import Timings
from nanosam_cli.core.types import PADDING, ImageEmbedding, Prompt, Segmentation, Segmentations, no_boxes

MAX_PROMPTS = 64  # in one decoder call: bounds memory at 64 MB of logits

Photo = NDArray[np.uint8] | str | Path | Image.Image
Select = Literal["auto", "single", "argmax", "multimask"]
Invalid = Literal["refuse", "skip"]


@dataclass(frozen=True, eq=False)
class PreparedImage:
    """A photo as the image encoder takes it."""

    tensor: Array  # (1, 3, S, S), normalised
    frame: Frame


class Predictor:
    """An image encoder and a mask decoder. It holds no image: embeddings belong to the caller.

    It closes its sessions on `close` or at the end of a `with` block. Threads may share it where they may share the
    sessions, as with ONNX Runtime's. `mean` and `std` normalise RGB in [0, 255]. Files of segment-anything's and
    samexporter's contracts are read as well. ModelError where the two files follow none that is known.
    """

    def __init__(
        self,
        encoder: Session,
        decoder: Session,
        mean: tuple[float, float, float] = SAM_MEAN,
        std: tuple[float, float, float] = SAM_STD,
    ) -> None:
        self.encoder, self.decoder = (as_contract(session, mean, std) for session in (encoder, decoder))
        self.contract = read_contract(self.encoder, self.decoder)
        self._mean = np.array(mean, np.float32)
        self._std = np.array(std, np.float32)

    def __enter__(self) -> Predictor:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self.encoder.close()
        self.decoder.close()

    def describe(self) -> dict[str, Any]:
        """What it runs, for a run's record. Plain values for JSON, the same for the same files and backends."""
        parts = {"encoder": self.encoder, "decoder": self.decoder}
        return {
            **{part: {"file": one.path.name, "sha256": file_sha256(one.path)} for part, one in parts.items()},
            "backend": sorted({one.backend for one in parts.values()}),
        }

    def frame(self, original_hw: tuple[int, int], window: PixelBox | None = None) -> Frame:
        """Where a photo of that size, or a window of it, lies in the model's square.

        UsageError where the window is empty or leaves the photo.
        """
        if window is not None:
            _check_window(window, original_hw)
        return Frame(original_hw, self.contract.image_size, self.contract.coordinate_size, window)

    def prepare_image(self, image: Photo, window: PixelBox | None = None) -> PreparedImage:
        """(H, W, 3) uint8 RGB, a path or a Pillow image -> the encoder's input.

        With a window, x0 y0 x1 y1 in whole pixels, of that part of the photo alone.

        It can be made in a thread of its own while the encoder runs.
        """
        pixels = _pixels(image)
        frame = self.frame((pixels.shape[0], pixels.shape[1]), window)
        return PreparedImage(frame.image_to_input(pixels, self._mean, self._std), frame)

    def encode_image(self, image: Photo | PreparedImage, timings: Timings | None = None) -> ImageEmbedding:
        """A photo -> features for any number of prompts.

        The photo is (H, W, 3) uint8 RGB, a path or a Pillow image (see `read_image`), or what `prepare_image` has made
        of it.
        """
        with (timings or Timings()).stage("encode"):
            prepared = image if isinstance(image, PreparedImage) else self.prepare_image(image)
            return ImageEmbedding(self.encoder.run({"image": prepared.tensor})["image_embeddings"], prepared.frame)

    def encode_window(self, image: Photo, window: PixelBox, timings: Timings | None = None) -> ImageEmbedding:
        """A part of a photo, x0 y0 x1 y1 in whole pixels, as large as the encoder sees a whole photo.

        Prompts for the embedding and masks from it stay in the photo's pixels. UsageError where the window is empty or
        leaves the photo.
        """
        with (timings or Timings()).stage("encode"):
            return self.encode_image(self.prepare_image(image, window))

    def predict(
        self,
        embedding: ImageEmbedding,
        prompt: Prompt,
        *,
        threshold: float = 0.0,
        select: Select = "auto",
        invalid: Invalid = "refuse",
        timings: Timings | None = None,
    ) -> Segmentations:
        """One segmentation for each of the P prompts, in their order.

        `threshold` cuts the logits. `select` takes one of the decoder's K masks:

        - single: mask 0, as SAM's `multimask_output=False`;
        - argmax: the best predicted IoU of all, as NanoSAM;
        - multimask: the best of masks 1 to 3 where K = 4, else of all, as with SAM's `multimask_output=True`;
        - auto: as SAM advises, the best of masks 1 to 3 for a single point, which is ambiguous, mask 0 for the rest.
          A file with K < 4 has no separate mask for unambiguous prompts: the best of those it has.

        Boxes are clipped to the photo; for what is refused see `check_prompt`. With `invalid="skip"` such prompts are
        left out, as a detector's stray boxes should be: `skipped` of the result has their places and why, `kept` those
        of the others.
        """
        if invalid not in get_args(Invalid):
            raise UsageError(f"unknown invalid: {invalid}", f"choose one of {', '.join(get_args(Invalid))}")
        if select not in get_args(Select):
            raise UsageError(f"unknown select: {select}", f"choose one of {', '.join(get_args(Select))}")
        timings = timings or Timings()
        found = []
        kept: list[int] = [*range(len(prompt))]
        skipped: dict[int, str] = {}
        if invalid == "skip":
            kept, skipped = split_prompts(prompt, embedding.original_hw, embedding.frame.window)
            prompt = prompt[kept] if skipped else prompt
        for rows, masks, ious in self.decode(embedding, prompt, timings):
            with timings.stage("post"):
                for row, index in enumerate(_choose(rows, ious, select)):
                    found.append(_segmentation(embedding.frame, masks[row, index], ious[row, index], index, threshold))
        return Segmentations(found, kept, skipped)

    def predict_multimask(
        self, embedding: ImageEmbedding, prompt: Prompt, *, threshold: float = 0.0, timings: Timings | None = None
    ) -> list[list[Segmentation]]:
        """Every reading of each prompt, as SAM's `multimask_output=True`: masks 1 to 3 where K = 4, else all K.

        They keep the decoder's order; `Segmentation.index` is their place among the K.
        """
        timings = timings or Timings()
        found = []
        for rows, masks, ious in self.decode(embedding, prompt, timings):
            with timings.stage("post"):
                indices = range(first_reading(ious), ious.shape[1])
                for row in range(len(rows)):
                    found.append(
                        [_segmentation(embedding.frame, masks[row, k], ious[row, k], k, threshold) for k in indices]
                    )
        return found

    def predict_logits(
        self, embedding: ImageEmbedding, prompt: Prompt, *, select: Select = "auto", timings: Timings | None = None
    ) -> tuple[Array, Array]:
        """Predict without masks at the photo's size -> logits (P, 256, 256) and predicted IoU (P,). See `predict`."""
        logits, scores = [np.empty((0, 256, 256), np.float32)], [np.empty(0, np.float32)]
        for rows, masks, ious in self.decode(embedding, prompt, timings):
            chosen = np.arange(len(rows)), _choose(rows, ious, select)
            logits.append(masks[chosen])
            scores.append(ious[chosen])
        return np.concatenate(logits), np.concatenate(scores)

    def decode(
        self, embedding: ImageEmbedding, prompt: Prompt, timings: Timings | None = None
    ) -> Iterator[tuple[Prompt, Array, Array]]:
        """For each decoder call: its prompts, low-resolution logits (P, K, 256, 256), predicted IoU (P, K).

        What `predict` makes its masks of; the logits cover the model's square, see `Frame.mask_to_original`.
        """
        timings = timings or Timings()
        for rows in self.decoder_calls(embedding, prompt):
            with timings.stage("decode"):
                outputs = self.decoder.run(self.decoder_feeds(embedding, rows))
                masks, ious = host(outputs["low_res_masks"]), host(outputs["iou_predictions"])
            if not np.isfinite(ious).all():
                raise ModelError(
                    f"{self.encoder.path} with {self.decoder.path} computed numbers that are not finite",
                    "an fp16 model overflows so: use fp32",
                )
            yield rows, masks, ious

    def decoder_calls(self, embedding: ImageEmbedding, prompt: Prompt) -> Iterator[Prompt]:
        """The prompts of each decoder call: at most MAX_PROMPTS, and as many as its file takes."""
        prompt = check_prompt(prompt, embedding.original_hw, embedding.frame.window)
        contract = self.contract
        one_mask = prompt.mask_logits is not None and 1 in (contract.mask_prompts, contract.has_mask_prompts)
        step = contract.prompts or (1 if one_mask else MAX_PROMPTS)
        for start in range(0, len(prompt), step):
            yield prompt[start : start + step]

    def decoder_feeds(self, embedding: ImageEmbedding, rows: Prompt) -> dict[str, Tensor]:
        """The decoder's inputs for the prompts of one call."""
        coords, labels = decoder_points(rows, embedding.frame, self.contract.points)
        if rows.mask_logits is None:
            masks = np.zeros((self.contract.mask_prompts or len(rows), 1, 256, 256), np.float32)
        else:
            masks = np.asarray(rows.mask_logits[:, None], np.float32)
        has_mask = np.full(self.contract.has_mask_prompts or len(rows), rows.mask_logits is not None, np.float32)
        prompts = {"point_coords": coords, "point_labels": labels, "mask_input": masks, "has_mask_input": has_mask}
        return {"image_embeddings": embedding.features, **prompts}


def _pixels(image: Photo) -> NDArray[np.uint8]:
    """(H, W, 3) uint8 RGB. InputError where it is something else, or cannot be read."""
    if isinstance(image, (str, Path, Image.Image)):
        return read_image(image)
    if not isinstance(image, np.ndarray):
        raise InputError(f"an image must be a numpy array, not {type(image).__name__}")
    if image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape or image.dtype != np.uint8:
        raise InputError(f"an image must be (H, W, 3) uint8 RGB, not {image.shape} {image.dtype}")
    return image


def _check_window(window: PixelBox, original_hw: tuple[int, int]) -> None:
    x0, y0, x1, y1 = window
    height, width = original_hw
    if not (0 <= x0 < x1 <= width and 0 <= y0 < y1 <= height):
        raise UsageError(
            f"the window {x0},{y0},{x1},{y1} is empty or leaves the photo, which is {width}x{height} pixels",
            f"give x0,y0,x1,y1 in whole pixels from 0,0,1,1 to 0,0,{width},{height}",
        )


def first_reading(ious: Array) -> int:
    """(P, K) predicted IoU -> where the readings of an ambiguous prompt begin: of four masks, 0 is for clear ones."""
    return 1 if ious.shape[1] == 4 else 0


def _choose(rows: Prompt, ious: Array, select: Select) -> list[int]:
    """Which of the K masks each prompt gets; see `Predictor.predict`."""
    if select == "single":
        return [0] * len(rows)
    first = 0 if select == "argmax" else first_reading(ious)
    best = first + ious[:, first:].argmax(1)
    if first == 1 and select == "auto":
        best = np.where(_ambiguous(rows), best, 0)
    return [int(index) for index in best]


def _ambiguous(rows: Prompt) -> NDArray[np.bool_]:
    """(P,) which prompts are a single point and nothing else."""
    if rows.labels is None or rows.mask_logits is not None:
        return np.zeros(len(rows), np.bool_)
    alone = np.count_nonzero(rows.labels != PADDING, axis=1) == 1
    return np.asarray(alone if rows.boxes is None else alone & no_boxes(rows.boxes)[:, 0])


def _segmentation(frame: Frame, low_res: Array, iou: np.float32, index: int, threshold: float) -> Segmentation:
    # one mask at a time: the photo-sized logits of a 12-megapixel photo are 48 MB. The copy lets the call's output go.
    return Segmentation(frame.mask_to_original(low_res, threshold), float(iou), low_res.copy(), index)

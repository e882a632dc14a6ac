"""Runs files in other precisions in place of the float32 originals, on photos, and says how far they are off."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np

from nanosam_cli.core.frame import Array, Frame
from nanosam_cli.core.graphs.half_emulate import Emulation
from nanosam_cli.core.inference.contract import encoder_image_size
from nanosam_cli.core.inference.predictor import Predictor
from nanosam_cli.core.inference.session import Session, Tensor
from nanosam_cli.core.masks import Mask
from nanosam_cli.core.precision.agreement import MaskAgreement, Thresholds
from nanosam_cli.core.precision.comparison import Outputs, compare_outputs, run
from nanosam_cli.core.precision.photos import ProofPhoto
from nanosam_cli.core.precision.proof import Method, Proof
from nanosam_cli.core.precision.ranges import RangeWatch
from nanosam_cli.core.types import ENCODER, ImageEmbedding
from nanosam_cli.core.zoo.models import ModelSpec


class Prover:
    """The originals, the photos, and what the one makes of the other (made once, when it is needed).

    `spec` gives the normalisation. Without a decoder there are no masks, and only encoders can be proved. A decoder is
    proved behind the encoder that was proved last, so that its proof is that of the whole pipeline. Sessions stay their
    owner's to close.
    """

    def __init__(
        self,
        encoder: Session,
        decoder: Session | None,
        photos: Sequence[ProofPhoto],
        thresholds: Thresholds,
        spec: ModelSpec,
    ) -> None:
        self._encoder, self._decoder, self._spec = encoder, decoder, spec
        self._photos, self._thresholds = photos, thresholds
        self._size = encoder_image_size(encoder)
        self._frames = [Frame(photo.image.shape[:2], self._size) for photo in photos]
        self._found: list[Outputs] | None = None  # by the encoder that was proved last

    def narrowed(self, count: int) -> Prover:
        """The same on the first photos alone and a little stricter, for searches."""
        return Prover(self._encoder, self._decoder, self._photos[:count], self._thresholds.stricter(), self._spec)

    def prove(self, part: str, session: Session, method: Method, emulation: Emulation | None = None) -> Proof:
        """Run one part's file, or what emulates it, in place of the original.

        `emulation` is what the session's file is, where that checks ranges.
        """
        feeds, expected = self._encoder_runs if part == ENCODER else self._decoder_runs
        watch = None if emulation is None else RangeWatch(session, emulation)
        found = run(watch or session, feeds, "found")
        outputs = compare_outputs(expected, found)
        if part == ENCODER:
            self._found = found
        agreement = None
        if self._decoder is not None and self._names:
            finite = all(error.not_finite == 0 for error in outputs)
            agreement = self._agreement(self._decoder if part == ENCODER else watch or session, finite)
        return Proof(
            method=method,
            photos=len(self._photos),
            prompts=0 if agreement is None else agreement.objects,
            outputs=outputs,
            thresholds=self._thresholds,
            mean_iou=None if agreement is None else agreement.mean,
            worst_iou=None if agreement is None else agreement.worst,
            worst_prompt=None if agreement is None else self._names[agreement.worst_prompt],
            overflows=() if watch is None else watch.overflows(),
        )

    @cached_property
    def _tensors(self) -> list[Array]:
        """The photos as an encoder takes them, (1, 3, S, S) each."""
        mean, std = np.array(self._spec.mean, np.float32), np.array(self._spec.std, np.float32)
        return [frame.image_to_input(photo.image, mean, std) for photo, frame in zip(self._photos, self._frames)]

    @cached_property
    def _encoder_runs(self) -> tuple[list[dict[str, Tensor]], list[Outputs]]:
        """Inputs of the encoder, and what the original makes of them."""
        feeds: list[dict[str, Tensor]] = [{"image": tensor} for tensor in self._tensors]
        return feeds, run(self._encoder, feeds, "expected")

    @cached_property
    def _decoder_runs(self) -> tuple[list[dict[str, Tensor]], list[Outputs]]:
        """Inputs of the decoder, and what the original makes of them."""
        assert self._decoder is not None, "a decoder is proved behind an encoder"
        predictor = self._predictor(self._decoder)
        feeds = [
            predictor.decoder_feeds(embedding, rows)
            for embedding, photo in zip(self._embeddings(self._encoder_runs[1]), self._photos)
            for rows in predictor.decoder_calls(embedding, photo.prompts)
        ]
        return feeds, run(self._decoder, feeds, "expected")

    @cached_property
    def _expected_masks(self) -> list[Mask]:
        """One entry a prompt, photo after photo."""
        assert self._decoder is not None
        return self._masks(self._decoder, self._encoder_runs[1])

    @cached_property
    def _names(self) -> list[str]:
        """What to call each prompt."""
        return [f"{photo.name}, box {row}" for photo in self._photos for row in range(len(photo.prompts))]

    def _agreement(self, decoder: Session, finite: bool) -> MaskAgreement:
        """The masks of two pipelines; of numbers that are not finite there are none, so that nothing agrees."""
        if not finite:
            return MaskAgreement(0.0, 0.0, len(self._names), len(self._photos))
        masks = self._masks(decoder, self._found or self._encoder_runs[1])
        return MaskAgreement.of(masks, self._expected_masks, len(self._photos))

    def _masks(self, decoder: Session, encoded: Sequence[Outputs]) -> list[Mask]:
        predictor = self._predictor(decoder)
        return [
            segmentation.mask
            for embedding, photo in zip(self._embeddings(encoded), self._photos)
            for segmentation in predictor.predict(embedding, photo.prompts)
        ]

    def _embeddings(self, encoded: Sequence[Outputs]) -> list[ImageEmbedding]:
        return [ImageEmbedding(run["image_embeddings"], frame) for run, frame in zip(encoded, self._frames)]

    def _predictor(self, decoder: Session) -> Predictor:
        return Predictor(self._encoder, decoder, self._spec.mean, self._spec.std)

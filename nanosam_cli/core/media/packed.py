"""Masks of which there may be thousands, kept compressed: as arrays they fill the memory of any machine."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import overload

import numpy as np

from nanosam_cli.core.masks import Mask, mask_window
from nanosam_cli.core.types import Segmentation


@dataclass(frozen=True, eq=False)
class PackedSegmentation:
    """A `Segmentation` without its logits, whose mask is decoded each time it is asked for."""

    predicted_iou: float
    index: int  # which of the decoder's K masks this is
    bbox: tuple[int, int, int, int] | None  # x y width height in original pixels, None where the mask is empty
    area: int  # pixels
    original_hw: tuple[int, int]
    _bits: bytes  # of what is in the box, eight pixels a byte, by zlib

    @staticmethod
    def of(one: Segmentation) -> PackedSegmentation:
        """The same, packed."""
        return PackedSegmentation._packed(one.mask, one.predicted_iou, one.index)

    @staticmethod
    def _packed(mask: Mask, predicted_iou: float, index: int) -> PackedSegmentation:
        hw, window = (mask.shape[0], mask.shape[1]), mask_window(mask)
        if window is None:
            return PackedSegmentation(predicted_iou, index, None, 0, hw, b"")
        rows, columns = window
        bbox = columns.start, rows.start, columns.stop - columns.start, rows.stop - rows.start
        bits = zlib.compress(np.packbits(mask[window]).tobytes(), 1)  # of 12 megapixels in 10 ms
        return PackedSegmentation(predicted_iou, index, bbox, int(np.count_nonzero(mask[window])), hw, bits)

    @property
    def mask(self) -> Mask:
        """(H, W), original pixels."""
        mask = np.zeros(self.original_hw, np.bool_)
        if self.bbox is not None:
            x, y, width, height = self.bbox
            bits = np.frombuffer(zlib.decompress(self._bits), np.uint8)
            inside = np.unpackbits(bits, count=width * height).view(np.bool_)
            mask[y : y + height, x : x + width] = inside.reshape(height, width)
        return mask

    def with_mask(self, mask: Mask) -> PackedSegmentation:
        """The same of another mask."""
        return PackedSegmentation._packed(mask, self.predicted_iou, self.index)


@dataclass(frozen=True, eq=False)
class PackedMasks(Sequence[Mask]):
    """The masks (H, W) of packed and other segmentations, decoded one by one as they are asked for."""

    segmentations: Sequence[Segmentation | PackedSegmentation]

    def __len__(self) -> int:
        return len(self.segmentations)

    @overload
    def __getitem__(self, place: int) -> Mask: ...
    @overload
    def __getitem__(self, place: slice) -> PackedMasks: ...
    def __getitem__(self, place: int | slice) -> Mask | PackedMasks:
        if isinstance(place, slice):
            return PackedMasks(self.segmentations[place])
        return self.segmentations[place].mask

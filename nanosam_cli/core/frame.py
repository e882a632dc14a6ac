"""Geometry between a photo and SAM's square input: one object for images, points, boxes and masks.

Three spaces: *original* (the photo's pixels), *input* (S x S, the longest side resized to S, padded at the bottom and
right), and *frame* (SAM's coordinate square, 1024 whatever S is). Resizing follows segment-anything's
`ResizeLongestSide` and `postprocess_masks`. The square may show a window of the photo in the place of the whole; then
too points, boxes and masks stay in the photo's pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image

# Segment Anything's normalisation, RGB in [0, 255]: ImageNet's times 255.
SAM_MEAN = (123.675, 116.28, 103.53)
SAM_STD = (58.395, 57.12, 57.375)

COORDINATE_SIZE = 1024  # side of the square that prompt coordinates live in, for every model of this contract

Array = NDArray[np.float32]
PixelBox = tuple[int, int, int, int]  # x0 y0 x1 y1, whole pixels of the photo, the last two exclusive


@dataclass(frozen=True)
class Frame:
    """Where a photo of `original_hw` pixels, or a window of it, lies in a model's square input of side `input_size`."""

    original_hw: tuple[int, int]
    input_size: int
    coordinate_size: int = COORDINATE_SIZE
    window: PixelBox | None = None  # the part of the photo that is shown; None: all of it

    @property
    def shown(self) -> PixelBox:
        """The part of the photo that is shown."""
        return self.window or (0, 0, self.original_hw[1], self.original_hw[0])

    @property
    def shown_hw(self) -> tuple[int, int]:
        """Height and width of the part that is shown, original pixels."""
        x0, y0, x1, y1 = self.shown
        return y1 - y0, x1 - x0

    @property
    def _rows_columns(self) -> tuple[slice, slice]:
        x0, y0, x1, y1 = self.shown
        return slice(y0, y1), slice(x0, x1)

    @property
    def input_hw(self) -> tuple[int, int]:
        """Height and width of the resized part, before padding; rounded as SAM does, never below one pixel."""
        height, width = self.shown_hw
        scale = self.input_size / max(height, width)
        return max(1, int(height * scale + 0.5)), max(1, int(width * scale + 0.5))

    @property
    def scale_xy(self) -> NDArray[np.float64]:
        """(2,) factors from original pixels to frame coordinates. The axes differ by the rounding of `input_hw`."""
        input_to_frame = self.coordinate_size / self.input_size
        (height, width), (input_height, input_width) = self.shown_hw, self.input_hw
        return np.array([input_width / width, input_height / height]) * input_to_frame

    def points_to_frame(self, points_xy: NDArray[np.floating]) -> Array:
        """(..., 2) x y in original pixels -> (..., 2) in the frame."""
        return np.asarray((points_xy - np.array(self.shown[:2])) * self.scale_xy, np.float32)

    def points_to_original(self, points_xy: NDArray[np.floating]) -> Array:
        """The inverse of `points_to_frame`."""
        return np.asarray(points_xy / self.scale_xy + np.array(self.shown[:2]), np.float32)

    def boxes_to_frame(self, boxes: NDArray[np.floating]) -> Array:
        """(..., 4) x0 y0 x1 y1 in original pixels -> (..., 4) in the frame."""
        return self.points_to_frame(boxes.reshape(*boxes.shape[:-1], 2, 2)).reshape(boxes.shape)

    def boxes_to_original(self, boxes: NDArray[np.floating]) -> Array:
        """The inverse of `boxes_to_frame`."""
        return self.points_to_original(boxes.reshape(*boxes.shape[:-1], 2, 2)).reshape(boxes.shape)

    def image_to_input(self, image: NDArray[np.uint8], mean: Array, std: Array) -> Array:
        """(H, W, 3) uint8 RGB -> (1, 3, S, S) float32: resized (antialiased bilinear), normalised, then zero-padded."""
        height, width = self.input_hw
        resized = Image.fromarray(image[self._rows_columns])
        if resized.size != (width, height):
            resized = resized.resize((width, height), Image.Resampling.BILINEAR)
        tensor = np.zeros((1, 3, self.input_size, self.input_size), np.float32)
        pixels = tensor[0, :, :height, :width]
        pixels[:] = np.asarray(resized).transpose(2, 0, 1)
        # (x - mean) / std, plane by plane: along the last axis numpy's loops would be three long, five times the time
        pixels *= (1 / std)[:, None, None]
        pixels -= (mean / std)[:, None, None]
        return tensor

    def masks_to_original(self, low_res: Array) -> Array:
        """Mask logits (..., h, w) over the whole square -> (..., H, W) over the photo.

        The same numbers as SAM's bilinear upscale to the frame, crop of the padding and bilinear resize to the photo,
        done as two small matrices because each step is linear and separable. Beside the part that is shown it is -inf.
        """
        rows, columns = self._mask_matrices(low_res.shape[-2], low_res.shape[-1])
        masks = [rows.times(columns.times(mask.T).T) for mask in low_res.reshape(-1, *low_res.shape[-2:])]
        shown = np.reshape(masks, (*low_res.shape[:-2], *self.shown_hw)).astype(np.float32, copy=False)
        if self.window is None:
            return shown
        whole = np.full((*low_res.shape[:-2], *self.original_hw), -np.inf, np.float32)
        rows_shown, columns_shown = self._rows_columns
        whole[..., rows_shown, columns_shown] = shown
        return whole

    def mask_to_original(self, low_res: Array, threshold: float) -> NDArray[np.bool_]:
        """One mask's logits (h, w) -> where `masks_to_original` has more than `threshold`, (H, W).

        Only the part of the photo is computed that can have it: bilinear interpolation never exceeds what it mixes.
        """
        rows, columns = self._mask_matrices(*low_res.shape)
        above = np.asarray(low_res > threshold)
        mask = np.zeros(self.original_hw, np.bool_)
        down, across = rows.touching(np.any(above, axis=1)), columns.touching(np.any(above, axis=0))
        if down and across:
            logits = down.times(across.times(low_res.T).T)
            mask[self._rows_columns][down.window, across.window] = logits > threshold
        return mask

    def masks_to_frame(self, masks: NDArray[np.bool_], low_res_hw: tuple[int, int] = (256, 256)) -> Array:
        """Masks (..., H, W) bool over the photo -> share of mask in each low-resolution cell, (..., h, w) in [0, 1]."""
        height, width = self.shown_hw
        rows = _area_matrix(height, self.input_hw[0] / self.input_size * low_res_hw[0], low_res_hw[0])
        columns = _area_matrix(width, self.input_hw[1] / self.input_size * low_res_hw[1], low_res_hw[1])
        rows_shown, columns_shown = self._rows_columns
        shown = masks[..., rows_shown, columns_shown].astype(np.float32)
        return np.asarray(rows @ (shown @ columns.T), np.float32)

    def _mask_matrices(self, low_height: int, low_width: int) -> tuple[Banded, Banded]:
        factor = self.coordinate_size / self.input_size
        (height, width), (input_height, input_width) = self.shown_hw, self.input_hw
        return (
            _upscale_crop_resize(low_height, self.coordinate_size, max(1, round(input_height * factor)), height),
            _upscale_crop_resize(low_width, self.coordinate_size, max(1, round(input_width * factor)), width),
        )


@dataclass(frozen=True, eq=False)
class Banded:
    """A matrix whose rows have their few entries side by side, as blocks of rows without most of the zeros.

    A dense product is a hundred times the work. And a product of one block is small enough for BLAS to stay in one
    thread; its threads would wait for those of the model's runtime, and these for them.
    """

    blocks: tuple[tuple[slice, slice, Array], ...]  # rows, columns, entries; in the order of the rows

    @staticmethod
    def of(matrix: Array, height: int = 16) -> Banded:
        """Cut a matrix into blocks of `height` rows."""
        blocks = []
        for start in range(0, len(matrix), height):
            rows = slice(start, min(start + height, len(matrix)))
            used = np.flatnonzero(matrix[rows].any(axis=0))
            columns = slice(int(used[0]), int(used[-1]) + 1)
            blocks.append((rows, columns, matrix[rows, columns].copy()))
        return Banded(tuple(blocks))

    def touching(self, used: NDArray[np.bool_]) -> Banded | None:
        """The blocks from the first to the last that have entries in the `used` columns, or None."""
        touched = [number for number, (_, columns, _) in enumerate(self.blocks) if used[columns].any()]
        return Banded(self.blocks[touched[0] : touched[-1] + 1]) if touched else None

    @property
    def window(self) -> slice:
        """The rows that its blocks cover."""
        return slice(self.blocks[0][0].start, self.blocks[-1][0].stop)

    def times(self, other: Array) -> Array:
        """The product with (columns, n), of the rows in `window`."""
        first = self.window.start
        product = np.empty((self.window.stop - first, other.shape[1]), np.float32)
        for rows, columns, entries in self.blocks:
            np.matmul(entries, other[columns], out=product[rows.start - first : rows.stop - first])
        return product


@lru_cache(maxsize=16)
def _upscale_crop_resize(low: int, full: int, cropped: int, original: int) -> Banded:
    """(original, low) matrix: bilinear low -> full, keep the first `cropped`, bilinear -> original."""
    return Banded.of(np.asarray(_bilinear(_bilinear(np.eye(low), full)[:cropped], original), np.float32))


def _bilinear(rows: NDArray[np.float64], target: int) -> NDArray[np.float64]:
    """(source, n) -> (target, n): bilinear interpolation with half-pixel centres, without antialiasing (as torch's)."""
    source = len(rows)
    positions = np.clip((np.arange(target) + 0.5) * source / target - 0.5, 0, source - 1)
    left = np.minimum(positions.astype(int), max(source - 2, 0))
    share = (positions - left)[:, None]
    return np.asarray(rows[left] * (1 - share) + rows[np.minimum(left + 1, source - 1)] * share)


@lru_cache(maxsize=16)
def _area_matrix(source: int, covered: float, target: int) -> Array:
    """(target, source) matrix of area averages: `source` pixels spread over the first `covered` of `target` cells."""
    edges = np.linspace(0, covered, source + 1)  # pixel borders, in cells
    cells = np.arange(target)[:, None]
    overlap = np.minimum(edges[None, 1:], cells + 1) - np.maximum(edges[None, :-1], cells)
    return np.asarray(np.clip(overlap, 0, None), np.float32)

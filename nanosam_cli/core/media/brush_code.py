"""Label Studio's run-length code of a brush region: bits of an RGBA picture, row by row, whose alpha is the mask.

The format is that of @thi.ng/rle-pack, as Label Studio's editor reads it: 32 bits with the number of values, 5 with the
bits of a value less one, four times 4 with the bits of a run's length less one; then the runs, each a 1, two bits that
choose one of the four, the length less one and the value.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from nanosam_cli.core.masks import Mask

_CHANNELS = 4
_VALUE_BITS = 8
_LENGTH_BITS = np.array([3, 4, 8, 16])
_LONGEST = 1 << 16  # of one run


def mask_to_brush(mask: Mask) -> list[int]:
    """(H, W) -> the code's bytes, which Label Studio keeps as a list of numbers; all channels are 255 in the mask."""
    flat = mask.ravel()
    starts = np.concatenate([[0], np.flatnonzero(flat[1:] != flat[:-1]) + 1])
    lengths = np.diff(np.append(starts, flat.size)) * _CHANNELS
    pieces = -(-lengths // _LONGEST)  # of each run
    values = np.repeat(np.where(flat[starts], 255, 0), pieces)
    ends = np.cumsum(pieces)
    lengths_of_pieces = np.full(ends[-1], _LONGEST)
    lengths_of_pieces[ends - 1] = lengths - (pieces - 1) * _LONGEST
    kinds = np.searchsorted(1 << _LENGTH_BITS, lengths_of_pieces)
    sizes = _LENGTH_BITS[kinds]
    codes = ((((0b100 | kinds) << sizes) | (lengths_of_pieces - 1)) << _VALUE_BITS) | values
    header = [(flat.size * _CHANNELS, 32), (_VALUE_BITS - 1, 5), *((bits - 1, 4) for bits in _LENGTH_BITS.tolist())]
    bits = np.concatenate(
        [
            _bits(np.array([code for code, _ in header]), np.array([count for _, count in header])),
            _bits(codes, 3 + sizes + _VALUE_BITS),
        ]
    )
    packed: list[int] = np.packbits(bits).tolist()
    return packed


def _bits(numbers: NDArray[np.int64], counts: NDArray[np.int64]) -> NDArray[np.uint8]:
    """The last `counts` bits of each number, the highest first, one after the other."""
    places = np.arange(counts.max())
    shifts = counts[:, None] - 1 - places
    bits = (numbers[:, None] >> np.maximum(shifts, 0)) & 1
    return bits[shifts >= 0].astype(np.uint8)

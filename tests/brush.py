"""Reads Label Studio's brush code bit by bit, as its format says."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from nanosam_cli.core.masks import Mask


def brush_to_mask(code: Sequence[int], hw: tuple[int, int]) -> Mask:
    """The code's bytes -> (H, W); all four channels must say the same, and nothing but zeros may follow."""
    bits = "".join(f"{byte:08b}" for byte in code)
    place = 0

    def read(count: int) -> int:
        nonlocal place
        place += count
        return int(bits[place - count : place], 2)

    number, value_bits = read(32), read(5) + 1
    length_bits = [read(4) + 1 for _ in range(4)]
    values: list[int] = []
    while len(values) < number:
        repeated = read(1)
        length = read(length_bits[read(2)]) + 1
        values += [read(value_bits)] * length if repeated else [read(value_bits) for _ in range(length)]
    assert set(bits[place:]) <= {"0"}
    pixels = np.array(values).reshape(*hw, 4)
    assert (pixels == pixels[..., :1]).all()
    assert set(np.unique(pixels)) <= {0, 255}
    return np.asarray(pixels[..., 3] == 255)

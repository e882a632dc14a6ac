from __future__ import annotations

import numpy as np
import pytest

from nanosam_cli.core.media.packed import PackedMasks, PackedSegmentation
from nanosam_cli.core.types import Segmentation

RANDOM = np.random.default_rng(0)


def mask_of(kind: str, hw: tuple[int, int] = (37, 53)) -> np.ndarray:
    mask = np.zeros(hw, bool)
    if kind == "noise":
        mask[5:30, 7:50] = RANDOM.random((25, 43)) > 0.5
    elif kind == "full":
        mask[:] = True
    elif kind == "one pixel":
        mask[36, 52] = True
    return mask


@pytest.mark.parametrize("kind", ["noise", "full", "one pixel", "empty"])
def test_a_mask_comes_back_as_it_was(kind: str) -> None:
    whole = Segmentation(mask_of(kind), 0.75, np.zeros((256, 256), np.float32), 2)
    packed = PackedSegmentation.of(whole)
    assert packed.mask.dtype == bool
    np.testing.assert_array_equal(packed.mask, whole.mask)
    for name in ("predicted_iou", "index", "bbox", "area"):
        assert getattr(packed, name) == getattr(whole, name)
    other = packed.with_mask(~whole.mask)
    np.testing.assert_array_equal(other.mask, ~whole.mask)
    assert (other.area, other.index) == (whole.mask.size - whole.area, 2)


def test_a_list_of_them_decodes_what_is_asked_for() -> None:
    kinds = ["noise", "empty", "full"]
    masks = [mask_of(kind) for kind in kinds]
    found = PackedMasks([PackedSegmentation.of(Segmentation(m, 0.5, np.zeros((256, 256), np.float32))) for m in masks])
    assert len(found) == 3
    np.testing.assert_array_equal(found[-1], masks[2])
    for one, mask in zip(found, masks, strict=True):
        np.testing.assert_array_equal(one, mask)
    assert [one.sum() for one in found[1:]] == [0, masks[2].size]

"""Masks for people to look at."""

from __future__ import annotations

import io
import sys

import numpy as np
import pytest
from PIL import Image

from nanosam_cli.core.errors import MissingExtraError, UsageError
from nanosam_cli.core.types import Segmentation

MASK = np.zeros((60, 90), bool)
MASK[10:30, 20:50] = True
ONE = Segmentation(MASK, 0.75, np.zeros((256, 256), np.float32))


@pytest.fixture(autouse=True)
def _no_window(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MPLBACKEND", "agg")


def test_a_notebook_shows_the_mask() -> None:
    with Image.open(io.BytesIO(ONE._repr_png_())) as picture:
        np.testing.assert_array_equal(np.asarray(picture) == 255, MASK)


def test_a_large_mask_is_shown_small() -> None:
    large = Segmentation(np.ones((1000, 4000), bool), 0.5, ONE.low_res_logits)
    with Image.open(io.BytesIO(large._repr_png_())) as picture:
        assert picture.size == (480, 120)


@pytest.mark.parametrize("image", [None, np.full((60, 90, 3), 200, np.uint8)])
def test_a_plot_has_the_mask_over_its_photo(image: np.ndarray | None) -> None:
    plt = pytest.importorskip("matplotlib.pyplot")
    _, ax = plt.subplots()
    assert ONE.plot(image, ax) is ax
    below, above = (np.asarray(picture.get_array()) for picture in ax.images)
    assert below.shape == (60, 90, 3)
    np.testing.assert_array_equal(above[..., 3] > 0, MASK)
    assert ax.get_title() == "600 pixels, IoU 0.75 predicted"
    plt.close("all")


def test_show_makes_a_figure_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    plt = pytest.importorskip("matplotlib.pyplot")
    shown = []
    monkeypatch.setattr(plt, "show", lambda: shown.extend(plt.get_fignums()))
    ONE.show()
    assert len(shown) == 1
    plt.close("all")


def test_a_photo_of_another_size_is_refused() -> None:
    with pytest.raises(UsageError, match=r"the photo is \(5, 5\), the mask \(60, 90\)"):
        ONE.plot(np.zeros((5, 5, 3), np.uint8))


def test_without_matplotlib_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    with pytest.raises(MissingExtraError) as caught:
        ONE.plot()
    assert caught.value.hint == "pip install 'nanosam-cli[plot]'"

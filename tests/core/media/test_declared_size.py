"""Coordinates of another size than the photo has."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from nanosam_cli.core.errors import InputError
from nanosam_cli.core.media.declared_size import DeclaredPhoto, fit_size
from nanosam_cli.core.media.image import read_image


@pytest.mark.parametrize("orientation", [5, 6, 7, 8])
def test_what_was_drawn_on_the_stored_pixels_is_turned_as_the_photo_is(tmp_path: Path, orientation: int) -> None:
    """A box, a point and a mask on something white lie on it in the picture that is shown too."""
    stored = np.zeros((30, 20, 3), np.uint8)
    stored[3:9, 4:14] = 255
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(stored).save(tmp_path / "a.png", exif=exif)
    shown = read_image(tmp_path / "a.png")
    fit = DeclaredPhoto(tmp_path / "a.png", (30, 20)).fit((shown.shape[0], shown.shape[1]))
    assert fit is not None
    assert "turned" in fit.note
    ((x0, y0, x1, y1),) = fit.boxes(np.array([[4, 3, 14, 9]])).astype(int)
    assert (shown[y0:y1, x0:x1] == 255).all()
    assert np.count_nonzero(shown[..., 0]) == (y1 - y0) * (x1 - x0)
    np.testing.assert_array_equal(fit.mask(stored[..., 0] > 0), shown[..., 0] > 0)
    x, y = fit.points(np.array([4.5, 8.5])).astype(int)
    assert shown[y, x, 0] == 255
    assert fit.area_scale == 1


@pytest.mark.parametrize(
    ("declared", "shown", "scale"),
    [
        ((480, 640), (240, 320), 0.5),
        ((240, 320), (480, 640), 2),
        ((1365, 2048), (427, 640), 0.3125),  # 426.56, rounded
        ((1000, 1333), (600, 799), 0.6),  # 799.8, rounded down
    ],
)
def test_what_was_drawn_on_a_larger_or_smaller_copy_is_scaled(
    declared: tuple[int, int], shown: tuple[int, int], scale: float
) -> None:
    fit = fit_size("a.jpg", declared, shown, lambda: 1)
    assert fit is not None
    assert "scaled" in fit.note
    np.testing.assert_allclose(
        fit.boxes(np.array([[10, 20, 30, 40.0]])), [[10 * scale, 20 * scale, 30 * scale, 40 * scale]], rtol=2e-3
    )
    assert fit.mask(np.ones(declared, bool)).shape == shown


def test_a_turned_and_scaled_copy() -> None:
    fit = fit_size("a.jpg", (640, 480), (240, 320), lambda: 6)
    assert fit is not None
    assert fit.boxes(np.array([[0, 0, 480, 320.0]])).tolist() == [[160, 0, 320, 240]]


def test_inverted_boxes_stay_inverted_and_missing_ones_missing() -> None:
    fit = fit_size("a.jpg", (20, 20), (10, 10), lambda: 1)
    assert fit is not None
    found = fit.boxes(np.array([[8, 8, 4, 4], [np.nan] * 4]))
    assert found[0].tolist() == [4, 4, 2, 2]
    assert np.isnan(found[1]).all()


def test_the_same_size_is_never_looked_into() -> None:
    assert fit_size("a.jpg", (3, 4), (3, 4), lambda: 1 // 0) is None


@pytest.mark.parametrize(
    ("declared", "shown", "orientation"),
    [
        ((320, 240), (240, 320), 1),  # turned, though the photo does not say so
        ((320, 240), (240, 320), 3),
        ((480, 500), (240, 320), 1),  # another shape
        ((60, 80), (59, 80), 1),  # cropped
        ((0, 0), (240, 320), 1),
    ],
)
def test_other_sizes_are_refused_with_both(declared: tuple[int, int], shown: tuple[int, int], orientation: int) -> None:
    words = f"a.jpg is {shown[1]}x{shown[0]} pixels, annotated as {declared[1]}x{declared[0]}"
    with pytest.raises(InputError, match=words) as caught:
        fit_size("a.jpg", declared, shown, lambda: orientation)
    assert caught.value.hint


def test_pillow_turns_as_we_do(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("L", (20, 30)).save(tmp_path / "a.jpg", exif=exif)
    with Image.open(tmp_path / "a.jpg") as image:
        assert ImageOps.exif_transpose(image).size == (30, 20)
    assert DeclaredPhoto(tmp_path / "none.jpg", (3, 4)).fit((3, 4)) is None

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from nanosam_cli.core.errors import UsageError
from nanosam_cli.core.masks import mask_window
from nanosam_cli.core.media.render import (
    FILL,
    GREEN,
    PALETTE,
    RED,
    cutout,
    label_map,
    object_colour,
    overlap,
    overlay,
    separate_masks,
)


def masks(*drawings: str) -> NDArray[np.bool_]:
    """Masks drawn as rows of `#` and `.`, split by blanks."""
    return np.array([[[pixel == "#" for pixel in row] for row in drawing.split()] for drawing in drawings])


GREY = np.full((60, 80, 3), 100, np.uint8)


def rectangle(x0: int, y0: int, x1: int, y1: int, height: int = 60, width: int = 80) -> NDArray[np.bool_]:
    mask = np.zeros((height, width), bool)
    mask[y0:y1, x0:x1] = True
    return mask


@pytest.mark.parametrize(
    ("drawing", "window"),
    [
        ("... ...", None),
        ("#", (slice(0, 1), slice(0, 1))),
        ("... .#. ...", (slice(1, 2), slice(1, 2))),
        ("#.. ... ..#", (slice(0, 3), slice(0, 3))),
        (".... .##. ....", (slice(1, 2), slice(1, 3))),
    ],
)
def test_mask_window(drawing: str, window: tuple[slice, slice] | None) -> None:
    assert mask_window(masks(drawing)[0]) == window


@pytest.mark.parametrize(
    ("stack", "labels"),
    [
        (masks("#.. ..."), [[1, 0, 0], [0, 0, 0]]),
        (masks("#.. ...", ".## ..."), [[1, 2, 2], [0, 0, 0]]),
        (masks("### ###", ".#. ..."), [[1, 2, 1], [1, 1, 1]]),  # the smaller lies on top
        (masks(".#. ...", "### ###"), [[2, 1, 2], [2, 2, 2]]),  # also where it comes first
        (masks("##. ...", ".## ..."), [[1, 2, 2], [0, 0, 0]]),  # of equal ones the later
        (masks("... ...", "..# ..."), [[0, 0, 2], [0, 0, 0]]),  # an empty mask keeps its number
        (np.zeros((0, 2, 3), bool), [[0, 0, 0], [0, 0, 0]]),
    ],
)
def test_label_map(stack: NDArray[np.bool_], labels: list[list[int]]) -> None:
    np.testing.assert_array_equal(label_map(stack), labels)
    np.testing.assert_array_equal(label_map(list(stack), (2, 3)), labels)
    assert label_map(stack).dtype == np.uint8


@pytest.mark.parametrize(("count", "dtype"), [(255, "uint8"), (256, "uint16")])
def test_label_map_of_many_objects(count: int, dtype: str) -> None:
    labels = label_map(np.eye(count, dtype=bool)[:, None])
    assert labels.dtype == dtype
    np.testing.assert_array_equal(labels, [np.arange(count) + 1])


@pytest.mark.parametrize(
    ("stack", "original_hw"),
    [
        ([], None),
        ([rectangle(0, 0, 1, 1, 4, 4), rectangle(0, 0, 1, 1, 4, 5)], None),
        ([rectangle(0, 0, 1, 1, 4, 4)], (4, 5)),
        ([np.zeros((1, 4, 4), bool)], None),
        ([np.zeros((4, 4), np.uint8)], None),
        (np.zeros((65536, 1, 1), bool), None),
    ],
)
def test_label_map_of_what_fits_no_map(stack: Any, original_hw: tuple[int, int] | None) -> None:
    with pytest.raises(UsageError, match=r"one shape|at most 65535|of bool"):
        label_map(stack, original_hw)


def test_separate_masks_undoes_label_map() -> None:
    stack = masks("##.. ....", "...# ....", ".... ....", ".... .##.")
    separated = separate_masks(label_map(stack))
    assert list(separated) == [1, 2, 4]
    for label, mask in separated.items():
        np.testing.assert_array_equal(mask, stack[label - 1])
    assert separate_masks(np.zeros((2, 2), np.uint16)) == {}


@pytest.mark.parametrize(
    ("stack", "expected"),
    [
        ([], False),
        (masks("##"), False),
        (masks("#.", ".#"), False),
        (masks("##", ".#"), True),
        (masks("#..", "..#", "#.#"), True),
        (masks("...", "###"), False),
        (masks("#.# #.#", ".#. .#."), False),  # their boxes overlap, they do not
    ],
)
def test_overlap(stack: Any, expected: bool) -> None:
    assert overlap(stack) is expected


def test_the_palette_is_that_of_pascal_voc_and_davis() -> None:
    known = {0: (0, 0, 0), 1: (128, 0, 0), 2: (0, 128, 0), 3: (128, 128, 0), 4: (0, 0, 128), 15: (192, 128, 128)}
    known |= {8: (64, 0, 0), 12: (64, 0, 128), 255: (224, 224, 192)}
    for label, colour in known.items():
        assert tuple(PALETTE[label]) == colour
    assert len(np.unique(PALETTE, axis=0)) == 256


def test_object_colours_differ() -> None:
    colours = np.array([object_colour(index) for index in range(12)])
    distance = np.linalg.norm(colours[:, None] - colours[None], axis=2) + 1000 * np.eye(12)
    assert distance.min() > 40
    assert colours.max(axis=1).min() > 140  # none is dark
    assert object_colour(10**6) != object_colour(10**6 + 1)


def test_overlay_fills_and_outlines() -> None:
    picture = overlay(GREY, [rectangle(20, 10, 50, 40)])
    colour = np.array(object_colour(0))
    np.testing.assert_array_equal(picture[10:12, 20:50], np.broadcast_to(colour, (2, 30, 3)))
    np.testing.assert_array_equal(picture[10:40, 48:50], np.broadcast_to(colour, (30, 2, 3)))
    np.testing.assert_allclose(picture[12, 22], 100 * (1 - FILL) + colour * FILL, atol=1)
    np.testing.assert_array_equal(picture[9], GREY[9])
    np.testing.assert_array_equal(picture[:, 50:], GREY[:, 50:])
    assert (GREY == 100).all()


def test_the_small_object_shows_on_the_large_one() -> None:
    small, large = rectangle(30, 20, 40, 30), rectangle(0, 0, 80, 60)
    picture = overlay(GREY, [small, large])
    np.testing.assert_array_equal(picture[20:30, 30:40], overlay(GREY, [small])[20:30, 30:40])  # fills do not add up
    assert tuple(picture[0, 0]) == object_colour(1)  # an outline also along the photo's rim


@pytest.mark.parametrize(("longest", "line"), [(80, 2), (1000, 2), (2000, 4), (4000, 8)])
def test_lines_grow_with_the_photo(longest: int, line: int) -> None:
    picture = overlay(np.zeros((40, longest, 3), np.uint8), [rectangle(0, 0, longest, 40, 40, longest)])
    assert (picture[20] == object_colour(0)).all(axis=1)[:20].sum() == line


def test_the_contour_is_as_wide_on_a_slope() -> None:
    rows, columns = np.mgrid[:400, :400]
    image = np.zeros((400, 3000, 3), np.uint8)  # lines of 6 pixels
    disc = np.zeros((400, 3000), bool)
    disc[:, :400] = (rows - 200) ** 2 + (columns - 200) ** 2 < 150**2
    contour = (overlay(image, [disc])[:, :400] == object_colour(0)).all(axis=2)
    radii = np.hypot(rows - 200, columns - 200)
    assert contour[(radii > 145) & (radii < 149)].all()
    assert not contour[(radii < 142) | (radii > 150)].any()


@pytest.mark.parametrize(
    ("box", "drawn"),
    [
        ((10, 5, 30, 25), (10, 5, 29, 24)),
        ((30, 25, 10, 5), (10, 5, 29, 24)),
        ((0, 0, 80, 60), (0, 0, 79, 59)),  # all of the photo: still to be seen
        ((-50, 5, 1e9, 25), (0, 5, 79, 24)),
        ((10, 10, 10, 10), (10, 10, 10, 10)),
        ((80, 60, 80, 60), (79, 59, 79, 59)),
        ((9.6, 5.4, 30.2, 24.9), (10, 5, 29, 24)),
    ],
)
def test_a_box_is_drawn_on_the_pixels_inside_its_border(
    box: tuple[float, ...], drawn: tuple[int, int, int, int]
) -> None:
    picture = overlay(GREY, [], boxes=np.array([box], np.float32))
    changed = (picture == object_colour(0)).all(axis=2)
    rows, columns = np.flatnonzero(changed.any(axis=1)), np.flatnonzero(changed.any(axis=0))
    assert (columns[0], rows[0], columns[-1], rows[-1]) == drawn
    assert ((picture == GREY) | changed[..., None]).all()


@pytest.mark.parametrize(("name", "drawn"), [("señal", "senal"), ("tree 2", "tree 2"), ("猫", "?")])
def test_names_have_letters_that_can_be_drawn(name: str, drawn: str) -> None:
    canvas, masks = np.full((60, 200, 3), 90, np.uint8), [np.ones((60, 200), bool)]
    pictures = [overlay(canvas, masks, np.array([[5, 5, 190, 50]], np.float32), names=[one]) for one in (name, drawn)]
    np.testing.assert_array_equal(*pictures)


def test_points_are_green_or_red_dots() -> None:
    points = np.array([[[10, 10], [40, 30]], [[70, 50], [0, 0]]], np.float32)
    labels = np.array([[1, 0], [1, -1]], np.float32)
    picture = overlay(GREY, [], points=points, labels=labels)
    assert tuple(picture[10, 10]) == GREEN
    assert tuple(picture[30, 40]) == RED
    assert tuple(picture[50, 70]) == GREEN
    assert tuple(picture[0, 0]) == (100, 100, 100)  # padding
    assert (overlay(GREY, [], points=points)[0, 0] == GREEN).all()


@pytest.mark.parametrize("point", [(-1e9, 5), (5, 1e9), (3e38, -3e38)])
def test_points_far_outside_are_left_out(point: tuple[float, float]) -> None:
    np.testing.assert_array_equal(overlay(GREY, [], points=np.array([[point]], np.float32)), GREY)


@pytest.mark.parametrize("mask", [np.zeros((60, 81), bool), np.zeros((80, 60), bool), np.zeros((60, 80, 1), bool)])
def test_masks_of_another_photo(mask: NDArray[np.bool_]) -> None:
    with pytest.raises(UsageError, match="one shape"):
        overlay(GREY, [mask])
    with pytest.raises(UsageError, match="one shape"):
        cutout(GREY, mask)


@pytest.mark.parametrize(
    ("drawing", "crop", "shape"),
    [
        (".... .##.", False, (2, 4)),
        (".... .##.", True, (1, 2)),
        (".... ....", False, (2, 4)),
        (".... ....", True, (2, 4)),
    ],
)
def test_cutout(drawing: str, crop: bool, shape: tuple[int, int]) -> None:
    image = np.arange(24, dtype=np.uint8).reshape(2, 4, 3) + 1
    mask = masks(drawing)[0]
    rgba = cutout(image, mask, crop)
    assert rgba.shape == (*shape, 4)
    assert rgba.dtype == np.uint8
    np.testing.assert_array_equal(rgba[rgba[..., 3] == 255][:, :3], image[mask])
    assert not rgba[rgba[..., 3] != 255].any()

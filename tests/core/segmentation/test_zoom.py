"""Windows around objects, which of them are shared, and that masks from them lie where the objects are."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from nanosam_cli.core.errors import InputError, UsageError
from nanosam_cli.core.inference.predictor import Predictor
from nanosam_cli.core.inference.session import open_session
from nanosam_cli.core.prompting.request import Request
from nanosam_cli.core.segmentation.zoom import LEAST_GAIN, ROOM, SIDE, WIDEST, segment_zoomed, windows_around
from tests.fake_models import Recorder

PHOTO = (3000, 4000)
Corners = tuple[float, float, float, float]
NAN = float("nan")


def boxes(*rows: Corners) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
    return np.array(rows, np.float32).reshape(-1, 4)


@pytest.mark.parametrize(
    ("box", "window"),
    [
        ((2000, 1000, 2040, 1060), (1870, 880, 2171, 1181)),  # five times 60, about the middle
        ((0, 0, 60, 40), (0, 0, 301, 301)),  # moved into the photo
        ((3980, 2950, 4000, 3000), (3749, 2749, 4000, 3000)),
        ((100, 100, 634, 200), None),  # 5 * 534 * 1.5 is more than the 4,000 pixels of the photo's longer side
        ((100, 100, 632, 200), (0, 0, 2661, 2661)),
        ((100, 100, 100.2, 100.2), (97, 97, 103, 103)),  # never less than that of one pixel
        ((NAN,) * 4, None),
    ],
)
def test_windows(box: Corners, window: tuple[int, int, int, int] | None) -> None:
    assert windows_around(boxes(box), PHOTO) == [window]


def test_a_photo_of_one_row_has_windows_of_one_row() -> None:
    assert windows_around(boxes((100, 0, 110, 1)), (1, 900)) == [(80, 0, 131, 1)]


@pytest.mark.parametrize(
    ("rows", "count"),
    [
        ([(1000, 1000, 1100, 1100), (1150, 1000, 1250, 1100)], 1),  # neighbours
        ([(1000, 1000, 1100, 1100), (1310, 1000, 1400, 1100)], 1),  # from 950 to 1450 are five times 100
        ([(1000, 1000, 1100, 1100), (1320, 1000, 1410, 1100)], 2),
        ([(1000, 1000, 1100, 1100), (2000, 1000, 2100, 1100)], 2),  # far away
        ([(1000, 1000, 1100, 1100), (1010, 1010, 1073, 1040)], 1),  # in the other: eight times 63 is wide enough
        ([(1000, 1000, 1100, 1100), (1010, 1010, 1072, 1040)], 2),  # too small beside it
    ],
)
def test_neighbours_of_about_one_size_share_a_window(rows: list[Corners], count: int) -> None:
    assert len(set(windows_around(boxes(*rows), PHOTO))) == count
    assert len(set(windows_around(boxes(*reversed(rows)), PHOTO))) == count


def test_every_window_shows_its_objects_with_room_and_larger_than_the_photo_does() -> None:
    random = np.random.default_rng(0)
    low = random.random((400, 2)) * (3900, 2900)
    high = np.minimum(low + random.lognormal(4, 1, (400, 2)), (4000, 3000))
    drawn = np.concatenate([low, high], axis=1).astype(np.float32)
    windows = windows_around(drawn, PHOTO)
    assert len({*windows}) < 300
    for (left, top, right, bottom), window in zip(drawn.tolist(), windows, strict=True):
        side = max(right - left, bottom - top, 1)
        if window is None:
            assert SIDE * side * LEAST_GAIN > 4000
            continue
        x0, y0, x1, y1 = window
        assert 0 <= x0 <= max(left - ROOM * side, 0) + 1
        assert 0 <= y0 <= max(top - ROOM * side, 0) + 1
        assert min(right + ROOM * side, 4000) - 1 <= x1 <= 4000
        assert min(bottom + ROOM * side, 3000) - 1 <= y1 <= 3000
        assert min(SIDE * side, 3000) <= max(x1 - x0, y1 - y0) <= WIDEST * side + 2


@pytest.fixture
def model(own_files: tuple[Path, Path]) -> Iterator[tuple[Predictor, Recorder, Recorder]]:
    """A predictor that draws what it is asked for, and what its encoder and its decoder were fed."""
    encoder, decoder = Recorder(open_session(own_files[0])), Recorder(open_session(own_files[1]))
    with Predictor(encoder, decoder) as made:
        yield made, encoder, decoder


def photo() -> np.ndarray[tuple[int, int, int], np.dtype[np.uint8]]:
    return np.zeros((*PHOTO, 3), np.uint8)


def test_masks_lie_where_the_objects_are_and_windows_are_encoded_once(
    model: tuple[Predictor, Recorder, Recorder],
) -> None:
    predictor, encoder, _ = model
    asked: list[Corners] = [
        (3000, 2000, 3040, 2030),
        (100, 100, 2000, 1500),  # stays in the whole photo
        (3050, 2010, 3085, 2040),  # shares the first one's window
        (500, 2500, 530, 2525),
    ]
    found = segment_zoomed(predictor, photo(), Request(boxes(*asked)))
    assert found.encodings == len(encoder.calls) == 3
    assert found.windows[1] is None
    assert found.windows[0] == found.windows[2] != found.windows[3]
    for (x0, y0, x1, y1), one, exact in zip(asked, found.found, (True, False, True, True), strict=True):
        assert one.mask.shape == PHOTO
        assert one.bbox is not None
        x, y, width, height = one.bbox
        np.testing.assert_allclose([x, y, x + width, y + height], [x0, y0, x1, y1], atol=1 if exact else 8)
    assert str(found) == (
        "3 of 4 objects seen closer, in 3 runs of the encoder; a window would show the others hardly larger"
    )


def test_clicks_are_looked_for_in_the_whole_photo_first(model: tuple[Predictor, Recorder, Recorder]) -> None:
    """The fake decoder draws 80 frame pixels about a click, which are 312 of the photo."""
    predictor, encoder, decoder = model
    points = np.array([[[2000, 1500], [2010, 1510], [90, 2900]]], np.float32)
    request = Request(points=points, labels=np.array([[1, 1, 0]], np.float32))
    found = segment_zoomed(predictor, photo(), request, select="single")
    ((left, top, right, bottom),) = [window for window in found.windows if window]
    assert len(encoder.calls) == found.encodings == 2
    assert right - left == pytest.approx(5 * 312, abs=40)
    first, second = decoder.calls
    assert first["point_labels"].tolist() == [[1, 1, 0, -1]]
    assert second["point_labels"].tolist() == [[1, 1, 2, 3]]  # without the click that its window does not show
    assert left < 2000 < right
    assert top < 1500 < bottom


def test_an_object_whose_first_mask_is_empty_stays_in_the_whole_photo(
    model: tuple[Predictor, Recorder, Recorder],
) -> None:
    predictor, encoder, _ = model
    request = Request(points=np.array([[[50, 60]]], np.float32), labels=np.array([[1]], np.float32))
    found = segment_zoomed(predictor, photo(), request, threshold=1000.0)
    assert found.windows == [None]
    assert not found.found[0].mask.any()
    assert len(encoder.calls) == 1


def test_a_mask_is_given_again_in_the_windows_own_resolution(model: tuple[Predictor, Recorder, Recorder]) -> None:
    predictor, encoder, decoder = model
    masks = np.zeros((2, *PHOTO), np.bool_)
    masks[0, 1001:1018, 2003:2020] = True  # four cells of the whole photo's logits, in part
    masks[1, 200:2500, 200:3500] = True
    found = segment_zoomed(predictor, photo(), Request(masks=masks))
    assert len(encoder.calls) == 2
    assert found.windows[1] is None
    assert np.array_equal(found.found[0].mask, masks[0])  # the fake decoder gives a mask back as it is
    near = next(call for call in decoder.calls if np.count_nonzero(call["mask_input"] > 0) < 5000)
    assert np.count_nonzero(near["mask_input"] > 0) > 2000


@pytest.mark.parametrize(
    ("request_", "error", "message"),
    [
        (Request(boxes((1, 1, 9, 9), (9, 9, 1, 1))), UsageError, "object 2: box 9,9,1,1 is empty or inverted"),
        (Request(boxes((1, 1, 9, 9), (5000, 1, 5005, 9))), UsageError, "object 2: box 5000,1,5005,9 lies outside"),
        (Request(masks=np.ones((1, 5, 5), np.bool_)), InputError, "the mask is 5x5 pixels, the photo 4000x3000"),
    ],
)
def test_errors_have_the_objects_own_numbers(
    model: tuple[Predictor, Recorder, Recorder], request_: Request, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        segment_zoomed(model[0], photo(), request_)
    assert not model[1].calls

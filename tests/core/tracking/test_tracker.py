"""The tracker on models that draw boxes: it follows, loses, finds again, and says which it is."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from nanosam_cli import Predictor, Prompt, Tracker, load_predictor
from nanosam_cli.core.errors import InputError, NanosamError, UsageError
from nanosam_cli.core.evaluation.davis_measures import region_similarity
from nanosam_cli.core.inference.decoder_inputs import mask_to_logits
from nanosam_cli.core.tracking.target import TrackState
from nanosam_cli.core.tracking.tracker import Tracked, _exclusive
from tests.fake_models import Recorder

HW = 96, 128
ORANGE, BLUE = (230, 120, 40), (40, 90, 230)


@pytest.fixture(scope="module")
def predictor(own_files: tuple[Path, Path]) -> Iterator[Predictor]:
    with load_predictor(encoder=own_files[0], decoder=own_files[1], threads=1) as opened:
        yield opened


def box_at(left: int, top: int = 30, side: int = 30) -> list[int]:
    return [left, top, left + side, top + side]


def picture(*things: tuple[list[int], tuple[int, int, int]], seed: int = 0, ground: int = 60) -> NDArray[np.uint8]:
    image = np.random.default_rng(seed).integers(0, ground, (*HW, 3)).astype(np.uint8)
    for (x0, y0, x1, y1), colour in things:
        image[max(0, y0) : y1, max(0, x0) : max(0, x1)] = colour
    return image


def iou(found: Tracked, box: list[int]) -> float:
    truth = np.zeros(HW, bool)
    truth[max(0, box[1]) : box[3], max(0, box[0]) : max(0, box[2])] = True
    return region_similarity(found.segmentation.mask, truth)


@pytest.mark.parametrize("kind", ["box", "mask"])
def test_it_follows(predictor: Predictor, kind: str) -> None:
    tracker = Tracker(predictor)
    first = predictor.encode_image(picture((box_at(20), ORANGE)))
    mask = np.zeros(HW, bool)
    mask[30:60, 20:50] = True
    prompt = (
        Prompt.from_boxes([box_at(20)])
        if kind == "box"
        else Prompt(mask_logits=mask_to_logits(mask, first.frame)[None])
    )
    (given,) = tracker.init(first, prompt)
    assert (given.number, given.state) == (1, TrackState.tracked)
    assert iou(given, box_at(20)) > 0.8
    for step in range(1, 20):
        (found,) = tracker.update(predictor.encode_image(picture((box_at(20 + 3 * step), ORANGE))))
        assert found.state is TrackState.tracked
        assert iou(found, box_at(20 + 3 * step)) > 0.75
        assert 0.5 < found.score <= 1
        assert not tracker.cut


def test_two_objects_cost_one_call_and_share_no_pixel(predictor: Predictor) -> None:
    decoder = Recorder(predictor.decoder)
    both = Predictor(predictor.encoder, decoder)
    tracker = Tracker(both)
    tracker.init(
        both.encode_image(picture((box_at(10), ORANGE), (box_at(80), BLUE))),
        Prompt.from_boxes([box_at(10), box_at(80)]),
    )
    for step in range(1, 8):
        left, right = box_at(10 + 2 * step), box_at(80 - 2 * step)
        decoder.calls.clear()
        one, other = tracker.update(both.encode_image(picture((left, ORANGE), (right, BLUE))))
        assert len(decoder.calls) == 1
        assert len(decoder.calls[0]["point_coords"]) <= 8
        assert not (one.segmentation.mask & other.segmentation.mask).any()
        assert min(iou(one, left), iou(other, right)) > 0.7
    assert (one.number, other.number) == (1, 2)


def test_lost_and_found_again_elsewhere(predictor: Predictor) -> None:
    tracker = Tracker(predictor)
    tracker.init(predictor.encode_image(picture((box_at(20), ORANGE))), Prompt.from_boxes([box_at(20)]))
    for _ in range(3):
        tracker.update(predictor.encode_image(picture((box_at(20), ORANGE))))
    states = []
    for _ in range(6):
        (found,) = tracker.update(predictor.encode_image(picture()))
        states.append(found.state)
    assert states[-1] is TrackState.lost
    assert found.segmentation.area == 0
    assert found.box is None
    assert found.segmentation.low_res_logits.max() < 0
    for _ in range(3):
        (found,) = tracker.update(predictor.encode_image(picture((box_at(85, 50), ORANGE))))
    assert found.state is TrackState.tracked
    assert iou(found, box_at(85, 50)) > 0.7


def test_another_thing_is_not_taken_for_the_lost_one(predictor: Predictor) -> None:
    tracker = Tracker(predictor)
    tracker.init(predictor.encode_image(picture((box_at(20), ORANGE))), Prompt.from_boxes([box_at(20)]))
    for _ in range(12):
        (found,) = tracker.update(predictor.encode_image(picture((box_at(80), BLUE))))
    assert found.state is TrackState.lost


def test_scene_cut(predictor: Predictor) -> None:
    """The picture changes altogether and the object is elsewhere: it is looked for everywhere at once."""
    tracker = Tracker(predictor)
    tracker.init(
        predictor.encode_image(picture((box_at(10, 5), ORANGE), ground=250)), Prompt.from_boxes([box_at(10, 5)])
    )
    tracker.update(predictor.encode_image(picture((box_at(11, 5), ORANGE), ground=250)))
    assert not tracker.cut
    (found,) = tracker.update(predictor.encode_image(picture((box_at(90, 60), ORANGE), seed=5, ground=250)))
    assert tracker.cut
    assert iou(found, box_at(90, 60)) > 0.7


def test_objects_come_later_and_start_anew(predictor: Predictor) -> None:
    tracker = Tracker(predictor)
    assert tracker.update(predictor.encode_image(picture())) == []
    image = predictor.encode_image(picture((box_at(10), ORANGE), (box_at(80), BLUE)))
    tracker.init(image, Prompt.from_boxes([box_at(10)]), [4])
    assert [found.number for found in tracker.init(image, Prompt.from_boxes([box_at(80)]))] == [5]
    assert [found.number for found in tracker.update(image)] == [4, 5]
    (anew,) = tracker.init(image, Prompt.from_boxes([box_at(82)]), [4])
    assert iou(anew, box_at(82)) > 0.8
    assert tracker.numbers == [4, 5]
    tracker.reset()
    assert tracker.update(image) == []
    assert tracker.numbers == []


def test_memory_does_not_grow(predictor: Predictor) -> None:
    import tracemalloc

    tracker = Tracker(predictor)
    image = predictor.encode_image(picture((box_at(20), ORANGE)))
    tracker.init(image, Prompt.from_boxes([box_at(20)]))
    tracker.update(image)
    tracemalloc.start()
    tracker.update(image)
    before = tracemalloc.get_traced_memory()[0]
    for _ in range(20):
        tracker.update(image)
    after = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert after - before < 100_000


def outside(tracker: Tracker, predictor: Predictor) -> None:
    tracker.init(predictor.encode_image(picture()), Prompt.from_boxes([[200, 200, 240, 240]]))


def point_outside(tracker: Tracker, predictor: Predictor) -> None:
    tracker.init(predictor.encode_image(picture()), Prompt.from_points([[500, 20]]))


def empty_mask(tracker: Tracker, predictor: Predictor) -> None:
    tracker.init(predictor.encode_image(picture()), Prompt(mask_logits=np.full((1, 256, 256), -5, np.float32)))


def same_number_twice(tracker: Tracker, predictor: Predictor) -> None:
    tracker.init(predictor.encode_image(picture()), Prompt.from_boxes([box_at(20), box_at(60)]), [1, 1])


def other_size(tracker: Tracker, predictor: Predictor) -> None:
    tracker.init(predictor.encode_image(picture()), Prompt.from_boxes([box_at(20)]))
    tracker.update(predictor.encode_image(picture()[:80]))


@pytest.mark.parametrize(
    ("fault", "error", "words"),
    [
        (outside, UsageError, "outside the photo"),
        (point_outside, UsageError, "outside the photo"),
        (empty_mask, InputError, "empty mask"),
        (same_number_twice, UsageError, "1, 1"),
        (other_size, InputError, "128x80 pixels follows one of 128x96"),
    ],
)
def test_refusals(predictor: Predictor, fault: object, error: type[NanosamError], words: str) -> None:
    with pytest.raises(error, match=words):
        fault(Tracker(predictor), predictor)  # type: ignore[operator]


def test_no_pixel_belongs_to_two() -> None:
    logits = np.random.default_rng(0).normal(0, 3, (3, 40, 40)).astype(np.float32)
    alone = _exclusive(logits)
    assert ((alone > 0).sum(axis=0) <= 1).all()
    np.testing.assert_array_equal((alone > 0).any(axis=0), (logits > 0).any(axis=0))
    np.testing.assert_array_equal(_exclusive(logits[:1]), logits[:1])
    twins = _exclusive(np.stack([logits[0], logits[0]]))
    np.testing.assert_array_equal(twins[0] > 0, logits[0] > 0)  # the first has what both are as sure of
    assert not (twins[1] > 0).any()


def test_a_picture_of_one_colour(predictor: Predictor) -> None:
    """Nothing to tell cells apart by: no error, and no mask that is larger than the picture's."""
    tracker = Tracker(predictor)
    image = predictor.encode_image(np.zeros((*HW, 3), np.uint8))
    tracker.init(image, Prompt.from_boxes([box_at(20)]))
    (found,) = tracker.update(image)
    assert np.isfinite(found.score)

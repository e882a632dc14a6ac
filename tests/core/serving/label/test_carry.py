"""Objects are taken from frame to frame, and what a person changes on the way counts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from nanosam_cli import Predictor, load_predictor
from nanosam_cli.core.errors import InputError
from nanosam_cli.core.masks import Mask, mask_iou
from nanosam_cli.core.media.mask_codes import mask_to_rle, rle_to_mask
from nanosam_cli.core.serving.label.carry import CarryOn
from nanosam_cli.core.serving.label.label_file import LabelledObject
from tests.video_data import HW, picture, square


@pytest.fixture(scope="module")
def predictor(own_files: tuple[Path, Path]) -> Iterator[Predictor]:
    with load_predictor(encoder=own_files[0], decoder=own_files[1], threads=1) as opened:
        yield opened


class Frames:
    """A person who goes through the frames of a bright square that moves."""

    def __init__(self, predictor: Predictor) -> None:
        self.predictor = predictor
        self.carry_on = CarryOn(predictor)

    def go(self, index: int, objects: Sequence[LabelledObject], there: bool = True) -> list[LabelledObject]:
        """From a frame to the next, in which the square may be gone."""
        pictures = picture(index), picture(index + 1, there=there)
        here, onto = (self.predictor.encode_image(one) for one in pictures)
        return [one.object for one in self.carry_on.carry((str(index), str(index + 1)), (here, onto), objects)]


@pytest.fixture
def frames(predictor: Predictor) -> Frames:
    return Frames(predictor)


def labelled(mask: Mask, track_id: int, category_id: int = 1) -> LabelledObject:
    return LabelledObject(category_id, mask_to_rle(mask), 10 + track_id, track_id)


def test_an_object_is_followed_from_frame_to_frame(frames: Frames) -> None:
    objects = [labelled(square(0), 4, category_id=2)]
    for index in range(10):
        objects = frames.go(index, objects)
        (one,) = objects
        assert (one.id, one.track_id, one.category_id) == (None, 4, 2)
        assert mask_iou(rle_to_mask(one.rle), square(index + 1)) > 0.75


def test_objects_that_lie_in_each_other_are_both_followed(frames: Frames) -> None:
    inner = square(0) & np.roll(square(0), 8, axis=0)
    found = frames.go(0, [labelled(square(0), 1), labelled(inner, 2)])
    assert [one.track_id for one in found] == [1, 2]
    assert all(mask_iou(rle_to_mask(one.rle), square(1)) > 0.4 for one in found)


def test_what_was_corrected_is_learnt_and_its_class_too(frames: Frames) -> None:
    (one,) = frames.go(0, [labelled(square(0), 1)])
    tracker = frames.carry_on._tracks[1].tracker
    frames.go(1, [replace(one, category_id=3)])
    assert frames.carry_on._tracks[1].tracker is tracker
    (again,) = frames.go(2, [labelled(np.roll(square(2), 1, axis=1), 1, category_id=3)])
    assert frames.carry_on._tracks[1].tracker is not tracker
    assert again.category_id == 3


def test_what_was_removed_is_forgotten_and_what_was_lost_is_found_again(frames: Frames) -> None:
    objects = [labelled(square(0), 1)]
    for index in range(4):
        objects = frames.go(index, objects)
    gone = frames.go(4, objects, there=False)
    assert gone == []
    back = frames.go(5, [])
    assert [one.track_id for one in back] == [1]
    assert frames.go(6, []) == []  # the person removed it


def test_another_frame_than_the_last_starts_anew(frames: Frames) -> None:
    frames.go(0, [labelled(square(0), 1)])
    assert [one.track_id for one in frames.go(7, [labelled(square(7), 5)])] == [5]


def test_frames_of_two_sizes_are_refused_and_the_next_try_is_sound(frames: Frames, predictor: Predictor) -> None:
    here, there = predictor.encode_image(picture(0)), predictor.encode_image(picture(1, (HW[0] * 2, HW[1])))
    with pytest.raises(InputError, match="0 is 128x96 and 1 is 128x192 pixels"):
        frames.carry_on.carry(("0", "1"), (here, there), [labelled(square(0), 1)])
    assert len(frames.go(0, [labelled(square(0), 1)])) == 1

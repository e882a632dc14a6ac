from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("torch", reason="training needs the extra `train`")

import torch
from torch import Tensor

from nanosam_cli.core.training.data.clicks import PromptNumbers, Surface, further_points, jitter_boxes, make_prompts
from nanosam_cli.core.training.recipe import PromptSection


def _mask(top: int, bottom: int, left: int, right: int, value: int = 255, side: int = 40) -> Tensor:
    mask = torch.zeros(side, side, dtype=torch.uint8)
    mask[top:bottom, left:right] = value
    return mask


@pytest.mark.parametrize(
    ("number", "middle", "xy"),
    [
        (0.0, 0.9, (10.5, 10.5)),  # anywhere: the first pixel, row by row
        (0.999, 0.9, (29.5, 19.5)),  # the last one
        (0.1, 0.9, (10.5, 11.5)),  # 200 pixels, 20 a row: the 20th is the first of the second row
        (0.0, 0.1, (19.5, 14.5)),  # the pixel that is nearest to the middle, (19.5, 14.5) of pixel numbers
    ],
)
def test_a_number_picks_a_pixel(number: float, middle: float, xy: tuple[float, float]) -> None:
    surface = Surface(_mask(10, 20, 10, 30)[None])
    [found] = surface.pick(torch.tensor([[number, middle]], dtype=torch.float64)).tolist()
    assert tuple(found) == xy


def test_pixels_are_picked_evenly() -> None:
    mask = _mask(3, 4, 5, 9) | _mask(20, 22, 7, 8)
    numbers = (torch.arange(600, dtype=torch.float64) + 0.5) / 600
    surface = Surface(mask.expand(600, -1, -1))
    found = surface.pick(torch.stack([numbers, torch.ones(600)], dim=1)).tolist()
    counts = {tuple(xy): found.count(xy) for xy in found}
    assert counts == {(x + 0.5, y + 0.5): 100 for x, y in ((5, 3), (6, 3), (7, 3), (8, 3), (7, 20), (7, 21))}


def test_points_lie_on_thin_and_faint_masks() -> None:
    thin = _mask(3, 4, 4, 9, value=90)  # nowhere more than half covered
    for number in (0.0, 0.5, 0.99):
        [[x, y]] = Surface(thin[None]).pick(torch.tensor([[number, number]])).tolist()
        assert thin[int(y), int(x)] == 90


def test_further_clicks_say_what_is_under_them() -> None:
    count = 60
    masks = _mask(10, 20, 10, 30).expand(count, -1, -1)
    boxes = torch.tensor([[10.0, 10, 30, 20]]).expand(count, -1)
    numbers = PromptNumbers.draw(np.random.default_rng(0), count)
    drawn = (numbers.points[:, 1], numbers.outside[:, 0], numbers.places[:, 0])
    clicks, on_object = further_points(Surface(masks), masks, boxes, *drawn)
    assert set(on_object.tolist()) == {True, False}
    for (x, y), on in zip(clicks.tolist(), on_object.tolist()):
        assert (masks[0, int(y), int(x)] > 0) == on
        assert 0 <= x <= 40
        assert 5 <= y <= 25
    full = torch.full_like(masks, 255)
    assert further_points(Surface(full), full, boxes, *drawn)[1].all()


def test_jittered_boxes_keep_half_their_size() -> None:
    box = torch.tensor([[10.0, 20, 110, 40]]).expand(200, -1)
    moved = jitter_boxes(box, torch.full((200, 1), 0.5), PromptNumbers.draw(np.random.default_rng(0), 200).errors)
    assert ((moved[:, 2:] - moved[:, :2]) >= 0.5 * (box[:, 2:] - box[:, :2]) - 1e-3).all()
    assert (moved != box).all()


@pytest.mark.parametrize(("exact", "share"), [(0.0, 0.0), (0.4, 0.4), (0.8, 0.8)])
def test_so_many_boxes_fit_exactly_and_the_rest_are_as_they_were(exact: float, share: float) -> None:
    count = 1000
    masks, box = _mask(10, 20, 10, 30).expand(count, -1, -1), torch.tensor([[10.0, 10, 30, 20]])
    numbers = PromptNumbers.draw(np.random.default_rng(0), count)
    boxes = box.expand(count, -1)

    def corners(section: PromptSection) -> Tensor:
        return make_prompts(section, masks, boxes, numbers)[0][:, 1:].flatten(1)

    section = PromptSection(point=0, box_and_point=0, box_jitter=0.01, rough_boxes=0.2, refine=0, exact_boxes=exact)
    jittered, drawn = corners(replace(section, exact_boxes=0.0)), corners(section)
    fits = (drawn == box).all(dim=1)
    assert fits.float().mean().item() == pytest.approx(share, abs=0.05)
    assert torch.equal(drawn[~fits], jittered[~fits])
    assert (jittered[numbers.rough < 0.2] - box).abs().mean() > 3 * (jittered[numbers.rough >= 0.2] - box).abs().mean()
    assert not fits[numbers.rough < 0.2].any()


def test_a_prompt_keeps_its_numbers() -> None:
    parts = [PromptNumbers.draw(np.random.default_rng(seed), 3) for seed in range(2)]
    joined = PromptNumbers.join(parts, torch.device("cpu")).rows(torch.tensor([4, 0]))
    for column, first, second in zip(joined, *parts):
        assert torch.equal(column, torch.stack([second[1], first[0]]))

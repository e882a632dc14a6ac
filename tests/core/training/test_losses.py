from __future__ import annotations

import pytest

pytest.importorskip("torch", reason="training needs the extra `train`")

import torch

from nanosam_cli.core.training.losses import (
    choose_masks,
    feature_loss,
    mask_loss,
    paired_box_iou,
    reach_loss,
    window_iou,
)

HALF = torch.zeros(1, 1, 8, 8)
HALF[..., :4] = 1


@pytest.mark.parametrize(("kind", "value"), [("l1", 2.0), ("mse", 4.0), ("huber", 1.5)])
def test_features_two_apart(kind: str, value: float) -> None:
    teacher = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    assert feature_loss(teacher + 2, teacher, kind, per_channel=False).item() == pytest.approx(value)


@pytest.mark.parametrize("kind", ["l1", "mse", "huber"])
def test_channels_of_any_spread_weigh_the_same(kind: str) -> None:
    random = torch.Generator().manual_seed(0)
    teacher, error = (torch.randn(2, 3, 8, 8, generator=random) for _ in range(2))
    scale = torch.tensor([0.4, 1.0, 100.0]).reshape(1, 3, 1, 1)
    one = feature_loss(teacher + error, teacher, kind, per_channel=True)
    other = feature_loss((teacher + error) * scale, teacher * scale, kind, per_channel=True)
    torch.testing.assert_close(one, other)


@pytest.mark.parametrize(("kind", "most"), [("l1", 10.0), ("mse", 100.0), ("huber", 10.0)])
def test_a_channel_that_says_nothing_does_not_outweigh_the_others(kind: str, most: float) -> None:
    random = torch.Generator().manual_seed(0)
    teacher, error = (torch.randn(2, 3, 8, 8, generator=random) for _ in range(2))
    teacher[:, 0] *= 1e-4
    teacher[:, 0] += 0.2
    alive = feature_loss((teacher + error)[:, 1:], teacher[:, 1:], kind, per_channel=True)
    assert feature_loss(teacher + error, teacher, kind, per_channel=True) < most * alive


def test_a_right_mask_costs_less_than_a_wrong_one() -> None:
    logits = torch.stack([HALF[0, 0] * 12 - 6, 6 - HALF[0, 0] * 12, torch.zeros(8, 8)])[None]
    right, wrong, undecided = mask_loss(logits, HALF, bce=1, dice=1)[0].tolist()
    assert right < 0.02
    assert right < undecided < wrong


def test_weights_switch_terms_off() -> None:
    logits = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    both = mask_loss(logits, HALF.expand(2, -1, -1, -1), bce=1, dice=1)
    parts = [mask_loss(logits, HALF.expand(2, -1, -1, -1), bce=b, dice=d) for b, d in ((1, 0), (0, 1))]
    torch.testing.assert_close(both, parts[0] + parts[1])


@pytest.mark.parametrize(("covered", "iou"), [(1.0, 0.5), (0.5, 0.25)])
def test_what_the_window_misses_counts_against_the_mask(covered: float, iou: float) -> None:
    """The mask has a half of what the window shows of the object, and nothing else."""
    logits = torch.full((1, 1, 8, 8), -1.0)
    logits[..., :2] = 1
    found = window_iou(logits, HALF, torch.tensor([covered]))
    assert found.item() == pytest.approx(iou)


@pytest.mark.parametrize("scale", [1.0, 10.0])
def test_a_box_too_small_costs_the_same_at_every_size(scale: float) -> None:
    point = torch.tensor([[200.0, 200.0]])
    true = torch.cat([point - 10 * scale, point + 10 * scale], dim=1)
    small = torch.cat([point - scale, point + scale], dim=1)
    assert reach_loss(small, true, point).item() == pytest.approx(1.3863, abs=1e-3)  # log (10 + 2) / (1 + 2)
    assert reach_loss(true, true, point).item() == 0


@pytest.mark.parametrize(
    ("box", "iou"), [((0, 0, 10, 10), 1.0), ((5, 0, 15, 10), 1 / 3), ((10, 0, 20, 10), 0.0), ((2, 2, 2, 2), 0.0)]
)
def test_overlap_of_boxes(box: tuple[float, ...], iou: float) -> None:
    found = paired_box_iou(torch.tensor([[0.0, 0, 10, 10]]), torch.tensor([box], dtype=torch.float32))
    assert found.tolist() == pytest.approx([iou])


def test_clear_prompts_train_mask_0_and_clicks_the_best_of_the_others() -> None:
    losses = torch.tensor([[1.0, 0.2, 0.3, 0.4], [1.0, 0.2, 0.3, 0.4]])
    clear, click = choose_masks(losses, torch.tensor([False, True])).tolist()
    assert clear == 1.0
    assert click == pytest.approx(0.2 + 0.3 * 1.0)

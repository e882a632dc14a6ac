from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("torch", reason="training needs the extra `train`")

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nanosam_cli.core.training.distillation import train
from nanosam_cli.core.training.rehearsal import Int8Rehearsal, last_convolution, round_numbers, round_weights
from nanosam_cli.core.training.run_log import Event, StepReport
from tests.training_data import save_shapes, tiny_recipe


def _random(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def test_numbers_are_rounded_to_steps_of_their_range() -> None:
    values = _random(3, 4, 5, 5).requires_grad_()
    rounded = round_numbers(values)
    step = min((sample.max().clamp(min=0) - sample.min().clamp(max=0)).item() for sample in values) / 255
    assert (rounded - values).abs().max() <= 1.01 * step
    assert len(rounded.detach().unique()) < values.numel()
    rounded.sum().backward()
    assert values.grad is not None
    assert bool((values.grad == 1).all())


@pytest.mark.parametrize("values", [torch.zeros(2, 3), torch.tensor([[0.0, 1e-3, 5.0]]), torch.tensor([[-7.0, 0, -1]])])
def test_zero_stays_zero(values: Tensor) -> None:
    """Padding is made of it."""
    torch.testing.assert_close(round_numbers(values)[values == 0], values[values == 0], rtol=0, atol=0)


def test_one_sample_in_the_batch_does_not_set_the_range_of_all() -> None:
    """The bars beside a letterboxed photo would."""
    values = _random(3, 4, 5, 5)
    spoiled = values.clone()
    spoiled[2] *= 100
    torch.testing.assert_close(round_numbers(spoiled)[:2], round_numbers(values)[:2], atol=0.02, rtol=0)


def test_weights_have_seven_bits_in_each_output_channel() -> None:
    weight = _random(4, 3, 3, 3) * torch.tensor([1.0, 10.0, 1e3, 0.0])[:, None, None, None]
    rounded = round_weights(weight)
    steps = rounded.flatten(1) / weight.flatten(1).abs().amax(1, keepdim=True).clamp(min=1e-30) * 63
    torch.testing.assert_close(steps, steps.round(), atol=1e-3, rtol=0)
    torch.testing.assert_close(rounded.flatten(1).abs().amax(1), weight.flatten(1).abs().amax(1))


def test_convolutions_and_sums_are_rehearsed_but_for_what_is_spared() -> None:
    first, last = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 2, 1)
    model = nn.Sequential(first, nn.ReLU(), last)
    photo = _random(1, 3, 8, 8)
    assert last_convolution(model) is last
    with Int8Rehearsal([last]):
        found = model(photo)
        total = photo + 2 * photo
    expected = last(F.conv2d(round_numbers(photo), round_weights(first.weight), first.bias).relu())
    torch.testing.assert_close(found, expected, rtol=0, atol=0)
    torch.testing.assert_close(total, round_numbers(photo) + round_numbers(2 * photo), rtol=0, atol=0)
    assert not torch.equal(found, model(photo))  # and nothing stays behind


def test_a_run_rehearses_in_its_last_steps(tmp_path: Path) -> None:
    save_shapes(tmp_path / "shapes")
    losses: dict[str, list[float]] = {}
    for share in ("0.0", "0.5"):
        recipe = tiny_recipe(tmp_path, steps=4, overrides=[f"optimiser.int8={share}"])
        found = losses.setdefault(share, [])

        def note(event: Event, found: list[float] = found) -> None:
            if isinstance(event, StepReport):
                found.append(event.loss)

        train(recipe, tmp_path / share, report=note)
    plain, rehearsed = losses.values()
    assert plain[:2] == rehearsed[:2]
    assert plain[2] != rehearsed[2]

from __future__ import annotations

import pytest

pytest.importorskip("torch", reason="models need the extra `train`")

import torch
from torch import Tensor

from nanosam_cli.core.modeling.click_reader import GRID, WINDOW_SIDES, ClickReader
from nanosam_cli.core.modeling.prediction import ClickReading
from nanosam_cli.core.training.mask_supervision import reading_loss


def read(coords: list[list[float]], labels: list[float]) -> ClickReading:
    torch.manual_seed(0)
    reader = ClickReader().eval()
    embeddings = torch.randn(1, 256, 64, 64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        found: ClickReading = reader(reader.context(embeddings), torch.tensor([coords]), torch.tensor([labels]))
    return found


def test_a_click_is_read_at_every_scale() -> None:
    found = read([[300.0, 400.0], [0.0, 0.0]], [1.0, -1.0])
    assert found.logits.shape == (1, len(WINDOW_SIDES), GRID, GRID)
    for side, window, box in zip(WINDOW_SIDES, found.windows[0].tolist(), found.boxes[0].tolist()):
        assert window == [300 - side / 2, 400 - side / 2, 300 + side / 2, 400 + side / 2]
        assert box[0] < 300 < box[2]
        assert box[1] < 400 < box[3]


def test_windows_hold_all_foreground_clicks() -> None:
    found = read([[100.0, 500.0], [900.0, 520.0], [20.0, 20.0]], [1.0, 1.0, 0.0])
    assert found.centres.tolist() == [[500.0, 510.0]]
    assert (found.windows[0, :, 0] < 100).all()
    assert (found.windows[0, :, 2] > 900).all()


def test_the_best_reading_is_the_one_with_the_best_score() -> None:
    boxes, windows = torch.arange(12.0).reshape(1, 3, 4), torch.arange(12.0, 24.0).reshape(1, 3, 4)
    logits = torch.tensor([1.0, 2.0, 3.0]).reshape(1, 3, 1, 1).expand(1, 3, 2, 2)
    scores = torch.tensor([[-1.0, 0.5, 0.2]])
    box, mask, window = ClickReading(logits, scores, windows, boxes, torch.zeros(1, 2)).best()
    assert torch.equal(box, boxes[:, 1])
    assert torch.equal(window, windows[:, 1])
    assert mask.shape == (1, 1, 2, 2)
    assert (mask == 2).all()


def reading(box: list[float], size: float, score: float) -> ClickReading:
    """Boxes and masks `size` times as large as the true one, at three scales around (512, 512)."""
    half = torch.tensor(WINDOW_SIDES) / 2
    windows = torch.stack([512 - half, 512 - half, 512 + half, 512 + half], dim=1)[None]
    boxes = 512 + (torch.tensor(box) - 512) * size
    steps = (torch.arange(GRID) + 0.5) / GRID
    x = windows[0, :, 0, None] + steps * (windows[0, :, 2] - windows[0, :, 0])[:, None]  # (S, G), y is alike
    inside = ((x > boxes[0]) & (x < boxes[2])).float()
    logits = (inside[:, None, :] * inside[:, :, None] * 16 - 8)[None]
    scores = torch.full((1, 3), float(score))
    return ClickReading(logits, scores, windows, boxes.expand(1, 3, 4), torch.tensor([[512.0, 512.0]]))


def truth(box: list[float]) -> Tensor:
    mask = torch.zeros(1, 1, 512, 512)
    low, high = round(box[0] / 2), round(box[2] / 2)
    mask[..., low:high, low:high] = 1
    return mask


@pytest.mark.parametrize("side", [24.0, 300.0, 900.0])
def test_the_right_reading_costs_least(side: float) -> None:
    box = [512 - side / 2, 512 - side / 2, 512 + side / 2, 512 + side / 2]
    true_box = torch.tensor([box])

    def loss(size: float, score: float) -> float:
        return reading_loss(reading(box, size, score), truth(box), true_box, 512).item()

    right = loss(1, 4)
    assert right < loss(1, -4)  # a box that fits must be believed in
    assert right < loss(0.5, 4)
    assert right < loss(1.9, 4)
    assert loss(0.2, -4) < loss(0.2, 4)  # and one that does not, not

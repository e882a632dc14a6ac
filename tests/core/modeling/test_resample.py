from __future__ import annotations

import pytest

pytest.importorskip("torch", reason="models need the extra `train`")

import torch
from torch.nn import functional as F

from nanosam_cli.core.modeling.resample import crop_windows, paste_windows

RANDOM = torch.Generator().manual_seed(0)


@pytest.mark.parametrize("window", [(0, 0, 8, 8), (2, 3, 6, 7), (1.5, 2.25, 4.5, 5.25)])
def test_enlarging_a_window_is_bilinear_sampling(window: tuple[float, ...]) -> None:
    grid = torch.randn(1, 3, 8, 8, generator=RANDOM)
    side = 16
    steps = (torch.arange(side) + 0.5) / side
    x = (window[0] + (window[2] - window[0]) * steps) / 8 * 2 - 1
    y = (window[1] + (window[3] - window[1]) * steps) / 8 * 2 - 1
    places = torch.stack([x.expand(side, -1), y[:, None].expand(-1, side)], dim=2)[None]
    expected = F.grid_sample(grid, places, align_corners=False)
    found = crop_windows(grid, torch.tensor([window]), side)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


def test_shrinking_averages_instead_of_skipping() -> None:
    stripes = (torch.arange(64) % 2).float().expand(1, 1, 64, 64)
    found = crop_windows(stripes, torch.tensor([[0.0, 0, 64, 64]]), 8)
    torch.testing.assert_close(found[..., 1:-1, 1:-1], torch.full((1, 1, 6, 6), 0.5), atol=0.02, rtol=0)


def test_what_lies_outside_is_zero() -> None:
    found = crop_windows(torch.ones(1, 1, 8, 8), torch.tensor([[-8.0, -8, 8, 8]]), 16)
    assert found[0, 0, 0, 0] == 0
    assert found[0, 0, 12, 12] == 1


def test_each_prompt_has_its_own_window() -> None:
    grid = torch.randn(1, 2, 8, 8, generator=RANDOM)
    windows = torch.tensor([[0.0, 0, 4, 4], [3.0, 2, 8, 8]])
    both = crop_windows(grid, windows, 5)
    for row in range(2):
        torch.testing.assert_close(both[row : row + 1], crop_windows(grid, windows[row : row + 1], 5))


@pytest.mark.parametrize("window", [(4.0, 8.0, 20.0, 24.0), (3.3, 5.7, 27.9, 12.4), (-6.0, 2.0, 10.0, 40.0)])
def test_a_pasted_mask_lies_where_its_window_is(window: tuple[float, float, float, float]) -> None:
    pasted = paste_windows(torch.ones(1, 1, 16, 16), torch.tensor([window]), (32, 32), outside=-9.0)
    y, x = torch.meshgrid(torch.arange(32) + 0.5, torch.arange(32) + 0.5, indexing="ij")
    inside = (x > window[0]) & (x < window[2]) & (y > window[1]) & (y < window[3])
    assert torch.equal(pasted[0, 0] > 0, inside)
    torch.testing.assert_close(pasted[0, 0][~inside], torch.full((int((~inside).sum()),), -9.0))


def test_paste_undoes_crop_on_a_smooth_map() -> None:
    smooth = torch.linspace(-1, 1, 32)[:, None] + torch.linspace(-2, 2, 32)[None]
    window = torch.tensor([[4.0, 6.0, 28.0, 26.0]])
    pasted = paste_windows(crop_windows(smooth[None, None], window, 48), window, (32, 32), outside=0.0)
    torch.testing.assert_close(pasted[0, 0, 7:25, 5:27], smooth[7:25, 5:27], atol=0.02, rtol=0)

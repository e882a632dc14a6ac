"""A decoder that listens: what it begins as, and what masks and clicks do whatever its weights are."""

from __future__ import annotations

import pytest

pytest.importorskip("torch", reason="models need the extra `train`")

import torch
from torch import Tensor
from torch.nn import functional as F

from nanosam_cli.core.modeling.listening import OBEYED, click_discs
from nanosam_cli.core.modeling.region_decoder import RegionDecoder

BOX = [[100.0, 200.0], [500.0, 600.0]]


def embeddings() -> Tensor:
    return torch.randn(1, 256, 64, 64, generator=torch.Generator().manual_seed(1))


def decoders() -> tuple[RegionDecoder, RegionDecoder]:
    """One that does not listen, and one that begins with its weights."""
    torch.manual_seed(0)
    deaf = RegionDecoder()
    torch.nn.init.normal_(deaf.masks.weight, std=0.1)  # as after training; zero at the start
    hearing = RegionDecoder(listens=True)
    missing, extra = hearing.load_state_dict(deaf.state_dict(), strict=False)
    assert not extra
    assert all(name.startswith(("listening.", "clicks.see.")) for name in missing)
    return deaf.eval(), hearing.eval()


def ask(decoder: RegionDecoder, coords: Tensor, labels: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
    count = len(coords)
    masks = torch.zeros(count, 1, 256, 256) if mask is None else mask.expand(count, 1, 256, 256)
    with torch.no_grad():
        ious, low_res = decoder(embeddings(), coords, labels, masks, torch.full((count,), float(mask is not None)))
    return ious, low_res


def values(low_res: Tensor, points: Tensor) -> Tensor:
    """Masks (P, K, h, w) at points (P, N, 2) in frame units: (P, K, N)."""
    sampled = F.grid_sample(low_res, (points / 512 - 1)[:, :, None], align_corners=False)
    return sampled[..., 0]


@pytest.mark.parametrize("labels", [[2.0, 3.0], [1.0, -1.0]])
def test_it_begins_with_the_masks_of_one_that_does_not_listen(labels: list[float]) -> None:
    deaf, hearing = decoders()
    coords = torch.tensor([BOX, [[30.0, 40.0], [90.0, 70.0]], [[0.0, 0.0], [1024.0, 700.0]]])
    asked = torch.tensor([labels]).expand(3, -1)
    before, after = ask(deaf, coords, asked), ask(hearing, coords, asked)
    assert torch.equal(before[0], after[0])
    if labels[0] == 2:
        assert torch.equal(before[1], after[1])
    else:  # but for the clicked spot
        assert (before[1] - after[1]).abs().max() < 3


def blob(radius: float, x: float = 300, y: float = 400) -> Tensor:
    rows, columns = torch.meshgrid((torch.arange(256) + 0.5) * 4, (torch.arange(256) + 0.5) * 4, indexing="ij")
    wavy = radius * (1 + 0.2 * torch.sin(5 * torch.atan2(rows - y, columns - x)))
    return (((rows - y) ** 2 + (columns - x) ** 2).sqrt() < wavy).float()[None, None] * 10 - 5


@pytest.mark.parametrize("boxed", [False, True])
@pytest.mark.parametrize("radius", [10.0, 60.0, 200.0])
def test_a_new_one_gives_a_mask_back_as_it_was(radius: float, boxed: bool) -> None:
    mask = blob(radius)
    box = [[300 - 1.2 * radius, 400 - 1.2 * radius], [300 + 1.2 * radius, 400 + 1.2 * radius]]
    labels = torch.tensor([[2.0, 3.0]] if boxed else [[-1.0, -1.0]])
    _, low_res = ask(RegionDecoder(listens=True).eval(), torch.tensor([box]), labels, mask)
    found, wanted = low_res[0, 0] > 0, mask[0, 0] > 0
    assert (found & wanted).sum() / (found | wanted).sum() > 0.98


def test_every_click_is_obeyed_and_of_contradictory_ones_the_last() -> None:
    _, hearing = decoders()
    points = torch.tensor([[[150.0, 250.0], [300.0, 400.0], [450.0, 300.0], [700.0, 100.0], [320.0, 400.0]]])
    for signs in ([1.0, 0.0, 1.0, 1.0, 0.0], [0.0, 1.0, 0.0, 0.0, 1.0]):
        labels = torch.tensor([signs])
        coords = torch.cat([points, torch.tensor([BOX])], dim=1)
        asked = torch.cat([labels, torch.tensor([[2.0, 3.0]])], dim=1)
        for mask in (None, blob(80), -blob(80)):
            _, low_res = ask(hearing, coords, asked, mask)
            sign = 2 * labels - 1
            assert (values(low_res, points) * sign[:, None]).min() > OBEYED - 0.1
    same = torch.tensor([[[300.0, 400.0], [300.0, 400.0]]])
    for labels in (torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]])):
        _, low_res = ask(
            hearing,
            torch.cat([same, torch.tensor([BOX])], dim=1),
            torch.cat([labels, torch.tensor([[2.0, 3.0]])], dim=1),
        )
        last = values(low_res, same)[0, :, 1] * (2 * labels[0, 1] - 1)
        assert last.min() > OBEYED - 0.1


def test_a_hundred_clicks_are_read() -> None:
    _, hearing = decoders()
    random = torch.Generator().manual_seed(0)
    points = torch.rand(2, 100, 2, generator=random) * 1000
    labels = (torch.rand(2, 100, generator=random) < 0.5).float()
    ious, low_res = ask(hearing, points, labels)
    assert ious.isfinite().all()
    assert low_res.isfinite().all()


def test_padding_points_change_nothing() -> None:
    _, hearing = decoders()
    plain = ask(hearing, torch.tensor([[[250.0, 300.0], *BOX]]), torch.tensor([[1.0, 2.0, 3.0]]), blob(80))[1]
    coords = torch.tensor([[[250.0, 300.0], *BOX, [0.0, 0.0], [300.0, 300.0]]])
    padded = ask(hearing, coords, torch.tensor([[1.0, 2.0, 3.0, -1.0, -1.0]]), blob(80))[1]
    torch.testing.assert_close(plain, padded, atol=1e-4, rtol=0)


def test_an_empty_mask_beside_a_box_begins_at_the_box() -> None:
    hearing = RegionDecoder(listens=True).eval()
    coords, labels = torch.tensor([BOX]), torch.tensor([[2.0, 3.0]])
    plain = ask(hearing, coords, labels)[1][0, 0] > 0
    empty = ask(hearing, coords, labels, torch.full((1, 1, 256, 256), -5.0))[1][0, 0] > 0
    assert (plain & empty).sum() / (plain | empty).sum() > 0.9


@pytest.mark.parametrize(
    "mask",
    [
        torch.full((1, 1, 256, 256), -5.0),
        torch.full((1, 1, 256, 256), 5.0),
        torch.full((1, 1, 256, 256), 1e4),
        torch.linspace(-0.1, 0.1, 256).expand(1, 1, 256, 256),
        blob(80, x=0, y=1020),
    ],
    ids=["empty", "all", "beyond measure", "soft", "at the border"],
)
@pytest.mark.parametrize("labels", [[-1.0, -1.0], [2.0, 3.0], [1.0, 0.0]])
def test_strange_masks_give_finite_ones(mask: Tensor, labels: list[float]) -> None:
    _, hearing = decoders()
    ious, low_res = ask(hearing, torch.tensor([BOX]), torch.tensor([labels]), mask)
    assert ious.isfinite().all()
    assert low_res.abs().max() < 50


def test_discs_have_one_size_on_the_photo() -> None:
    windows = torch.tensor([[0.0, 0.0, 96.0, 96.0], [0.0, 0.0, 192.0, 192.0]])
    coords, labels = torch.tensor([[[50.0, 50.0]]]).expand(2, -1, -1), torch.tensor([[1.0]]).expand(2, -1)
    discs = click_discs(windows, 48, coords, labels)
    area = (discs > 0.5).float().sum(dim=(2, 3)) * torch.tensor([[4.0], [16.0]])
    assert area[:, 1].tolist() == [0, 0]
    assert area[0, 0] == pytest.approx(float(area[1, 0]), rel=0.2)
    assert area[0, 0] == pytest.approx(3.14 * 2 * 0.693 * 10**2, rel=0.2)  # half height of a Gaussian of 10 units

from __future__ import annotations

import pytest

pytest.importorskip("torch", reason="models need the extra `train`")

import torch
from torch import Tensor

from nanosam_cli.core.modeling.encoder import ImageEncoder
from nanosam_cli.core.modeling.region_decoder import RegionDecoder
from nanosam_cli.core.modeling.sam_decoder import SamDecoder
from nanosam_cli.core.modeling.torchvision_compat import import_torchvision

Decoder = RegionDecoder | SamDecoder


def make_decoder(kind: str) -> Decoder:
    torch.manual_seed(0)
    decoder = RegionDecoder() if kind == "region" else SamDecoder(dense_boxes=kind == "sam-dense")
    if isinstance(decoder, RegionDecoder):
        torch.nn.init.normal_(decoder.masks.weight, std=0.1)  # as after training; zero at the start
    return decoder.eval()


DECODERS = pytest.mark.parametrize("kind", ["region", "sam", "sam-dense"])


def run(decoder: Decoder, coords: Tensor, labels: Tensor, masks: Tensor | None = None) -> tuple[Tensor, Tensor]:
    embeddings = torch.randn(1, 256, 64, 64, generator=torch.Generator().manual_seed(1))
    given = torch.full((len(coords),), float(masks is not None))
    empty = torch.zeros(len(coords), 1, 256, 256)
    with torch.no_grad():
        ious, low_res = decoder(embeddings, coords, labels, empty if masks is None else masks, given)
    return ious, low_res


BOX, OTHER = [[100.0, 200.0], [500.0, 600.0]], [[700.0, 30.0], [900.0, 300.0]]


@DECODERS
def test_shapes_are_the_contracts(kind: str) -> None:
    ious, low_res = run(make_decoder(kind), torch.tensor([BOX, OTHER, BOX]), torch.tensor([[2.0, 3.0]] * 3))
    assert ious.shape == (3, 4)
    assert low_res.shape == (3, 4, 256, 256)


@DECODERS
def test_prompts_do_not_touch_each_other(kind: str) -> None:
    decoder, labels = make_decoder(kind), torch.tensor([[2.0, 3.0]])
    ious, low_res = run(decoder, torch.tensor([BOX, OTHER]), labels.expand(2, -1))
    for row, coords in enumerate((BOX, OTHER)):
        alone_ious, alone = run(decoder, torch.tensor([coords]), labels)
        torch.testing.assert_close(low_res[row : row + 1], alone, atol=1e-3, rtol=0)
        torch.testing.assert_close(ious[row : row + 1], alone_ious, atol=1e-4, rtol=0)


@pytest.mark.parametrize("kind", ["region", "sam-dense"])
def test_padding_points_change_nothing(kind: str) -> None:
    """SAM learns a token for padding, so it does not hold there."""
    decoder = make_decoder(kind)
    plain = run(decoder, torch.tensor([BOX]), torch.tensor([[2.0, 3.0]]))[1]
    padded = run(decoder, torch.tensor([[*BOX, [0.0, 0.0]]]), torch.tensor([[2.0, 3.0, -1.0]]))[1]
    tolerance = 1e-4 if kind == "region" else float(plain.abs().max())
    torch.testing.assert_close(plain, padded, atol=tolerance, rtol=0)


def test_a_new_region_decoder_answers_with_the_boxs_ellipse() -> None:
    _, low_res = run(RegionDecoder().eval(), torch.tensor([BOX]), torch.tensor([[2.0, 3.0]]))
    y, x = torch.meshgrid((torch.arange(256) + 0.5) * 4, (torch.arange(256) + 0.5) * 4, indexing="ij")
    ellipse = ((x - 300) / 200) ** 2 + ((y - 400) / 200) ** 2 < 1
    found = low_res[0, 0] > 0
    assert (found & ellipse).sum() / (found | ellipse).sum() > 0.97


@pytest.mark.parametrize(
    ("labels", "masked", "inside"),
    [
        ([1.0, -1.0], False, (300, 400)),  # a click
        ([1.0, 0.0], False, (300, 400)),  # a click and a background click
        ([-1.0, -1.0], True, (620, 620)),  # a mask alone: its own extent
    ],
)
def test_prompts_without_a_box_get_a_window_of_their_own(
    labels: list[float], masked: bool, inside: tuple[int, int]
) -> None:
    decoder = RegionDecoder().eval()
    mask = torch.full((1, 1, 256, 256), -5.0)
    mask[0, 0, 140:170, 140:170] = 5
    coords = torch.tensor([[[300.0, 400.0], [600.0, 400.0]]])
    _, low_res = run(decoder, coords, torch.tensor([labels]), mask if masked else None)
    rows, columns = torch.nonzero(low_res[0, 0] > 0, as_tuple=True)
    assert columns.min() * 4 <= inside[0] <= columns.max() * 4 + 4
    assert rows.min() * 4 <= inside[1] <= rows.max() * 4 + 4


@pytest.mark.parametrize("labels", [[-1.0, -1.0], [0.0, -1.0]])
def test_no_foreground_at_all_is_finite(labels: list[float]) -> None:
    for kind in ("region", "sam"):
        ious, low_res = run(make_decoder(kind), torch.tensor([BOX]), torch.tensor([labels]))
        assert ious.isfinite().all()
        assert low_res.isfinite().all()


@pytest.mark.parametrize(("size", "finest", "side"), [(512, 4, 64), (512, 8, 64), (1024, 8, 64), (1024, 16, 64)])
def test_the_embedding_is_always_64_by_64(size: int, finest: int, side: int) -> None:
    encoder = ImageEncoder("test_resnet", size, width=16, finest=finest).eval()
    with torch.no_grad():
        assert encoder(torch.zeros(1, 3, size, size)).shape == (1, 256, side, side)


def test_torchvision_loads_beside_any_torch() -> None:
    import_torchvision()
    import torchvision

    assert torchvision.models.resnet18 is not None

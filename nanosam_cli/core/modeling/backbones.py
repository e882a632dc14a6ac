"""Backbones: a name -> a module that gives a pyramid of feature maps. Any timm name with `features_only` serves."""

from __future__ import annotations

import difflib
from typing import Any, NamedTuple

from torch import Tensor, nn

from nanosam_cli.core import paths
from nanosam_cli.core.errors import RecipeError
from nanosam_cli.core.modeling.torchvision_compat import import_torchvision


class Backbone(NamedTuple):
    """A module that returns a list of maps from fine to coarse, each (B, channels, H / stride, W / stride)."""

    module: nn.Module
    channels: list[int]
    strides: list[int]
    not_pretrained: str | None  # why it is random although ImageNet weights were asked for


def create_backbone(name: str, *, finest: int, pretrained: bool) -> Backbone:
    """Make a backbone that returns its maps of stride `finest`, ..., 32.

    `name` is timm's (torchvision's ResNets are there under the same names). Raises RecipeError for an unknown one.
    Where pretrained weights cannot be had, the backbone is random and says why.
    """
    import_torchvision()
    import timm

    if not timm.is_model(name):
        near = difflib.get_close_matches(name, timm.list_models(), n=3)
        raise RecipeError(f"unknown backbone '{name}'", f"nearest: {', '.join(near)}" if near else None)
    info: Any = timm.create_model(name, features_only=True).feature_info
    strides, channels = list(info.reduction()), list(info.channels())
    levels = [level for level, stride in enumerate(strides) if finest <= stride <= 32]
    if not levels or strides[levels[-1]] != 32:
        raise RecipeError(f"backbone '{name}' gives strides {strides}; {finest} to 32 are needed")
    module, reason = _create(name, levels, pretrained)
    return Backbone(module, [channels[level] for level in levels], [strides[level] for level in levels], reason)


def fine_layers(backbone: nn.Module) -> list[nn.Module]:
    """The layers with weights up to the map of stride 4. RecipeError where there is no such map."""
    info: Any = backbone.feature_info
    if 4 not in info.reduction():
        raise RecipeError("optimiser.freeze: fine needs a backbone's map of stride 4", "--set model.finest_stride=4")
    last = info.module_name()[info.reduction().index(4)].replace("_", ".") + "."
    own = [(name, layer) for name, layer in backbone.named_modules() if list(layer.parameters(recurse=False))]
    # timm writes stages.0 for what may be stages_0 here
    inside = [row for row, (name, _) in enumerate(own) if f"{name}.".replace("_", ".").startswith(last)]
    return [layer for _, layer in own[: inside[-1] + 1]]


def depthwise_kernels(backbone: nn.Module) -> list[Tensor]:
    """Weights of its depthwise convolutions."""
    return [layer.weight for layer in backbone.modules() if isinstance(layer, nn.Conv2d) and layer.groups > 1]


def _create(name: str, levels: list[int], pretrained: bool) -> tuple[nn.Module, str | None]:
    import timm

    reason = None
    if pretrained and not timm.models.is_model_pretrained(name):
        reason = f"timm has no pretrained weights of {name}"
    elif pretrained and paths.OFFLINE.get():
        reason = f"{paths.OFFLINE.name} is set"
    elif pretrained:
        try:
            return timm.create_model(name, features_only=True, pretrained=True, out_indices=levels), None
        except OSError as error:  # every failure of the network is one, and a full disk
            reason = str(error).partition("\n")[0]
    return timm.create_model(name, features_only=True, out_indices=levels), reason

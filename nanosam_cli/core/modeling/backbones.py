"""Backbones: a name -> a module that gives a pyramid of feature maps. Any timm name with `features_only` serves."""

from __future__ import annotations

import difflib
from typing import Any

from torch import nn

from nanosam_cli.core.errors import RecipeError
from nanosam_cli.core.modeling.torchvision_compat import import_torchvision


def create_backbone(name: str, *, finest: int, pretrained: bool) -> tuple[nn.Module, list[int], list[int]]:
    """Make a backbone that returns its maps of stride `finest`, ..., 32 -> (module, channels, strides).

    `name` is timm's (torchvision's ResNets are there under the same names). Raises RecipeError for an unknown one.
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
    chosen = timm.create_model(name, features_only=True, pretrained=pretrained, out_indices=levels)
    return chosen, [channels[level] for level in levels], [strides[level] for level in levels]

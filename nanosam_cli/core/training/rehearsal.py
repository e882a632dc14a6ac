"""Rehearsing int8: the encoder is trained as it will run, every number rounded to one of 256 levels.

Quantisation-aware training (Jacob et al. 2018, arXiv 1712.05877) without state: the range of each tensor is that of the
batch, so a run that was killed goes on with the same numbers. Gradients pass as if nothing had been rounded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

LEVELS = 255  # of numbers between layers, over their range with 0
WEIGHT_LEVELS = 63  # of weights on either side of 0: seven bits, as CPUs without VNNI need


class Int8Rehearsal(TorchFunctionMode):
    """While it is entered, what an int8 engine rounds is rounded.

    That is what a convolution reads, one range for all of it; its weights, a scale for each output channel (a BatchNorm
    behind it changes only that scale); and both sides of a sum. `spared` convolutions compute as ever.
    """

    def __init__(self, spared: Iterable[nn.Conv2d] = ()) -> None:
        super().__init__()
        self._spared = {id(layer.weight) for layer in spared}

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if func is F.conv2d and id(args[1]) not in self._spared:
            args = (round_numbers(args[0]), round_weights(args[1]), *args[2:])
        elif func is torch.Tensor.add:
            args = tuple(round_numbers(arg) if isinstance(arg, Tensor) else arg for arg in args)
        return func(*args, **(kwargs or {}))


def last_convolution(module: nn.Module) -> nn.Conv2d:
    """The one that makes the embedding; of what it reads, an int8 engine leaves the photo's own colours in float32."""
    return [layer for layer in module.modules() if isinstance(layer, nn.Conv2d)][-1]


def round_numbers(values: Tensor) -> Tensor:
    """(B, ...) to multiples of a 255th of the range, of which one is 0.

    The range is that of the median sample: the bars beside a letterboxed photo give several times larger numbers than
    any photo, and engines are calibrated without them.
    """
    flat = values.detach().flatten(1)
    span = flat.amax(1).clamp(min=0).float() - flat.amin(1).clamp(max=0).float()
    return _round(values, span.median() / LEVELS)


def round_weights(weight: Tensor) -> Tensor:
    """(O, I, K, K) to 127 levels around 0, each output channel by its largest."""
    largest = weight.detach().abs().amax(dim=(1, 2, 3), keepdim=True)
    return _round(weight, largest.float() / WEIGHT_LEVELS)


def _round(values: Tensor, step: Tensor) -> Tensor:
    least = torch.finfo(torch.float32).tiny
    rounded: Tensor = _Rounding.apply(values, step.clamp(min=least).to(values.dtype))  # type: ignore[no-untyped-call]
    return rounded


class _Rounding(torch.autograd.Function):
    """To the nearest multiple of a step, straight through for gradients."""

    @staticmethod
    def forward(context: Any, values: Tensor, step: Tensor) -> Tensor:
        return (values / step).round_().mul_(step)

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient, None

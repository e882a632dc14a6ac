"""The range of shapes that a TensorRT engine is built for: trtexec's min, opt and max."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from nanosam_cli.core.errors import UsageError
from nanosam_cli.core.inference.contract import INPUTS
from nanosam_cli.core.inference.session import TensorInfo
from nanosam_cli.core.inference.sidecar import FixedShape, ShapeRange
from nanosam_cli.core.types import DECODER, ENCODER

Sides = tuple[int, int, int]  # min, opt, max

PROMPTS = (1, 8, 64)  # in one call of the decoder: min, opt, max
POINTS = (2, 2, 16)  # of one prompt: a box is two, and so is a point with SAM's padding
_AXES = {ENCODER: ("photos", "height", "width"), DECODER: ("prompts", "points")}  # that the contract leaves free


@dataclass(frozen=True)
class Shapes:
    """What was asked for, by input; an input that is left out follows the others, or gets the default."""

    min: Mapping[str, FixedShape]
    opt: Mapping[str, FixedShape]
    max: Mapping[str, FixedShape]

    @property
    def levels(self) -> tuple[Mapping[str, FixedShape], ...]:
        return self.min, self.opt, self.max

    def __bool__(self) -> bool:
        return any(self.levels)


@dataclass(frozen=True)
class EncoderShape:
    """Sides of `image`."""

    side: int  # S, pixels
    batch: int = 1  # the most photos at once


def profile(part: str, inputs: Sequence[TensorInfo], asked: Shapes, encoder: EncoderShape) -> dict[str, ShapeRange]:
    """The range of every input. `encoder` says what an image encoder's file may leave open.

    What is asked of one input holds for the others: all have the same prompts, and as many points. Shapes of inputs
    that this part has not are the other part's. Raises UsageError where one does not fit its input, or another.
    """
    for info in inputs:
        for shape in filter(None, (shapes.get(info.name) for shapes in asked.levels)):
            _check(part, info, shape, encoder)
    ranges = {
        axis: _range(axis, [_asked(part, inputs, axis, shapes) for shapes in asked.levels], default)
        for axis, default in _defaults(part, encoder).items()
    }
    return {info.name: ShapeRange(*(_shape(part, info, ranges, level) for level in range(3))) for info in inputs}


def _check(part: str, info: TensorInfo, shape: FixedShape, encoder: EncoderShape) -> None:
    fits = len(shape) == len(info.shape) and all(
        side >= 1 and want in (None, side) for want, side in zip(info.shape, shape)
    )
    if not fits:
        example = _text(_shape(part, info, _defaults(part, encoder), 1))
        raise UsageError(f"{_text(shape)} is no shape of {info}", f"--opt-shapes {info.name}:{example}")


def _asked(part: str, inputs: Sequence[TensorInfo], axis: str, shapes: Mapping[str, FixedShape]) -> int | None:
    """What the shapes say of one axis."""
    said = {
        f"{info.name}:{_text(shapes[info.name])}": shapes[info.name][place]
        for info in inputs
        for place, name in _axes(part, info).items()
        if info.name in shapes and name == axis
    }
    if len(set(said.values())) > 1:
        raise UsageError(f"these shapes do not have the same number of {axis}: {', '.join(said)}")
    return next(iter(said.values()), None)


def _range(axis: str, asked: Sequence[int | None], default: Sides) -> Sides:
    """What is asked for moves a default that it would contradict."""
    low, middle, high = (side or other for side, other in zip(asked, default))
    if asked[1] is None:
        middle = min(max(middle, low), high)
    if asked[0] is None:
        low = min(low, middle, high)
    if asked[2] is None:
        high = max(low, middle, high)
    if not low <= middle <= high:
        raise UsageError(f"{axis} must not shrink from min to opt to max: {low}, {middle}, {high}")
    return low, middle, high


def _defaults(part: str, encoder: EncoderShape) -> dict[str, Sides]:
    side = (encoder.side,) * 3
    sides = [(1, encoder.batch, encoder.batch), side, side] if part == ENCODER else [PROMPTS, POINTS]
    return dict(zip(_AXES[part], sides))


def _axes(part: str, info: TensorInfo) -> dict[int, str]:
    """Which sides of an input are free by the contract, and what they count."""
    free = [place for place, side in enumerate(INPUTS[part][info.name]) if side is None]
    return dict(zip(free, _AXES[part]))


def _shape(part: str, info: TensorInfo, ranges: Mapping[str, Sides], level: int) -> FixedShape:
    axes = _axes(part, info)
    return tuple(side or (ranges[axes[place]][level] if place in axes else 1) for place, side in enumerate(info.shape))


def _text(shape: FixedShape) -> str:
    return "x".join(map(str, shape))

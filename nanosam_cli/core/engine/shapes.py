"""The range of shapes that a TensorRT engine is built for: trtexec's min, opt and max."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from nanosam_cli.core.contract import INPUTS
from nanosam_cli.core.engine.sidecar import ShapeRange
from nanosam_cli.core.errors import UsageError
from nanosam_cli.core.session import TensorInfo
from nanosam_cli.core.zoo import ENCODER

Shape = tuple[int, ...]

PROMPTS = (1, 8, 64)  # in one call of the decoder: min, opt, max
POINTS = (2, 2, 16)  # of one prompt: a box is two, and so is a point with SAM's padding


@dataclass(frozen=True)
class Shapes:
    """What was asked for, by input; an input that is left out gets the default."""

    min: Mapping[str, Shape]
    opt: Mapping[str, Shape]
    max: Mapping[str, Shape]

    def __bool__(self) -> bool:
        return bool(self.min or self.opt or self.max)


@dataclass(frozen=True)
class EncoderShape:
    """Sides of `image`."""

    side: int  # S, pixels
    batch: int = 1  # the most photos at once


def profile(part: str, inputs: Sequence[TensorInfo], asked: Shapes, encoder: EncoderShape) -> dict[str, ShapeRange]:
    """The range of every input. `encoder` says what an image encoder's file may leave open.

    Shapes of inputs that this part has not are the other part's. Raises UsageError where one does not fit its input.
    """
    return {info.name: _range(part, info, asked, encoder) for info in inputs}


def _range(part: str, info: TensorInfo, asked: Shapes, encoder: EncoderShape) -> ShapeRange:
    defaults = _defaults(part, info, encoder)
    given = [shapes.get(info.name) for shapes in (asked.min, asked.opt, asked.max)]
    for shape in given:
        fits = shape is None or (
            len(shape) == len(info.shape)
            and all(side >= 1 and want in (None, side) for want, side in zip(info.shape, shape))
        )
        if not fits:
            raise UsageError(f"{_text(shape)} is no shape of {info}", f"--opt-shapes {info.name}:{_text(defaults[1])}")
    # what is given moves a default that it would contradict
    low, middle, high = (shape or default for shape, default in zip(given, defaults))
    if given[1] is None:
        middle = tuple(min(max(m, a), b) for m, a, b in zip(middle, low, high))
    if given[0] is None:
        low = tuple(map(min, low, middle, high))
    if given[2] is None:
        high = tuple(map(max, low, middle, high))
    if not all(a <= m <= b for a, m, b in zip(low, middle, high)):
        shown = f"min {_text(low)}, opt {_text(middle)}, max {_text(high)}"
        raise UsageError(f"the shapes of {info.name} must not shrink from min to opt to max: {shown}")
    return ShapeRange(low, middle, high)


def _defaults(part: str, info: TensorInfo, encoder: EncoderShape) -> tuple[Shape, Shape, Shape]:
    """By the contract's order of dynamic sides: prompts, points; of an encoder batch, height, width."""
    free = [place for place, side in enumerate(INPUTS[part][info.name]) if side is None]

    def shape(level: int) -> Shape:
        side = (encoder.side,) * 3
        ranges = [(1, encoder.batch, encoder.batch), side, side] if part == ENCODER else [PROMPTS, POINTS]
        by_place = {place: sides[level] for place, sides in zip(free, ranges)}
        return tuple(wanted or by_place.get(place, 1) for place, wanted in enumerate(info.shape))

    return shape(0), shape(1), shape(2)


def _text(shape: Shape | None) -> str:
    return "x".join(map(str, shape or ()))

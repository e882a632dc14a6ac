"""The command that makes an engine again, as its side-car keeps it."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence

from nanosam_cli.core.engine.shapes import Shape

Options = Mapping[str, object]  # by their names on the command line, such as --batch; True where one takes no value


def rebuild_command(models: Sequence[str], options: Options) -> str:
    """`nanosam build-engine` with names or files, and the options that were given: those that are not None or False."""
    words = ["nanosam", "build-engine", *models]
    for name, value in options.items():
        if value is not None and value is not False:
            words += [name] if value is True else [name, str(value)]
    return shlex.join(words)


def unless_default(value: object, default: object) -> object:
    """None where an option says what goes without saying."""
    return None if value == default else value


def shapes_text(shapes: Mapping[str, Shape]) -> str | None:
    """`point_coords:8x2x2,point_labels:8x2`, or None where there are none."""
    return ",".join(f"{name}:{'x'.join(map(str, shape))}" for name, shape in shapes.items()) or None

"""Options that commands share, each written once, and the parsers that turn their text into types.

Use: `def command(box: BoxOption = None, device: DeviceOption = None) -> None`. What a parser refuses is a usage error.
"""

from __future__ import annotations

import math
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer
from typer.core import TyperCommand, TyperGroup

from nanosam_cli import console

if TYPE_CHECKING:
    from nanosam_cli.core.loading.choice import ModelChoice

PROMPT, MODEL, OUTPUT = "Prompt", "Model", "Output"  # headings of the help

# NanoSAM's names for options that are called otherwise here. All its underscores are understood as hyphens too.
NANOSAM_SPELLINGS = {
    "image-encoder": "encoder",
    "mask-decoder": "decoder",
    "coco-root": "images",
    "coco-ann": "annotations",
}


def spelling(token: str) -> str:
    """The option's name for what was typed: Typer's `token_normalize_func`, so that aliases stay out of help."""
    hyphened = token.replace("_", "-")
    return NANOSAM_SPELLINGS.get(hyphened, hyphened)


class _PlainFlags:
    """Help says nothing of the type of a flag, which takes no value."""

    def get_params(self, ctx: Any) -> list[Any]:
        params: list[Any] = super().get_params(ctx)  # type: ignore[misc]
        for param in params:
            if getattr(param, "is_flag", False) and param.metavar is None:
                param.metavar = ""
        return params


class Command(_PlainFlags, TyperCommand):
    """A command of this program."""


class Group(_PlainFlags, TyperGroup):
    """A command that has commands of its own."""


class Box(NamedTuple):
    """Corners in pixels of the photo."""

    x0: float
    y0: float
    x1: float
    y1: float


class Point(NamedTuple):
    """A place in pixels of the photo; label 1 is on the object, 0 is not."""

    x: float
    y: float
    label: int = 1


class Device(str, Enum):
    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"
    coreml = "coreml"
    directml = "directml"
    webgpu = "webgpu"
    xnnpack = "xnnpack"
    openvino = "openvino"  # ONNX Runtime's provider; gpu and npu are those of the backend openvino
    gpu = "gpu"
    npu = "npu"


def chosen_model(
    model: str | None = None,
    encoder: Path | None = None,
    decoder: Path | None = None,
    device: Device | None = None,
    backend: str | None = None,
    threads: int | None = None,
) -> ModelChoice:
    """What the options of a model say together."""
    from nanosam_cli.core.loading.choice import ModelChoice

    return ModelChoice(model, encoder, decoder, backend, device.value if device else None, threads)


# for the shell's completion: what may stand in a place. Nothing heavy is imported, and that when it is asked for


def complete_models(incomplete: str) -> list[str]:
    """Models by name."""
    from nanosam_cli.core.zoo.models import MODELS

    return [name for name in MODELS if name.startswith(incomplete)]


def complete_downloads(incomplete: str) -> list[str]:
    """Models and data sets that can be downloaded."""
    from nanosam_cli.core.zoo.catalogue import entries

    return [name for name in entries() if name.startswith(incomplete)]


def complete_recipes(incomplete: str) -> list[str]:
    """Recipes that come with the package."""
    from nanosam_cli.core.training.recipe import list_recipe_files

    return [path.stem for path, _ in list_recipe_files() if path.stem.startswith(incomplete)]


def complete_parts(incomplete: str) -> list[str]:
    """Parts of a person."""
    from nanosam_cli.core.prompting.body_parts import known_parts

    return [name for name in known_parts() if name.startswith(incomplete)]


def parse_box(text: str) -> Box:
    """`x0,y0,x1,y1` with x0 < x1 and y0 < y1; parts may lie outside the photo."""
    example = "a box is x0,y0,x1,y1 in pixels, such as 10,20,300,400"
    numbers = _numbers(text, example)
    if len(numbers) != 4:
        raise typer.BadParameter(f"{text!r} has {_count(numbers)}; {example}")
    x0, y0, x1, y1 = numbers
    if x0 > x1 or y0 > y1:
        turned = ",".join(f"{side:g}" for side in (min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1)))
        raise typer.BadParameter(f"{text!r} is inverted; {example}. Did you mean {turned}?")
    if x0 == x1 or y0 == y1:
        raise typer.BadParameter(f"{text!r} has no area; {example}")
    return Box(x0, y0, x1, y1)


def parse_point(text: str) -> Point:
    """`x,y` or `x,y,label` with label 1 (foreground) or 0 (background)."""
    example = "a point is x,y or x,y,label in pixels, such as 150,200 or 40,60,0"
    numbers = _numbers(text, example)
    if len(numbers) not in (2, 3):
        raise typer.BadParameter(f"{text!r} has {_count(numbers)}; {example}")
    label = numbers[2] if len(numbers) == 3 else 1
    if label not in (0, 1):
        raise typer.BadParameter(f"{text!r} has the label {label:g}; 1 is foreground, 0 background; {example}")
    return Point(numbers[0], numbers[1], int(label))


def parse_number(text: str) -> float:
    """A finite number."""
    try:
        number = float(text)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is not a number") from None
    if not math.isfinite(number):
        raise typer.BadParameter(f"{text!r} is not a finite number")
    return number


def parse_positive(text: str) -> float:
    """A finite number above 0."""
    number = parse_number(text)
    if number <= 0:
        raise typer.BadParameter(f"{text!r} is not above 0")
    return number


def parse_share(text: str) -> float:
    """A number from 0 to 1."""
    number = parse_number(text)
    if not 0 <= number <= 1:
        raise typer.BadParameter(f"{text!r} is not from 0 to 1")
    return number


def _numbers(text: str, example: str) -> list[float]:
    try:
        return [parse_number(part) for part in text.split(",")]
    except typer.BadParameter as error:
        raise typer.BadParameter(f"{error.message}, in {text!r}; {example}") from None


def _count(numbers: list[float]) -> str:
    return "1 number" if len(numbers) == 1 else f"{len(numbers)} numbers"


def _be_quiet(value: bool) -> bool:
    if value:
        console.be_quiet()
    return value


def _be_verbose(value: bool) -> bool:
    if value:
        console.be_verbose()
    return value


QuietOption = Annotated[
    bool, typer.Option("-q", "--quiet", callback=_be_quiet, help="Only results, warnings and errors.")
]
VerboseOption = Annotated[
    bool, typer.Option("-v", "--verbose", callback=_be_verbose, help="Say more about what is done, and with what.")
]

BoxOption = Annotated[
    list[Box] | None,
    typer.Option(
        "--box",
        parser=parse_box,
        metavar="x0,y0,x1,y1",
        rich_help_panel=PROMPT,
        help="A box around an object, in pixels. Repeatable.",
    ),
]
PointOption = Annotated[
    list[Point] | None,
    typer.Option(
        "--point",
        parser=parse_point,
        metavar="x,y[,label]",
        rich_help_panel=PROMPT,
        help="A point on the object (label 1, the default) or beside it (label 0), in pixels. Repeatable.",
    ),
]
EachPointOption = Annotated[
    bool,
    typer.Option(
        "--each-point", rich_help_panel=PROMPT, help="Every foreground point is an object, instead of all together."
    ),
]
MaskOption = Annotated[
    Path | None,
    typer.Option(
        "--mask", metavar="FILE", rich_help_panel=PROMPT, help="A mask to refine: a PNG, each value but 0 an object."
    ),
]
ZoomOption = Annotated[
    bool,
    typer.Option(
        "--zoom",
        rich_help_panel=PROMPT,
        help="Look closer: encode a window around each object anew. Sharper masks of small things, in more time.",
    ),
]

LabelOption = Annotated[
    list[str] | None,
    typer.Option(
        "--label",
        metavar="NAME",
        rich_help_panel=PROMPT,
        help="Class of what is drawn: once for all objects, or once for each in their order.",
    ),
]

ModelOption = Annotated[
    str | None,
    typer.Option(
        "--model",
        metavar="NAME",
        autocompletion=complete_models,
        rich_help_panel=MODEL,
        help="Model to use; `nanosam download --list` shows all.",
    ),
]
EncoderOption = Annotated[
    Path | None,
    typer.Option(
        "--encoder", metavar="FILE", rich_help_panel=MODEL, help="Image encoder file, instead of the model's own."
    ),
]
DecoderOption = Annotated[
    Path | None,
    typer.Option(
        "--decoder", metavar="FILE", rich_help_panel=MODEL, help="Mask decoder file, instead of the model's own."
    ),
]
# NANOSAM_DEVICE and NANOSAM_BACKEND are read by core, for the Python API too
DeviceOption = Annotated[
    Device | None, typer.Option("--device", rich_help_panel=MODEL, help="Where to run. Else NANOSAM_DEVICE, else auto.")
]
BackendOption = Annotated[
    str | None,
    typer.Option(
        "--backend", metavar="NAME", rich_help_panel=MODEL, help="Runtime to use. Else NANOSAM_BACKEND, else auto."
    ),
]
ThreadsOption = Annotated[
    int | None,
    typer.Option(
        "--threads", min=1, metavar="N", rich_help_panel=MODEL, help="CPU threads of a run; else the runtime's choice."
    ),
]

OutputOption = Annotated[
    str | None, typer.Option("-o", "--output", metavar="PATH", rich_help_panel=OUTPUT, help="Where to write.")
]
GreyOption = Annotated[
    bool,
    typer.Option(
        "--grey", rich_help_panel=OUTPUT, help="Label PNGs in greyscale, whose values OpenCV reads as they are."
    ),
]
ForceOption = Annotated[bool, typer.Option("--force", "-f", rich_help_panel=OUTPUT, help="Overwrite files that exist.")]
ResumeOption = Annotated[
    bool, typer.Option("--resume", rich_help_panel=OUTPUT, help="Go on with a run that was cut off.")
]
JsonOption = Annotated[
    bool, typer.Option("--json", rich_help_panel=OUTPUT, help="Print the result as JSON, one object a line.")
]

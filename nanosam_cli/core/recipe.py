"""A training recipe: everything that decides a run, read from TOML and checked as a whole before anything starts."""

from __future__ import annotations

import dataclasses
import difflib
import json
import sys
import typing
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from nanosam_cli.core import paths
from nanosam_cli.core.errors import InputError, RecipeError

if sys.version_info >= (3, 11):
    import tomllib
else:  # pragma: no cover
    import tomli as tomllib


@dataclass(frozen=True)
class Range:
    """A rule for numbers; NaN is outside of every range."""

    low: float
    high: float = float("inf")

    def fault(self, value: Any) -> str | None:
        if not value >= self.low:
            return f"must be at least {self.low:g}, not {value}"
        return None if value <= self.high else f"must be at most {self.high:g}, not {value}"


@dataclass(frozen=True)
class OneOf:
    """A rule for names and sizes."""

    choices: tuple[str | int, ...]

    def fault(self, value: Any) -> str | None:
        return None if value in self.choices else f"must be one of {', '.join(map(str, self.choices))}, not {value}"


Count = Annotated[int, Range(1)]
Whole = Annotated[int, Range(0)]
Amount = Annotated[float, Range(0)]
Share = Annotated[float, Range(0, 1)]


@dataclass(frozen=True)
class ModelSection:
    """What is trained."""

    name: str  # goes into the files' metadata
    backbone: str  # a timm name
    pretrained: bool  # start from timm's ImageNet weights (needs network)
    image_size: Annotated[int, OneOf((512, 1024))]  # side of the square input, pixels
    neck_width: Annotated[int, Range(16)]
    finest_stride: Annotated[int, OneOf((4, 8, 16))]  # finest backbone map that the neck uses
    decoder: Annotated[str, OneOf(("region", "sam"))]


@dataclass(frozen=True)
class Source:
    """One COCO-format folder: `instances.json` and `images/`."""

    path: str  # below data.root
    weight: Amount  # how often it is drawn, relative to the others


@dataclass(frozen=True)
class DataSection:
    """What it is trained on, and how photos become crops."""

    root: str
    sources: tuple[Source, ...]
    crop: Annotated[int, Range(64)]  # side of a training crop, pixels
    scale: tuple[float, float]  # range of sizes, 1 = the size at inference; drawn log-uniformly
    whole: Share  # share of whole photos, letterboxed into the crop
    full: Share  # share of steps on whole photos at model.image_size, fewer a step
    objects: Count  # prompts a crop, on average
    copy_paste: Share  # share of crops with an object of another photo pasted in
    colour: Share  # strength of brightness, contrast and saturation changes
    grey: Share  # share of crops made grey
    workers: Whole


@dataclass(frozen=True)
class PromptSection:
    """How objects are prompted."""

    point: Share  # share of points alone, one or a few; the rest are boxes
    box_and_point: Share  # share of boxes with a point
    box_jitter: Annotated[float, Range(0, 0.5)]  # standard deviation, share of the box's side
    rough_boxes: Share  # share of boxes with five times that jitter
    refine: Share  # share of prompts that go a second round: first mask plus a correcting click


@dataclass(frozen=True)
class LossSection:
    """Weights of the loss terms."""

    bce: Amount
    dice: Amount
    iou: Amount  # the predicted IoU
    click: Amount  # masks, boxes and scores read under clicks


@dataclass(frozen=True)
class OptimiserSection:
    """AdamW with linear warm-up and cosine decay."""

    steps: Count
    batch: Count  # crops a step
    learning_rate: Amount
    weight_decay: Amount
    warmup: Whole  # steps
    clip: Amount  # gradient norm; 0 = off
    ema: Share  # decay of the weights' moving average, which is what gets evaluated and exported
    precision: Annotated[str, OneOf(("fp32", "bf16"))]


@dataclass(frozen=True)
class RunSection:
    """Where and how often."""

    seed: int
    device: Annotated[str, OneOf(("auto", "cpu", "cuda"))]
    threads: Whole  # CPU threads; 0 = torch's own choice
    checkpoint_every: Count  # steps
    evaluate_every: Whole  # steps; 0 = only at the end
    evaluate_on: str  # a COCO-format folder below data.root; "" = never
    evaluate_limit: Whole  # photos; 0 = all


@dataclass(frozen=True)
class Recipe:
    """A whole training run."""

    model: ModelSection
    data: DataSection
    prompts: PromptSection
    loss: LossSection
    optimiser: OptimiserSection
    run: RunSection

    def to_dict(self) -> dict[str, Any]:
        """Nested plain values, as in the TOML."""
        return dataclasses.asdict(self)

    def fingerprint(self) -> str:
        """What must not change between a run and its resumption: all but where it runs and how often it reports."""
        content = {key: value for key, value in self.to_dict().items() if key != "run"}
        content["data"] = {key: value for key, value in content["data"].items() if key not in ("root", "workers")}
        content["seed"] = self.run.seed
        return json.dumps(content, sort_keys=True)


def load_recipe(path: Path, overrides: typing.Sequence[str] = ()) -> Recipe:
    """Read a TOML recipe and apply `section.key=value` overrides (values in TOML's notation, bare words are strings).

    Raises RecipeError with every fault at once, each with the nearest valid name.
    """
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InputError(f"no such recipe: {path}", "nanosam distill --list") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path} is not TOML: {error}") from error
    faults: list[str] = []
    for override in overrides:
        _apply(override, content, faults)
    recipe = _build(Recipe, content, "", faults)
    if isinstance(recipe, Recipe):
        faults += _cross_checks(recipe)
    if faults:
        raise RecipeError(f"{path} has {len(faults)} fault(s):\n" + "\n".join(f"  - {fault}" for fault in faults))
    assert isinstance(recipe, Recipe)
    return recipe


def list_recipe_files() -> list[tuple[Path, str]]:
    """The recipes that come with the package, each with the first line of its opening comment."""
    files = sorted(paths.resource("recipes").glob("*.toml"))
    return [(path, path.read_text(encoding="utf-8").partition("\n")[0].lstrip("# ")) for path in files]


def find_recipe(name: str) -> Path:
    """A path as it is, or a packaged recipe by its name. Raises InputError with the nearest names."""
    if name.endswith(".toml"):
        return Path(name)
    known = {path.stem: path for path, _ in list_recipe_files()}
    if name in known:
        return known[name]
    near = difflib.get_close_matches(name, known, n=3)
    hint = f"did you mean {' or '.join(near)}?" if near else "nanosam distill --list"
    raise InputError(f"unknown recipe: {name}", hint)


def _cross_checks(recipe: Recipe) -> list[str]:
    faults = []
    stride = recipe.model.image_size // 64
    low, high = recipe.data.scale
    if recipe.data.crop % 32 or recipe.data.crop > recipe.model.image_size:
        faults.append(f"data.crop: {recipe.data.crop} must be a multiple of 32 up to model.image_size")
    if not 0 < low <= high:
        faults.append(f"data.scale: needs 0 < low <= high, not {low}, {high}")
    if not recipe.data.sources or sum(source.weight for source in recipe.data.sources) <= 0:
        faults.append("data.sources: at least one source with a weight above 0 is needed")
    if recipe.prompts.point + recipe.prompts.box_and_point > 1:
        faults.append("prompts: point + box_and_point must not pass 1")
    if recipe.optimiser.ema >= 1:
        faults.append("optimiser.ema: must be under 1, or the average never learns")
    if recipe.model.finest_stride > stride:
        faults.append(f"model.finest_stride: must not pass the embedding's stride, {stride}")
    return faults


def _apply(override: str, content: dict[str, Any], faults: list[str]) -> None:
    name, equals, text = override.partition("=")
    if not equals:
        faults.append(f"--set {override}: needs section.key=value")
        return
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text
    *sections, key = name.strip().split(".")
    table = content
    for section in sections:
        table = table.setdefault(section, {})
        if not isinstance(table, dict):
            faults.append(f"--set {override}: {section} is not a section")
            return
    table[key] = value


def _build(kind: Any, content: Any, where: str, faults: list[str]) -> Any:
    """`content` as an instance of `kind`, or None with the faults noted."""
    if dataclasses.is_dataclass(kind):
        return _build_section(kind, content, where, faults)
    if typing.get_origin(kind) is Annotated:
        plain, rule = typing.get_args(kind)
        value = _build(plain, content, where, faults)
        fault = None if value is None else rule.fault(value)
        if fault:
            faults.append(f"{where}: {fault}")
        return value
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is tuple:
        if not isinstance(content, list):
            faults.append(f"{where}: must be a list, not {content!r}")
            return None
        if arguments[-1] is not Ellipsis and len(content) != len(arguments):
            faults.append(f"{where}: needs {len(arguments)} values, not {len(content)}")
            return None
        kinds = [arguments[0]] * len(content) if arguments[-1] is Ellipsis else arguments
        return tuple(_build(k, c, f"{where}[{i}]", faults) for i, (k, c) in enumerate(zip(kinds, content)))
    if kind is float and isinstance(content, int) and not isinstance(content, bool):
        return float(content)
    if type(content) is not kind:
        faults.append(f"{where}: must be {kind.__name__}, not {content!r}")
        return None
    return content


def _build_section(kind: Any, content: Any, where: str, faults: list[str]) -> Any:
    if not isinstance(content, dict):
        faults.append(f"{where or 'recipe'}: must be a section, not {content!r}")
        return None
    hints = typing.get_type_hints(kind, include_extras=True)
    prefix = f"{where}." if where else ""
    for key in content.keys() - hints.keys():
        near = difflib.get_close_matches(key, hints, n=1)
        faults.append(f"{prefix}{key}: no such key" + (f"; did you mean {near[0]}?" if near else ""))
    before = len(faults)
    values = {}
    for name, hint in hints.items():
        if name in content:
            values[name] = _build(hint, content[name], f"{prefix}{name}", faults)
        else:
            faults.append(f"{prefix}{name}: missing")
    return kind(**values) if len(faults) == before else None

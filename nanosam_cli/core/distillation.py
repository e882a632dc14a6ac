"""Training: one loop from a recipe to a model that the rest of the program runs.

The loop is deterministic in (recipe, step): samples are drawn by index and nothing else is random after the first
weights, so a run that was killed goes on from its last checkpoint with the same losses.
"""

from __future__ import annotations

import csv
import json
import math
import platform
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel
from torch.utils.data import DataLoader

from nanosam_cli import __version__
from nanosam_cli.core import losses
from nanosam_cli.core.backends.torch import model_predictor
from nanosam_cli.core.checkpoint import load_state, restore, save_state
from nanosam_cli.core.coco import read_coco
from nanosam_cli.core.datasets import Batch, ResumableOrder, TrainingCrops, collate
from nanosam_cli.core.errors import BackendError, NanosamError, OutputError
from nanosam_cli.core.evaluation import evaluate, mean_iou_by_size
from nanosam_cli.core.files import write_text
from nanosam_cli.core.frame import COORDINATE_SIZE
from nanosam_cli.core.modeling.model import PromptableModel
from nanosam_cli.core.modeling.prediction import LOW_RES, Prompts, WindowPrediction
from nanosam_cli.core.modeling.resample import crop_windows, paste_windows
from nanosam_cli.core.recipe import LossSection, OptimiserSection, Recipe

CHECKPOINT = "last.safetensors"
LOG = "log.csv"
FOCUS_MARGIN = 0.15  # of the box, on each side of the window on which whole-square decoders are trained
OUTSIDE_LOGIT = -5.0  # of a mask that is shown again as prompt


@dataclass(frozen=True)
class StepReport:
    """What a step did, for whoever watches."""

    step: int  # steps done, from 1
    loss: float
    iou: float  # of the chosen masks, clear prompts
    learning_rate: float
    images_per_second: float
    waiting: float  # share of the time spent waiting for data


@dataclass(frozen=True)
class EvaluationReport:
    """mIoU of the averaged weights on the evaluation folder."""

    step: int
    mean_iou: dict[str, float]  # by size: all, small, medium, large


Report = Callable[[StepReport | EvaluationReport], None]


def train(recipe: Recipe, folder: Path, *, resume: bool = False, report: Report = lambda _: None) -> Path:
    """Run a recipe in `folder`, from the start or from its last checkpoint -> the final checkpoint.

    Leaves `recipe.json` (resolved), `log.csv`, `evaluation.jsonl` and `last.safetensors`. Raises OutputError where the
    folder holds a run already and `resume` is false, RecipeError where that run is of another recipe.
    """
    device = choose_device(recipe.run.device)
    if recipe.run.threads:
        torch.set_num_threads(recipe.run.threads)
    checkpoint = folder / CHECKPOINT
    if checkpoint.exists() and not resume:
        raise OutputError(f"{folder} holds a run already", "add --resume to go on with it, or choose another folder")

    dataset = TrainingCrops(recipe)
    torch.manual_seed(recipe.run.seed)
    model = PromptableModel(recipe.model).to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    average = AveragedModel(model, avg_fn=_moving_average(recipe.optimiser.ema), use_buffers=True)
    optimiser = make_optimiser(model, recipe.optimiser)
    done = 0
    if resume and checkpoint.exists():
        state = load_state(checkpoint)
        if state.metadata["fingerprint"] != recipe.fingerprint():
            raise OutputError(f"{checkpoint} belongs to another recipe", "resume with the recipe it was started with")
        restore(state, model, average, optimiser)
        done = state.metadata["step"]
    else:
        write_text(folder / "recipe.json", json.dumps(_provenance(recipe, dataset), indent=2), overwrite=True)

    def save(step: int) -> None:
        metadata = {"step": step, "fingerprint": recipe.fingerprint(), "recipe": recipe.to_dict()}
        save_state(checkpoint, model, average, optimiser, metadata)

    with closing(StepLog(folder / LOG, keep=done)) as log:
        clock = Stopwatch()
        for step, batch in enumerate(_batches(dataset, recipe, done), start=done + 1):
            clock.waited()
            rate = learning_rate(step, recipe.optimiser)
            loss, iou = train_step(model, optimiser, batch.to(device), recipe, step, rate)
            average.update_parameters(model)
            if not math.isfinite(loss):
                raise NanosamError(
                    f"the loss is {loss} at step {step}; the checkpoint before it is kept",
                    "lower optimiser.learning_rate or set optimiser.precision=fp32, then --resume",
                )
            seconds, waiting = clock.worked()
            progress = StepReport(step, loss, iou, rate, recipe.optimiser.batch / seconds, waiting)
            log.write(progress)
            report(progress)
            last = step == recipe.optimiser.steps
            if last or step % recipe.run.checkpoint_every == 0:
                save(step)
            if recipe.run.evaluate_on and (last or _due(step, recipe.run.evaluate_every)):
                evaluation = EvaluationReport(step, evaluate_model(cast(PromptableModel, average.module), recipe))
                with (folder / "evaluation.jsonl").open("a") as file:
                    file.write(json.dumps({"step": step, **evaluation.mean_iou}) + "\n")
                report(evaluation)
                clock = Stopwatch()
    return checkpoint


def steps_done(folder: Path) -> int:
    """Steps that the run in `folder` has behind it; 0 where there is none."""
    checkpoint = folder / CHECKPOINT
    return int(load_state(checkpoint).metadata["step"]) if checkpoint.exists() else 0


def train_step(
    model: PromptableModel, optimiser: torch.optim.Optimizer, batch: Batch, recipe: Recipe, step: int, rate: float
) -> tuple[float, float]:
    """One forward, backward and update -> loss, mean IoU over clear prompts."""
    model.train()
    for group in optimiser.param_groups:
        group["lr"] = rate
    half = recipe.optimiser.precision == "bf16"
    with torch.autocast(batch.images.device.type, torch.bfloat16, enabled=half):
        embeddings = model.encoder(batch.images.contiguous(memory_format=torch.channels_last))
        prompts = first_prompts(batch, recipe.model.image_size)
        focus = focus_windows(batch.boxes)
        prediction = model.decoder.predict_windows(embeddings, prompts, focus)
    target, covered = window_targets(batch, prediction.windows, prediction.logits.shape[-1], recipe.model.image_size)
    per_prompt, ious = prompt_losses(prediction, target, covered, batch, recipe.loss)
    loss = per_prompt.mean()

    rows = refined_rows(len(batch.owner), recipe.prompts.refine, recipe.run.seed + step).to(batch.owner.device)
    if len(rows):
        generator = torch.Generator().manual_seed(recipe.run.seed + step)
        again = corrected_prompts(prompts, prediction, target, batch.ambiguous, rows, generator)
        with torch.autocast(batch.images.device.type, torch.bfloat16, enabled=half):
            second = model.decoder.predict_windows(embeddings, again, focus[rows])
        subset = Batch(batch.images, *(part[rows] for part in batch[1:]))
        subset = subset._replace(ambiguous=torch.zeros_like(subset.ambiguous))
        target2, covered2 = window_targets(subset, second.windows, second.logits.shape[-1], recipe.model.image_size)
        per_prompt2, _ = prompt_losses(second, target2, covered2, subset, recipe.loss)
        loss = loss + per_prompt2.mean() * (len(rows) / len(batch.owner))

    optimiser.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    if recipe.optimiser.clip:
        nn.utils.clip_grad_norm_(model.parameters(), recipe.optimiser.clip)
    optimiser.step()
    clear = ~batch.ambiguous
    seen = float(ious[clear, 0].mean()) if bool(clear.any()) else float("nan")
    return float(loss.detach()), seen


def first_prompts(batch: Batch, image_size: int) -> Prompts:
    """The batch's prompts, no mask given."""
    low = round(batch.masks.shape[-1] * COORDINATE_SIZE / image_size / LOW_RES)
    count = len(batch.owner)
    empty = batch.boxes.new_zeros(count, 1, low, low)
    return Prompts(batch.owner, batch.point_coords, batch.point_labels, empty, batch.boxes.new_zeros(count))


def focus_windows(boxes: Tensor) -> Tensor:
    """(P, 4) windows a little larger than the true boxes."""
    margin = FOCUS_MARGIN * (boxes[:, 2:] - boxes[:, :2]) + LOW_RES
    return torch.cat([boxes[:, :2] - margin, boxes[:, 2:] + margin], dim=1)


def window_targets(batch: Batch, windows: Tensor, side: int, image_size: int) -> tuple[Tensor, Tensor]:
    """True masks on the windows (P, 1, side, side) in [0, 1], and the share of each object that its window holds."""
    pixels = windows * (image_size / COORDINATE_SIZE)
    truth = batch.masks.float() / 255
    target = crop_windows(truth, pixels, side)
    window_area = (pixels[:, 2:] - pixels[:, :2]).prod(dim=1)
    held = target.mean(dim=(1, 2, 3)) * window_area
    return target, (held / truth.sum(dim=(1, 2, 3)).clamp(min=1)).clamp(max=1)


def prompt_losses(
    prediction: WindowPrediction, target: Tensor, covered: Tensor, batch: Batch, weights: LossSection
) -> tuple[Tensor, Tensor]:
    """-> loss of each prompt (P,), true IoU of each mask (P, K)."""
    by_mask = losses.mask_loss(prediction.logits, target, bce=weights.bce, dice=weights.dice)
    ious = losses.window_iou(prediction.logits, target, covered)
    total = losses.choose_masks(by_mask, batch.ambiguous)
    total = total + weights.iou * (prediction.ious.float() - ious).square().mean(dim=1)
    if prediction.point_boxes is not None:
        clicked = batch.point_labels[:, 0] == 1
        boxes = losses.box_loss(prediction.point_boxes[:, 0], batch.boxes)
        total = total + weights.box * boxes * clicked
    return total, ious


def refined_rows(count: int, share: float, seed: int) -> Tensor:
    """Which prompts go a second round."""
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    return order[: round(count * share)]


def corrected_prompts(
    prompts: Prompts,
    prediction: WindowPrediction,
    target: Tensor,
    ambiguous: Tensor,
    rows: Tensor,
    generator: torch.Generator,
) -> Prompts:
    """Second round: the mask that would be shown, as mask prompt, and one click where it is wrong."""
    shown = torch.where(ambiguous, 1 + prediction.ious[:, 1:].argmax(dim=1), 0)[rows]
    logits = prediction.logits.detach()[rows, shown][:, None]  # (R, 1, G, G)
    windows, truth = prediction.windows[rows], target[rows] > 0.5
    wrong = ((logits > 0) != truth).flatten(1).float()
    none = (wrong.sum(dim=1) == 0).float()[:, None]
    side = logits.shape[-1]
    picks = torch.multinomial((wrong + none).cpu(), 1, generator=generator).to(windows.device)  # (R, 1)
    share = torch.cat([picks % side, picks // side], dim=1).add(0.5) / side  # x y within the window
    click = windows[:, :2] + share * (windows[:, 2:] - windows[:, :2])
    label = (
        truth.flatten(1).gather(1, picks).to(prompts.point_labels.dtype)
    )  # 1 where a part is missing, 0 where too much
    before = prompts.rows(rows)
    low_res_hw = (before.mask_input.shape[-2], before.mask_input.shape[-1])
    return Prompts(
        before.owner,
        torch.cat([before.point_coords, click[:, None]], dim=1),
        torch.cat([before.point_labels, label], dim=1),
        paste_windows(logits.float(), windows / LOW_RES, low_res_hw, OUTSIDE_LOGIT),
        torch.ones_like(before.has_mask_input),
    )


def evaluate_model(model: PromptableModel, recipe: Recipe) -> dict[str, float]:
    """mIoU by size of box prompts on the recipe's evaluation folder, through the same predictor that users run."""
    photos = read_coco(Path(recipe.data.root) / recipe.run.evaluate_on / "instances.json")
    if recipe.run.evaluate_limit:
        photos = photos[: recipe.run.evaluate_limit]
    with model_predictor(model) as predictor:
        return mean_iou_by_size([result for results in evaluate(predictor, photos) for result in results])


def choose_device(name: str) -> torch.device:
    """auto, cpu or cuda -> a device. Raises BackendError where CUDA was asked for and is not there."""
    if name == "cuda" and not torch.cuda.is_available():
        raise BackendError("run.device is cuda, but torch sees no CUDA device", "--set run.device=cpu")
    return torch.device("cuda" if name == "cuda" or (name == "auto" and torch.cuda.is_available()) else "cpu")


def make_optimiser(model: nn.Module, section: OptimiserSection) -> torch.optim.AdamW:
    """AdamW; norms, biases and scalars do not decay."""
    decayed = [parameter for parameter in model.parameters() if parameter.ndim > 1]
    others = [parameter for parameter in model.parameters() if parameter.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": section.weight_decay}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=section.learning_rate)


def learning_rate(step: int, section: OptimiserSection) -> float:
    """Linear warm-up, then half a cosine down to a hundredth; `step` counts from 1."""
    if step <= section.warmup:
        return section.learning_rate * step / section.warmup
    progress = (step - section.warmup) / max(1, section.steps - section.warmup)
    return section.learning_rate * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * progress)))


class StepLog:
    """`log.csv`: a line a step; on resumption, lines after the checkpoint are dropped."""

    HEADER = ("step", "loss", "iou", "learning_rate", "images_per_second", "waiting")

    def __init__(self, path: Path, keep: int) -> None:
        kept: list[list[str]] = []
        if path.exists() and keep:
            with path.open(newline="") as file:
                kept = [row for row in csv.reader(file) if row and row[0].isdigit() and int(row[0]) <= keep]
        self._file = path.open("w", newline="")
        self._writer = csv.writer(self._file)
        self._writer.writerows([self.HEADER, *kept])

    def write(self, progress: StepReport) -> None:
        """Add one step."""
        values = (progress.loss, progress.iou, progress.learning_rate, progress.images_per_second, progress.waiting)
        self._writer.writerow([progress.step, *(f"{value:.6g}" for value in values)])
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class Stopwatch:
    """Splits the loop's time into waiting for data and working."""

    def __init__(self) -> None:
        self._begin = self._data = time.perf_counter()

    def waited(self) -> None:
        """Call when a batch has arrived."""
        self._data = time.perf_counter()

    def worked(self) -> tuple[float, float]:
        """Call when the step is done -> seconds of the whole step, share of them spent waiting."""
        now = time.perf_counter()
        seconds, waited = now - self._begin, self._data - self._begin
        self._begin = now
        return seconds, waited / seconds


def _batches(dataset: TrainingCrops, recipe: Recipe, done: int) -> Iterator[Batch]:
    """Batches of the steps that are left."""
    size, workers = recipe.optimiser.batch, recipe.data.workers
    order = ResumableOrder(done * size, len(dataset))
    loader = DataLoader(
        dataset,
        batch_size=size,
        sampler=order,
        num_workers=workers,
        collate_fn=partial(collate, prompts=size * recipe.data.objects),
        persistent_workers=workers > 0,
        prefetch_factor=4 if workers else None,
    )
    yield from loader


def _moving_average(decay: float) -> Callable[[Tensor, Tensor, Tensor | int], Tensor]:
    """Exponential moving average that starts as a plain mean, so that the first weights are soon forgotten."""

    def update(average: Tensor, current: Tensor, updates: Tensor | int) -> Tensor:
        if not average.is_floating_point():
            return current
        share = 1 - min(decay, (1 + float(updates)) / (10 + float(updates)))
        return average.lerp(current, share)

    return update


def _due(step: int, every: int) -> bool:
    return every > 0 and step % every == 0


def _provenance(recipe: Recipe, dataset: TrainingCrops) -> dict[str, Any]:
    photos = [len(source) for source in dataset.sources]
    return {
        "recipe": recipe.to_dict(),
        "photos_per_source": dict(zip((source.path for source in recipe.data.sources), photos)),
        "versions": {"nanosam": __version__, "torch": torch.__version__, "python": platform.python_version()},
    }

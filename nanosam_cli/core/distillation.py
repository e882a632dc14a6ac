"""Training: one loop from a recipe to a model that the rest of the program runs.

The loop is deterministic in (recipe, step): samples are drawn by index and nothing else is random after the first
weights, so a run that was killed goes on from its last checkpoint with the same losses.
"""

from __future__ import annotations

import json
import math
import platform
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel
from torch.utils.data import DataLoader

from nanosam_cli import __version__
from nanosam_cli.core.backends.torch import model_predictor
from nanosam_cli.core.checkpoint import load_state, restore, save_state
from nanosam_cli.core.coco import AnnotatedPhoto, read_coco
from nanosam_cli.core.datasets import Batch, ResumableSteps, TrainingCrops, collate
from nanosam_cli.core.errors import BackendError, NanosamError, OutputError
from nanosam_cli.core.evaluation import evaluate_boxes
from nanosam_cli.core.files import write_text
from nanosam_cli.core.metrics import mean_iou_by_size
from nanosam_cli.core.modeling.model import PromptableModel
from nanosam_cli.core.recipe import OptimiserSection, Recipe
from nanosam_cli.core.run_log import EvaluationReport, RunLog, StepReport, Stopwatch
from nanosam_cli.core.supervision import (
    corrected_prompts,
    first_prompts,
    focus_windows,
    prompt_losses,
    reading_loss,
    refined_rows,
    window_targets,
)

CHECKPOINT = "last.safetensors"


Report = Callable[[StepReport | EvaluationReport], None]


def train(recipe: Recipe, folder: Path, *, resume: bool = False, report: Report = lambda _: None) -> Path:
    """Run a recipe in `folder`, from the start or from its last checkpoint -> the final checkpoint.

    Leaves `recipe.json` (resolved), `log.csv`, `evaluation.jsonl` and `last.safetensors`. Raises OutputError where the
    folder holds a run already and `resume` is false, or one of another recipe.
    """
    device = choose_device(recipe.run.device)
    if recipe.run.threads:
        torch.set_num_threads(recipe.run.threads)
    checkpoint = folder / CHECKPOINT
    if checkpoint.exists() and not resume:
        raise OutputError(f"{folder} holds a run already", "add --resume to go on with it, or choose another folder")

    dataset, evaluation_photos = TrainingCrops(recipe), read_evaluation(recipe)
    torch.manual_seed(recipe.run.seed)
    model = PromptableModel(recipe.model).to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    average = AveragedModel(model, avg_fn=_moving_average(recipe.optimiser.ema), use_buffers=True)
    optimiser = make_optimiser(model, recipe.optimiser)
    done = 0
    if checkpoint.exists():
        state = load_state(checkpoint)
        if state.metadata["fingerprint"] != recipe.fingerprint():
            raise OutputError(f"{checkpoint} belongs to another recipe", "resume with the recipe it was started with")
        restore(state, model, average, optimiser)
        done = state.metadata["step"]
    else:
        write_text(folder / "recipe.json", json.dumps(_provenance(recipe, dataset), indent=2), overwrite=True)

    metadata = {"fingerprint": recipe.fingerprint(), "recipe": recipe.to_dict()}
    with closing(RunLog(folder, keep=done)) as log:
        clock = Stopwatch()
        for step, batch in enumerate(_batches(dataset, recipe, done), start=done + 1):
            clock.waited()
            rate = learning_rate(step, recipe.optimiser)
            loss, iou = train_step(model, optimiser, batch.to(device), recipe, step, rate)
            average.update_parameters(model)
            if not math.isfinite(loss):
                raise NanosamError(
                    f"the loss is {loss} at step {step}; the checkpoint before it is kept",
                    "lower optimiser.learning_rate or set optimiser.precision=fp32, then start again",
                )
            seconds, waiting = clock.worked()
            progress = StepReport(step, loss, iou, rate, recipe.optimiser.batch / seconds, waiting)
            log.step(progress)
            report(progress)
            last = step == recipe.optimiser.steps
            if evaluation_photos and (last or _due(step, recipe.run.evaluate_every)):
                evaluation = EvaluationReport(step, evaluate_model(average.module, evaluation_photos))
                log.evaluation(evaluation)
                report(evaluation)
                clock = Stopwatch()
            if last or step % recipe.run.checkpoint_every == 0:  # last of all: what is not saved is done again
                save_state(checkpoint, model, average, optimiser, {"step": step, **metadata})
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
    truth, image_size = batch.masks.float() / 255, recipe.model.image_size
    target, covered = window_targets(truth, prediction.windows, prediction.logits.shape[-1], image_size)
    per_prompt, ious = prompt_losses(prediction, target, covered, batch, recipe.loss)
    loss = per_prompt.mean()
    if prediction.reading is not None:
        read = reading_loss(prediction.reading, truth, batch.boxes, image_size)
        loss = loss + recipe.loss.click * read.mean()

    rows = refined_rows(len(batch.owner), recipe.prompts.refine, recipe.run.seed + step).to(batch.owner.device)
    if len(rows):
        generator = torch.Generator().manual_seed(recipe.run.seed + step)
        again = corrected_prompts(prompts, prediction, target, batch.ambiguous, rows, generator)
        with torch.autocast(batch.images.device.type, torch.bfloat16, enabled=half):
            second = model.decoder.predict_windows(embeddings, again, focus[rows])
        subset = Batch(batch.images, *(part[rows] for part in batch[1:]))
        subset = subset._replace(ambiguous=torch.zeros_like(subset.ambiguous))
        target2, covered2 = window_targets(truth[rows], second.windows, second.logits.shape[-1], image_size)
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


def read_evaluation(recipe: Recipe) -> list[AnnotatedPhoto]:
    """The photos that the recipe evaluates on; none where it names no folder."""
    if not recipe.run.evaluate_on:
        return []
    photos = read_coco(Path(recipe.data.root) / recipe.run.evaluate_on / "instances.json")
    return photos[: recipe.run.evaluate_limit or None]


def evaluate_model(model: nn.Module, photos: Sequence[AnnotatedPhoto]) -> dict[str, float]:
    """mIoU by size of box prompts, through the same predictor that users run."""
    with model_predictor(cast(PromptableModel, model)) as predictor:
        return mean_iou_by_size(evaluate_boxes(predictor, photos))


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


def _batches(dataset: TrainingCrops, recipe: Recipe, done: int) -> Iterator[Batch]:
    """Batches of the steps that are left."""
    size, workers = recipe.optimiser.batch, recipe.data.workers
    loader = DataLoader(
        dataset,
        batch_sampler=ResumableSteps(dataset, done),
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

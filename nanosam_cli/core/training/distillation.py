"""Training: one loop from a recipe to a model that the rest of the program runs.

The loop is deterministic in (recipe, step): samples are drawn by index, and what a step draws is seeded by its number,
so a run that was killed goes on from its last checkpoint with the same losses. A step is made of micro-batches, each
collated and judged alone: it does not matter whether one process takes them one after the other or several share them.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel
from torch.utils.data import DataLoader

from nanosam_cli.core.errors import BackendError, InputError, NanosamError, OutputError, RecipeError
from nanosam_cli.core.modeling.checkpoint import load_state, save_tensors
from nanosam_cli.core.modeling.encoder import EMBEDDING_SIDE
from nanosam_cli.core.modeling.imagenet import load_imagenet
from nanosam_cli.core.modeling.model import PromptableModel
from nanosam_cli.core.system import machine
from nanosam_cli.core.system.files import write_text
from nanosam_cli.core.system.lock import only_run
from nanosam_cli.core.training import outcome
from nanosam_cli.core.training.checkpoint import keep_numbered, restore, save_state
from nanosam_cli.core.training.data.datasets import Batch, MicroBatches, ResumableSteps, TrainingCrops
from nanosam_cli.core.training.data.image_folder import Unreadable
from nanosam_cli.core.training.data.photos import MaskReader
from nanosam_cli.core.training.data.resident import ResidentPhotos
from nanosam_cli.core.training.distributed import Ranks, join, was_restarted
from nanosam_cli.core.training.interruption import Interruption
from nanosam_cli.core.training.recipe import OptimiserSection, Recipe, recipe_differences
from nanosam_cli.core.training.run_folder import RECIPE, check_own
from nanosam_cli.core.training.run_log import (
    EvaluationReport,
    Event,
    Report,
    RunLog,
    RunNote,
    StepClock,
    StepReport,
    read_evaluations,
)
from nanosam_cli.core.training.teaching.fill_cache import FrozenEncoder, fill_cache
from nanosam_cli.core.training.teaching.teacher import Teacher, load_weights, open_teacher
from nanosam_cli.core.training.tensorboard import TensorBoard
from nanosam_cli.core.training.training_step import AUTOCAST, Learned, TrainingStep, freeze, train_mode
from nanosam_cli.core.types import DECODER, ENCODER

CHECKPOINT, BEST = "last.safetensors", "best.safetensors"
UNREADABLE = "unreadable.jsonl"
PART_SEED = 1_000_003  # between the seeds of a step's micro-batches


@dataclass
class Training:
    """Everything that a step changes."""

    model: PromptableModel
    step: nn.Module  # a TrainingStep, wrapped where several processes share it
    average: AveragedModel
    optimiser: torch.optim.Optimizer
    scaler: torch.amp.GradScaler


def train(recipe: Recipe, folder: Path, *, resume: bool = False, report: Report = lambda _: None) -> Path:
    """Run a recipe in `folder`, from the start or from its last checkpoint -> the final checkpoint.

    Leaves `recipe.json` (resolved), `log.csv`, `evaluation.jsonl`, `last.safetensors` and `best.safetensors`. Ctrl-C
    and SIGTERM end it after the step that is under way, which is kept. Raises OutputError where the folder holds a run
    already and `resume` is false, one of another recipe, one that is at work, or files that no run left.
    """
    with join(recipe.run.device) as ranks, ExitStack() as opened:
        if recipe.run.threads:
            torch.set_num_threads(recipe.run.threads)
        if recipe.optimiser.precision == "fp16" and ranks.device.type == "cpu":
            raise BackendError("optimiser.precision fp16 needs CUDA", "--set optimiser.precision=bf16, or fp32")
        checkpoint = folder / CHECKPOINT
        if checkpoint.exists() and not (resume or was_restarted()):
            raise OutputError(
                f"{folder} holds a run already", "add --resume to go on with it, or choose another folder"
            )
        if ranks.first and not checkpoint.exists():
            check_own(folder, recipe)
        tell = report if ranks.first else _nobody
        teacher = open_teacher(recipe.teacher, ranks.device) if recipe.teacher else None
        dataset = _open_data(recipe, folder, teacher, ranks.device, tell)
        fresh = not checkpoint.exists()
        training = prepare(recipe, ranks, teacher, fresh)
        if ranks.first:
            opened.enter_context(only_run(folder))
        done, longer = (0, False) if fresh else _restore(checkpoint, recipe, training)
        if (fresh or longer) and ranks.first:
            text = json.dumps(outcome.provenance(recipe, dataset, teacher, training.model), indent=2)
            write_text(folder / RECIPE, text, overwrite=True)
        for note in _notes(recipe, ranks, training.model, fresh):
            tell(note)
        if teacher and recipe.teacher and recipe.teacher.cache and recipe.is_taught:
            dataset.cache = fill_cache(dataset, recipe, Path(recipe.teacher.cache), teacher, ranks, tell)
        if recipe.embeddings:
            _keep_embeddings(dataset, recipe, training.model.encoder, ranks, tell)
        log = opened.enter_context(closing(RunLog(folder, keep=done))) if ranks.first else None
        board = (
            opened.enter_context(closing(TensorBoard(folder, keep=done))) if log and recipe.run.tensorboard else None
        )

        def tell_all(event: Event) -> None:
            for listener in (log, board):
                if listener is not None:
                    listener.add(event)
            tell(event)

        # not among several processes, which would have to stop after the same step
        with Interruption(watch=ranks.backend is None) as interruption:
            _loop(recipe, folder, training, dataset, done, ranks, teacher, interruption, tell_all)
        if ranks.first:
            for note in outcome.finish(recipe, folder, checkpoint, training.average.module, teacher):
                tell(note)
    return checkpoint


def _keep_embeddings(dataset: TrainingCrops, recipe: Recipe, encoder: nn.Module, ranks: Ranks, report: Report) -> None:
    """What the frozen encoder makes of the samples is made before the first step; then only masks are read."""
    assert recipe.embeddings is not None
    unreadable, dataset.unreadable = dataset.unreadable, None  # a photo that is passed over now would be missed later
    own = FrozenEncoder(encoder, AUTOCAST.get(recipe.optimiser.precision))
    dataset.cache = fill_cache(dataset, recipe, Path(recipe.embeddings.cache), own, ranks, report)
    dataset.unreadable, dataset.pixels = unreadable, MaskReader()


def steps_done(folder: Path) -> int:
    """Steps that the run in `folder` has behind it; 0 where there is none."""
    checkpoint = folder / CHECKPOINT
    return load_state(checkpoint).about.step if checkpoint.exists() else 0


def _loop(
    recipe: Recipe,
    folder: Path,
    training: Training,
    dataset: TrainingCrops,
    done: int,
    ranks: Ranks,
    teacher: Teacher | None,
    interruption: Interruption,
    report: Report,
) -> None:
    steps, size = recipe.optimiser.steps, recipe.optimiser.batch
    photos = outcome.read_evaluation(recipe) if ranks.first else []
    best = max((record["all"] for record in read_evaluations(folder) if record["step"] <= done), default=-1.0)
    metadata = {"fingerprint": recipe.fingerprint(), "recipe": recipe.to_dict()}
    batches = _batches(dataset, recipe, done, ranks)
    own = size // recipe.micro_batch // ranks.ranks
    clock = StepClock()
    for step in range(done + 1, steps + 1):
        together = list(islice(batches, own))
        clock.waited()
        rate = learning_rate(step, recipe.optimiser)
        learned, faulty = train_step(training, together, recipe, step, rate, ranks)
        if not math.isfinite(learned.loss):
            _save_faulty(folder, faulty, step, ranks)
            raise NanosamError(
                f"the loss is {float(learned.loss)} at step {step}; its batch and the checkpoint before it are kept",
                "lower optimiser.learning_rate or set optimiser.precision=fp32, then start again",
            )
        training.average.update_parameters(training.model)
        seconds, waiting = clock.worked()
        loss, features, iou, clear = (float(value) for value in learned)
        iou = iou / clear if clear else float("nan")
        report(StepReport(step, loss, iou, rate, size / seconds, waiting, features))
        last = step == steps
        state = {"step": step, "scaler": training.scaler.state_dict(), **metadata}
        save = partial(save_state, model=training.model, average=training.average, optimiser=training.optimiser)
        if ranks.first and dataset.unreadable is not None:
            for reason in dataset.unreadable.news(step * size):
                report(RunNote(f"left out: {reason}", warning=True))
        if photos and (last or _due(step, recipe.run.evaluate_every)):
            found = outcome.evaluate_model(training.average.module, photos, teacher)
            report(EvaluationReport(step, found))
            if found["all"] > best:
                best = found["all"]
                save(folder / BEST, metadata=state)
            clock = StepClock()
        due = last or _due(step, recipe.run.checkpoint_every)
        if ranks.first and (due or interruption.asked):
            save(folder / CHECKPOINT, metadata=state)  # last of all: what is not saved is done again
        if ranks.first and due:
            keep_numbered(folder / CHECKPOINT, step, recipe.run.keep)
        if interruption.asked:
            report(RunNote(f"step {step} of {steps} is kept in {folder}: --resume goes on"))
            return


def train_step(
    training: Training, batches: Sequence[Batch], recipe: Recipe, step: int, rate: float, ranks: Ranks
) -> tuple[Learned, Batch | None]:
    """Forward and backward of this process's micro-batches, and one update -> means over all processes, and the last
    micro-batch whose loss was not finite."""
    train_mode(training.model, recipe.optimiser.freeze)
    for group in training.optimiser.param_groups:
        group["lr"] = rate
    training.optimiser.zero_grad(set_to_none=True)
    sums, faulty = torch.zeros(4, device=ranks.device), None
    for number, batch in enumerate(batches):
        part = ranks.rank + number * ranks.ranks
        moved = batch.to(ranks.device)
        with ExitStack() as unsynchronised:
            if ranks.backend is not None and number + 1 < len(batches):  # gradients meet with the last one
                unsynchronised.enter_context(training.step.no_sync())  # type: ignore[operator]
            learned: Learned = training.step(moved, recipe.run.seed + step + part * PART_SEED)
            training.scaler.scale(learned.loss / len(batches)).backward()  # type: ignore[no-untyped-call]
        values = torch.stack([value.detach().float() for value in learned])
        sums += values / len(batches)
        if not math.isfinite(values[0]):
            faulty = batch
    if recipe.optimiser.clip:
        training.scaler.unscale_(training.optimiser)
        nn.utils.clip_grad_norm_(training.model.parameters(), recipe.optimiser.clip)
    training.scaler.step(training.optimiser)
    training.scaler.update()
    return Learned(*ranks.mean(sums).cpu()), faulty


def make_optimiser(model: nn.Module, section: OptimiserSection) -> torch.optim.AdamW:
    """AdamW of all that is not frozen; norms, biases and scalars do not decay."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    decayed = [parameter for parameter in trained if parameter.ndim > 1]
    others = [parameter for parameter in trained if parameter.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": section.weight_decay}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=section.learning_rate)


def learning_rate(step: int, section: OptimiserSection) -> float:
    """Linear warm-up, then half a cosine down to a hundredth, or several, or no change; `step` counts from 1."""
    if step <= section.warmup:
        return section.learning_rate * step / section.warmup
    if section.schedule == "constant":
        return section.learning_rate
    coming = (restart for restart in section.restarts if restart < section.steps)
    bounds = [section.warmup, *coming, section.steps]
    start = max(bound for bound in bounds if bound < step)
    end = min(bound for bound in bounds if bound >= step)
    highest = section.learning_rate if start == section.warmup else section.restart_rate or 0.0
    progress = (step - start) / max(1, end - start)
    return highest * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * progress)))


def _open_data(
    recipe: Recipe, folder: Path, teacher: Teacher | None, device: torch.device, report: Report
) -> TrainingCrops:
    side = recipe.data.crop * (teacher.image_size if teacher else 0)
    if teacher and side % (recipe.model.image_size * max(1, teacher.image_size // EMBEDDING_SIDE)):
        raise RecipeError(
            f"data.crop: {recipe.data.crop} pixels of {recipe.model.image_size} are no whole cells of the teacher's "
            f"{teacher.image_size}",
            "choose another multiple of 32",
        )
    size = teacher.image_size if teacher and recipe.is_taught else None
    dataset = TrainingCrops(recipe, recipe.model.image_size if recipe.embeddings else size)
    dataset.unreadable = Unreadable(folder / UNREADABLE, len(dataset.photos))
    if recipe.data.resident:
        dataset.pixels = ResidentPhotos(dataset.photos, device, report)
    return dataset


def prepare(recipe: Recipe, ranks: Ranks, teacher: Teacher | None, fresh: bool) -> Training:
    """A model and all that trains it, as a run begins; one that is not `fresh` brings its own weights."""
    section = recipe.optimiser
    if section.batch // recipe.micro_batch % ranks.ranks:
        raise RecipeError(
            f"{section.batch // recipe.micro_batch} micro-batches a step cannot be shared by {ranks.ranks} processes",
            f"--set optimiser.micro_batch={max(1, section.batch // ranks.ranks)}",
        )
    torch.manual_seed(recipe.run.seed)
    model = PromptableModel(recipe.model, download=fresh)
    if fresh and recipe.init:
        if recipe.init.backbone:
            load_imagenet(model.encoder.backbone, recipe.model.backbone, recipe.init.backbone)
        for part, name in ((ENCODER, recipe.init.encoder), (DECODER, recipe.init.decoder)):
            module = getattr(model, part)
            if name and module is not None:
                load_weights(module, part, name)
    freeze(model, section.freeze)
    model = model.to(ranks.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    average = AveragedModel(model, avg_fn=_moving_average(section.ema), use_buffers=True)
    optimiser = make_optimiser(model, section)
    scaler = torch.amp.GradScaler(ranks.device.type, enabled=section.precision == "fp16")
    step = ranks.wrap(TrainingStep(model, recipe, teacher))
    return Training(model, step, average, optimiser, scaler)


def _restore(checkpoint: Path, recipe: Recipe, training: Training) -> tuple[int, bool]:
    """Put a checkpoint back where it was -> steps done; whether the run was to end where `recipe` restarts."""
    state = load_state(checkpoint)
    belongs, planned = state.about.fingerprint, (state.about.recipe.optimiser or {}).get("steps")
    try:
        keys = recipe_differences(belongs, recipe.fingerprint())
        if type(planned) is not int:
            raise ValueError("it does not say how many steps were planned")
    except ValueError as error:
        raise InputError(f"{checkpoint} is not the state of a run: {error}", "start anew with --force") from error
    longer = bool(keys) and not recipe_differences(belongs, recipe.cut_off(planned).fingerprint())
    if keys and not longer:
        message = f"{checkpoint} belongs to another recipe, with other values of {', '.join(keys)}"
        hint = "resume with the recipe it was started with, or choose another folder"
        if keys == ["optimiser.steps"] and recipe.optimiser.steps > planned:
            hint = f"past its {planned} steps: --set optimiser.restarts=[{planned}] --set optimiser.restart_rate=RATE"
        raise OutputError(message, hint)
    restore(state, training.model, training.average, training.optimiser)
    training.scaler.load_state_dict(dict(state.about.scaler))
    return state.about.step, longer


def _notes(recipe: Recipe, ranks: Ranks, model: PromptableModel, fresh: bool) -> Iterator[RunNote]:
    reason = model.encoder.not_pretrained
    if fresh and reason is not None:
        yield RunNote(f"{recipe.model.backbone} starts from random weights: {reason}", warning=True)
    section = recipe.optimiser
    features = machine.cpu_features() if ranks.device.type == "cpu" else None
    if section.precision == "bf16" and features and not features["bf16"]:
        text = "this processor has no bf16 instructions: --set optimiser.precision=fp32 is several times faster here"
        yield RunNote(text, warning=True)
    if ranks.backend is not None or recipe.micro_batch < section.batch:
        turns = section.batch // recipe.micro_batch // ranks.ranks
        yield RunNote(
            f"{ranks.ranks} process(es) on {ranks.device.type} x {turns} micro-batch(es) of {recipe.micro_batch}: "
            f"{section.batch} crops a step, learning rate {section.learning_rate:g}"
        )


def _save_faulty(folder: Path, batch: Batch | None, step: int, ranks: Ranks) -> None:
    """Keep the micro-batch whose loss is not finite, for whoever wants to know why; by the process that had it."""
    if batch is None:
        return
    tensors = {name: part for name, part in zip(batch._fields, batch) if part is not None}
    save_tensors(folder / f"faulty-batch-{ranks.rank}.safetensors", tensors, {"step": step})


def _batches(dataset: TrainingCrops, recipe: Recipe, done: int, ranks: Ranks) -> Iterator[Batch]:
    """This process's micro-batches of the steps that are left."""
    workers = 0 if recipe.data.resident else recipe.data.workers
    loader = DataLoader(
        MicroBatches(dataset),
        sampler=ResumableSteps(dataset, done, ranks.rank, ranks.ranks),
        batch_size=None,
        num_workers=workers,
        persistent_workers=workers > 0,
        prefetch_factor=4 if workers else None,
    )
    return _one_ahead(iter(loader)) if recipe.data.resident else iter(loader)


def _one_ahead(batches: Iterator[Batch]) -> Iterator[Batch]:
    """The next batch is made by a thread while the step before waits for the device."""
    with ThreadPoolExecutor(max_workers=1) as thread:
        following = thread.submit(next, batches, None)
        while (batch := following.result()) is not None:
            following = thread.submit(next, batches, None)
            yield batch


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


def _nobody(_: Event) -> None:
    """What processes other than the first report to."""

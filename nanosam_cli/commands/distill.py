"""`nanosam distill`: a recipe in, a trained model out."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nanosam_cli import console
from nanosam_cli.core.errors import MissingExtraError, UsageError
from nanosam_cli.options import QuietOption, VerboseOption, complete_recipes

if TYPE_CHECKING:
    from nanosam_cli.core.training.recipe import Recipe
    from nanosam_cli.core.training.run_log import Event


def distill(
    recipe: Annotated[
        str | None,
        typer.Argument(
            metavar="RECIPE",
            autocompletion=complete_recipes,
            help="A TOML file, or the name of a recipe that `--list` shows.",
        ),
    ] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Change one key, such as data.root=photos. Repeatable."),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", metavar="DIR", help="Folder of the run; else runs/MODEL.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the run's last checkpoint.")] = False,
    list_recipes: Annotated[bool, typer.Option("--list", help="Show recipes, and students with their cost.")] = False,
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Train a model from a recipe.

    The run can be killed at any time and goes on with --resume. Its folder holds the recipe, a log, pictures and the
    last and the best checkpoint, which `nanosam export` turns into model files.

        nanosam distill --list

        nanosam distill quick

        nanosam distill nanosam-lite2 --set data.root=photos

        nanosam distill nanosam-lite2 --set data.root=photos --resume

        torchrun --no-python --nproc-per-node 2 nanosam distill nanosam-lite2 --set optimiser.micro_batch=4 --resume
    """
    from nanosam_cli.core.training.recipe import find_recipe, list_recipe_files, load_recipe
    from nanosam_cli.core.training.stages import plan_stages
    from nanosam_cli.core.training.students import list_students

    if list_recipes:
        console.table(("recipe", "what it trains"), [(path.stem, title) for path, title in list_recipe_files()])
        columns = ("student (model.backbone)", "parameters", "GMACs at 512", "at 1024")
        rows = [(s.backbone, s.parameters, s.gmacs_512, s.gmacs_1024) for s in list_students()]
        console.table(columns, rows)
        return
    if recipe is None:
        raise UsageError("no recipe given", "nanosam distill --list")
    chosen = load_recipe(find_recipe(recipe), overrides or [])
    *first, last = plan_stages(chosen, output or Path("runs") / chosen.model.name)
    for stage in first:
        if resume and stage.weights.exists():
            continue
        console.info(f"{last.folder} begins with what the recipe {stage.recipe.model.name} gives: {stage.folder}")
        _train(stage.recipe, stage.folder, resume)
    _train(last.recipe, last.folder, resume)


def _train(recipe: Recipe, folder: Path, resume: bool) -> None:
    try:
        from nanosam_cli.core.training import distillation, distributed, plots
    except ModuleNotFoundError as error:
        raise MissingExtraError("training", "train", str(error.name)) from error

    from nanosam_cli.core.training.run_log import EvaluationReport, RunNote

    if not distributed.is_first():
        console.be_quiet()
    section = recipe.optimiser
    if section.warmup > section.steps:
        console.warn(f"optimiser.warmup is longer than the run, {section.warmup} of {section.steps} steps")
    done = distillation.steps_done(folder) if resume or distributed.was_restarted() else 0
    if resume and not done:
        console.warn(f"{folder} holds no checkpoint: the run starts at step 1")
    elif done == section.steps:
        console.info(f"{folder} is finished: all its {done} steps are done")
    with console.progress("train", recipe.optimiser.steps, "steps", done=done) as advance:

        def report(event: Event) -> None:
            if isinstance(event, EvaluationReport):
                console.info(f"step {event.step}: mIoU {_by_size(event.mean_iou)}")
            elif isinstance(event, RunNote):
                (console.warn if event.warning else console.info)(event.text)
            else:
                iou: dict[str, Any] = {} if math.isnan(event.iou) else {"IoU": event.iou}  # where no masks are trained
                rate, waiting = event.images_per_second, f"{event.waiting:.0%}"
                advance(1, loss=event.loss, **iou, images_per_s=rate, waiting=waiting)

        checkpoint = distillation.train(recipe, folder, resume=resume, report=report)
    if distributed.is_first():
        console.info(f"loss curve: {plots.plot_run(folder)}")
        console.text(str(checkpoint))


def _by_size(mean_iou: dict[str, float]) -> str:
    return ", ".join(f"{size} {value:.3f}" for size, value in mean_iou.items())

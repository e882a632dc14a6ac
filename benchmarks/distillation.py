"""What the training loop costs: images a second, waiting for data, peak memory, and the loop against its bare models.

    python benchmarks/distillation.py nanosam-lite2 --set data.root=DATA
    python benchmarks/distillation.py quick --steps 40
    python benchmarks/distillation.py nanosam-lite2 --set data.root=DATA --set data.workers=8 --data

After every step of the loop, the same models go forward and backward once more on a batch that is ready, and nothing
else: machines drift, and this way both see the same drift. Without worker processes (`data.workers=0`, set unless
`--set` says other) nothing is loaded ahead meanwhile, so that waiting is counted in full.

`--data` makes batches and does nothing with them: from files, as the recipe says, and where they lie on the training
device (`data.resident`), by turns.
"""

from __future__ import annotations

import argparse
import resource
import sys
import tempfile
from pathlib import Path
from statistics import median
from time import perf_counter

import torch
from torch.utils.data import DataLoader

from nanosam_cli.core.training.data.datasets import MicroBatches, ResumableSteps, TrainingCrops
from nanosam_cli.core.training.data.resident import ResidentPhotos
from nanosam_cli.core.training.distillation import prepare, train
from nanosam_cli.core.training.distributed import Ranks, choose_device
from nanosam_cli.core.training.recipe import Recipe, find_recipe, load_recipe
from nanosam_cli.core.training.run_log import Event, StepReport
from nanosam_cli.core.training.teaching.teacher import open_teacher

WARM_UP = 3  # steps that do not count


class Bare:
    """Forward and backward of a recipe's models on one ready batch."""

    def __init__(self, recipe: Recipe) -> None:
        device = choose_device(recipe.run.device)
        teacher = open_teacher(recipe.teacher, device) if recipe.teacher else None
        dataset = TrainingCrops(recipe, teacher.image_size if teacher else None)
        self.is_full = dataset.is_full
        self._step = prepare(recipe, Ranks(device), teacher, fresh=True).step.train()
        prompts = recipe.micro_batch * recipe.data.objects
        self._batches = {}
        for full in (False, True):
            step = next((step for step in range(recipe.optimiser.steps) if dataset.is_full(step) == full), None)
            if step is not None:
                self._batches[full] = dataset.batch(dataset.samples_of(step), prompts).to(device)

    def seconds(self, step: int) -> float:
        """Time of one forward and backward, on crops or whole photos as in step `step` of the loop (from 0)."""
        start = perf_counter()
        self._step(self._batches[self.is_full(step)], step).loss.backward()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        seconds = perf_counter() - start
        self._step.zero_grad(set_to_none=True)
        return seconds


def compare_data(recipe: Recipe) -> None:
    """Print the images a second of batches alone, of two rounds each."""
    device = choose_device(recipe.run.device)
    files, resident = TrainingCrops(recipe), TrainingCrops(recipe)
    start = perf_counter()
    resident.pixels = ResidentPhotos(resident.photos, device, print)
    print(f"loaded in {perf_counter() - start:.1f} s")
    for name, dataset in (("files", files), (f"on {device}", resident)) * 2:
        workers = recipe.data.workers if dataset is files else 0
        batches = iter(DataLoader(MicroBatches(dataset), None, sampler=ResumableSteps(dataset, 0), num_workers=workers))
        for _ in range(WARM_UP):
            next(batches).to(device)
        start, count = perf_counter(), 0
        for batch in batches:
            count += len(batch.to(device).images)
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        print(f"{name}, {workers} workers: {count / (perf_counter() - start):.1f} images a second")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe")
    parser.add_argument("--set", action="append", default=[], dest="overrides", metavar="KEY=VALUE")
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--data", action="store_true")
    options = parser.parse_args()

    fixed = ["data.workers=0", "run.evaluate_on=''", f"optimiser.steps={options.steps}", "run.checkpoint_every=1000000"]
    recipe = load_recipe(find_recipe(options.recipe), [*fixed, *options.overrides, "run.export=false"])
    if options.data:
        compare_data(recipe)
        return
    bare = Bare(recipe)
    loop: list[float] = []
    alone: list[float] = []
    waits: list[float] = []
    last, paused = perf_counter(), 0.0

    def report(event: Event) -> None:
        nonlocal last, paused
        if not isinstance(event, StepReport):
            return
        loop.append(perf_counter() - last)
        whole = recipe.optimiser.batch / event.images_per_second  # with what this function took after the step before
        waits.append((event.waiting * whole - paused) / loop[-1])
        start = perf_counter()
        alone.append(bare.seconds(event.step - 1))
        last = perf_counter()
        paused = last - start

    with tempfile.TemporaryDirectory() as folder:
        last = perf_counter()
        train(recipe, Path(folder), report=report)
    count = len(loop) - WARM_UP
    rate = recipe.optimiser.batch * count / sum(loop[WARM_UP:])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    print(f"{recipe.model.name}, {torch.__version__} on {choose_device(recipe.run.device)}, {count} steps")
    print(f"images a second:   {rate:.2f}")
    print(f"waiting for data:  {sum(waits[WARM_UP:]) / count:.1%}")
    print(f"loop against bare: {median(a / b for a, b in zip(loop[WARM_UP:], alone[WARM_UP:])):.3f}")
    print(f"peak memory:       {peak / 1e6:.0f} MB (both copies of the models)")
    if torch.cuda.is_available():
        print(f"peak on the GPU:   {torch.cuda.max_memory_allocated() / 1e6:.0f} MB")


if __name__ == "__main__":
    main()

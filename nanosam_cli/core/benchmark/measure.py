"""How long each stage of photo-to-mask takes on this machine, for one model or several side by side.

Every repeat runs every stage of every model, so that a machine that slows down or speeds up meanwhile hits all alike.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timezone
from math import ceil, sqrt
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import TypeAlias

import numpy as np

from nanosam_cli.core.benchmark.cold_start import ColdStart, cold_start
from nanosam_cli.core.errors import UsageError
from nanosam_cli.core.frame import SAM_MEAN, SAM_STD, Frame
from nanosam_cli.core.inference.predictor import Predictor
from nanosam_cli.core.inference.session import Session
from nanosam_cli.core.loading.choice import ModelChoice
from nanosam_cli.core.loading.engines import model_paths
from nanosam_cli.core.loading.load import open_predictor
from nanosam_cli.core.messages import Note
from nanosam_cli.core.system.files import file_sha256
from nanosam_cli.core.system.machine import Load, Machine, Settings, read_gpus, read_load, read_machine, read_settings
from nanosam_cli.core.timing import Timings
from nanosam_cli.core.types import Image, ImageEmbedding, Prompt
from nanosam_cli.core.zoo.models import find_model
from nanosam_cli.version import __version__

PROMPTS = (1, 8, 64)  # boxes in one decoder call
STAGES: Mapping[str, str] = {
    "preprocess": "pre-processing",
    "encoder": "image encoder",
    **{f"decoder_{count}": f"decoder, {count} box{'es' * (count > 1)}" for count in PROMPTS},
    "postprocess": "post-processing, 1 mask",
    "full": "full pipeline, 1 box",
}
WARM_UP = 2  # repeats that are thrown away: runtimes allocate and tune on the first
COLD_STARTS = 3  # fresh processes a model

Probe: TypeAlias = Callable[[], Mapping[str, float]]  # does some work once -> milliseconds by stage


@dataclass(frozen=True)
class Contender:
    """A model to measure."""

    name: str
    encoder: Path
    decoder: Path
    model: str | None = None  # the zoo's name, for the normalisation

    def chosen(self, runtime: ModelChoice) -> ModelChoice:
        """Its files, on what `runtime` says."""
        return replace(runtime, model=self.model, encoder=self.encoder, decoder=self.decoder)


ANY_RUNTIME = ModelChoice()


@dataclass(frozen=True)
class Timing:
    median_ms: float
    p95_ms: float


@dataclass(frozen=True)
class FileFacts:
    """One part of a model, and what ran it."""

    file: str
    bytes: int
    sha256: str
    precision: str | None  # as the file says
    backend: str


@dataclass(frozen=True)
class Accuracy:
    """What a results file of `nanosam eval coco` says of a model."""

    mean_iou: Mapping[str, float | None]  # all, small, medium, large; None where there is no such object
    objects: int


@dataclass(frozen=True)
class ModelReport:
    """One model's figures."""

    name: str
    encoder: FileFacts
    decoder: FileFacts
    image_size: int
    timings: Mapping[str, Timing]  # by stage
    images_per_s: float  # one photo and one box after the other
    cold_start: ColdStart
    accuracy: Accuracy | None = None

    @property
    def further_box_ms(self) -> float:
        """What the decoder takes for one more box in the same call."""
        one, many = (self.timings[f"decoder_{count}"].median_ms for count in (PROMPTS[0], PROMPTS[-1]))
        return round((many - one) / (PROMPTS[-1] - PROMPTS[0]), 3)


@dataclass(frozen=True)
class Conditions:
    """What the command was asked to do, when, and by which version."""

    created: str  # ISO 8601, UTC
    nanosam: str
    numpy: str
    photo_hw: tuple[int, int]
    repeats: int
    threads: int | None  # None: the runtime's choice


@dataclass(frozen=True)
class Run:
    """Everything that one `nanosam benchmark` found."""

    machine: Machine
    settings: Settings
    load: Load
    conditions: Conditions
    models: tuple[ModelReport, ...]


def find_candidate(name: str, runtime: ModelChoice = ANY_RUNTIME, note: Note = lambda _: None) -> Contender:
    """A model of the zoo, from the files that `load_predictor` would take. Errors and notes are `model_paths`'s."""
    encoder, decoder = model_paths(find_model(name), runtime.backend, runtime.device, note)
    return Contender(name, encoder, decoder, name)


def benchmark(
    candidates: Sequence[Contender],
    image: Image,
    runtime: ModelChoice,
    repeats: int,
    advance: Callable[[], object] = lambda: None,
) -> Run:
    """Measure models side by side on one photo, (H, W, 3) uint8 RGB. `advance` is called `steps(...)` times."""
    names = [candidate.name for candidate in candidates]
    if len(set(names)) < len(names):
        raise UsageError(f"two models have the same name: {', '.join(names)}", "nanosam benchmark NAME=ENCODER,DECODER")
    gpus = read_gpus()
    machine, settings, load = read_machine(gpus), read_settings(gpus), read_load(gpus)
    choices = {candidate.name: candidate.chosen(runtime) for candidate in candidates}
    with ExitStack() as opened:
        predictors = {name: opened.enter_context(open_predictor(choices[name])) for name in names}
        starts = _cold_starts(choices, image, advance)
        samples = interleave({name: probes(predictors[name], image) for name in names}, repeats, advance)
        reports = tuple(_report(name, predictors[name], samples[name], starts[name]) for name in names)
    return Run(
        machine,
        settings,
        load,
        Conditions(
            created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
            nanosam=__version__,
            numpy=np.__version__,
            photo_hw=(image.shape[0], image.shape[1]),
            repeats=repeats,
            threads=runtime.threads,
        ),
        reports,
    )


def steps(models: int, repeats: int) -> int:
    """How often `benchmark` says that it has come further."""
    return WARM_UP + repeats + COLD_STARTS * models


def probes(predictor: Predictor, image: Image) -> list[Probe]:
    """What times an open model's stages on a photo. A backend's run returns when its outputs are there."""
    frame = Frame((image.shape[0], image.shape[1]), predictor.contract.image_size, predictor.contract.coordinate_size)
    mean, std = np.array(SAM_MEAN, np.float32), np.array(SAM_STD, np.float32)  # others would take the same time
    feeds = {"image": frame.image_to_input(image, mean, std)}
    embedding = predictor.encode_image(image)
    prompts = [Prompt.from_boxes(box_grid(count, frame.original_hw)) for count in PROMPTS]
    return [
        _timed("preprocess", lambda: frame.image_to_input(image, mean, std)),
        _timed("encoder", lambda: predictor.encoder.run(feeds)),
        *(_decoder_probe(predictor, embedding, prompt) for prompt in prompts),
        _timed("full", lambda: predictor.predict(predictor.encode_image(image), prompts[0])),
    ]


def interleave(
    subjects: Mapping[str, Sequence[Probe]], repeats: int, advance: Callable[[], object] = lambda: None
) -> dict[str, dict[str, list[float]]]:
    """Milliseconds by model and stage, one a repeat, after WARM_UP repeats. All subjects have the same probes.

    Every other repeat takes the models in reverse order, so that none is always the first.
    """
    samples: dict[str, dict[str, list[float]]] = {name: {} for name in subjects}
    for turn in range(WARM_UP + repeats):
        order = list(subjects)[:: 1 if turn % 2 == 0 else -1]
        for stage in zip(*(subjects[name] for name in order), strict=True):
            for name, probe in zip(order, stage):
                for key, milliseconds in probe().items():
                    if turn >= WARM_UP:
                        samples[name].setdefault(key, []).append(milliseconds)
        advance()
    return samples


def box_grid(count: int, original_hw: tuple[int, int]) -> list[tuple[float, float, float, float]]:
    """So many boxes x0 y0 x1 y1, side by side over the photo, in original pixels."""
    columns = ceil(sqrt(count))
    rows = ceil(count / columns)
    height, width = original_hw[0] / rows, original_hw[1] / columns
    places = (divmod(index, columns) for index in range(count))
    return [
        ((column + 0.1) * width, (row + 0.1) * height, (column + 0.9) * width, (row + 0.9) * height)
        for row, column in places
    ]


def summary(samples: Sequence[float]) -> Timing:
    """Median and 95th percentile, to the microsecond."""
    middle, high = np.percentile(samples, [50, 95])
    return Timing(round(float(middle), 3), round(float(high), 3))


def ratio(report: ModelReport, first: ModelReport, stage: str) -> float | None:
    """Time of a stage against the first model's, median against median: below 1 is faster."""
    base = first.timings[stage].median_ms
    return report.timings[stage].median_ms / base if base else None


def _timed(stage: str, work: Callable[[], object]) -> Probe:
    def probe() -> dict[str, float]:
        start = perf_counter()
        work()
        return {stage: (perf_counter() - start) * 1000}

    return probe


def _decoder_probe(predictor: Predictor, embedding: ImageEmbedding, prompt: Prompt) -> Probe:
    def probe() -> dict[str, float]:
        timings = Timings()
        predictor.predict(embedding, prompt, timings=timings)
        found = {f"decoder_{len(prompt)}": timings.decode_ms}
        return {**found, "postprocess": timings.post_ms} if len(prompt) == 1 else found

    return probe


def _report(name: str, predictor: Predictor, samples: Mapping[str, Sequence[float]], start: ColdStart) -> ModelReport:
    return ModelReport(
        name=name,
        encoder=_facts(predictor.encoder),
        decoder=_facts(predictor.decoder),
        image_size=predictor.contract.image_size,
        timings={stage: summary(samples[stage]) for stage in STAGES},
        images_per_s=round(1000 * len(samples["full"]) / sum(samples["full"]), 3),
        cold_start=start,
    )


def _facts(session: Session) -> FileFacts:
    return FileFacts(
        file=session.path.name,  # a whole path would tell others about this machine's user
        bytes=session.path.stat().st_size,
        sha256=file_sha256(session.path),
        precision=session.metadata.get("nanosam.precision"),
        backend=session.backend,
    )


def _cold_starts(
    choices: Mapping[str, ModelChoice], image: Image, advance: Callable[[], object]
) -> dict[str, ColdStart]:
    """The start in the middle of COLD_STARTS, for each model in turn."""
    (box,) = box_grid(1, (image.shape[0], image.shape[1]))
    found: dict[str, list[ColdStart]] = {name: [] for name in choices}
    for _ in range(COLD_STARTS):
        for name in choices:
            found[name].append(cold_start(image, box, asdict(choices[name])))
            advance()
    return {name: _middle(starts) for name, starts in found.items()}


def _middle(starts: Sequence[ColdStart]) -> ColdStart:
    middle = median(start.total_ms for start in starts)
    return next(start for start in starts if start.total_ms == middle)

"""Measuring with clocks that tick by themselves, and reports made of figures that are written here."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nanosam_cli.core import timing
from nanosam_cli.core.benchmark import measure
from nanosam_cli.core.benchmark.cold_start import ColdStart, cold_start, peak_memory_mb
from nanosam_cli.core.benchmark.measure import (
    PROMPTS,
    STAGES,
    WARM_UP,
    Accuracy,
    Conditions,
    Contender,
    FileFacts,
    ModelReport,
    Run,
    Timing,
    box_grid,
    find_candidate,
    interleave,
    probes,
    ratio,
    steps,
    summary,
)
from nanosam_cli.core.benchmark.report import (
    caption,
    compare_contenders,
    markdown_table,
    read_accuracy,
    read_run,
    run_record,
    run_text,
    stage_table,
    with_accuracy,
)
from nanosam_cli.core.errors import InputError, ModelError, UsageError
from nanosam_cli.core.loading.choice import ModelChoice
from nanosam_cli.core.loading.load import load_predictor
from nanosam_cli.core.system.machine import Load, Machine, Settings

PHOTO = np.random.default_rng(0).integers(0, 256, (3, 4, 3), np.uint8)  # tiny, as 64 masks of it are made
Files = tuple[Path, Path]


def model(name: str = "a", milliseconds: float = 10.0, accuracy: Accuracy | None = None) -> ModelReport:
    """Every stage takes twice the one before, from `milliseconds` on."""
    part = FileFacts("encoder.onnx", 9_000_000, "0" * 64, "fp32", "ONNX Runtime 1.0, CPU")
    timings = {
        stage: Timing(milliseconds * 2**index, milliseconds * 2**index + 1) for index, stage in enumerate(STAGES)
    }
    return ModelReport(name, part, part, 512, timings, 4.25, ColdStart(612.5, 152, 235.4, 225.1, 147.06), accuracy)


def saved(**machine: Any) -> Run:
    hardware = {"board": None, "cpu": "Some CPU", "cpu_id": "model 1", "cores": 2, "memory_gib": 8}
    return Run(
        Machine(**{**hardware, "platform": "Linux x86_64", "gpus": (), **machine}),
        Settings("CPython 3.11.7", None, None, None, None, None),
        Load(0.1, None, None),
        Conditions("2026-01-01T00:00:00+00:00", "0.1.0", "2.0", (480, 640), 20, None),
        (model("a"), model("b", 5.0)),
    )


def write(path: Path, run: Run) -> Path:
    path.write_text(run_text(run))
    return path


# measuring


def test_repeats_are_interleaved_and_the_first_thrown_away() -> None:
    order: list[str] = []
    clock = count()

    def probe(name: str, stage: str) -> Callable[[], dict[str, float]]:
        def run() -> dict[str, float]:
            order.append(name + stage)
            return {stage: float(next(clock))}

        return run

    ticks: list[int] = []
    subjects = {name: [probe(name, "1"), probe(name, "2")] for name in "ab"}
    samples = interleave(subjects, 2, lambda: ticks.append(len(order)))
    there, back = ["a1", "b1", "a2", "b2"], ["b1", "a1", "b2", "a2"]
    assert order == [*there, *back, *there, *back]
    assert len(ticks) == WARM_UP + 2
    assert samples == {"a": {"1": [8.0, 13.0], "2": [10.0, 15.0]}, "b": {"1": [9.0, 12.0], "2": [11.0, 14.0]}}


@pytest.mark.parametrize(
    ("files", "calls"), [("own_files", (1, 1, 1)), ("nvidia_files", (1, 8, 64))], ids=["P any", "P = 1"]
)
def test_every_stage_is_timed(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, files: str, calls: tuple[int, ...]
) -> None:
    """A clock that ticks at each look: work without further looks takes one tick, a second."""
    clock = count()
    for module in (measure, timing):
        monkeypatch.setattr(module, "perf_counter", lambda: next(clock))
    encoder, decoder = request.getfixturevalue(files)
    with load_predictor(encoder=encoder, decoder=decoder) as opened:
        found = [dict(probe()) for probe in probes(opened, PHOTO)]
    times = {stage: ms / 1000 for one in found for stage, ms in one.items()}
    assert list(times) == ["preprocess", "encoder", "decoder_1", "postprocess", "decoder_8", "decoder_64", "full"]
    assert times.keys() == STAGES.keys()
    assert tuple(times[f"decoder_{prompts}"] for prompts in PROMPTS) == calls  # a file with P = 1 is called so often
    assert (times["preprocess"], times["encoder"], times["postprocess"]) == (1, 1, 1)
    assert times["full"] == 1 + 2 * 3  # it looks at the clock for encode, decode and post too


@pytest.mark.parametrize("number", [1, 2, 8, 64])
@pytest.mark.parametrize("original_hw", [(48, 64), (3, 1000)])
def test_boxes_lie_in_the_photo_and_apart(number: int, original_hw: tuple[int, int]) -> None:
    boxes = np.array(box_grid(number, original_hw))
    assert boxes.shape == (number, 4)
    assert (boxes >= 0).all()
    assert (boxes[:, 2:] <= (original_hw[1], original_hw[0])).all()
    assert (boxes[:, 2:] > boxes[:, :2]).all()
    assert len(np.unique(boxes, axis=0)) == number


def test_figures() -> None:
    assert summary([3.0]) == Timing(3.0, 3.0)
    assert summary([float(value) for value in range(101)]) == Timing(50.0, 95.0)
    assert ratio(model("b", 5.0), model("a", 10.0), "full") == 0.5
    assert ratio(model("b", 5.0), model("a", 0.0), "full") is None


def test_two_models_side_by_side(monkeypatch: pytest.MonkeyPatch, own_files: Files, nvidia_files: Files) -> None:
    monkeypatch.setattr(measure, "WARM_UP", 0)
    monkeypatch.setattr(measure, "COLD_STARTS", 1)
    ticks = []
    candidates = [Contender("own", *own_files), Contender("nvidia", *nvidia_files)]
    run = measure.benchmark(candidates, PHOTO, ModelChoice(threads=1), 1, lambda: ticks.append(1))
    assert len(ticks) == steps(2, 1)
    assert [report.name for report in run.models] == ["own", "nvidia"]
    assert [report.image_size for report in run.models] == [128, 1024]
    assert (run.conditions.photo_hw, run.conditions.threads, run.conditions.repeats) == ((3, 4), 1, 1)
    for report, files in zip(run.models, (own_files, nvidia_files)):
        assert report.timings.keys() == STAGES.keys()
        assert report.images_per_s == pytest.approx(1000 / report.timings["full"].median_ms, rel=1e-3)
        start = report.cold_start
        assert start.total_ms == pytest.approx(start.start_ms + start.load_ms + start.first_mask_ms, abs=0.01)
        assert (report.encoder.file, report.decoder.file) == (files[0].name, files[1].name)
        assert report.decoder.bytes == files[1].stat().st_size


def test_names_are_needed_apart(own_files: Files) -> None:
    with pytest.raises(UsageError, match="two models have the same name: a, a"):
        measure.benchmark([Contender("a", *own_files)] * 2, PHOTO, ModelChoice(), 1)
    with pytest.raises(UsageError, match="unknown model: nanosam-b9"):
        find_candidate("nanosam-b9")


def test_a_cold_start_that_fails(own_files: Files) -> None:
    options = {"encoder": own_files[0], "decoder": own_files[0]}
    with pytest.raises(ModelError, match=r"fresh process could not segment the photo: .*given as decoder"):
        cold_start(PHOTO, (1, 1, 9, 9), options)


def test_peak_memory_is_of_this_process() -> None:
    megabytes = peak_memory_mb()
    assert megabytes is None or 10 < megabytes < 100_000


# reporting


def test_stage_table() -> None:
    columns, rows = stage_table(saved().models)
    assert columns == ["", "a", "b", "vs a"]
    assert rows[0] == ["pre-processing", "10.0 ms (p95 11.0)", "5.00 ms (p95 6.00)", "x0.50"]
    assert rows[-6] == ["decoder, each further box", "1.91 ms", "0.95 ms", ""]  # (160 - 40) / 63
    assert rows[-5] == ["images/s", "4.2", "4.2", ""]
    assert rows[-4][1] == "612 ms (start 152, load 235, first mask 225)"
    assert rows[-3:] == [
        ["peak memory", "147.1 MB", "147.1 MB", ""],
        ["files", "18.0 MB", "18.0 MB", ""],
        ["runs on", "ONNX Runtime 1.0, CPU", "ONNX Runtime 1.0, CPU", ""],
    ]
    columns, rows = stage_table([model("a")])
    assert columns == ["", "a"]
    assert [row[0] for row in rows[: len(STAGES)]] == list(STAGES.values())


def test_markdown_table() -> None:
    sizes = {"all": 0.7061, "small": 0.5, "medium": None, "large": 0.8}
    run = with_accuracy(saved(), {"b": Accuracy(sizes, 10)})
    assert markdown_table(saved().models) == [
        "| model | encoder ms | decoder ms | further box ms | full pipeline ms |",
        "| --- | ---: | ---: | ---: | ---: |",
        "| a | 20.0 | 40.0 | 1.91 | 640 |",
        "| b | 10.0 | 20.0 | 0.95 | 320 |",
    ]
    assert markdown_table(run.models) == [
        "| model | encoder ms | decoder ms | further box ms | full pipeline ms | mIoU all | S | M | L |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
        "| a | 20.0 | 40.0 | 1.91 | 640 | - | - | - | - |",
        "| b | 10.0 | 20.0 | 0.95 | 320 | 0.706 | 0.500 | - | 0.800 |",
    ]
    assert stage_table(run.models)[1][-1] == ["mIoU all, S, M, L", "- - - -", "0.706 0.500 - 0.800", ""]


def test_caption() -> None:
    run = saved(board="A Board", gpus=("A GPU",))
    run = replace(run, settings=replace(run.settings, power_mode="15W"), conditions=replace(run.conditions, threads=1))
    assert caption(run) == (
        "nanosam 0.1.0 on A Board, Some CPU, 2 cores, A GPU, Linux x86_64, power mode 15W, 1 thread; "
        "ONNX Runtime 1.0, CPU; median of 20 interleaved repeats, 640x480 photo."
    )
    busy = replace(run, load=Load(3.5, None, None))
    assert caption(busy).endswith("640x480 photo, while other programs ran (load average 3.5).")


def test_a_saved_run_comes_back(tmp_path: Path) -> None:
    sizes = {"all": 0.7, "small": None, "medium": 0.5, "large": 0.8}
    run = with_accuracy(saved(gpus=("A GPU",)), {"a": Accuracy(sizes, 10)})
    assert read_run(write(tmp_path / "run.json", run)) == run
    record = run_record(run)
    assert record["schema_version"] == 1
    assert record["models"][1]["ratio_to_first"] == dict.fromkeys(STAGES, 0.5)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", "is not a run"),
        ("[]", "is not a run"),
        ("{}", "is not a run"),
        ('{"schema_version": 1}', "is not a run"),
        ('{"schema_version": 9}', "another version"),
        (None, "cannot read"),
    ],
)
def test_what_is_no_saved_run(tmp_path: Path, content: str | None, words: str) -> None:
    path = tmp_path / "run.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(InputError, match=words):
        read_run(path)


def test_runs_of_one_machine_are_put_together(tmp_path: Path) -> None:
    later = saved()
    later = replace(later, load=Load(9.0, None, None), models=(model("a", 20.0), model("c", 5.0)))
    comparison = compare_contenders([write(tmp_path / "before.json", saved()), write(tmp_path / "after.json", later)])
    assert [found.name for found in comparison.models] == ["a (before)", "b", "a (after)", "c"]
    assert comparison.differences == ()  # the load is none
    assert comparison.record()["models"][2]["ratio_to_first"]["full"] == 2.0


def test_names_of_runs_that_are_called_alike(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    files = [write(tmp_path / "run.json", saved()), write(tmp_path / "x" / "run.json", saved())]
    assert [found.name for found in compare_contenders(files).models][::2] == [f"a ({files[0]})", f"a ({files[1]})"]


def test_settings_that_differ_are_told(tmp_path: Path) -> None:
    other = saved()
    settings = replace(other.settings, power_mode="MAXN")
    other = replace(other, settings=settings, conditions=replace(other.conditions, photo_hw=(10, 20)))
    first, second = write(tmp_path / "1.json", saved()), write(tmp_path / "2.json", other)
    assert compare_contenders([first, second]).differences == (
        f"power_mode: None ({first}), MAXN ({second})",
        f"photo_hw: 480, 640 ({first}), 10, 20 ({second})",
    )


@pytest.mark.parametrize(
    ("hardware", "words"),
    [
        ({"cpu": "Other CPU"}, "cpu: Some CPU .*, Other CPU"),
        ({"cores": 4}, "cores: 2 .*, 4"),
        ({"gpus": ("A GPU",)}, "gpus: none .*, A GPU"),
        ({"memory_gib": None, "board": "A Board"}, "board: None .*, A Board .*; memory_gib: 8 .*, None"),
    ],
)
def test_runs_of_two_machines_are_refused(tmp_path: Path, hardware: dict[str, Any], words: str) -> None:
    files = [write(tmp_path / "1.json", saved()), write(tmp_path / "2.json", saved(**hardware))]
    with pytest.raises(InputError, match=f"different machines, so their times cannot be compared: {words}"):
        compare_contenders(files)


def test_nothing_to_compare() -> None:
    with pytest.raises(UsageError, match="no runs"):
        compare_contenders([])


# accuracy beside the times

OBJECTS = [{"area": 32**2 - 1, "iou": 0.5}, {"area": 32**2, "iou": 0.7}, {"area": 96**2 - 1, "iou": 0.9}]


def results(folder: Path, meta: str | None = '{"model": "a"}', content: str = json.dumps(OBJECTS)) -> Path:
    path = folder / "results.json"
    path.write_text(content)
    if meta is not None:
        (folder / "results.meta.json").write_text(meta)
    return path


def test_accuracy_by_size(tmp_path: Path) -> None:
    expected = Accuracy({"all": pytest.approx(0.7), "small": 0.5, "medium": pytest.approx(0.8), "large": None}, 3)
    path = results(tmp_path)
    assert read_accuracy([(None, path)], ["a", "b"]) == {"a": expected}
    assert read_accuracy([("b", path)], ["a", "b"]) == {"b": expected}  # what is said beats what is beside
    assert read_accuracy([], ["a"]) == {}


def test_accuracy_of_nothing(tmp_path: Path) -> None:
    found = read_accuracy([("a", results(tmp_path, content="[]"))], ["a"])["a"]
    assert found == Accuracy(dict.fromkeys(("all", "small", "medium", "large")), 0)


@pytest.mark.parametrize(
    ("name", "meta", "content", "error", "words"),
    [
        (None, None, "[]", UsageError, "does not say whose it is"),
        (None, '{"model": "z"}', "[]", UsageError, "holds results of z, which is not measured here"),
        ("z", None, "[]", UsageError, "holds results of z"),
        (None, "{}", "[]", InputError, "results.meta.json does not say"),
        (None, "[]", "[]", InputError, "results.meta.json does not say"),
        ("a", None, "[{}]", InputError, "is not a results file"),
        ("a", None, '[{"area": 1', InputError, "is not a results file"),
        ("a", None, "3", InputError, "is not a results file"),
    ],
)
def test_results_that_do_not_fit(
    tmp_path: Path, name: str | None, meta: str | None, content: str, error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        read_accuracy([(name, results(tmp_path, meta, content))], ["a"])


def test_results_that_are_missing(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot read"):
        read_accuracy([("a", tmp_path / "none.json")], ["a"])

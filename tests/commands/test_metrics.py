"""`nanosam metrics` from the command line."""

from __future__ import annotations

import builtins
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from nanosam_cli.commands.metrics import Size
from nanosam_cli.core.evaluation.contact_sheet import BOX, PREDICTION, TRUTH
from nanosam_cli.core.evaluation.metrics import SIZES
from tests.command_line import Ran, run_nanosam
from tests.evaluation_data import nanosam_results, save_data_set, zipped


@pytest.fixture(autouse=True)
def _working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def evaluated(tmp_path: Path) -> None:
    """`ellipse.json` with saved masks and `box.json`, of the same small data set."""
    save_data_set(tmp_path / "data")
    for model, more in (("ellipse", ["--save-masks"]), ("box", [])):
        ran = evaluate("--model", model, "-o", f"{model}.json", *more)
        assert ran.code == 0, ran.err


def evaluate(*arguments: str) -> Ran:
    return run_nanosam("eval", "coco", "--images", "data/images", *arguments)


def save(name: str, rows: list[dict[str, Any]]) -> str:
    Path(name).write_text(json.dumps(rows))
    return name


def cells(ran: Ran) -> list[list[str]]:
    """The rows of a Markdown table, without its head."""
    assert ran.code == 0, ran.err
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in ran.out.splitlines()[2:]]


def test_the_choices_of_the_command_are_those_of_core() -> None:
    assert [size.value for size in Size] == list(SIZES)


@pytest.mark.usefixtures("evaluated")
def test_table() -> None:
    ran = run_nanosam("metrics", "ellipse.json")
    assert (ran.code, ran.err) == (0, "")
    for words in ("ellipse: box prompts, protocol nanosam", "size", "mIoU", "95 %", "IoU>0.75", "small", "medium"):
        assert words in ran.out


def test_nanosams_own_file() -> None:
    rows = nanosam_results(100)
    ran = run_nanosam("metrics", save("old.json", rows), "--size", "small", "--markdown")
    small = [row["iou"] for row in rows if row["area"] < 32**2]
    assert cells(ran)[0][:3] == ["small", str(len(small)), f"{np.mean(small):.3f}"]


@pytest.mark.parametrize("size", ["small", "medium", "large"])
def test_nanosams_borders(size: str) -> None:
    """As its `compute_eval_coco_metrics.py` filters: min <= area <= max."""
    rows = nanosam_results(100)
    low, high = {"small": (0, 32**2), "medium": (32**2, 96**2), "large": (96**2, 1e9)}[size]
    ran = run_nanosam("metrics", save("old.json", rows), "--size", size, "--protocol", "nanosam", "--json")
    (group,) = json.loads(ran.out)["groups"]
    ious = [row["iou"] for row in rows if low <= row["area"] <= high]
    assert (group["objects"], group["mean_iou"]) == (len(ious), pytest.approx(np.mean(ious)))
    ours = json.loads(run_nanosam("metrics", "old.json", "--size", size, "--json").out)["groups"][0]["objects"]
    assert group["objects"] - ours == {"small": 1, "medium": 1, "large": 0}[size]


@pytest.mark.usefixtures("evaluated")
def test_categories() -> None:
    by_category = cells(run_nanosam("metrics", "ellipse.json", "--by", "category", "--markdown"))
    assert [row[:2] for row in by_category] == [["all", "12"], ["person", "6"], ["dog", "4"], ["Bottle", "2"]]
    for words in (("--category", "DOG"), ("--category", "18"), ("--category_id", "18")):
        assert cells(run_nanosam("metrics", "ellipse.json", *words, "--markdown"))[0][1] == "4"
    both = cells(run_nanosam("metrics", "ellipse.json", "--category", "dog", "--category-id", "44", "--markdown"))
    assert both[0][1] == "6"
    small = cells(run_nanosam("metrics", "ellipse.json", "--by", "category", "--size", "medium", "--markdown"))
    assert [row[0] for row in small] == ["medium", "person"]
    ran = run_nanosam("metrics", "ellipse.json", "--category", "preson")
    assert ran.code == 2
    assert "did you mean person?" in ran.err


@pytest.mark.usefixtures("evaluated")
def test_names_come_from_annotations_where_they_are_not_recorded() -> None:
    rows = json.loads(Path("ellipse.json").read_text())
    save("old.json", rows)
    ran = run_nanosam("metrics", "old.json", "--category", "dog")
    assert ran.code == 2
    assert "--annotations FILE" in ran.err
    ran = run_nanosam("metrics", "old.json", "--category", "dog", "--annotations", "data/instances.json", "--markdown")
    assert cells(ran)[0][1] == "4"
    ran = run_nanosam("metrics", "old.json", "--by", "category", "--markdown")
    assert [row[0] for row in cells(ran)] == ["all", "1", "18", "44"]
    assert "--annotations FILE" in ran.err
    save("strange.json", [{**rows[0], "id": 9}])
    for name in ("strange.json", "box.json"):
        if name == "box.json":
            Path("data/instances.json").write_text(Path("data/instances.json").read_text() + "\n")
        ran = run_nanosam("metrics", name, "--annotations", "data/instances.json")
        assert ran.code == 1
        assert "results of another annotation file" in ran.err


@pytest.mark.usefixtures("evaluated")
def test_comparing() -> None:
    table = cells(run_nanosam("metrics", "box.json", "ellipse.json", "--markdown"))
    assert [row[0] for row in table] == ["all", "small", "medium", "large"]
    assert float(table[0][3]) - float(table[0][2]) == pytest.approx(float(table[0][4].split()[0]), abs=0.0011)
    assert table[3][1:] == ["0", "-", "-", "-"]
    record = json.loads(run_nanosam("metrics", "box.json", "ellipse.json", "--json").out)
    assert [file["model"] for file in record["files"]] == ["box", "ellipse"]
    (difference,) = record["differences"]
    assert (difference["file"], difference["than"]) == ("ellipse.json", "box.json")
    means = [file["groups"][0]["mean_iou"] for file in record["files"]]
    assert difference["groups"][0]["mean"] == pytest.approx(means[1] - means[0])
    low, high = difference["groups"][0]["interval"]
    assert low <= means[1] - means[0] <= high


@pytest.mark.usefixtures("evaluated")
def test_comparing_what_was_made_in_other_ways() -> None:
    evaluate("--model", "box", "--protocol", "edgesam", "-o", "other.json")
    ran = run_nanosam("metrics", "box.json", "other.json", "--markdown")
    assert cells(ran)[0][1] == "11"
    assert "the files differ in protocol: nanosam, edgesam" in ran.err
    assert "box.json: 11 of 12 objects are in all files" in ran.err
    assert "| box | other |" in ran.out  # one model, so the files' names tell them apart


@pytest.mark.usefixtures("evaluated")
def test_shards_are_merged() -> None:
    for part in (1, 2, 3):
        assert evaluate("--model", "ellipse", "--shard", f"{part}/3").code == 0
    shards = [f"results-{part}of3.json" for part in (1, 2, 3)]
    assert "--merge" in run_nanosam("metrics", *shards).err
    ran = run_nanosam("metrics", "--merge", *shards, "-o", "all.json")
    assert ran.code == 0, ran.err
    assert Path("all.json").read_bytes() == Path("ellipse.json").read_bytes()
    assert cells(run_nanosam("metrics", "all.json", "--markdown")) == cells(
        run_nanosam("metrics", "ellipse.json", "--markdown")
    )
    ran = run_nanosam("metrics", "--merge", *shards[:2])
    assert ran.code == 0
    assert "shards are missing: 3" in ran.err
    ran = run_nanosam("metrics", "--merge", *shards, shards[0])
    assert ran.code == 1
    assert "is in both results-1of3.json and results-1of3.json" in ran.err
    assert "exists already" in run_nanosam("metrics", "--merge", *shards, "-o", "all.json").err


@pytest.mark.usefixtures("evaluated")
def test_worst() -> None:
    ran = run_nanosam("metrics", "ellipse.json", "--worst", "3", "--json")
    worst = json.loads(ran.out)["worst"]
    assert [row["iou"] for row in worst] == sorted(row["iou"] for row in json.loads(Path("ellipse.json").read_text()))[
        :3
    ]
    assert worst[0]["category"] == "person"  # the empty mask
    ran = run_nanosam("metrics", "ellipse.json", "--worst", "3", "--category", "Bottle")
    assert "The worst of 2 objects" in ran.out


def colours(name: str) -> set[tuple[int, int, int]]:
    with Image.open(name) as sheet:
        return {colour for _, colour in sheet.crop((0, 30, *sheet.size)).getcolors(1 << 20) or ()}  # type: ignore[misc]


@pytest.mark.usefixtures("evaluated")
def test_contact_sheet() -> None:
    ran = run_nanosam("metrics", "ellipse.json", "--worst", "12", "-o", "sheet.png")
    assert ran.code == 0, ran.err
    assert {TRUTH, PREDICTION, BOX} <= colours("sheet.png")
    with Image.open("sheet.png") as sheet:
        assert sheet.size[0] > 5 * 240
        assert sheet.size[1] > 3 * 240
    ran = run_nanosam("metrics", "box.json", "--worst", "1", "-o", "bare.png")
    assert "no saved masks" in ran.err
    assert PREDICTION not in colours("bare.png")
    archive = zipped(Path("data/images"), Path("photos.zip"))
    place = ("--annotations", "data/instances.json", "--images", archive, "--masks", "ellipse.masks.json")
    ran = run_nanosam("metrics", "box.json", "--worst", "12", "-o", "elsewhere.png", *place)
    assert ran.code == 0, ran.err
    assert PREDICTION in colours("elsewhere.png")


@pytest.mark.usefixtures("evaluated")
def test_contact_sheets_that_cannot_be_drawn() -> None:
    save("old.json", json.loads(Path("box.json").read_text()))
    save("no.masks.json", [{"image_id": 1}])
    for arguments, code, words in (
        (("old.json", "-o", "a.png"), 2, "does not say what it was evaluated on"),
        (("box.json", "-o", "a.jpg"), 2, "-o a.png"),
        (("box.json", "-o", "a.png", "--masks", "no.masks.json"), 1, "holds no saved masks"),
        (("box.json", "-o", "a.png", "--images", "data"), 1, "no such photo"),
        (("box.json", "ellipse.json"), 2, "--worst looks at one result file"),
    ):
        ran = run_nanosam("metrics", "--worst", "3", *arguments)
        assert ran.code == code, arguments
        assert words in ran.words
    ran = run_nanosam("metrics", "box.json", "--worst", "3", "--size", "large", "-o", "a.png")
    assert ran.code == 0
    assert "no objects, so no picture" in ran.err


@pytest.mark.parametrize("suffix", [".png", ".svg"])
def test_plot(suffix: str) -> None:
    pytest.importorskip("matplotlib", reason="plots need the extra `plot`")
    save("a.json", nanosam_results(200))
    save("b.json", nanosam_results(200, seed=1)[:150])
    save("empty.json", [])
    for files in (["a.json"], ["empty.json"]):
        ran = run_nanosam("metrics", *files, "--plot", f"plot{suffix}", "--force")
        assert ran.code == 0, ran.err
        assert Path(f"plot{suffix}").stat().st_size > 5000
    ran = run_nanosam("metrics", "a.json", "--plot", f"plot{suffix}")
    assert ran.code == 1
    assert "exists already" in ran.err
    ran = run_nanosam("metrics", "a.json", "--plot", "plot.txt")
    assert ran.code == 2
    assert "--plot plot.png" in ran.err


def test_plot_without_matplotlib(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *arguments: Any, **more: Any) -> Any:
        if name.startswith("matplotlib"):
            raise ModuleNotFoundError(f"No module named {name!r}", name="matplotlib")
        return real(name, *arguments, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    ran = run_nanosam("metrics", save("a.json", nanosam_results(20)), "--plot", "plot.png")
    assert ran.code == 1
    assert "pip install 'nanosam-cli[plot]'" in ran.err


def test_an_empty_selection_is_no_error() -> None:
    save("old.json", nanosam_results(30))
    save("empty.json", [])
    for arguments in (("old.json", "--category-id", "7"), ("empty.json",), ("empty.json", "old.json")):
        table = cells(run_nanosam("metrics", *arguments, "--markdown"))
        assert {cell for row in table for cell in row[2:]} == {"-"}, arguments
        ran = run_nanosam("metrics", *arguments)
        assert ran.code == 0
        assert " - " in ran.out
        assert run_nanosam("metrics", *arguments, "--json").code == 0


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("none.json",), 1, "no such results file: none.json"),
        (("half.json",), 1, "half.json is not a whole JSON file"),
        (("a.json", "other.json"), 1, "no object in common"),
        (("a.json", "moved.json"), 1, "is not the same in a.json and moved.json"),
        (("a.json", "--json", "--markdown"), 2, "two forms of one table"),
        (("a.json", "-o", "b.json"), 2, "--merge"),
        (("a.json", "--size", "tiny"), 2, "tiny"),
        (("a.json", "--plot", "plot.txt"), 2, "--plot plot.png"),
        (("a.json", "--worst", "3", "-o", "sheet.jpg"), 2, "-o sheet.png"),
        (("half.json",), 1, "expected what `nanosam eval coco` writes"),
        (("run.jsonl",), 1, "nanosam eval coco --resume"),
        ((), 2, "Missing argument"),
    ],
)
def test_wrong_arguments(arguments: tuple[str, ...], code: int, words: str) -> None:
    rows = nanosam_results(30)
    save("a.json", rows)
    save("other.json", [row | {"id": row["id"] + 99} for row in rows])
    save("moved.json", [row | {"image_id": row["image_id"] + 1} for row in rows])
    Path("half.json").write_text(json.dumps(rows)[:500])
    Path("run.jsonl").write_text('{"settings": {}}\n{"image_id": 1}\n')
    ran = run_nanosam("metrics", *arguments)
    assert (ran.code, ran.out) == (code, "")
    assert words in ran.words
    assert "Traceback" not in ran.err

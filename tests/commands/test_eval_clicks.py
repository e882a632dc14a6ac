"""`nanosam eval clicks` from the command line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nanosam_cli.core.evaluation.clicks_sheet import SIDE
from nanosam_cli.core.evaluation.contact_sheet import GAP, ON_IT, PREDICTION, TRUTH
from tests.command_line import Ran, run_nanosam
from tests.evaluation_data import save_data_set

Run = Callable[..., Ran]


@pytest.fixture
def evaluate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """`nanosam eval clicks` on a small data set in `data/`, of the baseline `disc`."""
    monkeypatch.chdir(tmp_path)
    save_data_set(tmp_path / "data")

    def run(*arguments: object) -> Ran:
        model = () if {"--model", "--encoder"} & set(map(str, arguments)) else ("--model", "disc")
        return run_nanosam("eval", "clicks", "--images", "data/images", *model, *arguments)

    return run


def test_table_file_and_record(evaluate: Run) -> None:
    ran = evaluate("--clicks", "5")
    assert ran.code == 0, ran.err
    for words in ("mIoU after 1 click", "mIoU after 5 clicks", "clicks to 0.85", "newest click obeyed", "1.000"):
        assert words in ran.out
    assert "1 annotated masks are empty; nobody can click on them" in ran.err
    assert sorted(path.name for path in Path().iterdir()) == ["clicks.json", "clicks.meta.json", "data"]
    settings = json.loads(Path("clicks.meta.json").read_text())["settings"]
    assert {key: settings[key] for key in ("protocol", "prompt", "start", "clicks", "seed")} == {
        "protocol": "clicks",
        "prompt": "clicks",
        "start": "click",
        "clicks": 5,
        "seed": 0,
    }
    again = evaluate("--clicks", "5")
    assert again.code == 1
    assert "--force" in again.err


def test_json_has_every_step_with_its_interval(evaluate: Run) -> None:
    ran = evaluate("--json", "--start", "box", "--clicks", "2", "-o", "box.json")
    assert ran.code == 0, ran.err
    record = json.loads(ran.out)
    assert (record["model"], record["start"], record["clicks"], record["output"]) == ("disc", "box", 2, "box.json")
    found = {measure["measure"]: measure["all"] for measure in record["measures"]}
    assert list(found)[:3] == ["mIoU after box", "mIoU after 1 click", "mIoU after 2 clicks"]
    low, high = found["mIoU after box"]["interval"]
    assert low <= found["mIoU after box"]["mean"] <= high
    assert found["newest click obeyed"]["mean"] == 1


def test_several_results_in_one_plot(evaluate: Run) -> None:
    pytest.importorskip("matplotlib", reason="needs the extra `plot`")
    assert evaluate("--clicks", "3", "-o", "a.json").code == 0
    assert evaluate("--clicks", "3", "--start", "box", "-o", "b.json").code == 0
    ran = run_nanosam("metrics", "a.json", "b.json", "--plot", "clicks.svg")
    assert ran.code == 0, ran.err
    drawn = Path("clicks.svg").read_text()
    assert drawn.startswith("<?xml")
    assert run_nanosam("eval", "coco", "--images", "data/images", "--model", "box", "-o", "once.json").code == 0
    assert run_nanosam("metrics", "once.json", "a.json", "--plot", "mixed.png").code == 0  # as IoU of each object


def test_masks_as_prompts(evaluate: Run, own_files: tuple[Path, Path]) -> None:
    files = ("--encoder", own_files[0], "--decoder", own_files[1])
    ran = evaluate("--prompt", "mask", *files, "-o", "masks.json")
    assert ran.code == 0, ran.err
    assert "rough mask + box" in ran.out


def test_the_first_clicks_in_a_picture(evaluate: Run) -> None:
    ran = evaluate("--start", "box", "--clicks", "7", "--sheet", "clicks.png")
    assert ran.code == 0, ran.err
    assert "first clicks: clicks.png" in ran.err
    with Image.open("clicks.png") as sheet:
        pixels = np.asarray(sheet.convert("RGB")).astype(int)
    assert pixels.shape[1] == 6 * (SIDE + GAP) + GAP  # the box and five clicks
    for colour in (TRUTH, PREDICTION, ON_IT):
        assert (np.abs(pixels - colour).sum(axis=2) == 0).sum() > 20, colour
    Path("clicks.json").unlink()
    Path("clicks.meta.json").unlink()
    assert evaluate("--sheet", "clicks.png").code == 1
    assert not Path("clicks.json").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--prompt", "mask"], "disc takes no masks"),
        (["--model", "ellipse"], "the baseline ellipse needs a box prompt"),
        (["--clicks", "0"], "--clicks is from 1 to 100, not 0"),
        (["--clicks", "101"], "not 101"),
        (["--start", "mask"], "mask"),
        (["--resume", "--force"], "give one of them"),
        (["--sheet", "clicks.jpg"], "the picture of --sheet is a PNG"),
        (["--sheet", "clicks.png", "--prompt", "mask"], "--sheet shows clicks"),
    ],
)
def test_what_is_refused(evaluate: Run, arguments: list[str], words: str) -> None:
    ran = evaluate(*arguments)
    assert ran.code == 2
    assert words in ran.err
    assert not Path("clicks.json").exists()

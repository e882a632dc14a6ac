"""`nanosam eval davis` from the command line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from nanosam_cli.commands.eval import FirstPrompt
from nanosam_cli.core.errors import InputError
from nanosam_cli.core.evaluation.followers import CopyFollower, Followed
from nanosam_cli.core.paths import TEST_DATA
from tests.command_line import Ran, run_nanosam
from tests.video_data import save_frames

Run = Callable[..., Ran]


@pytest.fixture
def evaluate(own_files: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """`nanosam eval davis` with the fake model on two small clips in `clips/`."""
    monkeypatch.chdir(tmp_path)
    save_frames(tmp_path / "clips" / "a")
    save_frames(tmp_path / "clips" / "b", 5)

    def run(*arguments: object) -> Ran:
        model = () if "--model" in arguments else ("--encoder", own_files[0], "--decoder", own_files[1])
        return run_nanosam("eval", "davis", "clips", *arguments, *model)

    return run


@pytest.mark.parametrize("prompt", [kind.value for kind in FirstPrompt])
def test_json(evaluate: Run, prompt: str) -> None:
    ran = evaluate("--prompt", prompt, "--json")
    assert ran.code == 0, ran.err
    record = json.loads(ran.out)
    assert {"mean_j", "mean_f", "mean_jf"} < record.keys()
    assert record["prompt"] == prompt
    assert 0.7 < record["mean_j"] <= 1
    assert [(clip["clip"], clip["frames"], clip["tracked"]) for clip in record["clips"]] == [("a", 8, 1), ("b", 5, 1)]
    assert all(clip["fps"] > 0 for clip in record["clips"])


def test_table_sheets_and_masks(evaluate: Run) -> None:
    ran = evaluate("--sheets", "sheets", "--masks", "masks")
    assert ran.code == 0, ran.err
    for words in ("clip", "J&F", "tracked", "found again", "fps", "all", "mask prompt"):
        assert words in ran.out
    assert sorted(path.name for path in Path("sheets").iterdir()) == ["a.png", "b.png"]
    assert len(list(Path("masks/b").iterdir())) == 5
    again = evaluate("--sheets", "sheets")
    assert again.code == 1
    assert "exist already; nothing was done" in again.words
    assert evaluate("--sheets", "sheets", "--force").code == 0


def test_baseline(evaluate: Run) -> None:
    floor = json.loads(evaluate("--model", CopyFollower.name, "--json").out)
    tracker = json.loads(evaluate("--json").out)
    assert floor["model"] == "copy"
    assert floor["mean_j"] < tracker["mean_j"]


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("--clip", "c"), 2, "no annotated clip c"),
        (("--split", "val"), 2, "no list val"),
        (("--split", "val", "--clip", "a"), 2, "leave out --clip or --split"),
        (("--model", "copy", "--prompt", "box"), 2, "the baseline copy takes the first mask"),
        (("--prompt", "point"), 2, "'point' is not one of"),
    ],
)
def test_refusals(evaluate: Run, arguments: tuple[str, ...], code: int, words: str) -> None:
    ran = evaluate(*arguments)
    assert (ran.code, "Traceback" in ran.err) == (code, False)
    assert words in ran.words


def test_a_bad_clip_is_known_at_once(evaluate: Run) -> None:
    save_frames(Path("clips/c"), 2)
    ran = evaluate("--model", "copy", "--masks", "masks")
    assert (ran.code, ran.out) == (1, "")
    assert "clip c: a clip of 2 frames cannot be scored" in ran.words
    assert not Path("masks").exists()


@pytest.mark.parametrize("form", ["--json", "--quiet"])
@pytest.mark.parametrize(("stop", "code"), [(KeyboardInterrupt(), 130), (InputError("it broke"), 1)])
def test_finished_clips_are_kept(
    evaluate: Run, monkeypatch: pytest.MonkeyPatch, form: str, stop: BaseException, code: int
) -> None:
    def step(self: CopyFollower, image: NDArray[np.uint8]) -> list[Followed]:
        steps.append(image)
        if len(steps) > 9:  # the seven steps of the first clip are over
            raise stop
        return self._given

    steps: list[object] = []
    monkeypatch.setattr(CopyFollower, "step", step)
    ran = evaluate("--model", "copy", form)
    assert ran.code == code
    assert "no result for 1 of 2 clips: b" in ran.words
    if form == "--json":
        assert [clip["clip"] for clip in json.loads(ran.out)["clips"]] == ["a"]
    else:
        assert "found again" in ran.out


def test_annotations_are_never_overwritten(evaluate: Run) -> None:
    before = Path("clips/a/00003.png").read_bytes()
    ran = evaluate("--model", "copy", "--masks", "clips", "--force")
    assert (ran.code, ran.out) == (2, "")
    assert "clips/a holds a clip that is read" in ran.words
    assert Path("clips/a/00003.png").read_bytes() == before


@pytest.mark.data
def test_model_in_the_box() -> None:
    """Half of what is measured (docs/tracking.md) would be a fault."""
    data = TEST_DATA.get()
    if data is None or not (data / "video").is_dir():
        pytest.skip("NANOSAM_TEST_DATA has no video/")
    ran = run_nanosam("eval", "davis", data / "video", "--clip", "schoolgirls-1", "--json")
    assert ran.code == 0, ran.err
    assert json.loads(ran.out)["mean_jf"] > 0.7

"""The commands of the README and of the guides work as they stand, and their links lead somewhere."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path

import pytest

from tests.command_line import Ran, run_nanosam
from tests.video_data import save_frames, save_video

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
GUIDES = sorted((ROOT / "docs").glob("*.md"))
PAGES = [README, ROOT / "recipes" / "README.md", *GUIDES]
LINKED = [*PAGES, *sorted(ROOT.glob("docs/*/*.md")), *sorted(ROOT.glob("recipes/results/*.md"))]
LINKED += [ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", ROOT / "examples" / "README.md"]
WITH_PROGRAMS = [README, ROOT / "docs" / "tracking.md", ROOT / "docs" / "results.md"]
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"\]\((?!https?://)([^)#\s]+)")
WORDS = 900  # of a guide, its tables included
LINES = 120  # of the README

# Why the tests leave commands out -> these, as the pages print them.
LEFT_OUT = {
    "asks a server for a model": (
        'nanosam segment examples/raccoon.jpg --text "a raccoon" --format overlay',
        'nanosam segment examples/raccoon.jpg --text "a raccoon" --text "a leaf" --format overlay -o raccoon.png',
        "nanosam segment examples/raccoon.jpg --text leaf --text-model google/owlvit-base-patch32 --min-score 0.1",
        "nanosam download mobile-sam",
        "nanosam segment examples/cat.jpg --model mobile-sam --box 0,0,399,300",
        "nanosam export all mobile-sam --precision fp16 -o fp16",
        "nanosam export all mobile-sam --single-file -o whole",
        "nanosam export teacher --batch 16",
        "nanosam download nanosam-resnet18",
        "nanosam build-engine nanosam-resnet18 --fp16",
    ),
    "asks npm for onnxruntime-web; tests/clients/test_browser.py takes it from a file": (
        "nanosam export browser -o page",
    ),
    "needs MediaPipe, which wants older packages; `make test-pose` runs such": (
        "nanosam segment examples/astronaut.jpg --pose auto --part head",
        "nanosam segment examples/astronaut.jpg --pose auto --part person --part head --format overlay -o pose.png",
        "nanosam segment examples/photographer.jpg --pose auto --part person --part shirt"
        " --format overlay -o shirt.png",
        "nanosam track video.mp4 --pose auto --part shirt",
    ),
    "needs a camera": ("nanosam track 0 --show", "nanosam track 0 --pose auto --part shirt --show"),
    "trains for two minutes; `make test-all` runs it": ("nanosam distill quick",),
    "trains for longer": (
        "nanosam distill finetune --set data.root=examples",
        "nanosam distill finetune --set data.root=examples --resume",
        "nanosam distill nanosam-lite2 --set data.root=DATA",
    ),
    "needs what a training has left": ("nanosam export all runs/quick/last.safetensors -o quick",),
    "builds for a minute; tests/commands/test_build_engine.py builds smaller ones": (
        "nanosam build-engine --fp16",
        "nanosam build-engine --int8 --backend onnxruntime --calibrate examples",
    ),
    "runs until Ctrl-C; tests/commands/test_serve_page.py and tests/commands/test_label.py start such servers": (
        "nanosam label examples --classes cat,dog,person",
        "nanosam label examples -o cats.json --detections examples/instances.json --no-browser",
        "nanosam label video.mp4 --classes cat --stride 5",
        "nanosam label photos --import labels/",
        "nanosam label photos --detections boxes.json",
        "nanosam serve examples --port 8765",
        "nanosam serve examples --host 0.0.0.0 --port 8765",
    ),
    "measures for half a minute; the README's measures less": ("nanosam benchmark --markdown",),
    "needs Ray, of the extra `batch`; tests/commands/test_batch.py runs such where it is": (
        "nanosam batch examples --everything --grid 4 -o masks",
        "nanosam batch merge masks --format coco -o masks.json",
        "nanosam batch photos/ --detections boxes.json -o masks/ --threads 4",
        "nanosam batch photos/ --everything -o masks/ --device cuda --gpus-each 0.5",
        "nanosam batch 's3://bucket/photos' --everything -o masks/ --ray auto --threads 4",
    ),
    "needs ONNX files of the reader's own, and TensorRT-RTX": (
        "nanosam build-engine encoder.onnx decoder.onnx --fp16 --backend tensorrt-rtx -o engines",
    ),
}
UNTESTED = [command for commands in LEFT_OUT.values() for command in commands]


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def blocks(text: str, *languages: str) -> list[str]:
    """The fenced blocks in one of these languages."""
    return [block for language, block in BLOCK.findall(text) if language in languages]


def words(line: str) -> list[str]:
    """What a shell would take from a line, without its comment."""
    return shlex.split(line, comments=True)


def commands(text: str) -> list[str]:
    """Lines of console and bash blocks that start with `nanosam `."""
    lines = [line.removeprefix("$ ") for block in blocks(text, "console", "bash") for line in block.splitlines()]
    return [line for line in lines if line.startswith("nanosam ")]


def printed(page: Path) -> list[str]:
    return commands(page.read_text(encoding="utf-8"))


def run(line: str) -> Ran:
    """`nanosam ...`, and into which file its output goes."""
    arguments = words(line)[1:]
    if ">" not in arguments:
        return run_nanosam(*arguments)
    *arguments, _, target = arguments
    ran = run_nanosam(*arguments)
    Path(target).write_text(ran.out, encoding="utf-8")
    return ran


@pytest.fixture
def _staged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A working directory with what a reader has: the examples, and a video, frames and an annotated clip."""
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    save_video(tmp_path / "video.mp4", count=10, hw=(320, 480))
    save_frames(tmp_path / "clips" / "square")
    frames = save_frames(tmp_path / "frames", hw=(320, 480))
    masks = sorted(frames.glob("*.png"))
    shutil.copy(masks[0], tmp_path / "first.png")
    for mask in masks:
        mask.unlink()
    (later,) = blocks((ROOT / "docs" / "tracking.md").read_text(encoding="utf-8"), "json")
    (tmp_path / "later.json").write_text(later, encoding="utf-8")
    monkeypatch.setenv(
        "NANOSAM_HOME", str(tmp_path / "home")
    )  # no other test shall run the engines that are built here
    monkeypatch.chdir(tmp_path)


def test_commands_are_found() -> None:
    text = "```console\n$ nanosam a\nnanosam b  # c\nout\n```\n"
    text += "```python\nnanosam c\n```\n```bash\nnanosam d > e\n```\n"
    assert commands(text) == ["nanosam a", "nanosam b  # c", "nanosam d > e"]


@pytest.mark.usefixtures("_staged")
@pytest.mark.parametrize("page", [page for page in PAGES if printed(page)], ids=name_of)
def test_pages(page: Path) -> None:
    """All in one directory and in their order, because a later command may use what an earlier one has written."""
    left_out = [words(line) for line in UNTESTED]
    for line in printed(page):
        if words(line) not in left_out:
            ran = run(line)
            assert ran.code == 0, f"{line}\n{ran.err}"


@pytest.mark.usefixtures("_staged")
@pytest.mark.parametrize("page", WITH_PROGRAMS, ids=name_of)
def test_python_programs_run(page: Path) -> None:
    (program,) = blocks(page.read_text(encoding="utf-8"), "python")
    exec(compile(program, page.name, "exec"), {})


@pytest.mark.parametrize("line", UNTESTED)
def test_a_command_that_is_left_out_stands_on_a_page(line: str) -> None:
    assert words(line) in [words(other) for page in PAGES for other in printed(page)]


@pytest.mark.parametrize("line", UNTESTED)
def test_a_command_that_is_left_out_has_options_that_exist(line: str) -> None:
    """Unknown options and missing values are refused before --help is looked at."""
    assert run_nanosam(*words(line)[1:], "--help").code == 0


def test_an_unknown_option_is_refused_in_spite_of_help() -> None:
    assert run_nanosam("distill", "quick", "--no-such-option", "--help").code == 2


@pytest.mark.parametrize("page", LINKED, ids=name_of)
def test_links_lead_to_files(page: Path) -> None:
    links = LINK.findall(page.read_text(encoding="utf-8"))
    assert not [link for link in links if not (page.parent / link).exists()]


@pytest.mark.parametrize("page", LINKED, ids=name_of)
def test_programs_and_tests_that_a_page_names_exist(page: Path) -> None:
    named = re.findall(r"\b(?:benchmarks|tests)/[\w/]+\.py", page.read_text(encoding="utf-8"))
    assert not [name for name in named if not (ROOT / name).exists()]


@pytest.mark.parametrize("page", GUIDES, ids=name_of)
def test_a_guide_is_short(page: Path) -> None:
    assert len(page.read_text(encoding="utf-8").split()) <= WORDS


def test_the_readme_is_short() -> None:
    assert len(README.read_text(encoding="utf-8").splitlines()) <= LINES

"""The commands of the README and of the page on prompts work as they stand."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path

import pytest

from nanosam_cli.core.errors import ModelError
from nanosam_cli.core.loading.part_files import model_files
from nanosam_cli.core.paths import resource
from nanosam_cli.core.zoo.models import DEFAULT_MODEL, find_model
from tests.command_line import run_nanosam

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "docs" / "prompts.md"]
FENCE = re.compile(r"^```(?:console|bash)\n(.*?)^```", re.DOTALL | re.MULTILINE)


def commands(text: str) -> list[str]:
    """Lines of fenced console and bash blocks that start with `nanosam `, without those marked `# not run`."""
    lines = [line.removeprefix("$ ").strip() for block in FENCE.findall(text) for line in block.splitlines()]
    return [line for line in lines if line.startswith("nanosam ") and not line.endswith("# not run")]


def test_commands_are_found() -> None:
    text = "```console\n$ nanosam a\nnanosam b  # not run\nout\n```\n"
    text += "```python\nnanosam c\n```\n```bash\nnanosam d # x\n```\n"
    assert commands(text) == ["nanosam a", "nanosam d # x"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_pages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, page: Path) -> None:
    """All in one directory and in their order, because a later command may use what an earlier one has written."""
    found = commands(page.read_text(encoding="utf-8")) if page.exists() else []
    if not found:
        pytest.skip(f"{page.name} has no commands to run")
    try:
        model_files(find_model(DEFAULT_MODEL))
    except ModelError as error:
        pytest.skip(f"the model in the box is missing: {error}")
    shutil.copytree(resource("examples"), tmp_path / "examples")
    shutil.copy(resource("examples", "cat.jpg"), tmp_path / "photo.jpg")
    monkeypatch.chdir(tmp_path)
    for line in found:
        ran = run_nanosam(*shlex.split(line, comments=True)[1:])
        assert ran.code == 0, f"{line}\n{ran.err}"

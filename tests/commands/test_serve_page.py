"""The curl commands of docs/serve.md work as they stand, on a server of the model in the box."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.commands.test_label import end, start

ROOT = Path(__file__).parents[2]
COMMANDS = re.findall(r"^```bash\n(.*?)^```", (ROOT / "docs" / "serve.md").read_text("utf-8"), re.DOTALL | re.MULTILINE)

pytestmark = pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl")


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Any]]:
    """What each command prints, in their order; the server has a port of its own."""
    folder = tmp_path_factory.mktemp("reader")
    shutil.copytree(ROOT / "examples", folder / "examples")
    process, address = start("serve", str(folder / "examples"), "--threads", "1")
    printed = []
    for command in COMMANDS:
        line = command.replace("http://127.0.0.1:8765/", address)
        done = subprocess.run(["sh", "-c", line], cwd=folder, capture_output=True, text=True, check=True)
        printed.append(json.loads(done.stdout) if done.stdout else np.asarray(Image.open(folder / "mask.png")))
    yield printed
    end(process, signal.SIGTERM)


def test_every_command_is_answered(answers: list[Any]) -> None:
    uploaded, by_path, masks, picture, everything, model, health = answers
    assert uploaded["handle"] == by_path["handle"]
    assert (by_path["width"], by_path["height"]) == (451, 300)
    assert [one["object"] for one in masks["masks"]] == [0, 1]
    assert masks["masks"][0]["area"] > 50_000
    assert np.unique(picture).tolist() == [0, 1]
    assert everything["masks"]
    assert model["cache"]["embeddings"] == 1
    assert health == {"status": "UP"}

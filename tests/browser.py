"""A browser that uses the labelling page as a person does, and the server that it asks."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.command_line import ENVIRONMENT

EXAMPLES = Path(__file__).parents[1] / "examples"
CHROMIUM = os.environ.get("NANOSAM_CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
FLAGS = [
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync"),
]
READY = "#canvas[aria-busy=false]"
ON_THE_CAT, BESIDE_IT = (150, 170), (430, 40)  # x y of examples/cat.jpg, 451x300

IN_A_BROWSER = [  # marks of a test
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on the PATH, and NANOSAM_CHROMIUM names none"),
]


class Server:
    """`nanosam label` in a process of its own."""

    def __init__(self, folder: Path, *arguments: str, port: str = "0", photos: str = "photos") -> None:
        program = "from nanosam_cli.app import main; main()"
        command = ["label", photos, "--no-browser", "--port", port, "--threads", "1", *arguments]
        self.process = subprocess.Popen(
            [sys.executable, "-c", program, *command],
            stdout=subprocess.PIPE,
            text=True,
            cwd=folder,
            env={**os.environ, **ENVIRONMENT},
        )
        assert self.process.stdout is not None
        self.address = self.process.stdout.readline().strip()

    def end(self, number: int = signal.SIGTERM) -> None:
        if self.process.poll() is None:
            self.process.send_signal(number)
            self.process.communicate(timeout=30)


class Page:
    """The page as a person uses it: places are pixels of the photo."""

    def __init__(self, page: Any) -> None:
        self.page = page

    def open(self, address: str) -> None:
        self.page.goto(address)
        self.ready()

    def ready(self) -> None:
        self.page.wait_for_selector(READY)

    def shows(self, name: str) -> None:
        """Wait until a photo is on the screen."""
        self.page.wait_for_selector(f"#title:text-is('{name}')")
        self.ready()

    def photo(self, name: str) -> None:
        self.page.click(f"button.photo[title='{name}']")
        self.shows(name)

    def at(self, place: tuple[float, float], size: tuple[int, int] = (451, 300)) -> tuple[float, float]:
        """Of the window, where the whole photo of a size is shown."""
        edge = self.page.locator("#canvas").bounding_box()
        scale = min((edge["width"] - 16) / size[0], (edge["height"] - 16) / size[1], 8)
        left = edge["x"] + (edge["width"] - size[0] * scale) / 2
        top = edge["y"] + (edge["height"] - size[1] * scale) / 2
        return left + place[0] * scale, top + place[1] * scale

    def click(self, place: tuple[float, float], button: str = "left") -> None:
        self.page.mouse.click(*self.at(place), button=button)
        self.ready()

    def drag(self, start: tuple[float, float], end: tuple[float, float], size: tuple[int, int] = (451, 300)) -> None:
        self.page.mouse.move(*self.at(start, size))
        self.page.mouse.down()
        self.page.mouse.move(*self.at(end, size), steps=6)
        self.page.mouse.up()
        self.ready()

    def press(self, *keys: str) -> None:
        for key in keys:
            self.page.keyboard.press(key)
        self.page.wait_for_timeout(50)
        self.ready()

    def pixel(self, place: tuple[float, float]) -> list[int]:
        """RGB that the screen shows there."""
        x, y = self.at(place)
        self.page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
        colour: list[int] = self.page.evaluate(
            "([x, y]) => { const canvas = document.getElementById('canvas'), edge = canvas.getBoundingClientRect();"
            " const ratio = canvas.width / edge.width;"
            " return [...canvas.getContext('2d').getImageData((x - edge.left) * ratio, (y - edge.top) * ratio, 1, 1)"
            ".data].slice(0, 3); }",
            [x, y],
        )
        return colour

    @property
    def objects(self) -> int:
        return int(self.page.text_content("#object-count"))

    def has(self, objects: int) -> None:
        """Wait until so many are accepted, and on disk."""
        self.page.wait_for_selector(f"#object-count:text-is('{objects}')")
        self.saved()

    def saved(self) -> None:
        self.page.wait_for_selector("#saved:has-text('saved in')")

    def says(self, words: str) -> None:
        self.page.wait_for_selector(f"#status:has-text('{words}')")


def kept(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / "annotations.json").read_text())
    return content


def photo_digests(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (folder / "photos").iterdir()}

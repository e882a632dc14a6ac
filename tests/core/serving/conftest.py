"""A browser, and servers of the labelling page over a folder of two photos."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.browser import CHROMIUM, EXAMPLES, FLAGS, Page, Server


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield opened
        opened.close()


@pytest.fixture
def page(browser: Any) -> Iterator[Page]:
    opened = browser.new_page(viewport={"width": 1280, "height": 720})
    faults: list[str] = []
    opened.on("pageerror", lambda error: faults.append(f"{error} {error.stack}"))
    yield Page(opened)
    opened.close()
    assert not faults


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "photos").mkdir()
    for name in ("cat.jpg", "raccoon.jpg"):
        shutil.copy(EXAMPLES / name, tmp_path / "photos" / name)
    return tmp_path


@pytest.fixture
def serve(folder: Path) -> Iterator[Callable[..., Server]]:
    servers: list[Server] = []

    def begin(*arguments: str, **how: str) -> Server:
        servers.append(Server(folder, *arguments, **how))
        return servers[-1]

    yield begin
    for server in servers:
        server.end()

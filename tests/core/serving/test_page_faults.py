"""What goes wrong while somebody labels: the page says so, and nothing that was accepted is lost."""

from __future__ import annotations

import resource
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.browser import EXAMPLES, IN_A_BROWSER, Page, Server, kept

pytestmark = IN_A_BROWSER

BOXES = [((2, 2), (399, 298)), ((300, 200), (440, 290)), ((20, 20), (120, 140))]


def accept(page: Page, number: int) -> None:
    page.drag(*BOXES[number])
    page.press("Enter")


def not_saved(page: Page) -> None:
    page.page.wait_for_selector("#saved.wrong:has-text('not saved')")
    assert "not saved" in page.page.get_attribute("button.photo[aria-current=true]", "aria-label")


@pytest.mark.skipif(not hasattr(resource, "prlimit"), reason="only Linux bounds the files of another process")
def test_a_disk_that_takes_no_more_is_told_and_saved_when_it_does(
    page: Page, serve: Callable[..., Server], folder: Path
) -> None:
    server = serve()
    page.open(server.address)
    page.photo("cat.jpg")
    accept(page, 0)
    page.has(1)
    files = server.process.pid, resource.RLIMIT_FSIZE
    before = resource.prlimit(*files)
    resource.prlimit(*files, (10, before[1]))
    accept(page, 1)
    not_saved(page)
    page.says("annotations.jsonl: File too large")
    assert page.objects == 2
    resource.prlimit(*files, before)
    accept(page, 2)
    page.has(3)
    server.end()
    assert len(kept(folder)["annotations"]) == 3


def test_a_photo_that_is_deleted_while_it_is_open_is_told_and_others_go_on(
    page: Page, serve: Callable[..., Server], folder: Path
) -> None:
    server = serve()
    page.open(server.address)
    page.photo("cat.jpg")
    (folder / "photos" / "cat.jpg").unlink()
    accept(page, 0)
    not_saved(page)
    page.says("cat.jpg is no longer there")
    page.photo("raccoon.jpg")
    page.drag((20, 20), (500, 400), (640, 427))
    page.press("Enter")
    page.has(1)
    shutil.copy(EXAMPLES / "cat.jpg", folder / "photos")
    page.photo("cat.jpg")
    assert page.objects == 1
    accept(page, 1)
    page.has(2)
    server.end()
    assert sorted(one["image_id"] for one in kept(folder)["annotations"]) == [1, 1, 2]


def test_of_two_windows_the_one_that_is_behind_is_told(
    page: Page, browser: Any, serve: Callable[..., Server], folder: Path
) -> None:
    server = serve()
    other = Page(browser.new_page(viewport={"width": 1280, "height": 720}))
    for window in (page, other):
        window.open(server.address)
        window.photo("cat.jpg")
    accept(other, 0)
    other.has(1)
    accept(page, 1)
    not_saved(page)
    page.says("cat.jpg was changed in another window")
    page.page.on("dialog", lambda dialog: dialog.accept())  # leave, though something is not saved
    page.page.reload()
    page.ready()
    accept(page, 2)
    page.has(2)
    other.page.close()
    server.end()
    assert len(kept(folder)["annotations"]) == 2


def test_a_file_that_cannot_be_written_is_told_though_the_journal_has_all(
    page: Page, serve: Callable[..., Server], folder: Path
) -> None:
    server = serve()
    page.open(server.address)
    page.photo("cat.jpg")
    accept(page, 0)
    page.has(1)
    (folder / "annotations.json").unlink()
    (folder / "annotations.json").mkdir()  # in the place of the file
    accept(page, 1)
    page.page.wait_for_timeout(500)  # in which it is tried
    accept(page, 2)
    page.page.wait_for_selector("#saved.wrong:has-text('kept in the journal')")
    (folder / "annotations.json").rmdir()
    page.saved()
    assert len(kept(folder)["annotations"]) == 3

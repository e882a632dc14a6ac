"""The labelling page on a tablet: fingers, and no keys."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from nanosam_cli.core.media.mask_codes import rle_to_mask
from tests.browser import IN_A_BROWSER, ON_THE_CAT, Page, Server, kept

pytestmark = IN_A_BROWSER
UPRIGHT, ACROSS = (768, 1024), (1024, 768)  # CSS pixels of a tablet


@pytest.fixture(params=[UPRIGHT, ACROSS], ids=["upright", "across"])
def tablet(browser: Any, request: pytest.FixtureRequest) -> Iterator[Page]:
    width, height = request.param
    context = browser.new_context(viewport={"width": width, "height": height}, has_touch=True, is_mobile=True)
    yield Page(context.new_page())
    context.close()


def fingers(page: Page, *paths: tuple[tuple[float, float], tuple[float, float]]) -> None:
    """Fingers that move together, each from a place of the photo to another."""
    session = page.page.context.new_cdp_session(page.page)
    ways = [(page.at(start), page.at(end)) for start, end in paths]
    for step in range(12):  # they rest at the end: from a fling, the next tap would only stop it
        share = min(1.0, step / 5)
        points = [
            {"x": x0 + (x1 - x0) * share, "y": y0 + (y1 - y0) * share, "id": number}
            for number, ((x0, y0), (x1, y1)) in enumerate(ways)
        ]
        kind = "touchMove" if step else "touchStart"
        session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})
        page.page.wait_for_timeout(16)
    session.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
    session.detach()
    page.ready()


def tap(page: Page, place: tuple[float, float]) -> None:
    page.page.touchscreen.tap(*page.at(place))
    page.page.wait_for_timeout(100)
    page.ready()


def test_a_photo_is_labelled_by_fingers(tablet: Page, serve: Callable[..., Server], folder: Path) -> None:
    server = serve("--classes", "cat,dog")
    tablet.open(server.address)
    tablet.page.tap("button.photo[title='cat.jpg']")
    tablet.shows("cat.jpg")
    tap(tablet, ON_THE_CAT)
    whole = tablet.page.text_content("#status")
    tablet.page.tap("#take-mode")
    tap(tablet, (430, 40))
    tablet.page.tap("#take-mode")
    assert tablet.page.text_content("#status") != whole
    tablet.page.tap("[data-does=accept]")
    tablet.has(1)

    tablet.page.tap("#more-mode")  # boxes of several objects, though one of them begins on an accepted one
    tablet.page.tap(".category >> nth=1")
    fingers(tablet, ((300, 180), (440, 290)))
    fingers(tablet, ((20, 20), (120, 140)))
    assert tablet.objects == 1
    tablet.page.tap("[data-does=accept]")
    tablet.has(3)

    tablet.page.tap("[data-tool=brush]")
    fingers(tablet, ((10, 290), (60, 290)))
    tablet.page.tap("[data-does=accept]")
    tablet.has(4)
    server.end()
    *_, drawn = kept(folder)["annotations"]
    assert rle_to_mask(drawn["segmentation"])[290, 10:60].all()


def test_two_fingers_zoom_and_move_and_draw_nothing(tablet: Page, serve: Callable[..., Server], folder: Path) -> None:
    server = serve()
    tablet.open(server.address)
    tablet.page.tap("button.photo[title='cat.jpg']")
    tablet.shows("cat.jpg")
    tablet.page.tap("[data-tool=brush]")
    fingers(tablet, ((205, 150), (125, 170)), ((245, 150), (325, 170)))  # five times as wide, and 20 down
    tap(tablet, (225 + 50, 170))
    tablet.page.tap("[data-does=accept]")
    tablet.has(1)
    server.end()
    (dot,) = kept(folder)["annotations"]
    x, y, width, height = dot["bbox"]
    assert (x + width / 2, y + height / 2) == pytest.approx((225 + 50 / 5, 150), abs=1.5)


def test_what_is_pressed_is_large_enough_and_on_the_screen(tablet: Page, serve: Callable[..., Server]) -> None:
    tablet.open(serve("--classes", "a,b,c").address)
    size = tablet.page.viewport_size
    for button in tablet.page.locator("header button, .work button, .category, .photo").all():
        box = button.bounding_box()
        assert box["height"] >= 40
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= size["width"]
        assert box["y"] + box["height"] <= size["height"]

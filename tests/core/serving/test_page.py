"""The labelling page in a real browser, with the model in the box."""

from __future__ import annotations

import json
import re
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from nanosam_cli.core.masks import mask_iou
from nanosam_cli.core.media.mask_codes import rle_to_mask
from tests.browser import BESIDE_IT, IN_A_BROWSER, ON_THE_CAT, Page, Server, kept, photo_digests
from tests.video_data import HW, save_video, square

pytestmark = IN_A_BROWSER


def test_a_person_labels_and_loses_nothing(page: Page, serve: Callable[..., Server], folder: Path) -> None:
    """Open, click, see the mask, correct it, accept, next, reload, kill -9, go on, and read the file elsewhere."""
    before = photo_digests(folder)
    server = serve("--classes", "cat,raccoon")
    page.open(server.address)
    page.photo("cat.jpg")
    bare = page.pixel(ON_THE_CAT)
    page.page.mouse.move(*page.at(ON_THE_CAT))  # the mask is shown before the click
    page.page.wait_for_timeout(1000)
    assert page.pixel((ON_THE_CAT[0] + 8, ON_THE_CAT[1] + 8)) != bare
    page.click((180, 150))
    assert page.pixel(ON_THE_CAT) != bare
    first = page.page.text_content("#status")
    page.click(BESIDE_IT, button="right")
    page.press("Control+z")
    page.press("Control+Shift+z")
    page.drag((2, 2), (399, 298))
    assert page.page.text_content("#status") != first
    page.press("Enter")
    page.saved()
    assert page.objects == 1
    page.press("PageDown")
    page.shows("raccoon.jpg")
    page.press("2")
    page.page.reload()
    page.ready()
    page.photo("cat.jpg")
    assert page.objects == 1
    assert page.pixel(ON_THE_CAT) != bare

    page.press("2")
    page.drag((400, 200), (450, 299))  # in hand when the server dies
    port = server.address.rstrip("/").rpartition(":")[2]
    server.end(signal.SIGKILL)
    page.page.keyboard.press("Enter")
    page.page.wait_for_selector("#gone:not([hidden])")
    assert page.objects == 2
    assert "not saved" in page.page.get_attribute("button.photo[aria-current=true]", "aria-label")
    again = serve(port=port)
    page.page.wait_for_selector("#gone", state="hidden")
    page.saved()
    page.page.reload()
    page.ready()
    assert page.objects == 2
    again.end()

    assert photo_digests(folder) == before
    coco = COCO(str(folder / "annotations.json"))
    assert [one["name"] for one in coco.loadCats(coco.getCatIds())] == ["cat", "raccoon"]
    cat, other = coco.loadAnns(coco.getAnnIds())
    assert (cat["category_id"], other["category_id"]) == (1, 2)
    assert coco_mask.area(coco.annToRLE(cat)) == cat["area"] > 30_000
    assert rle_to_mask(cat["segmentation"])[ON_THE_CAT[1], ON_THE_CAT[0]]


def test_masks_are_mended_by_brush_and_eraser_and_opened_again(
    page: Page, serve: Callable[..., Server], folder: Path
) -> None:
    server = serve("--classes", "cat,dog")
    page.open(server.address)
    page.photo("cat.jpg")
    page.press("b")
    page.drag((50, 50), (150, 50))
    page.press("e")
    page.drag((100, 20), (100, 80))
    page.press("Enter")
    page.saved()
    page.press("v")
    page.click((60, 50))  # on the accepted object: it is in hand again
    page.press("2", "Enter")
    page.saved()
    page.press("n")
    page.page.keyboard.type("bird")
    page.page.keyboard.press("Enter")
    page.page.wait_for_selector(".category >> nth=2")
    page.drag((300, 200), (440, 290))
    page.press("Enter")
    page.saved()
    assert page.objects == 2
    page.page.click("button.remove >> nth=1")
    page.saved()
    page.press("Control+z")
    page.saved()
    server.end()
    content = kept(folder)
    assert [one["category_id"] for one in content["annotations"]] == [2, 3]
    mask = rle_to_mask(content["annotations"][0]["segmentation"])
    assert (mask[50, 60], mask[50, 100], mask[50, 140], mask[150, 60]) == (True, False, True, False)


def test_all_can_be_done_by_keys(page: Page, serve: Callable[..., Server], folder: Path) -> None:
    server = serve()
    page.open(server.address)
    page.press("]")
    page.shows("raccoon.jpg")
    page.page.focus("#canvas")
    page.press("ArrowLeft", "Shift+ArrowUp", "c", "Enter")
    page.saved()
    assert page.objects == 1
    page.press("?")
    assert page.page.is_visible("#help")
    page.page.keyboard.press("Escape")
    assert not page.page.is_visible("#help")
    reached = set()
    for _ in range(40):
        page.page.keyboard.press("Tab")
        reached.add(page.page.evaluate("document.activeElement.dataset.does ?? document.activeElement.id"))
    assert {"canvas", "next", "brush", "undo", "opacity", "help", "propose", "category-name"} <= reached


def test_zoomed_in_a_click_is_where_it_is_seen(page: Page, serve: Callable[..., Server], folder: Path) -> None:
    server = serve()
    page.open(server.address)
    page.photo("cat.jpg")
    page.page.mouse.move(*page.at((60, 60)))
    page.page.mouse.wheel(0, -600)  # the place under the pointer stays
    page.page.keyboard.down("Space")
    page.page.mouse.down()
    page.page.mouse.move(*page.at((80, 60)), steps=4)  # and moves with it
    page.page.mouse.up()
    page.page.keyboard.up("Space")
    page.press("b")
    page.page.mouse.click(*page.at((80, 60)))
    page.ready()
    page.press("Enter")
    page.saved()
    server.end()
    (one,) = kept(folder)["annotations"]
    x, y, width, height = one["bbox"]
    assert abs(x + width / 2 - 60) < 1.5
    assert abs(y + height / 2 - 60) < 1.5
    assert width < 14


def test_zoomed_in_what_is_seen_is_encoded_anew(page: Page, serve: Callable[..., Server], folder: Path) -> None:
    """A small disc gets a sharp mask from near; what goes on beyond the window is asked of the whole photo."""
    width, height = size = (2000, 1500)
    rows, columns = np.mgrid[:height, :width]
    disc = (rows - 400.5) ** 2 + (columns - 600.5) ** 2 < 14**2
    bar = (rows > 900) & (rows < 1300)
    colours = np.where((disc | bar)[..., None], (230, 60, 40), (30, 60, 90))
    Image.fromarray(colours.astype(np.uint8)).save(folder / "photos" / "disc.png")
    windows: list[str] = []
    asked: list[str] = []  # handles

    def hear(request: Any) -> None:
        if "/api/v1/encode" in request.url:
            windows.extend(parse_qs(urlsplit(request.url).query).get("window", []))
        elif "/api/v1/segment" in request.url:
            asked.append(request.post_data_json["handle"])

    def handle(window: str | None) -> str:
        code = "async (how) => (await (await fetch('/api/v1/encode?' + how, { method: 'POST' })).json()).handle"
        found: str = page.page.evaluate(code, urlencode({"path": "disc.png", **({"window": window} if window else {})}))
        return found

    def zoom_to(place: tuple[float, float]) -> str:
        page.press("0")
        windows.clear()
        page.page.mouse.move(*page.at(place, size))
        page.page.mouse.wheel(0, -1200)  # eleven times larger, about the pointer
        page.page.wait_for_timeout(400)
        page.ready()
        asked.clear()
        return windows[-1]

    server = serve("--classes", "disc")
    page.open(server.address)
    page.photo("disc.png")
    page.page.on("request", hear)
    window = zoom_to((600, 400))
    x0, y0, x1, y1 = (int(side) for side in window.split(","))
    assert 0 <= x0 < 560 < 640 < x1 <= width
    assert 0 <= y0 < 360 < 440 < y1 <= height
    page.page.mouse.click(*page.at((600, 400), size))
    page.page.wait_for_timeout(100)
    page.ready()
    assert set(asked) == {handle(window)}
    page.press("Enter")
    page.saved()
    window = zoom_to((1000, 1100))
    page.page.mouse.click(*page.at((1000, 1100), size))
    page.page.wait_for_timeout(100)
    page.ready()
    assert (asked[0], asked[-1]) == (handle(window), handle(None))
    page.press("Escape", "0")  # the whole photo again
    page.page.wait_for_timeout(400)
    page.ready()
    asked.clear()
    page.page.mouse.click(*page.at((1500, 300), size))
    page.page.wait_for_timeout(100)
    page.ready()
    assert set(asked) == {handle(None)}
    server.end()
    (one,) = kept(folder)["annotations"]
    mask = rle_to_mask(one["segmentation"])
    assert np.count_nonzero(mask & disc) / np.count_nonzero(mask | disc) > 0.9


def test_boxes_of_another_model_are_taken_or_left(page: Page, serve: Callable[..., Server], folder: Path) -> None:
    found = {
        "images": [{"id": 1, "file_name": "cat.jpg", "height": 300, "width": 451}],
        "annotations": [
            {"id": 1, "image_id": 1, "category_id": 1, "bbox": [0, 0, 399, 300]},
            {"id": 2, "image_id": 1, "category_id": 2, "bbox": [400, 200, 50, 90]},
        ],
        "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "sofa"}],
    }
    (folder / "found.json").write_text(json.dumps(found))
    server = serve("--detections", "found.json")
    page.open(server.address)
    page.photo("cat.jpg")
    page.says("2 on offer")
    assert page.objects == 0
    page.click((150, 150))
    assert page.objects == 1
    page.press("Enter")
    page.saved()
    server.end()
    content = kept(folder)
    names = {one["id"]: one["name"] for one in content["categories"]}
    assert [names[one["category_id"]] for one in content["annotations"]] == ["cat", "sofa"]


def test_a_photo_without_objects_is_done_and_the_page_goes_on(
    page: Page, serve: Callable[..., Server], folder: Path
) -> None:
    server = serve()
    page.open(server.address)
    page.page.keyboard.press("d")
    page.shows("raccoon.jpg")
    assert page.page.text_content("#progress") == "1 of 2 done"
    server.end()
    assert [one["file_name"] for one in kept(folder)["images"]] == ["cat.jpg"]


def test_a_photo_that_cannot_be_read_is_told_and_others_go_on(
    page: Page, serve: Callable[..., Server], folder: Path
) -> None:
    (folder / "photos" / "broken.jpg").write_bytes(b"no photo")
    server = serve()
    page.page.goto(server.address)
    page.page.wait_for_selector("#empty:not([hidden])")
    assert "is not an image" in page.page.text_content("#empty")
    page.photo("cat.jpg")
    page.click(ON_THE_CAT)
    page.press("Enter")
    page.saved()


def test_a_photo_is_encoded_once(page: Page, serve: Callable[..., Server]) -> None:
    asked: list[str] = []
    page.page.on("request", lambda request: asked.append(request.url))
    page.open(serve().address)
    page.shows("cat.jpg")
    for place in ((100, 100), (150, 170), (300, 200)):
        page.click(place)
    page.page.wait_for_timeout(1000)
    encoded = [url for url in asked if "encode" in url]
    assert len(encoded) == len(set(encoded)) == 2  # this photo, and the next one ahead
    assert len([url for url in asked if "segment" in url]) >= 3


def test_nothing_is_asked_of_another_server(page: Page, serve: Callable[..., Server]) -> None:
    server = serve()
    asked: list[str] = []
    page.page.on("request", lambda request: asked.append(request.url))
    page.open(server.address)
    page.page.goto(f"{server.address}docs")
    page.page.wait_for_selector("h2")
    assert len(asked) > 8
    assert not [url for url in asked if not url.startswith((server.address, "blob:"))]


def test_masks_of_the_page_are_those_of_pycocotools(page: Page, serve: Callable[..., Server]) -> None:
    """Codes that the page writes and reads, of masks as ragged as they come."""
    page.open(serve().address)
    draws = np.random.default_rng(0)
    masks = [
        draws.random((height, width)) < share for height, width, share in ((1, 1, 1.1), (7, 5, 0.5), (60, 90, 0.1))
    ]
    masks += [np.zeros((4, 6), bool), np.ones((300, 200), bool)]
    for mask in masks:
        mine = page.page.evaluate(
            "async ([data, width, height]) => { const masks = await import('/page/masks.js');"
            " const code = masks.encode(Uint8Array.from(data), width, height);"
            " return [code, [...masks.wholeOf(code, width, height)], masks.bitmapOf(code).area]; }",
            [mask.astype(int).ravel().tolist(), mask.shape[1], mask.shape[0]],
        )
        assert (rle_to_mask(mine[0]) == mask).all()
        assert mine[1] == mask.astype(int).ravel().tolist()
        assert mine[2] == mask.sum()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_all_fits_on_a_small_screen(page: Page, serve: Callable[..., Server], scheme: str, tmp_path: Path) -> None:
    page.page.emulate_media(color_scheme=scheme)
    page.open(serve("--classes", "a,b,c").address)
    for name in ("accept", "drop", "propose", "done", "help", "undo"):
        box = page.page.locator(f"[data-does={name}]").first.bounding_box()
        assert box["x"] + box["width"] <= 1280
        assert box["y"] + box["height"] <= 720
    picture = tmp_path / "page.png"
    page.page.screenshot(path=picture)
    ground = Image.open(picture).convert("L").getpixel((100, 600))
    assert isinstance(ground, int)
    assert (ground > 128) == (scheme == "light")
    assert re.fullmatch(r"\d+ of 2 done", page.page.text_content("#progress"))


def test_what_is_done_is_exported_from_the_page(page: Page, serve: Callable[..., Server], folder: Path) -> None:
    server = serve("--classes", "cat,dog")
    page.open(server.address)
    page.photo("cat.jpg")
    page.drag((2, 2), (399, 298))
    page.press("Enter")
    page.page.click("[data-does=export]")
    page.page.check("#export [value=labelme]")
    page.press("p")  # a key of the page that a dialog keeps
    page.page.click("#export button.main")
    page.says("1 photos with 1 objects are in annotations_labelme")
    content = json.loads((folder / "annotations_labelme" / "cat.json").read_text())
    assert content["imagePath"] == "../photos/cat.jpg"
    page.page.click("[data-does=export]")
    page.page.keyboard.press("Escape")
    page.drag((300, 200), (440, 290))
    assert [path.name for path in folder.glob("annotations_*")] == ["annotations_labelme"]


def test_objects_are_carried_through_a_video(page: Page, serve: Callable[..., Server], folder: Path) -> None:
    save_video(folder / "photos" / "clip.mp4", 4)
    server = serve("--classes", "cat,box", photos="photos/clip.mp4")
    page.open(server.address)
    page.shows("00000.jpg")
    page.press("2")
    page.drag((18, 28), (52, 62), HW[::-1])
    page.press("Enter")
    page.has(1)
    page.page.click("[data-does=carryOn]")
    for index in (1, 2):
        page.shows(f"{index:05}.jpg")
        page.says("1 carried on")
        page.press("f")
    page.shows("00003.jpg")
    page.says("1 carried on")
    page.press("Enter")
    page.has(1)
    page.press("f")
    page.says("This is the last frame")
    server.end()
    annotations = kept(folder)["annotations"]
    assert [(one["image_id"], one["category_id"], one["track_id"]) for one in annotations] == [
        (index, 2, 1) for index in range(4)
    ]
    for index, one in enumerate(annotations):
        assert mask_iou(rle_to_mask(one["segmentation"]), square(index)) > 0.8


def test_what_was_under_the_pointer_is_not_shown_beside_what_was_accepted(
    page: Page, serve: Callable[..., Server]
) -> None:
    page.open(serve().address)
    page.photo("cat.jpg")
    bare = page.pixel(ON_THE_CAT)
    page.page.mouse.move(*page.at((180, 150)))
    page.page.wait_for_timeout(1000)
    assert page.pixel(ON_THE_CAT) != bare
    page.drag((300, 200), (440, 290))
    page.press("Enter")
    page.has(1)
    assert page.pixel(ON_THE_CAT) == bare

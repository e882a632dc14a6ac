"""The page that needs no server, in Chromium from a plain file server: its masks are those of `segment`.

onnxruntime-web comes from the package that NANOSAM_ORT_WEB names, as `npm pack onnxruntime-web@1.30.0` leaves it; in
`make test-clients` it is downloaded.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from nanosam_cli import Prompt, load_predictor, read_image
from nanosam_cli.core.export.browser import ForBrowser
from nanosam_cli.core.export.options import ExportOptions
from nanosam_cli.core.loading.convert import export_for_browser
from nanosam_cli.core.masks import mask_iou
from nanosam_cli.core.paths import resource
from tests.browser import CHROMIUM, FLAGS, IN_A_BROWSER
from tests.clients.conftest import Report

if TYPE_CHECKING:
    from playwright.sync_api import Page

RUNTIME = os.environ.get("NANOSAM_ORT_WEB")
READY = "Drop a photo here"


def in_a_browser(test: Callable[..., None]) -> Callable[..., None]:
    """Marks of a test that needs Chromium and the runtime."""
    missing = pytest.mark.skipif(
        RUNTIME is None and not os.environ.get("NANOSAM_TEST_CLIENTS"),
        reason="NANOSAM_ORT_WEB names no package of onnxruntime-web; `make test-clients` runs this",
    )
    for mark in (*IN_A_BROWSER, missing):
        test = mark(test)
    return test


class Server(SimpleHTTPRequestHandler):
    """What `python -m http.server` answers, in silence."""

    def log_message(self, *arguments: Any) -> None:
        pass


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> ForBrowser:
    package = Path(RUNTIME) if RUNTIME else None  # else it is downloaded
    return export_for_browser(None, tmp_path_factory.mktemp("page"), ExportOptions(), package)


@pytest.fixture(scope="module")
def address(exported: ForBrowser) -> Iterator[str]:
    handler = partial(Server, directory=str(exported.folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


@pytest.fixture(scope="module")
def page(address: str) -> Iterator[Page]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        opened = browser.new_page(viewport={"width": 1000, "height": 900})
        opened.set_default_timeout(120_000)
        opened.goto(address)
        opened.get_by_text(READY).wait_for()
        yield opened
        browser.close()


def save_photo(path: Path, name: str, size: tuple[int, int] | None, turned: bool) -> Path:
    """An example as PNG, so that browser and Pillow read the very same pixels, at another size or turned."""
    photo = Image.open(resource("examples", name)).convert("RGB")
    photo = photo if size is None else photo.resize(size)
    (photo.transpose(Image.Transpose.TRANSPOSE) if turned else photo).save(path)
    return path


def saved_mask(page: Page, path: Path) -> np.ndarray[Any, np.dtype[np.bool_]]:
    with page.expect_download() as download:
        page.get_by_role("button", name="Save the mask").click()
    assert download.value.suggested_filename == "photo_mask.png"
    download.value.save_as(path)
    return np.asarray(Image.open(path).convert("L")) > 0


@in_a_browser
@pytest.mark.parametrize(
    ("name", "size", "turned", "box"),
    [
        ("raccoon.jpg", None, False, True),
        ("raccoon.jpg", (639, 481), True, True),
        ("cat.jpg", (1501, 999), False, True),
        ("coffee.jpg", (401, 267), True, False),
        ("rocket.jpg", (513, 511), False, True),
        ("astronaut.jpg", None, False, False),
    ],
    ids=[
        "landscape",
        "odd portrait",
        "larger than the model",
        "a click",
        "a pixel more than the model",
        "square, click",
    ],
)
def test_masks_are_those_of_segment(
    page: Page, name: str, size: tuple[int, int] | None, turned: bool, box: bool, report: Report, tmp_path: Path
) -> None:
    photo = save_photo(tmp_path / "photo.png", name, size, turned)
    page.get_by_label("Photo", exact=True).set_input_files(photo)
    page.get_by_text("read in").wait_for()
    area = page.locator("canvas").bounding_box()
    assert area is not None
    start, end = ((area["x"] + area["width"] * share, area["y"] + area["height"] * share) for share in (0.15, 0.85))
    page.mouse.move(*(start if box else (area["x"] + area["width"] * 0.5, area["y"] + area["height"] * 0.5)))
    page.mouse.down()
    if box:
        page.mouse.move(*end)
    page.mouse.up()
    page.get_by_text("pixels, in").wait_for()
    canvas = page.locator("canvas")
    asked = json.loads(canvas.get_attribute("data-prompt") or "")
    prompt = Prompt.from_boxes([asked["box"]]) if box else Prompt.from_points([asked["points"][0][:2]])
    with load_predictor(encoder=written_file("encoder"), decoder=written_file("decoder")) as predictor:
        image = read_image(photo)
        (wanted,) = predictor.predict(predictor.encode_image(image), prompt)
    found = saved_mask(page, tmp_path / "mask.png")
    assert found.shape == wanted.mask.shape
    times = [float(canvas.get_attribute(f"data-{stage}") or 0) for stage in ("encoded", "decoded")]
    iou = mask_iou(found, wanted.mask)
    report("onnxruntime-web 1.30.0", f"{image.shape[:2]}: encoder {times[0]:.0f} ms, click {times[1]:.0f} ms", [iou])


def written_file(part: str) -> Path:
    """The model of the package, in float32 as the page runs it."""
    return resource("models", "nanosam-lite2", f"{part}.onnx")


@in_a_browser
def test_the_folder_is_small_and_the_page_asks_nobody_else(exported: ForBrowser, page: Page, address: str) -> None:
    assert exported.bytes < 25e6
    asked = page.evaluate("performance.getEntriesByType('resource').map((entry) => entry.name)")
    assert asked
    assert all(one.startswith((address, "blob:", "data:")) for one in asked)


@in_a_browser
def test_what_the_page_cannot_do_is_said(page: Page, address: str, tmp_path: Path) -> None:
    page.evaluate("document.getElementById('said').textContent = ''")
    Image.new("L", (8000, 7500)).save(tmp_path / "large.png")
    (tmp_path / "text.png").write_text("hello")
    for file, words in {
        "large.png": "large.png has 60 megapixels, and this page takes 40",
        "text.png": "text.png is no picture that this browser can read",
    }.items():
        page.get_by_label("Photo", exact=True).set_input_files(tmp_path / file)
        page.get_by_text(words).wait_for()
    other = page.context.browser.new_page()  # type: ignore[union-attr]
    other.add_init_script("WebAssembly.validate = () => false")
    other.goto(address)
    other.get_by_text("this browser has no WebAssembly SIMD").wait_for()
    assert other.get_by_label("Photo", exact=True).is_disabled()
    other.close()

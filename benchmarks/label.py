"""The labelling page in a browser: how long a person waits, and what many photos and many clients cost.

    python benchmarks/label.py
    python benchmarks/label.py --parts clicks hover --photos /data/photos

Needs Chromium and the extra `dev`. Times of the page run from the event of the mouse to the moment after the frame with
the mask was painted; `server` is what the answer says of its own work. Every photo of the folder is copied under many
names, with other bytes, so that nothing is encoded twice.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median, quantiles
from time import perf_counter
from typing import Any

import requests
from playwright.sync_api import Page, sync_playwright

ROOT = Path(__file__).parents[1]
FLAGS = ("--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-sync")
READY = "#canvas[aria-busy=false]"

# What runs in the page before it does: notes of every answer, and the time from a click to the painted mask.
WATCH = """
window.answers = []; window.held = null;
const plain = window.fetch;
window.fetch = async (address, how) => {
  if (window.held && String(address).startsWith("/api/v1/encode")) await window.held;
  const answer = await plain(address, how);
  if (String(address).startsWith("/api/v1/")) answer.clone().json().then((said) => window.answers.push(
    { address: String(address), at: performance.now(), ms: said.timings_ms }));
  return answer;
};
const painted = () => new Promise((done) => requestAnimationFrame(() => {
  const channel = new MessageChannel();
  channel.port1.onmessage = () => done(performance.now());
  channel.port2.postMessage(null);
}));
window.nextMask = () => new Promise((done) => {
  const canvas = document.getElementById("canvas");
  canvas.addEventListener("pointerup", () => {
    const start = performance.now();
    let asked = false;
    const watcher = new MutationObserver(async () => {
      if (canvas.getAttribute("aria-busy") === "true") asked = true;
      else if (asked) {
        watcher.disconnect();
        done((await painted()) - start);
      }
    });
    watcher.observe(canvas, { attributeFilter: ["aria-busy"] });
  }, { once: true, capture: true });
});
"""


@dataclass
class Server:
    """`nanosam label` over a folder, and how long it took until it answered."""

    process: subprocess.Popen[str]
    address: str
    seconds: float


@contextmanager
def serving(photos: Path, threads: int) -> Iterator[Server]:
    start = perf_counter()
    program = "from nanosam_cli.app import main; main()"
    options = ["--no-browser", "--port", "0", "--threads", str(threads), "-q"]
    command = [sys.executable, "-c", program, "label", str(photos), "-o", str(photos.parent / "kept.json"), *options]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert process.stdout is not None
    address = process.stdout.readline().strip()
    try:
        yield Server(process, address, perf_counter() - start)
    finally:
        process.terminate()
        process.wait()
        (photos.parent / "kept.json").unlink(missing_ok=True)


def copies(source: Path, folder: Path, count: int) -> Path:
    """So many photos, of bytes that differ behind their end, where JPEG's readers do not look."""
    originals = sorted(source.glob("*.jpg"))
    folder.mkdir()
    for number in range(count):
        original = originals[number % len(originals)]
        (folder / f"{number:05}.jpg").write_bytes(original.read_bytes() + number.to_bytes(4, "big"))
    return folder


def open_page(browser: Any, server: Server) -> Page:
    page: Page = browser.new_page(viewport={"width": 1280, "height": 720})
    page.add_init_script(WATCH)
    page.goto(server.address)
    page.wait_for_selector(READY)
    return page


def middle(page: Page) -> tuple[float, float]:
    box = page.locator("#canvas").bounding_box()
    assert box is not None
    return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2


def click(page: Page, place: tuple[float, float], release: bool = False) -> float:
    """Milliseconds from the click to the painted mask. The pointer has rested before, as a person's does."""
    page.mouse.move(*place)
    page.wait_for_timeout(150)
    page.evaluate("() => { window.mask = window.nextMask(); }")
    page.mouse.down()
    if release:  # the photo is encoded from here on
        page.evaluate("() => { window.held = null; window.let_go(); }")
    page.mouse.up()
    taken: float = page.evaluate("() => window.mask")
    return taken


def near(page: Page, draws: random.Random) -> tuple[float, float]:
    x, y = middle(page)
    return x + draws.uniform(-150, 150), y + draws.uniform(-150, 150)


def measure_clicks(browser: Any, photos: Path, threads: int, repeats: int) -> list[list[str]]:
    draws = random.Random(0)
    with serving(photos, threads) as server:
        page = open_page(browser, server)
        encoded, worked = [], []
        for _ in range(repeats + 3):
            encoded.append(click(page, near(page, draws)))
            worked.append(sum(page.evaluate("() => window.answers.at(-1).ms").values()))
            page.keyboard.press("Escape")
        anew, work_anew = [], []
        for number in range(repeats):
            page.evaluate("() => { window.held = new Promise((done) => { window.let_go = done; }); }")
            page.evaluate("(at) => document.querySelector(`[data-place='${at}']`).click()", 2 * number + 2)
            page.wait_for_function("(name) => document.title.startsWith(name)", arg=f"{2 * number + 2:05}")
            page.wait_for_timeout(300)  # the photo is on the screen
            page.evaluate("() => { window.answers.length = 0; }")
            anew.append(click(page, near(page, draws), release=True))
            said = page.evaluate("() => window.answers.splice(0).map((one) => [one.address, one.ms])")
            work_anew.append(
                sum(sum(ms.values()) for address, ms in said if "segment" in address or "encode" in address)
            )
            page.keyboard.press("Escape")
        page.close()
    return [
        ["click to painted mask, photo encoded", "60 ms", spread(encoded[3:]), f"{median(worked[3:]):.0f} ms"],
        ["click to painted mask, with encoding", "150 ms", spread(anew), f"{median(work_anew):.0f} ms"],
    ]


def measure_hover(browser: Any, photos: Path, threads: int, seconds: float) -> list[list[str]]:
    with serving(photos, threads) as server:
        page = open_page(browser, server)
        x, y = middle(page)
        page.mouse.move(x, y)
        page.evaluate("() => { window.answers.length = 0; }")
        start, step = perf_counter(), 0
        while perf_counter() - start < seconds:
            step += 1
            page.mouse.move(x + 150 * ((step % 101) / 50 - 1), y + 100 * ((step % 67) / 33 - 1))
            page.wait_for_timeout(8)
        taken = perf_counter() - start
        masks = page.evaluate("() => window.answers.filter((one) => one.address.includes('segment')).length")
        page.close()
    return [["masks a second under a moving pointer", "15", f"{masks / taken:.1f}", ""]]


def measure_ahead(browser: Any, photos: Path, threads: int, repeats: int) -> list[list[str]]:
    """From PageDown to a photo that can be clicked on: the next one, and one that nobody expects."""
    with serving(photos, threads) as server:
        page = open_page(browser, server)
        times: dict[str, list[float]] = {"next": [], "other": []}
        for _ in range(repeats):
            for way, keys in (("next", ["PageDown"]), ("other", ["PageDown", "PageDown", "PageDown"])):
                page.wait_for_timeout(500)  # in which the next one is encoded
                before = page.title()
                start = perf_counter()
                for key in keys:
                    page.keyboard.press(key)
                page.wait_for_function("(old) => document.title !== old", arg=before)
                page.wait_for_selector(READY)
                times[way].append((perf_counter() - start) * 1000)
        page.close()
    return [
        ["next photo, encoded ahead: PageDown until it can be clicked on", "", spread(times["next"]), ""],
        ["a photo that was not expected (three PageDowns at once)", "", spread(times["other"]), ""],
    ]


def measure_many(browser: Any, photos: Path, threads: int, few: Path) -> list[list[str]]:
    times = {}
    for name, folder in (("few", few), ("many", photos)):
        with serving(folder, threads) as server:
            start = perf_counter()
            page = open_page(browser, server)
            times[name] = server.seconds, perf_counter() - start
            page.close()
    count = len(list(photos.iterdir()))
    return [
        [f"page over {count:,} photos, until the first can be clicked on", "1 s", f"{times['many'][1]:.2f} s", ""],
        [f"the same over {len(list(few.iterdir()))}", "", f"{times['few'][1]:.2f} s", ""],
        [f"start of the server over {count:,}; over few", "", f"{times['many'][0]:.2f} s; {times['few'][0]:.2f} s", ""],
    ]


def measure_memory(browser: Any, photos: Path, threads: int) -> list[list[str]]:
    """An object is accepted on every photo."""
    count = len(list(photos.iterdir()))
    marks = (count // 5, count)
    held: dict[str, list[float]] = {"server": [], "page's scripts": [], "browser's processes": []}
    with serving(photos, threads) as server:
        page = open_page(browser, server)
        session = page.context.new_cdp_session(page)
        session.send("Performance.enable")
        for number in range(1, count + 1):
            page.mouse.click(*middle(page))
            page.wait_for_selector(READY)
            page.keyboard.press("Enter")
            page.wait_for_selector("#object-count:text-is('1')")
            if number in marks:
                session.send("HeapProfiler.collectGarbage")
                metrics = {one["name"]: one["value"] for one in session.send("Performance.getMetrics")["metrics"]}
                held["server"].append(resident(server.process.pid))
                held["page's scripts"].append(metrics["JSHeapUsedSize"] / 2**20)
                held["browser's processes"].append(resident_of(browser))
            page.keyboard.press("PageDown")
            if number < count:
                page.wait_for_function("(name) => document.title.startsWith(name)", arg=f"{number:05}")
                page.wait_for_selector(READY)
        page.close()
    return [
        [f"memory of the {who} after {marks[0]} and {marks[1]} photos", "flat", f"{first:.0f}, {last:.0f} MB", ""]
        for who, (first, last) in held.items()
    ]


def resident(process: int) -> float:
    """MB of a process, of Linux."""
    return int(Path(f"/proc/{process}/status").read_text().split("VmRSS:")[1].split()[0]) / 1024


def resident_of(browser: Any) -> float:
    """MB of all processes of the browser."""
    session = browser.new_browser_cdp_session()
    processes = session.send("SystemInfo.getProcessInfo")["processInfo"]
    session.detach()
    return sum(resident(one["id"]) for one in processes)


def measure_clients(photos: Path, threads: int, clients: int, asked: int) -> list[list[str]]:
    """Programs at once, each with its own photo, one request after the other."""
    files = sorted(photos.iterdir())

    def client(number: int) -> tuple[list[float], list[float], int]:
        draws = random.Random(number)
        api, failed = f"{server.address}api/v1/", 0
        encode, segment = [], []
        with requests.Session() as session:
            for round_ in range(asked // 10):
                data = files[(number * asked + round_) % len(files)].read_bytes()
                start = perf_counter()
                answer = session.post(f"{api}encode", data=data, timeout=60)
                encode.append((perf_counter() - start) * 1000)
                failed += answer.status_code != 200
                photo = answer.json()
                for _ in range(10):
                    point = [draws.uniform(0, photo["width"] - 1), draws.uniform(0, photo["height"] - 1), 1]
                    body = {"handle": photo["handle"], "objects": [{"points": [point]}]}
                    start = perf_counter()
                    answer = session.post(f"{api}segment", json=body, timeout=60)
                    segment.append((perf_counter() - start) * 1000)
                    failed += answer.status_code != 200
        return encode, segment, failed

    with serving(photos, threads) as server, ThreadPoolExecutor(clients) as pool:
        start = perf_counter()
        told = list(pool.map(client, range(clients)))
        seconds = perf_counter() - start
    encode = [one for each in told for one in each[0]]
    segment = [one for each in told for one in each[1]]
    failed = sum(each[2] for each in told)
    name = f"{clients} clients at once"
    return [
        [f"{name}: errors of {len(encode) + len(segment)} requests", "0", str(failed), ""],
        [f"{name}: segment, median and p95", "", f"{median(segment):.0f}, {p95(segment):.0f} ms", ""],
        [f"{name}: encode, median and p95", "", f"{median(encode):.0f}, {p95(encode):.0f} ms", ""],
        [f"{name}: masks a second", "", f"{len(segment) / seconds:.1f}", ""],
    ]


def p95(values: Sequence[float]) -> float:
    return quantiles(values, n=20)[-1]


def spread(values: Sequence[float]) -> str:
    return f"{median(values):.0f} ms (fastest {min(values):.0f}, p95 {p95(values):.0f})"


PARTS = ("clicks", "hover", "ahead", "many", "memory", "clients")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--photos", type=Path, default=ROOT / "examples", help="a folder with JPEGs")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--many", type=int, default=10_000, help="photos of the folder that is opened")
    parser.add_argument("--memory", type=int, default=500, help="photos that are labelled one after the other")
    parser.add_argument("--clients", type=int, default=8)
    asked = parser.parse_args()
    chromium = os.environ.get("NANOSAM_CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    with tempfile.TemporaryDirectory() as home, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        some = copies(asked.photos, Path(home, "some"), 100)
        rows: list[list[str]] = []
        if "clicks" in asked.parts:
            rows += measure_clicks(browser, some, asked.threads, asked.repeats)
        if "hover" in asked.parts:
            rows += measure_hover(browser, some, asked.threads, 5.0)
        if "ahead" in asked.parts:
            rows += measure_ahead(browser, some, asked.threads, asked.repeats)
        if "many" in asked.parts:
            many = copies(asked.photos, Path(home, "many"), asked.many)
            rows += measure_many(browser, many, asked.threads, some)
        if "memory" in asked.parts:
            rows += measure_memory(browser, copies(asked.photos, Path(home, "row"), asked.memory), asked.threads)
        if "clients" in asked.parts:
            rows += measure_clients(some, asked.threads, asked.clients, 40)
        browser.close()
    print("| what | goal | measured | server |\n|---|---|---|---|")
    for row in rows:
        print(f"| {' | '.join(row)} |")
    print(json.dumps({"load": os.getloadavg()[0], "threads": asked.threads}))


if __name__ == "__main__":
    main()

"""`nanosam label` and `nanosam serve` from the command line: what they refuse, and a server that is a process."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.command_line import ENVIRONMENT, run_nanosam
from tests.serving_data import save_photo

PROGRAM = "from nanosam_cli.app import main; main()"


@pytest.fixture(autouse=True)
def _working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def model(own_files: tuple[Path, Path]) -> list[str]:
    return ["--encoder", str(own_files[0]), "--decoder", str(own_files[1])]


def start(*arguments: str) -> tuple[subprocess.Popen[str], str]:
    """A server in a process of its own, and its address."""
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, *arguments, "--port", "0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **ENVIRONMENT},
    )
    assert process.stdout is not None
    return process, process.stdout.readline().strip()


def end(process: subprocess.Popen[str], number: int = signal.SIGINT) -> tuple[int, str]:
    process.send_signal(number)
    _, err = process.communicate(timeout=30)
    return process.returncode, err


def test_label_serves_its_page_and_ends_with_the_file_written(model: list[str]) -> None:
    save_photo(Path("photos/a.png"))
    process, address = start("label", "photos", "--no-browser", "--classes", "cat,dog", *model)
    page = requests.get(address, timeout=10)
    assert "nanosam label" in page.text
    for part in ("main.js", "style.css", "desk.js"):
        assert requests.get(f"{address}page/{part}", timeout=10).status_code == 200
    assert requests.get(f"{address}page/../app.py", timeout=10).status_code == 404
    revision = requests.get(f"{address}label/photo?name=a.png", timeout=10).json()["revision"]
    empty: dict[str, Any] = {"revision": revision, "objects": []}
    assert requests.put(f"{address}label/photo?name=a.png", json=empty, timeout=10).status_code == 200
    again = run_nanosam("label", "photos", "--no-browser", "--port", "0", *model)
    assert (again.code, "another run is at work on annotations.jsonl" in again.words) == (1, True)
    code, err = end(process)
    assert (code, "1 photos" in err) == (130, True)
    content = json.loads(Path("annotations.json").read_text())
    assert [one["file_name"] for one in content["images"]] == ["a.png"]
    assert [one["name"] for one in content["categories"]] == ["cat", "dog"]
    assert sorted(path.name for path in Path().iterdir()) == ["annotations.json", "photos"]


def test_serve_answers_programs_until_it_is_told_to_end(model: list[str]) -> None:
    photo = save_photo(Path("a.png"))
    process, address = start("serve", *model)
    handle = requests.post(f"{address}api/v1/encode", data=photo.read_bytes(), timeout=10).json()["handle"]
    body = {"handle": handle, "objects": [{"box": [10, 20, 60, 50]}]}
    assert requests.post(f"{address}api/v1/segment", json=body, timeout=10).json()["masks"][0]["area"] > 0
    assert "openapi.json" in requests.get(address, timeout=10).text
    code, err = end(process, signal.SIGTERM)
    assert (code, "Traceback" in err) == (143, False)


def test_an_address_that_others_reach_has_a_token(model: list[str]) -> None:
    process, address = start("serve", "--host", "0.0.0.0", *model)
    base, _, token = address.partition("/?token=")
    port = base.rpartition(":")[2]
    refused = requests.get(f"http://127.0.0.1:{port}/api/v1/model", timeout=10)
    let_in = requests.get(f"http://127.0.0.1:{port}/api/v1/model?token={token}", timeout=10)
    end(process)
    assert (len(token) >= 32, refused.status_code, let_in.status_code) == (True, 401, 200)


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["label"], 2, "Missing argument 'PHOTOS'"),
        (["label", "missing"], 1, "no such file: missing"),
        (["label", "empty"], 1, "no images in empty"),
        (["label", "a.png", "-o", "labels.txt"], 2, "annotations are a .json file"),
        (["label", "a.png", "-o", "broken.json"], 1, "broken.json is not JSON"),
        (["label", "a.png", "--detections", "missing.json"], 1, "no such file: missing.json"),
        (["serve", "--port", "70000"], 2, "65535"),
        (["serve", "--host", "no such host"], 2, "there is no address"),
        (["serve", "-"], 2, "a photo from a pipe cannot be opened here"),
    ],
)
def test_what_cannot_be_done_is_told(arguments: list[str], code: int, words: str) -> None:
    Path("empty").mkdir()
    Path("broken.json").write_text("{")
    save_photo(Path("a.png"))
    ran = run_nanosam(*arguments)
    assert (ran.code, words in ran.words) == (code, True), ran.err


@pytest.mark.parametrize("command", [["serve"], ["label", "a.png"]])
def test_a_port_that_is_taken_is_told_before_the_model_is_loaded(command: list[str]) -> None:
    save_photo(Path("a.png"))
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        ran = run_nanosam(*command, "--port", taken.getsockname()[1])
    assert (ran.code, "--port 0 takes any that is free" in ran.words) == (1, True)


def test_a_folder_that_cannot_be_written_is_told_at_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    save_photo(Path("a.png"))
    monkeypatch.setattr(os, "access", lambda *_: False)  # root, who runs CI, may write everywhere
    ran = run_nanosam("label", "a.png")
    assert (ran.code, "cannot write into .: permission denied" in ran.words) == (1, True), ran.err


def test_without_a_browser_the_address_is_printed_and_served(model: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    save_photo(Path("photos/a.png"))
    for name in ("BROWSER", "DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PATH", str(Path.cwd()))
    process, address = start("label", "photos", *model)
    served = requests.get(address, timeout=10).status_code
    code, err = end(process)
    assert (served, code) == (200, 130)
    assert "there is no browser to open the page in" in err
    assert "open the address yourself" in err


@pytest.mark.parametrize("command", [["label", "a.png"], ["serve"]])
def test_without_the_extra_it_says_what_to_install(command: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    save_photo(Path("a.png"))
    for name in [name for name in sys.modules if name.startswith("nanosam_cli.core.serving")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "fastapi", None)
    ran = run_nanosam(*command)
    assert ran.code == 1
    assert "pip install 'nanosam-cli[label]'" in ran.words

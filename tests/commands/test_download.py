"""`nanosam download`, on a catalogue that points at a server of the tests."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from nanosam_cli.core import catalogue, fetch, zoo
from nanosam_cli.core.dataset_files import find_data
from nanosam_cli.core.remote_file import RemoteFile
from nanosam_cli.core.zoo import MODELS
from tests.command_line import run_nanosam
from tests.fault_server import FaultServer, Served, fault_server

BODY = b"weights!" * 40_000
HASH = hashlib.sha256(BODY).hexdigest()


@pytest.fixture(autouse=True)
def home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("NANOSAM_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(fetch, "BACK_OFF", 0.0)
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path / "home"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultServer]:
    """Every file of the catalogue is BODY, behind its published or unpublished hash."""
    with fault_server() as running:

        def moved(file: RemoteFile) -> RemoteFile:
            if file.url is None:
                return file
            running.files[f"/{file.file}"] = Served(BODY)
            published = {"size": len(BODY), "sha256": HASH} if file.sha256 else {}
            return replace(file, url=f"{running.url}/{file.file}", mirrors=(), **published)  # type: ignore[arg-type]

        models = {
            name: replace(spec, parts={part: moved(file) for part, file in spec.parts.items()})
            for name, spec in MODELS.items()
        }
        datasets = tuple(replace(entry, files=tuple(map(moved, entry.files))) for entry in catalogue.DATASETS)
        monkeypatch.setattr(catalogue, "MODELS", models)
        monkeypatch.setattr(zoo, "MODELS", models)
        monkeypatch.setattr(catalogue, "DATASETS", datasets)
        yield running


# downloading


def test_a_model(server: FaultServer, home: Path) -> None:
    file = home / "models" / "mobile-sam" / "mobile_sam.pt"
    ran = run_nanosam("download", "mobile-sam")
    assert (ran.code, ran.out) == (0, f"{file}: downloaded\n")
    assert "mobile-sam: Apache-2.0 (https://github.com/ChaoningZhang/MobileSAM)" in ran.err
    assert file.read_bytes() == BODY
    licence = file.with_name("mobile_sam.pt.licence.txt").read_text()
    assert "licence: Apache-2.0" in licence
    assert f"sha256: {HASH}, as published" in licence

    again = run_nanosam("download", "mobile-sam")
    assert (again.code, again.out, again.err) == (0, f"{file}: here already\n", "")
    assert len(server.asked) == 1
    run_nanosam("download", "mobile-sam", "--force", "-q")
    assert len(server.asked) == 2


def test_a_model_without_published_hashes(server: FaultServer, home: Path) -> None:
    ran = run_nanosam("download", "nanosam-resnet18", "--json")
    assert ran.code == 0
    assert "Google Drive links are closed at times" in ran.words
    record = json.loads(ran.out)
    assert [file["sha256"] for file in record["files"]] == [HASH, HASH]
    record_file = home / "models" / "nanosam-resnet18" / "resnet18_image_encoder.onnx.sha256"
    assert record_file.read_text() == f"{HASH}  resnet18_image_encoder.onnx\n"

    server.files["/resnet18_image_encoder.onnx"].body = b"other" * 1000
    ran = run_nanosam("download", "nanosam-resnet18", "--force")
    assert ran.code == 1
    assert "the first download recorded" in ran.words
    assert ".rejected" in ran.words


def test_a_data_set_lies_where_eval_looks_for_it(server: FaultServer, home: Path, coco_zips: None) -> None:
    ran = run_nanosam("download", "coco-val2017")
    assert ran.code == 0
    assert "CC-BY-4.0" in ran.words
    photos, annotations = find_data(None, None)
    assert photos == home / "datasets" / "coco" / "val2017.zip"
    assert annotations.parts[-3:] == ("annotations_trainval2017.zip", "annotations", "instances_val2017.json")
    # files that two data sets share are fetched once
    run_nanosam("download", "coco-annotations", "coco-train2017")
    assert [path for path, _ in server.asked] == ["/val2017.zip", "/annotations_trainval2017.zip", "/train2017.zip"]


@pytest.fixture
def coco_zips(server: FaultServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Real zip files in the place of COCO's."""
    import zipfile

    path = tmp_path / "annotations.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("annotations/instances_val2017.json", "{}")
    body = path.read_bytes()
    facts = {"size": len(body), "sha256": hashlib.sha256(body).hexdigest()}
    entries = []
    for entry in catalogue.DATASETS:
        for file in entry.files:
            server.files[f"/{file.file}"] = Served(body)
        entries.append(replace(entry, files=tuple(replace(file, **facts) for file in entry.files)))  # type: ignore[arg-type]
    monkeypatch.setattr(catalogue, "DATASETS", tuple(entries))


@pytest.mark.parametrize("by", ["option", "environment"])
def test_a_mirror(server: FaultServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, by: str) -> None:
    (tmp_path / "mobile_sam.pt").write_bytes(BODY)
    options = ["--mirror", tmp_path] if by == "option" else []
    if by == "environment":
        monkeypatch.setenv("NANOSAM_MIRROR", str(tmp_path))
        monkeypatch.setenv("NANOSAM_OFFLINE", "1")
    assert run_nanosam("download", "mobile-sam", *options).code == 0
    assert server.asked == []


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        ([], 2, "no name given such as `nanosam download mobile-sam`"),
        (["--rm"], 2, "no name given"),
        (["mobilesam"], 2, "nothing is called 'mobilesam' did you mean mobile-sam"),
        (["yolo"], 2, "`nanosam download --list` shows what there is"),
        (["--list", "--rm"], 2, "do not go together"),
        (["mobile-sam", "--offline"], 2, "opens no network connection"),
        (["mobile-sam", "--mirror", "nowhere"], 1, "the mirror has no nowhere/mobile_sam.pt"),
        (["mobile-sam", "--mirror", "ftp://me:secret@host/x"], 2, "mirror ftp://***@host/x cannot be read"),
        (["mobile-sam", "--mirror", "http://[host"], 2, "is no address"),
        (["--rm", "nanosam-b0"], 1, "comes with the package"),
        (["--what"], 2, "Example: nanosam download mobile-sam"),
    ],
)
def test_bad_usage(server: FaultServer, arguments: list[str], code: int, words: str) -> None:
    ran = run_nanosam("download", *arguments)
    assert ran.code == code
    assert words in ran.words
    assert ran.out == ""


def test_the_model_in_the_box_needs_no_download(server: FaultServer) -> None:
    ran = run_nanosam("download", "nanosam-b0")
    assert (ran.code, ran.out) == (0, "")
    assert "comes with the package" in ran.words


# listing, verifying, removing


def test_list(server: FaultServer) -> None:
    run_nanosam("download", "mobile-sam")
    ran = run_nanosam("download", "--list")
    assert ran.code == 0
    for words in (
        "nanosam-b0",
        "package",
        "NVIDIA-AI-IOT/nanosam",
        "0.728 0.658 0.759 0.804",
        "nanosam-resnet18",
        "coco-train2017",
    ):
        assert words in " ".join(ran.out.split())
    records = {
        record["name"]: record
        for record in map(json.loads, run_nanosam("download", "--list", "--json").out.splitlines())
    }
    assert records.keys() == catalogue.entries().keys()
    assert [name for name, record in records.items() if record["here"]] == ["nanosam-b0", "mobile-sam"]
    assert records["nanosam-resnet18"]["accuracy"]["small"] == 0.624
    assert records["nanosam-resnet18"]["size"] is None
    assert json.loads(run_nanosam("download", "--list", "coco-val2017", "--json").out)["name"] == "coco-val2017"


def test_verify(server: FaultServer, home: Path) -> None:
    file = home / "models" / "mobile-sam" / "mobile_sam.pt"
    ran = run_nanosam("download", "--verify", "mobile-sam")
    assert ran.code == 1
    assert "missing" in ran.out
    assert ran.words.endswith("nanosam download mobile-sam")
    run_nanosam("download", "mobile-sam", "nanosam-resnet18")
    ran = run_nanosam("download", "--verify")
    assert ran.code == 0
    assert f"{file}: ok, sha256 as published" in ran.out
    assert "resnet18_image_encoder.onnx: ok, sha256 as recorded by the first download" in ran.out
    file.write_bytes(BODY[:-1])
    ran = run_nanosam("download", "--verify", "mobile-sam", "--json")
    assert ran.code == 1
    assert json.loads(ran.out)["state"] == "broken"
    assert "nanosam download mobile-sam --force" in ran.words


def test_rm_leaves_nothing_but_what_others_need(server: FaultServer, home: Path) -> None:
    run_nanosam("download", "nanosam-resnet18", "coco-val2017", "coco-train2017")
    assert run_nanosam("download", "--rm", "nanosam-resnet18").code == 0
    assert list((home / "models" / "nanosam-resnet18").iterdir()) == []
    coco = home / "datasets" / "coco"
    run_nanosam("download", "--rm", "coco-train2017")
    assert {path.name for path in coco.glob("*.zip")} == {"val2017.zip", "annotations_trainval2017.zip"}
    run_nanosam("download", "--rm", "coco-val2017")
    assert list(coco.iterdir()) == []
    assert "nothing to remove" in run_nanosam("download", "--rm", "coco-val2017").out


def test_a_checkpoint_does_not_segment(server: FaultServer, home: Path, tmp_path: Path) -> None:
    from PIL import Image

    run_nanosam("download", "mobile-sam")
    Image.new("RGB", (64, 48)).save(tmp_path / "photo.png")
    ran = run_nanosam("segment", tmp_path / "photo.png", "--box", "1,1,30,30", "--model", "mobile-sam")
    assert ran.code == 1
    assert "model mobile-sam cannot run: it is a checkpoint" in ran.words
    file = home / "models" / "mobile-sam" / "mobile_sam.pt"
    assert f"nanosam export all {file} -o mobile-sam" in ran.words


# processes

PROGRAM = """
import sys
from dataclasses import replace
from nanosam_cli.core import zoo
from nanosam_cli.core.remote_file import RemoteFile
url, size, sha256 = sys.argv[1:4]
spec = zoo.MODELS["mobile-sam"]
zoo.MODELS["mobile-sam"] = replace(spec, parts={"checkpoint": RemoteFile("mobile_sam.pt", url, (), int(size), sha256)})
sys.argv = ["nanosam", "download", "mobile-sam"]
from nanosam_cli.app import main
main()
"""


def start(url: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, url, str(len(BODY)), HASH],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "TERM": "dumb"},
    )


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_killed_in_the_middle_it_goes_on(home: Path, how: signal.Signals) -> None:
    part = home / "models" / "mobile-sam" / "mobile_sam.pt.part"
    with fault_server() as server:
        server.files["/f"] = Served(BODY, seconds_a_block=0.1)
        running = start(f"{server.url}/f")
        while not (part.is_file() and part.stat().st_size):
            assert running.poll() is None, running.communicate()
            time.sleep(0.01)
        running.send_signal(how)
        _, err = running.communicate(timeout=30)
        assert ("the same command goes on" in err) is (how == signal.SIGINT)
        assert running.returncode == (-signal.SIGKILL if how == signal.SIGKILL else 130)
        here = part.stat().st_size
        assert 0 < here < len(BODY)
        server.files["/f"].seconds_a_block = 0
        again = start(f"{server.url}/f")
        out, err = again.communicate(timeout=30)
        assert again.returncode == 0, err
        assert server.asked == [("/f", None), ("/f", f"bytes={here}-")]
    assert out.endswith("mobile_sam.pt: downloaded\n")
    assert part.with_suffix("").read_bytes() == BODY
    assert not part.exists()


def test_two_processes_at_once(home: Path) -> None:
    with fault_server() as server:
        server.files["/f"] = Served(BODY, seconds_a_block=0.03)
        both = [start(f"{server.url}/f") for _ in range(2)]
        told = [process.communicate(timeout=60) for process in both]
        assert [process.returncode for process in both] == [0, 0], told
        assert len(server.asked) == 1
    assert sorted(out.split(": ")[-1].strip() for out, _ in told) == ["downloaded", "here already"]
    assert any("another process is downloading" in err for _, err in told)

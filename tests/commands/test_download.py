"""`nanosam download`, on a catalogue that points at a server of the tests."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from nanosam_cli.core.datasets.photo_files import find_data
from nanosam_cli.core.zoo import catalogue, fetch, models
from nanosam_cli.core.zoo.models import MODELS
from nanosam_cli.core.zoo.remote_file import RemoteFile
from tests.command_line import run_nanosam
from tests.evaluation_data import save_data_set, zipped
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

        served = {
            name: replace(spec, parts={part: moved(file) for part, file in spec.parts.items()})
            for name, spec in MODELS.items()
        }
        datasets = tuple(replace(entry, files=tuple(map(moved, entry.files))) for entry in catalogue.DATASETS)
        monkeypatch.setattr(catalogue, "MODELS", served)
        monkeypatch.setattr(models, "MODELS", served)
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
    """Real zip files in the place of COCO's, with the data set of the evaluation's tests."""
    images, annotations = save_data_set(tmp_path / "coco")
    packed = {
        "val2017.zip": zipped(images, tmp_path / "val2017.zip", "val2017/"),
        "train2017.zip": zipped(images, tmp_path / "train2017.zip", "train2017/"),
        "annotations_trainval2017.zip": tmp_path / "annotations_trainval2017.zip",
    }
    with zipfile.ZipFile(packed["annotations_trainval2017.zip"], "w") as archive:
        archive.write(annotations, "annotations/instances_val2017.json")

    def served(file: RemoteFile) -> RemoteFile:
        body = packed[file.file].read_bytes()
        server.files[f"/{file.file}"] = Served(body)
        return replace(file, size=len(body), sha256=hashlib.sha256(body).hexdigest())

    entries = (replace(entry, files=tuple(map(served, entry.files))) for entry in catalogue.DATASETS)
    monkeypatch.setattr(catalogue, "DATASETS", tuple(entries))


def test_archives_are_unpacked_where_eval_looks_for_them(
    server: FaultServer, home: Path, coco_zips: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    coco = home / "datasets" / "coco"
    ran = run_nanosam("download", "coco-val2017", "--extract")
    assert (ran.code, ran.out.splitlines()) == (
        0,
        [f"{coco / 'val2017'}: downloaded, unpacked", f"{coco / 'annotations'}: downloaded, unpacked"],
    )
    assert {path.name for path in coco.iterdir() if not path.name.startswith(".")} == {
        *("val2017", "annotations", "val2017.zip.licence.txt", "annotations_trainval2017.zip.licence.txt"),
    }
    monkeypatch.chdir(tmp_path)
    ran = run_nanosam("eval", "coco", "--model", "ellipse", "--json", "--allow-missing")
    assert ran.code == 0, ran.err
    assert json.loads(ran.out)["counts"]["objects"] > 5

    again = run_nanosam("download", "coco-val2017", "--extract", "--json")
    assert [file["status"] for file in json.loads(again.out)["files"]] == ["here already"] * 2
    assert len(server.asked) == 2
    ran = run_nanosam("download", "--verify", "coco-val2017")
    assert ran.code == 0
    assert f"was unpacked to {coco / 'val2017'}" in ran.out
    (coco / "val2017" / "stray.txt").write_text("")
    run_nanosam("download", "coco-val2017", "--extract", "--force")
    assert not (coco / "val2017" / "stray.txt").exists()
    assert len(server.asked) == 4

    run_nanosam("download", "coco-train2017", "--extract")
    assert run_nanosam("download", "--rm", "coco-val2017").code == 0
    assert {path.name for path in coco.iterdir() if path.is_dir()} == {"train2017", "annotations"}  # which train needs
    run_nanosam("download", "--rm", "coco-train2017")
    assert list(coco.iterdir()) == []


def test_what_is_here_as_an_archive_is_unpacked_later(server: FaultServer, home: Path, coco_zips: None) -> None:
    run_nanosam("download", "coco-annotations")
    ran = run_nanosam("download", "coco-annotations", "--extract")
    folder = home / "datasets" / "coco" / "annotations"
    assert (ran.code, ran.out) == (0, f"{folder}: here already, unpacked\n")
    assert (folder / "instances_val2017.json").is_file()
    assert len(server.asked) == 1


def test_an_archive_without_what_it_should_hold(server: FaultServer, home: Path, coco_zips: None) -> None:
    run_nanosam("download", "coco-annotations")
    archive = home / "datasets" / "coco" / "annotations_trainval2017.zip"
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("else/instances.json", "{}")
    ran = run_nanosam("download", "coco-annotations", "--extract")
    assert ran.code == 1
    assert "holds no folder annotations" in ran.words
    assert {path.name for path in archive.parent.iterdir() if path.is_dir()} == set()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("../../evil.txt", "evil")
    ran = run_nanosam("download", "coco-annotations", "--extract")
    assert ran.code == 1
    assert "leads out of the folder" in ran.words
    assert not list(home.rglob("evil.txt"))
    assert archive.is_file()


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
        (["--rm", "nanosam-lite2"], 1, "comes with the package"),
        (["--what"], 2, "Example: nanosam download mobile-sam"),
    ],
)
def test_bad_usage(server: FaultServer, arguments: list[str], code: int, words: str) -> None:
    ran = run_nanosam("download", *arguments)
    assert ran.code == code
    assert words in ran.words
    assert ran.out == ""


def test_the_model_in_the_box_needs_no_download(server: FaultServer) -> None:
    ran = run_nanosam("download", "nanosam-lite2")
    assert (ran.code, ran.out) == (0, "")
    assert "comes with the package" in ran.words


# listing, verifying, removing


def test_list(server: FaultServer) -> None:
    run_nanosam("download", "mobile-sam")
    ran = run_nanosam("download", "--list")
    assert ran.code == 0
    for words in (
        "nanosam-lite2",
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
    assert [name for name, record in records.items() if record["here"]] == ["nanosam-lite2", "mobile-sam"]
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


# processes

PROGRAM = """
import sys
from dataclasses import replace
from nanosam_cli.core.zoo import models
from nanosam_cli.core.zoo.remote_file import RemoteFile
url, size, sha256 = sys.argv[1:4]
spec = models.MODELS["mobile-sam"]
file = RemoteFile("mobile_sam.pt", url, (), int(size), sha256)
models.MODELS["mobile-sam"] = replace(spec, parts={"checkpoint": file})
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


EXTRACT = """
import sys, time
from pathlib import Path
from nanosam_cli.core.zoo import archive, catalogue
from nanosam_cli.core.zoo.catalogue import find_entry
from nanosam_cli.core.zoo.download import unpack_file
slowly = float(sys.argv[1])
if slowly:
    written = archive._write
    def write(*arguments):
        for block in written(*arguments):
            yield block
            time.sleep(slowly)
    archive._write = write
entry = find_entry("coco-annotations")
print(unpack_file(entry, entry.files[0], lambda done, total: None, print))
"""


def test_killed_while_unpacking_it_begins_anew(home: Path) -> None:
    coco = home / "datasets" / "coco"
    coco.mkdir(parents=True)
    with zipfile.ZipFile(coco / "annotations_trainval2017.zip", "w") as file:
        for number in range(20):
            file.writestr(f"annotations/{number}.json", f"[{number}]")
    running = subprocess.Popen([sys.executable, "-c", EXTRACT, "0.1"], stdout=subprocess.PIPE)
    unfinished = coco / ".annotations.unfinished"
    while not (unfinished / "annotations" / "2.json").is_file():
        assert running.poll() is None
        time.sleep(0.01)
    running.kill()
    running.communicate()
    assert unfinished.is_dir()
    assert not (coco / "annotations").exists()
    again = subprocess.run([sys.executable, "-c", EXTRACT, "0"], capture_output=True, text=True, check=True)
    assert again.stdout == f"{coco / 'annotations'}\n"
    assert {path.read_text() for path in (coco / "annotations").iterdir()} == {f"[{number}]" for number in range(20)}
    assert not unfinished.exists()
    assert not (coco / "annotations_trainval2017.zip").exists()

"""One file, over everything that can go wrong on the way."""

from __future__ import annotations

import errno
import hashlib
import shutil
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from nanosam_cli.core.errors import DownloadError, NanosamError, OutputError, UsageError
from nanosam_cli.core.zoo import fetch as fetching
from nanosam_cli.core.zoo import partial_file
from nanosam_cli.core.zoo.fetch import Fetched, FetchOptions, fetch
from nanosam_cli.core.zoo.remote_file import RemoteFile
from tests.fault_server import PAGE, FaultServer, Served, fault_server

BODY = bytes(range(256)) * 1200  # 307,200 bytes: several blocks
HASH = hashlib.sha256(BODY).hexdigest()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultServer]:
    monkeypatch.setattr(fetching, "BACK_OFF", 0.0)
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    with fault_server() as running:
        running.files["/model.bin"] = Served(BODY)
        yield running


@dataclass
class Run:
    """`fetch` and everything it told."""

    server: FaultServer
    target: Path
    notes: list[str] = field(default_factory=list)
    steps: list[tuple[int, int | None]] = field(default_factory=list)

    def file(self, path: str = "/model.bin", **changes: object) -> RemoteFile:
        file = RemoteFile("model.bin", f"{self.server.url}{path}", size=len(BODY), sha256=HASH)
        return replace(file, **changes)  # type: ignore[arg-type]

    def __call__(self, file: RemoteFile | None = None, options: FetchOptions | None = None) -> Fetched:
        return fetch(
            file or self.file(),
            self.target,
            options or FetchOptions(),
            lambda done, total: self.steps.append((done, total)),
            self.notes.append,
        )

    @property
    def beside(self) -> set[str]:
        return {path.name for path in self.target.parent.iterdir() if not path.name.endswith(".lock")}


@pytest.fixture
def run(server: FaultServer, tmp_path: Path) -> Run:
    return Run(server, tmp_path / "cache" / "model.bin")


def half(run: Run, bytes_here: int = 100_000, body: bytes = BODY, validator: str | None = '"one"') -> None:
    """What a download that was killed leaves behind."""
    part = partial_file.PartFile(run.target)
    run.target.parent.mkdir(parents=True)
    with part.append(0, partial_file.Origin(f"{run.server.url}/model.bin", validator, len(BODY))) as write:
        write(body[:bytes_here])


# all goes well


def test_a_whole_file(run: Run) -> None:
    assert run() == Fetched(run.target, HASH, f"{run.server.url}/model.bin")
    assert run.target.read_bytes() == BODY
    assert run.beside == {"model.bin"}  # a published hash needs no record
    assert run.steps[0] == (0, len(BODY))
    assert run.steps[-1] == (len(BODY), len(BODY))
    assert run() == Fetched(run.target, None, None)  # the second time it is here
    assert len(run.server.asked) == 1
    run(options=FetchOptions(overwrite=True))
    assert len(run.server.asked) == 2


def test_without_a_published_hash_the_first_download_records_one(run: Run) -> None:
    file = run.file(size=None, sha256=None)
    run(file)
    assert (run.target.with_name("model.bin.sha256")).read_text() == f"{HASH}  model.bin\n"
    run.server.files["/model.bin"].body = BODY[:-1] + b"!"
    with pytest.raises(DownloadError, match="not the one that the first download recorded"):
        run(file, FetchOptions(overwrite=True))
    assert run.target.read_bytes() == BODY  # the good one stays
    assert run.target.with_name("model.bin.rejected").is_file()


# going on with what is here


def test_it_goes_on(run: Run) -> None:
    half(run)
    assert run().sha256 == HASH
    assert run.server.asked == [("/model.bin", "bytes=100000-")]
    assert run.steps[0] == (100_000, len(BODY))
    assert run.beside == {"model.bin"}


def test_nothing_is_asked_for_where_all_is_here_but_the_last_step(run: Run) -> None:
    half(run, len(BODY))
    assert run().sha256 == HASH
    assert run.server.asked == []


@pytest.mark.parametrize(
    ("served", "published"),
    [
        (Served(BODY, ranges=False), True),  # answers with the whole file
        (Served(BODY, etag='"two"'), True),  # the file has changed since: If-Range
        (Served(BODY, etag='"two"'), False),
        (Served(BODY, wrong_range=True), True),
        (Served(BODY, etag=None, modified="Sun, 22 Nov 2026 10:00:00 GMT"), False),
    ],
    ids=["no ranges", "changed", "changed, no hash", "wrong range", "another kind of validator"],
)
def test_it_begins_anew(run: Run, served: Served, published: bool) -> None:
    half(run, body=b"old" * 60_000)
    run.server.files["/model.bin"] = served
    assert run(run.file() if published else run.file(sha256=None)).sha256 == HASH
    assert run.target.read_bytes() == BODY
    assert not any("do not fit together" in note for note in run.notes)  # found out before, not by the hash


def test_without_hash_and_validator_bytes_are_not_trusted(run: Run) -> None:
    half(run, validator=None)
    assert run(run.file(sha256=None)).sha256 == HASH
    assert run.server.asked == [("/model.bin", None)]


def test_halves_of_two_versions_are_not_taken_for_the_file(run: Run) -> None:
    half(run, body=b"old" * 60_000)  # a server that gives the same ETag to another file
    assert run().sha256 == HASH
    assert [wanted for _, wanted in run.server.asked] == ["bytes=100000-", None]
    assert "do not fit together" in run.notes[0]


def test_a_part_longer_than_the_file_is_dropped(run: Run) -> None:
    half(run, 400_000, BODY * 2)
    assert run().sha256 == HASH


def test_metadata_that_was_cut_off_means_from_the_start(run: Run) -> None:
    half(run)
    run.target.with_name("model.bin.part.json").write_text('{"url": "htt')
    assert run().sha256 == HASH
    assert run.server.asked == [("/model.bin", None)]


# faults that pass


def test_a_connection_that_breaks_is_taken_up_where_it_broke(run: Run) -> None:
    run.server.files["/model.bin"].broken = 2
    assert run().sha256 == HASH
    assert [wanted for _, wanted in run.server.asked] == [None, "bytes=131072-", "bytes=196608-"]
    assert len(run.notes) == 2
    assert "trying again in 0 s" in run.notes[0]


def test_a_body_that_ends_early_without_a_length_is_noticed(run: Run) -> None:
    run.server.files["/model.bin"] = Served(BODY, broken=1, length=False)
    assert run().sha256 == HASH
    assert "broke off after 153600 of 307200 bytes" in run.notes[0]


def test_a_body_that_may_have_been_cut_off_is_not_trusted(run: Run) -> None:
    run.server.files["/model.bin"] = Served(BODY, broken=1, length=False)
    with pytest.raises(DownloadError, match="does not tell how long it is"):
        run(run.file(size=None, sha256=None))
    assert run.beside == set()


def test_a_busy_server_is_asked_again_when_it_says(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    monkeypatch.setattr(fetching.time, "sleep", slept.append)
    run.server.files["/model.bin"] = Served(BODY, busy=2, headers={"Retry-After": "7"})
    assert run().sha256 == HASH
    assert slept == [7, 7]


def test_tries_are_bounded_and_back_off(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    monkeypatch.setattr(fetching, "BACK_OFF", 1.0)
    monkeypatch.setattr(fetching.time, "sleep", slept.append)
    run.server.files["/model.bin"] = Served(BODY, busy=100)
    with pytest.raises(DownloadError, match=r"cannot download model.bin: 127.0.0.1 answers 503"):
        run()
    assert len(run.server.asked) == fetching.TRIES == len(slept) + 1
    assert all(0.5 * 2**i <= wait <= 2**i for i, wait in enumerate(slept))


def test_a_mirror_of_the_zoo_is_tried_next(run: Run) -> None:
    file = run.file("/gone.bin", mirrors=(f"{run.server.url}/model.bin",))
    assert run(file).url == f"{run.server.url}/model.bin"
    assert "no such file" in run.notes[0]


# faults that stay


@pytest.mark.parametrize(
    ("path", "served", "words"),
    [
        ("/gone", None, "no such file: .*/gone .*404"),
        ("/no", Served(PAGE, status=403, kind="text/html"), "access refused: .*403 Forbidden with the page 'Sign in'"),
        ("/login", Served(PAGE, kind="text/html; charset=utf-8"), "a web page 'Sign in' in place of the file"),
        ("/sly", Served(PAGE), "a web page in place of the file"),
        ("/odd", Served(b"", status=418), "418"),
        ("/short", Served(BODY[:1000]), "has 1000 bytes, not the 307200 that are published"),
        ("/endless", Served(BODY * 2, length=False), "more than its 307200 bytes"),
        ("/loop", Served(b"", status=302, headers={"Location": "/loop"}), "redirects"),
    ],
)
def test_what_no_further_try_mends(run: Run, path: str, served: Served | None, words: str) -> None:
    if served:
        run.server.files[path] = served
    with pytest.raises(DownloadError, match=words) as caught:
        run(run.file(path))
    assert caught.value.hint
    assert not run.target.exists()
    assert run.beside == set()


def test_a_wrong_hash_is_kept_aside_and_not_used(run: Run) -> None:
    run.server.files["/model.bin"].body = BODY[:-1] + b"!"
    with pytest.raises(DownloadError, match="is not the file it should be: its sha256 is") as caught:
        run()
    assert "model.bin.rejected" in (caught.value.hint or "")
    assert run.beside == {"model.bin.rejected"}
    run.server.files["/model.bin"].body = BODY
    assert run().sha256 == HASH


def test_no_server(run: Run) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(DownloadError, match=r"127.0.0.1 cannot be reached: Connection refused") as caught:
        run(run.file(url=f"http://127.0.0.1:{port}/model.bin"))
    assert "--mirror DIR" in (caught.value.hint or "")


def test_no_such_host(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    with pytest.raises(DownloadError, match=r"the host weights.invalid cannot be found \(DNS\)"):
        run(run.file(url="http://weights.invalid/model.bin"))


def test_a_proxy_is_used(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", run.server.url)
    run.server.files["http://weights.invalid/model.bin"] = Served(BODY)
    assert run(run.file(url="http://weights.invalid/model.bin")).sha256 == HASH


# Google Drive


def drive_page(action: str) -> bytes:
    return f"""<!DOCTYPE html><html><head><title>Google Drive - Virus scan warning</title></head><body>
        <form id="download-form" action="{action}" method="get"><input type="submit" value="Download anyway"/>
        <input type="hidden" name="id" value="abc"><input type="hidden" name="confirm" value="t"></form>""".encode()


def test_the_confirm_page_is_answered(run: Run) -> None:
    run.server.files["/uc?id=abc"] = Served(drive_page("/download"), kind="text/html; charset=utf-8", ranges=False)
    run.server.files["/download?id=abc&confirm=t"] = Served(BODY, broken=1)
    assert run(run.file("/uc?id=abc")).sha256 == HASH
    assert [wanted for path, wanted in run.server.asked if path.startswith("/download")] == [None, "bytes=131072-"]


@pytest.mark.parametrize(
    ("action", "words"),
    [
        ("https://elsewhere.example/download", "leads to another host"),
        ("/login", "a web page 'Sign in' in place of the file"),
    ],
)
def test_a_confirm_page_that_leads_elsewhere(run: Run, action: str, words: str) -> None:
    run.server.files["/uc"] = Served(drive_page(action), kind="text/html")
    run.server.files["/login?id=abc&confirm=t"] = Served(PAGE, kind="text/html")
    with pytest.raises(DownloadError, match=words):
        run(run.file("/uc"))


# mirrors and offline


@pytest.mark.parametrize("kind", ["directory", "file url", "http"])
def test_mirrors(run: Run, tmp_path: Path, kind: str) -> None:
    folder = tmp_path / "a mirror"
    folder.mkdir()
    (folder / "model.bin").write_bytes(BODY)
    run.server.files["/m/model.bin"] = Served(BODY)
    mirror = {"directory": str(folder), "file url": folder.as_uri(), "http": f"{run.server.url}/m/"}[kind]
    options = FetchOptions(mirror, offline=kind != "http")
    assert run(run.file("/never"), options).sha256 == HASH
    assert "/never" not in dict(run.server.asked)


def test_a_mirror_without_the_file(run: Run, tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match=f"the mirror has no {tmp_path / 'model.bin'}"):
        run(options=FetchOptions(str(tmp_path)))


def test_a_copy_from_a_directory_goes_on_too(run: Run, tmp_path: Path) -> None:
    half(run)
    (tmp_path / "model.bin").write_bytes(BODY)
    assert run(options=FetchOptions(str(tmp_path))).sha256 == HASH
    assert run.steps[0] == (100_000, len(BODY))


def test_a_mirror_that_changed_in_the_middle(run: Run, tmp_path: Path) -> None:
    (tmp_path / "model.bin").write_bytes(BODY)
    url = f"{tmp_path}/model.bin"
    part = partial_file.PartFile(run.target)
    run.target.parent.mkdir()
    with part.append(0, partial_file.Origin(url, "1-1", len(BODY))) as write:
        write(b"old" * 1000)
    assert run(run.file(sha256=None), FetchOptions(str(tmp_path))).sha256 == HASH


def test_passwords_of_mirrors_are_not_shown(run: Run) -> None:
    mirror = run.server.url.replace("//", "//me:secret@")
    with pytest.raises(DownloadError) as caught:
        run(replace(run.file(), file="none.bin"), FetchOptions(mirror))
    assert "secret" not in f"{caught.value} {caught.value.hint} {run.notes}"


def test_offline(run: Run) -> None:
    with pytest.raises(UsageError, match="--offline opens no network connection"):
        run(options=FetchOptions(offline=True))
    assert run.server.asked == []
    run()
    assert run(options=FetchOptions(offline=True)).url is None


# the disk


def test_a_disk_that_is_too_small_is_found_out_first(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage("/")._replace(free=200_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(OutputError, match=r"not enough space in .*: 0.3 MB are needed, 0.2 MB are free"):
        run()
    half_here = partial_file.PartFile(run.target).size
    assert half_here == 0


def test_a_disk_that_fills_up_keeps_what_is_here(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as full:
        full.setattr(partial_file.hashlib, "sha256", FullDisk)
        with pytest.raises(OutputError, match="disk full") as caught:
            run()
    assert "goes on with the 0." in (caught.value.hint or "")
    assert 0 < partial_file.PartFile(run.target).size < len(BODY)
    assert run().sha256 == HASH
    assert run.server.asked[-1][1] is not None


class FullDisk:
    """In the place of the running hash, which sees every block after it was written."""

    def __init__(self) -> None:
        self.seen = 0

    def update(self, block: bytes) -> None:
        self.seen += len(block)
        if self.seen > 100_000:
            raise OSError(errno.ENOSPC, "No space left on device")


def test_a_cache_that_cannot_be_written(run: Run, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file where a folder should be")
    with pytest.raises(OutputError, match="cannot write") as caught:
        run()
    assert "NANOSAM_HOME" in (caught.value.hint or "")


def test_a_read_only_cache(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(run.target.parent))

    monkeypatch.setattr(Path, "mkdir", refuse)  # the tests may run as root, whom no mode stops
    with pytest.raises(OutputError, match="permission denied") as caught:
        run()
    assert "NANOSAM_HOME" in (caught.value.hint or "")


# two at once


def test_two_at_once_fetch_once(run: Run) -> None:
    run.server.files["/model.bin"].seconds_a_block = 0.01
    failed: list[NanosamError] = []

    def work() -> None:
        try:
            run()
        except NanosamError as error:
            failed.append(error)

    workers = [threading.Thread(target=work) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not failed
    assert len(run.server.asked) == 1
    assert run.target.read_bytes() == BODY
    assert sum("another process is downloading" in note for note in run.notes) == 2

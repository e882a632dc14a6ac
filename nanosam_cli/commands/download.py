"""`nanosam download`: models and data sets by name."""

from __future__ import annotations

from dataclasses import asdict
from time import monotonic
from typing import TYPE_CHECKING, Annotated

import typer

from nanosam_cli import console
from nanosam_cli.core.errors import DownloadError, UsageError
from nanosam_cli.options import ForceOption, JsonOption, QuietOption, VerboseOption, complete_downloads

if TYPE_CHECKING:
    from pathlib import Path

    from nanosam_cli.core.zoo.catalogue import Entry
    from nanosam_cli.core.zoo.fetch import FetchOptions
    from nanosam_cli.core.zoo.remote_file import RemoteFile

WHAT, FROM = "What to do", "Where from"  # headings of the help


def download(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="NAME", autocompletion=complete_downloads, help="Models and data sets; --list shows all."
        ),
    ] = None,
    show: Annotated[
        bool, typer.Option("--list", rich_help_panel=WHAT, help="Show what there is, and what of it is here.")
    ] = False,
    verify: Annotated[
        bool, typer.Option("--verify", rich_help_panel=WHAT, help="Check files that are here against their hashes.")
    ] = False,
    rm: Annotated[bool, typer.Option("--rm", rich_help_panel=WHAT, help="Delete what was downloaded.")] = False,
    extract: Annotated[
        bool,
        typer.Option(
            "--extract",
            rich_help_panel=WHAT,
            help="Unpack archives of data sets and delete them; without it they are read as they are.",
        ),
    ] = False,
    mirror: Annotated[
        str | None,
        typer.Option(
            "--mirror",
            metavar="DIR|URL",
            rich_help_panel=FROM,
            help="Take the files by their plain names from a directory, a file:// or an http address; else "
            "NANOSAM_MIRROR.",
        ),
    ] = None,
    offline: Annotated[
        bool,
        typer.Option("--offline", rich_help_panel=FROM, help="Open no network connection. Also NANOSAM_OFFLINE=1."),
    ] = False,
    force: ForceOption = False,
    json: JsonOption = False,
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Download models and data sets.

    A download that breaks off is kept, and the same command goes on with it. Every file is checked against its
    published hash; where none is published, against the one of the first download.

        nanosam download --list

        nanosam download mobile-sam

        nanosam download coco-val2017 --extract

        nanosam download --verify
    """
    from nanosam_cli.core.zoo.catalogue import entries, find_entry
    from nanosam_cli.core.zoo.download import options

    if sum((show, verify, rm)) > 1:
        raise UsageError("--list, --verify and --rm do not go together", "give one of them")
    chosen = [find_entry(name) for name in dict.fromkeys(names or [])]
    if show:
        _show(chosen or list(entries().values()), json)
    elif verify:
        _verify(chosen or [entry for entry in entries().values() if entry.is_here], json)
    elif not chosen:
        raise UsageError("no name given", "such as `nanosam download mobile-sam`; --list shows what there is")
    elif rm:
        _remove(chosen, json)
    else:
        asked = options(mirror, offline, force)
        for entry in chosen:
            _download(entry, asked, extract, json)


def _download(entry: Entry, asked: FetchOptions, extract: bool, json: bool) -> None:
    from nanosam_cli.core.zoo.download import download, kept_bytes

    if entry.bundled:
        console.info(f"{entry.name} comes with the package: there is nothing to download")
    elif asked.overwrite or not entry.is_here:
        console.info(f"{entry.name}: {entry.licence}{f' ({entry.source})' if entry.source else ''}")
        if entry.note:
            console.warn(f"{entry.name}: {entry.note}")
    records = []
    for file in () if entry.bundled else entry.files:
        kept = kept_bytes(entry, file)
        with console.progress(file.file, file.size, "B", done=kept) as advance:
            try:
                fetched = download(entry, file, asked, _Speed(advance, kept), console.info)
            except KeyboardInterrupt:
                console.info(f"{kept_bytes(entry, file) / 1e6:.1f} MB are kept; the same command goes on with them")
                raise
        path, status = fetched.path, "here already" if fetched.url is None else "downloaded"
        if extract and path.is_file():
            unpacked = _unpack(entry, file, asked.overwrite)
            path, status = (unpacked, f"{status}, unpacked") if unpacked else (path, status)
        records.append({"path": str(path), "status": status, "sha256": fetched.sha256})
        if not json:
            console.text(f"{path}: {status}")
        if fetched.sha256 and not file.sha256:
            console.info(f"{file.file}: no hash is published; {fetched.sha256} is recorded")
    if json:
        console.json_line({"schema_version": 1, "name": entry.name, "licence": entry.licence, "files": records})


def _unpack(entry: Entry, file: RemoteFile, overwrite: bool) -> Path | None:
    from nanosam_cli.core.zoo.download import unpack_file

    with console.progress(f"unpack {file.file}", None, "B") as advance:
        return unpack_file(entry, file, _Speed(advance, 0), console.info, overwrite=overwrite)


class _Speed:
    """Bytes that are here, for the bar: the difference to before, and how fast they came in this run."""

    def __init__(self, advance: console.Advance, done: int) -> None:
        self._advance = advance
        self._done = done
        self._start: tuple[float, int] | None = None  # seconds, bytes: connecting does not count

    def __call__(self, done: int, total: int | None, /) -> None:
        now = monotonic()
        seconds, bytes_before = self._start = self._start or (now, done)
        speed = {} if now == seconds else {"speed": f"{max(done - bytes_before, 0) / (now - seconds) / 1e6:.1f} MB/s"}
        self._advance(done - self._done, total=total, **speed)
        self._done = done


def _show(chosen: list[Entry], json: bool) -> None:
    if json:
        for entry in chosen:
            console.json_line({"schema_version": 1, **_record(entry)})
        return
    columns = ("name", "here", "MB", "licence", "mIoU all S M L", "published in")
    rows = []
    for entry in chosen:
        iou = entry.accuracy
        here = "package" if entry.bundled else "yes" if entry.is_here else "no"
        size = "?" if entry.size is None else f"{entry.size / 1e6:.1f}"
        means = iou and " ".join(f"{mean:.3f}" for mean in (iou.all, iou.small, iou.medium, iou.large))
        rows.append((entry.name, here, size, entry.licence, means, iou and iou.published))
    console.table(columns, rows)
    for entry in chosen:  # below the table, whose cells would cut them up
        console.text(f"{entry.name}: {entry.description}")
    console.text("mIoU: COCO val2017, ground-truth boxes, from the README on GitHub; protocols differ by 1-2 points")


def _record(entry: Entry) -> dict[str, object]:
    return {
        "name": entry.name,
        "kind": entry.kind,
        "description": entry.description,
        "here": entry.is_here,
        "bundled": entry.bundled,
        "size": entry.size,
        "licence": entry.licence,
        "source": entry.source,
        "note": entry.note,
        "accuracy": entry.accuracy and asdict(entry.accuracy),
        "files": [_file_record(entry, file) for file in entry.files],
    }


def _file_record(entry: Entry, file: RemoteFile) -> dict[str, object]:
    return {"path": str(entry.path(file)), "urls": file.urls, "size": file.size, "sha256": file.sha256}


def _verify(chosen: list[Entry], json: bool) -> None:
    from nanosam_cli.core.zoo.download import verify

    wrong = []
    for entry in chosen:
        for found in verify(entry):
            fix = f"nanosam download {entry.name}{' --force' if found.state == 'broken' else ''}"
            if entry.bundled:
                fix = "pip install --force-reinstall nanosam-cli"
            if found.state in ("missing", "broken"):
                wrong.append((str(found.path), fix))
            if json:
                about = {"name": entry.name, "path": str(found.path), "state": found.state, "detail": found.detail}
                console.json_line({"schema_version": 1, **about})
            else:
                console.text(f"{found.path}: {found.state}, {found.detail}")
    if wrong:
        path, fix = wrong[0]
        others = f" and {len(wrong) - 1} more" if len(wrong) > 1 else ""
        raise DownloadError(f"not as it should be: {path}{others}", fix)


def _remove(chosen: list[Entry], json: bool) -> None:
    from nanosam_cli.core.zoo.download import remove

    for entry in chosen:
        removed = [str(path) for path in remove(entry)]
        if json:
            console.json_line({"schema_version": 1, "name": entry.name, "removed": removed})
        elif removed:
            console.text(f"{entry.name}: removed {', '.join(removed)}")
        else:
            console.text(f"{entry.name}: there is nothing to remove")

"""A folder of shards with its manifest: what is done, and what it was done with.

`manifest.json` is written before the first shard and again at every end; `part-00000.parquet` and so on each at once,
whole. A shard says in its own metadata which job it belongs to, so nothing must be kept in step.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from nanosam_cli.core.errors import InputError, OutputError
from nanosam_cli.core.fleet.rows import SCHEMA, Row
from nanosam_cli.core.system.documents import read_json
from nanosam_cli.core.system.files import atomic_write, check_writable, output_error, write_text
from nanosam_cli.core.system.journal import differences

SCHEMA_VERSION = 1
_RUN, _COUNTS = b"nanosam.job", b"nanosam.counts"
_ELSEWHERE = "give another place with `-o`"


@dataclass
class Counts:
    """What came of photos."""

    photos: int = 0
    objects: int = 0
    errors: int = 0

    def add(self, other: Counts) -> None:
        self.photos += other.photos
        self.objects += other.objects
        self.errors += other.errors

    def __str__(self) -> str:
        failed = f", {self.errors} of them with an error in their row" if self.errors else ""
        return f"{self.photos} photos, {self.objects} objects{failed}"


@dataclass(frozen=True)
class Manifest:
    """What is known of a job before its first photo."""

    job: str  # hash of all that decides the rows
    settings: Mapping[str, Any]
    photos: int
    shard_size: int
    classes: Mapping[int, str]  # names by category id

    @property
    def shards(self) -> int:
        return -(-self.photos // self.shard_size)

    def rows(self, number: int) -> int:
        """Photos of a shard."""
        return min(self.shard_size, self.photos - number * self.shard_size)

    def record(self, counts: Counts, done: int) -> dict[str, Any]:
        """The content of the file."""
        return {
            "schema_version": SCHEMA_VERSION,
            "job": self.job,
            "settings": self.settings,
            "photos": self.photos,
            "shard_size": self.shard_size,
            "shards": self.shards,
            "classes": {str(number): name for number, name in self.classes.items()},
            "shards_done": done,
            "counts": asdict(counts),
        }


class ShardFolder:
    """The output of a job."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.file = folder / "manifest.json"

    def path(self, number: int) -> Path:
        return self.folder / f"part-{number:05}.parquet"

    def check(self, manifest: Manifest, *, resume: bool) -> None:
        """See that a job may write here.

        OutputError where another is there already, or the folder cannot be written; InputError where `resume` finds
        one with other settings.
        """
        check_writable(self.folder)
        if not self.file.exists():
            if any(self.folder.glob("part-*.parquet")):
                raise OutputError(f"{self.folder} has shards without a manifest", f"remove them, or {_ELSEWHERE}")
            return
        if not resume:
            raise OutputError(f"{self.file} is there: a job writes into this folder", f"--resume, or {_ELSEWHERE}")
        before = read_manifest(self.folder)
        now = manifest.record(Counts(), 0)
        names = ("settings", "photos", "shard_size", "job")
        changed = differences(before.get("settings") or {}, now["settings"]) or differences(
            *({name: one.get(name) for name in names[1:]} for one in (before, now))
        )
        if changed:
            raise InputError(
                f"{self.folder} holds a job with other settings: {changed}", f"resume with its own, or {_ELSEWHERE}"
            )

    def done(self, manifest: Manifest) -> dict[int, Counts]:
        """Shards that are whole and of this job; one that was cut off is not."""
        found = {}
        for number in range(manifest.shards):
            counts = _shard_counts(self.path(number), manifest.job)
            if counts is not None and counts.photos == manifest.rows(number):
                found[number] = counts
        return found

    def write_manifest(self, manifest: Manifest, counts: Counts, done: int) -> None:
        text = json.dumps(manifest.record(counts, done), indent=2, ensure_ascii=False)
        write_text(self.file, f"{text}\n", overwrite=True)

    def write(self, manifest: Manifest, number: int, rows: pa.Table) -> Counts:
        """Write a shard at once. OutputError where it cannot be written; nothing of it is left then."""
        errors = rows.num_rows - rows["error"].null_count
        counts = Counts(rows.num_rows, sum(map(len, rows["objects"].to_pylist())), errors)
        about = {_RUN: manifest.job.encode(), _COUNTS: json.dumps(asdict(counts)).encode()}
        path = self.path(number)
        with atomic_write(path, overwrite=True) as temporary:
            try:
                pq.write_table(rows.select(SCHEMA.names).replace_schema_metadata(about), temporary, compression="zstd")
            except pa.ArrowException as error:
                raise OutputError(f"cannot write {path}: {error}", _ELSEWHERE) from error
            except OSError as error:
                raise output_error(path, error) from error
        return counts


def _shard_counts(path: Path, job: str) -> Counts | None:
    if not path.exists():
        return None
    try:
        metadata = pq.read_schema(path).metadata or {}
        rows = pq.read_metadata(path).num_rows
        counts = Counts(**json.loads(metadata.get(_COUNTS, b"{}")))
    except (pa.ArrowException, OSError, ValueError, TypeError):
        return None  # cut off: it is done again
    return counts if metadata.get(_RUN) == job.encode() and rows == counts.photos else None


def read_manifest(folder: Path) -> dict[str, Any]:
    """The content of a folder's manifest. InputError where there is none."""
    path = folder / "manifest.json"
    content = read_json(path, "give the folder that `nanosam batch` wrote into", "manifest")
    if not isinstance(content, dict) or content.get("schema_version") != SCHEMA_VERSION:
        raise InputError(f"{path} is no manifest of this version", "give the folder that `nanosam batch` wrote into")
    return content


def read_rows(folder: Path, shards: int) -> Iterator[Row]:
    """Every photo's row, shard by shard. InputError where a shard is missing or cut off."""
    files = [folder / f"part-{number:05}.parquet" for number in range(shards)]
    if missing := [file.name for file in files if not file.exists()]:
        raise InputError(
            f"{folder} is not finished: {len(missing)} of {shards} shards are missing, the first {missing[0]}",
            "run it again with --resume",
        )
    for file in files:
        yield from _rows_of(file)


def _rows_of(file: Path) -> Sequence[Row]:
    try:
        rows: list[Row] = pq.read_table(file).to_pylist()
        return rows
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{file} is cut off or broken: {error}", "run the job again with --resume") from error

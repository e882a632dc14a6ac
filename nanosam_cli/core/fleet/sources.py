"""Where the photos are: folders and patterns, Parquet with bytes or paths, WebDataset tars; cut into shards.

A source knows the ids of its photos in a fixed order. A shard is a run of them that travels to a worker and reads its
photos there; it is small, because it holds names and places alone.
"""

from __future__ import annotations

import io
import re
import tarfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.parquet as pq

from nanosam_cli.core.errors import InputError
from nanosam_cli.core.fleet.places import is_remote, list_files, open_file_system, read_range
from nanosam_cli.core.media.image import IMAGE_FORMATS
from nanosam_cli.core.messages import did_you_mean, some
from nanosam_cli.core.system.documents import parse_json

PROMPT_COLUMNS = ("boxes", "points", "labels", "classes")
_MAGIC = re.compile(r"[*?\[]")


@dataclass(frozen=True)
class RawPhoto:
    """A photo as a worker finds it, not yet decoded."""

    id: str
    source: str  # where it comes from, for people and for the shard
    data: Path | bytes | None  # None where it could not be had
    entry: Mapping[str, Any] | None = None  # what its source says of prompts: PROMPT_COLUMNS
    error: str | None = None


class PhotoShard(Protocol):
    """A run of photos, to be read where it is worked on."""

    @property
    def ids(self) -> Sequence[str]: ...

    def photos(self) -> Iterator[RawPhoto]:
        """The photos in their order; one that cannot be had says so."""
        ...


class PhotoSource(Protocol):
    """All photos of a job."""

    @property
    def ids(self) -> Sequence[str]: ...

    @property
    def has_prompts(self) -> bool:
        """Whether it says itself what to segment."""
        ...

    @property
    def class_names(self) -> Sequence[str]:
        """Of its prompts, in the order in which they first appear."""
        ...

    def paths(self) -> list[Path]:
        """What files of prompts call the photos: a path, of a file on this machine where there is one."""
        ...

    def shard(self, places: Sequence[int]) -> PhotoShard:
        """Some of the photos."""
        ...


def open_source(place: str, image_column: str = "image", id_column: str | None = None) -> PhotoSource:
    """Look through a place. InputError where it holds no photos, cannot be read, or has an id twice."""
    source = _opened(place, image_column, id_column)
    twice = [name for name, count in Counter(source.ids).items() if count > 1]
    if twice:
        raise InputError(f"{place} has an id twice: {some(twice)}", "give every photo an id of its own")
    return source


def _opened(place: str, image_column: str, id_column: str | None) -> PhotoSource:
    base, pattern = _split_pattern(place)
    system, files = list_files(base)
    if pattern is not None:
        start = len(open_file_system(base)[1].rstrip("/")) + 1
        files = [file for file in files if fnmatch(file[start:], pattern)]
    by_kind = {kind: sorted((file for file in files if _suffix(file) in kind), key=_natural) for kind in _KINDS}
    kinds = [kind for kind, found in by_kind.items() if found]
    if not kinds:
        raise InputError(f"no photos in {place}", "give a folder of images, Parquet files or tars")
    if len(kinds) > 1:
        names = some([by_kind[kind][0] for kind in kinds])
        raise InputError(f"{place} holds files of several kinds: {names}", "give a pattern, such as 'photos/*.jpg'")
    found = by_kind[kinds[0]]
    if kinds[0] == _PARQUET:
        return ParquetSource.open(system, found, image_column, id_column)
    if kinds[0] == _TAR:
        return TarSource.open(system, found)
    root = str(PurePosixPath(found[0]).parent) if found == files and len(files) == 1 else open_file_system(base)[1]
    return FileSource.open(system, found, root.rstrip("/"), local=not is_remote(place))


_IMAGES, _PARQUET, _TAR = frozenset(IMAGE_FORMATS), frozenset({".parquet"}), frozenset({".tar"})
_KINDS = (_IMAGES, _PARQUET, _TAR)


def _split_pattern(place: str) -> tuple[str, str | None]:
    """`photos/2024/*.jpg` -> `photos/2024` and `*.jpg`; a place without a pattern has None."""
    parts = place.split("/")
    first = next((number for number, part in enumerate(parts) if _MAGIC.search(part)), None)
    if first is None or (not is_remote(place) and Path(place).exists()):
        return place, None
    return "/".join(parts[:first]) or ("/" if place.startswith("/") else "."), "/".join(parts[first:])


def _suffix(file: str) -> str:
    return PurePosixPath(file).suffix.lower()


def _natural(file: str) -> tuple[list[str | int], str]:
    """2.jpg before 10.jpg."""
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", file.casefold())], file


@dataclass(frozen=True)
class FileSource:
    """Photos that are files; an id is the path below the folder that was given."""

    system: Any
    root: str
    ids: Sequence[str]
    local: bool
    has_prompts: bool = False
    class_names: Sequence[str] = ()

    @staticmethod
    def open(system: Any, files: Sequence[str], root: str, *, local: bool) -> FileSource:
        return FileSource(system, root, [file[len(root) + 1 :] for file in files], local)

    def paths(self) -> list[Path]:
        return [Path(self.root, name) if self.local else Path(name) for name in self.ids]

    def shard(self, places: Sequence[int]) -> PhotoShard:
        return FileShard(self.system, self.root, [self.ids[place] for place in places], self.local)


@dataclass(frozen=True)
class FileShard:
    """Some files of a folder."""

    system: Any
    root: str
    ids: Sequence[str]
    local: bool

    def photos(self) -> Iterator[RawPhoto]:
        for name in self.ids:
            path = f"{self.root}/{name}"
            if self.local:
                yield RawPhoto(name, path, Path(path))
                continue
            try:
                yield RawPhoto(name, path, read_range(self.system, path))
            except InputError as error:
                yield RawPhoto(name, path, None, error=str(error))


@dataclass(frozen=True)
class ParquetSource:
    """Rows of Parquet files, with a photo's bytes, its path, or Hugging Face's struct of both."""

    system: Any
    files: Sequence[str]
    counts: Sequence[int]  # rows of each file
    ids: Sequence[str]
    image_column: str
    columns: Sequence[str]  # of prompts
    class_names: Sequence[str]

    @staticmethod
    def open(system: Any, files: Sequence[str], image_column: str, id_column: str | None) -> ParquetSource:
        """Read the ids and the classes. InputError where a column is missing, or a file is no Parquet."""
        ids: list[str] = []
        counts = []
        classes: dict[str, None] = {}
        columns: list[str] = []
        for file in files:
            try:
                with pq.ParquetFile(file, filesystem=system) as opened:
                    names = opened.schema_arrow.names
                    _check_columns(file, names, [image_column, *([id_column] if id_column else [])])
                    key = id_column or ("id" if "id" in names else None)
                    columns = [name for name in PROMPT_COLUMNS if name in names]
                    count = opened.metadata.num_rows
                    ids += _ids(opened, key, PurePosixPath(file).name, count)
                    if "classes" in columns:
                        lists = opened.read(["classes"])["classes"].to_pylist()
                        classes |= dict.fromkeys(name for row in lists for name in row or ())
            except (pa.ArrowException, OSError) as error:
                raise InputError(f"cannot read {file}: {error}", "get the file again") from error
            counts.append(count)
        return ParquetSource(system, files, counts, ids, image_column, columns, [*classes])

    @property
    def has_prompts(self) -> bool:
        return bool({"boxes", "points"} & {*self.columns})

    def paths(self) -> list[Path]:
        return [Path(name) for name in self.ids]

    def shard(self, places: Sequence[int]) -> PhotoShard:
        rows: list[tuple[str, int]] = []
        start, file = 0, 0
        for place in places:
            while place >= start + self.counts[file]:
                start, file = start + self.counts[file], file + 1
            rows.append((self.files[file], place - start))
        columns = [self.image_column, *self.columns]
        return ParquetShard(self.system, [self.ids[place] for place in places], rows, columns)


def _check_columns(file: str, names: Sequence[str], wanted: Sequence[str]) -> None:
    for name in wanted:
        if name not in names:
            near = did_you_mean(name, names)
            raise InputError(f"{file} has no column {name}; it has {some(names, 20)}", near or "--image-column NAME")


def _ids(opened: Any, key: str | None, name: str, count: int) -> list[str]:
    """A row without an id is called by its file and its place."""
    if key is None:
        return [f"{name}:{row}" for row in range(count)]
    return [f"{name}:{row}" if one is None else str(one) for row, one in enumerate(opened.read([key])[key].to_pylist())]


@dataclass(frozen=True)
class ParquetShard:
    """Some rows of Parquet files, in the files' order; read a row group at a time."""

    system: Any
    ids: Sequence[str]
    rows: Sequence[tuple[str, int]]  # file, row
    columns: Sequence[str]  # the photo's first, then those of prompts

    def photos(self) -> Iterator[RawPhoto]:
        left = dict(zip(self.rows, self.ids))
        for file in dict.fromkeys(file for file, _ in self.rows):
            wanted = {row: name for (one, row), name in left.items() if one == file}
            try:
                yield from self._of_file(file, wanted)
            except (pa.ArrowException, OSError) as error:
                for name in wanted.values():  # those that were given already have been taken out
                    yield RawPhoto(name, file, None, error=f"cannot read {file}: {error}")

    def _of_file(self, file: str, wanted: dict[int, str]) -> Iterator[RawPhoto]:
        with pq.ParquetFile(file, filesystem=self.system) as opened:
            start = 0
            for group in range(opened.num_row_groups):
                stop = start + opened.metadata.row_group(group).num_rows
                rows = [row for row in wanted if start <= row < stop]
                if rows:
                    table = opened.read_row_group(group, columns=list(self.columns))
                    for row in rows:
                        (values,) = table.slice(row - start, 1).to_pylist()
                        yield self._photo(file, wanted.pop(row), values)
                start = stop

    def _photo(self, file: str, name: str, values: Mapping[str, Any]) -> RawPhoto:
        image = values[self.columns[0]]
        if isinstance(image, Mapping):  # Hugging Face: {"bytes": ..., "path": ...}
            image = image.get("bytes") or image.get("path")
        entry = {key: values[key] for key in self.columns[1:]}
        if isinstance(image, bytes):
            return RawPhoto(name, file, image, entry)
        if not isinstance(image, str) or not image:
            return RawPhoto(name, file, None, entry, f"{file}: {self.columns[0]} holds neither bytes nor a path")
        if not is_remote(image):
            return RawPhoto(name, image, Path(image), entry)
        try:
            return RawPhoto(name, image, read_range(*open_file_system(image)), entry)
        except InputError as error:
            return RawPhoto(name, image, None, entry, str(error))


Span = tuple[int, int]  # first byte and count, in a tar


@dataclass(frozen=True)
class TarSample:
    """One sample of a WebDataset: its photo, and its JSON with prompts where it has one."""

    tar: str
    image: Span
    about: Span | None


@dataclass(frozen=True)
class TarSource:
    """WebDataset tars: files of one name but for the suffix are a sample, and that name is its id."""

    system: Any
    ids: Sequence[str]
    samples: Sequence[TarSample]
    has_prompts: bool
    class_names: Sequence[str] = ()

    @staticmethod
    def open(system: Any, files: Sequence[str]) -> TarSource:
        """Read the headers. InputError where a tar is broken."""
        ids: list[str] = []
        samples: list[TarSample] = []
        for file in files:
            for name, images, about in _members(system, file):
                if images is not None:
                    ids.append(name)
                    samples.append(TarSample(file, images, about))
        if not samples:
            raise InputError(f"no photos in {some(files)}", "a sample is key.jpg, with key.json beside it")
        names: dict[str, None] = {}
        has_prompts = False
        for sample in samples:
            entry = _entry(system, sample)
            has_prompts |= bool({"boxes", "points"} & entry.keys())
            names |= dict.fromkeys(name for name in entry.get("classes") or () if isinstance(name, str))
        return TarSource(system, ids, samples, has_prompts, [*names])

    def paths(self) -> list[Path]:
        return [Path(name) for name in self.ids]

    def shard(self, places: Sequence[int]) -> PhotoShard:
        return TarShard(self.system, [self.ids[one] for one in places], [self.samples[one] for one in places])


@dataclass(frozen=True)
class TarShard:
    """Some samples, read where they lie."""

    system: Any
    ids: Sequence[str]
    samples: Sequence[TarSample]

    def photos(self) -> Iterator[RawPhoto]:
        for name, sample in zip(self.ids, self.samples):
            try:
                data = read_range(self.system, sample.tar, *sample.image)
                yield RawPhoto(name, sample.tar, data, _entry(self.system, sample))
            except InputError as error:
                yield RawPhoto(name, sample.tar, None, error=str(error))


def _members(system: Any, file: str) -> Iterator[tuple[str, Span | None, Span | None]]:
    """Key, span of the photo, span of the JSON, for each sample of a tar."""
    found: dict[str, dict[str, Span]] = {}
    try:
        with system.open_input_file(file) as opened, tarfile.open(fileobj=io.BufferedReader(opened)) as tar:
            for member in tar:
                path = PurePosixPath(member.name)
                if member.isfile() and not path.name.startswith("."):
                    key, _, suffix = path.name.partition(".")
                    spans = found.setdefault(str(path.parent / key), {})
                    spans[f".{suffix.lower()}"] = (member.offset_data, member.size)
    except (tarfile.TarError, pa.ArrowException, OSError, EOFError) as error:
        raise InputError(f"cannot read {file}: {error}", "get the file again") from error
    for key, spans in found.items():
        yield key, next((span for suffix, span in spans.items() if suffix in IMAGE_FORMATS), None), spans.get(".json")


def _entry(system: Any, sample: TarSample) -> dict[str, Any]:
    """The prompts of a sample's JSON."""
    if sample.about is None:
        return {}
    try:
        content = parse_json(read_range(system, sample.tar, *sample.about))
    except ValueError as error:
        raise InputError(f"{sample.tar}: the JSON of a sample: {error}") from error
    return {key: content[key] for key in PROMPT_COLUMNS if key in content} if isinstance(content, dict) else {}

"""Everything `nanosam download` knows by name: the models of the zoo, and data sets as data."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from nanosam_cli.core import paths
from nanosam_cli.core.errors import UsageError
from nanosam_cli.core.messages import did_you_mean
from nanosam_cli.core.zoo.models import MODELS, ModelSpec, PublishedAccuracy
from nanosam_cli.core.zoo.remote_file import RemoteFile


@dataclass(frozen=True)
class Entry:
    """Something that can be downloaded: its files and where they go."""

    name: str
    kind: Literal["model", "data set"]
    description: str
    licence: str
    source: str | None  # the publisher's page
    folder: tuple[str, ...]  # below the cache directory
    files: tuple[RemoteFile, ...]
    bundled: bool = False  # comes with the package, so that there is nothing to download
    note: str | None = None
    accuracy: PublishedAccuracy | None = None

    def path(self, file: RemoteFile) -> Path:
        """Where a file of this entry lies, or would lie."""
        if self.bundled:
            return paths.resource(*self.folder, file.file)
        return paths.home().joinpath(*self.folder, file.file)

    def folder_of(self, file: RemoteFile) -> Path | None:
        """Where an archive of this entry is unpacked to; None for other files."""
        return None if file.unpacks_to is None else self.path(file).with_name(file.unpacks_to)

    def has(self, file: RemoteFile) -> bool:
        """Whether a file is on this machine, as it was downloaded or unpacked."""
        folder = self.folder_of(file)
        return self.path(file).is_file() or (folder is not None and folder.is_dir())

    @property
    def size(self) -> int | None:
        """Bytes of all files, as published or else as they lie here; None where that is not known."""
        sizes = [_size(self.path(file), file.size) for file in self.files]
        return sum(size for size in sizes if size is not None) if None not in sizes else None

    @property
    def is_here(self) -> bool:
        """Whether every file is on this machine; whether they are right, `--verify` says."""
        return all(map(self.has, self.files))


# Where `eval coco` looks for them. It reads zip files in place, so nothing needs to be unpacked.
_COCO = ("datasets", "coco")
_COCO_PAGE = "https://cocodataset.org/#termsofuse"
# Sizes and hashes: not published by COCO, but the same in every public project that records them.
_VAL = RemoteFile(
    "val2017.zip",
    url="http://images.cocodataset.org/zips/val2017.zip",
    size=815_585_330,
    sha256="4f7e2ccb2866ec5041993c9cf2a952bbed69647b115d0f74da7ce8f4bef82f05",
    unpacks_to="val2017",
)
_TRAIN = RemoteFile(
    "train2017.zip",
    url="http://images.cocodataset.org/zips/train2017.zip",
    size=19_336_861_798,
    sha256="69a8bb58ea5f8f99d24875f21416de2e9ded3178e903f1f7603e283b9e06d929",
    unpacks_to="train2017",
)
_ANNOTATIONS = RemoteFile(
    "annotations_trainval2017.zip",
    url="http://images.cocodataset.org/annotations/annotations_trainval2017.zip",
    size=252_907_541,
    sha256="113a836d90195ee1f884e704da6304dfaaecff1f023f49b6ca93c4aaae470268",
    unpacks_to="annotations",
)


def _coco(name: str, description: str, *files: RemoteFile) -> Entry:
    photos = files != (_ANNOTATIONS,)
    licence = "CC-BY-4.0; photos: Flickr" if photos else "CC-BY-4.0"
    note = "each photo has its own licence, which the annotation file names" if photos else None
    return Entry(name, "data set", description, licence, _COCO_PAGE, _COCO, files, note=note)


DATASETS = (
    _coco("coco-val2017", "COCO 2017 val: 5,000 photos and the annotations, for `eval coco`", _VAL, _ANNOTATIONS),
    _coco("coco-train2017", "COCO 2017 train: 118,287 photos and the annotations", _TRAIN, _ANNOTATIONS),
    _coco("coco-annotations", "COCO 2017 annotations alone, of train and val", _ANNOTATIONS),
)


def entries() -> dict[str, Entry]:
    """Models first, then data sets, by name."""
    return {entry.name: entry for entry in (*map(_model, MODELS.values()), *DATASETS)}


def find_entry(name: str) -> Entry:
    """What is called `name`. UsageError with the nearest names where there is none."""
    known = entries()
    if name in known:
        return known[name]
    raise UsageError(
        f"nothing is called {name!r}",
        did_you_mean(name.lower(), known, most=3) or "`nanosam download --list` shows what there is",
    )


def _model(spec: ModelSpec) -> Entry:
    return Entry(
        spec.name,
        "model",
        spec.description,
        spec.licence,
        spec.source,
        ("models", spec.name),
        tuple(spec.parts.values()),
        bundled=spec.bundled,
        note=spec.note,
        accuracy=spec.accuracy,
    )


def _size(path: Path, published: int | None) -> int | None:
    if published is None and path.is_file():
        return path.stat().st_size
    return published

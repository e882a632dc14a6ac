"""Result files: a bare JSON list with NVIDIA NanoSAM's keys, and beside it a record of how it was made.

`results.json` is read by NanoSAM's tool as it is; `results.meta.json` holds what the list has no place for. Files of
NanoSAM's own tool have no record.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from numpy.typing import NDArray

from nanosam_cli.core.errors import InputError, UsageError
from nanosam_cli.core.ids import whole_number
from nanosam_cli.core.schema import Amount, Range, Share, Whole, read_section
from nanosam_cli.core.system.documents import RECORD_BYTES, parse_json
from nanosam_cli.core.system.files import read_input, write_bytes, write_text

if TYPE_CHECKING:
    from nanosam_cli.core.datasets.coco import Annotations

SCHEMA_VERSION = 1

_EXPECTED = "expected what `nanosam eval coco` writes"


@dataclass(frozen=True)
class ObjectResult:
    """One object's result. Names are those of NVIDIA NanoSAM's result files."""

    id: int
    area: Amount  # as annotated
    category_id: int
    iscrowd: int
    image_id: int
    box: tuple[float, float, float, float]  # x0 y0 x1 y1, as annotated
    iou: Share
    ious: tuple[Share, ...] = ()  # where an object was prompted several times: of each step; the record names them
    obeyed: tuple[bool, ...] = ()  # of each click: whether its pixel is then on the side that it asked for

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; steps only where there were any."""
        steps = {name: list(value) for name, value in (("ious", self.ious), ("obeyed", self.obeyed)) if value}
        once = {key: value for key, value in vars(self).items() if key not in ("ious", "obeyed")}
        return {**once, "box": list(self.box), **steps}

    @staticmethod
    def from_dict(row: Mapping[str, Any]) -> ObjectResult:
        """KeyError, TypeError or ValueError where it is not one."""
        x0, y0, x1, y1 = (float(side) for side in row["box"])
        area, iou = float(row["area"]), float(row["iou"])
        ious = tuple(float(value) for value in row.get("ious", ()))
        if not all(0 <= value <= 1 for value in (iou, *ious)) or not 0 <= area < math.inf:
            raise ValueError(f"iou {iou:g} and area {area:g} cannot be")
        if not all(map(math.isfinite, (x0, y0, x1, y1))):
            raise ValueError("a side of the box is not a finite number")
        numbers = (whole_number(row[key]) for key in ("id", "category_id", "iscrowd", "image_id"))
        identity, category, crowd, image = numbers
        obeyed = tuple(bool(value) for value in row.get("obeyed", ()))
        return ObjectResult(identity, area, category, crowd, image, (x0, y0, x1, y1), iou, ious, obeyed)


@dataclass(frozen=True)
class _Described:
    """The list that a record is of."""

    sha256: str


@dataclass(frozen=True)
class _Data:
    """What was evaluated on."""

    annotations: str
    images: str
    categories: Mapping[str, str] = field(default_factory=dict)


_Shard = Annotated[int, Range(1, 100_000)]


@dataclass(frozen=True)
class _Settings:
    """Of those that decided the results, the ones that are looked at."""

    prompt: str | None = None
    protocol: str | None = None
    shard: tuple[_Shard, _Shard] | None = None
    annotations_sha256: str | None = None
    box_noise: float | None = None
    seed: int | None = None
    start: str | None = None
    steps: tuple[Any, ...] = ()
    clicks: int | None = None


@dataclass(frozen=True)
class _Meta:
    """A record, as far as it is looked at."""

    results: _Described
    model: str | None = None
    settings: _Settings | None = None
    counts: Mapping[str, Whole] = field(default_factory=dict)
    data: _Data | None = None


@dataclass(frozen=True)
class Results:
    """A result file's objects, and its record where it has one."""

    path: Path
    objects: Sequence[ObjectResult]
    meta: Mapping[str, Any] = field(default_factory=dict)

    @property
    def settings(self) -> Mapping[str, Any]:
        """What decided the results; see `evaluation_plan.Plan`."""
        settings: Mapping[str, Any] = self.meta.get("settings") or {}
        return settings

    @property
    def name(self) -> str:
        """The model's where it is recorded, else the file's."""
        return str(self.meta.get("model") or self.path.stem)

    @property
    def categories(self) -> dict[int, str]:
        """Category names by id, where they are recorded."""
        return {whole_number(key): name for key, name in (self.meta.get("data") or {}).get("categories", {}).items()}

    @cached_property
    def ious(self) -> NDArray[np.float64]:
        return np.array([result.iou for result in self.objects], float)

    @cached_property
    def areas(self) -> NDArray[np.float64]:
        return np.array([result.area for result in self.objects], float)

    @cached_property
    def ids(self) -> NDArray[np.int64]:
        return np.array([result.id for result in self.objects], np.int64)

    @cached_property
    def image_ids(self) -> NDArray[np.int64]:
        return np.array([result.image_id for result in self.objects], np.int64)

    @cached_property
    def category_ids(self) -> NDArray[np.int64]:
        return np.array([result.category_id for result in self.objects], np.int64)

    def only(self, rows: NDArray[np.intp] | NDArray[np.bool_]) -> Results:
        """Some of the objects, by a mask or in a new order by indices."""
        chosen = np.flatnonzero(rows) if rows.dtype == bool else rows
        return Results(self.path, [self.objects[row] for row in chosen], self.meta)


def meta_path(path: Path) -> Path:
    """`results.json` -> `results.meta.json`."""
    return path.with_suffix(".meta.json")


def masks_path(path: Path) -> Path:
    """`results.json` -> `results.masks.json`, where `--save-masks` puts the masks."""
    return path.with_suffix(".masks.json")


def write_results(path: Path, objects: Iterable[ObjectResult], meta: Mapping[str, Any], overwrite: bool) -> None:
    """Write the list and its record. The same objects give the same bytes."""
    rows = [json.dumps(result.to_dict()) for result in objects]
    data = ("[" + ",\n ".join(rows) + "]\n").encode()
    write_bytes(path, data, overwrite)
    about = {"file": path.name, "objects": len(rows), "sha256": sha256(data).hexdigest()}
    write_text(meta_path(path), json.dumps({"results": about, **meta}, indent=2) + "\n", overwrite=True)


def read_results(path: Path) -> Results:
    """Read a result file of this project or of NanoSAM's.

    Raises:
        InputError: there is no such file, it is not whole, has other content, repeats an object, or is not the one that
            the record beside it describes.
    """
    try:
        if not path.exists():
            raise InputError(f"no such results file: {path}", "nanosam eval coco")
        data = read_input(path)
        rows = parse_json(data)
    except ValueError as error:
        if path.suffix == ".jsonl":
            raise InputError(
                f"{path} is a run that was not finished",
                "nanosam eval coco --resume, with the run's own options, goes on with it",
            ) from error
        raise InputError(f"{path} is not a whole JSON file: {error}", _EXPECTED) from error
    if not isinstance(rows, list):
        raise InputError(f"{path} is not a list of results", _EXPECTED)
    objects: dict[int, ObjectResult] = {}
    for number, row in enumerate(rows):
        try:
            result = ObjectResult.from_dict(row)
        except (AttributeError, KeyError, TypeError, ValueError, OverflowError) as error:
            raise InputError(
                f"{path}, entry {number}: not a result: {error!r}",
                f"expected {', '.join(ObjectResult.__dataclass_fields__)}",
            ) from error
        if objects.setdefault(result.id, result) is not result:
            raise InputError(f"{path} has two results of object {result.id}", "one evaluation has each object once")
    return Results(path, list(objects.values()), _read_meta(path, data))


def _read_meta(path: Path, data: bytes) -> dict[str, Any]:
    record = meta_path(path)
    if not record.exists():
        return {}
    hint = f"remove {record} to read {path.name} without it"
    try:
        meta: dict[str, Any] = parse_json(read_input(record, most=RECORD_BYTES))
        checked = read_section(_Meta, meta, strangers=True)
        described = checked.results.sha256
        for key in checked.data.categories if checked.data else ():
            whole_number(key)
    except ValueError as error:
        raise InputError(f"{record} cannot be read: {error}", hint) from error
    if described != sha256(data).hexdigest():
        raise InputError(f"{path} is not the file that {record.name} describes", hint)
    return meta


def known_categories(files: Sequence[Results]) -> dict[int, str]:
    """Category names by id, as far as they are recorded beside the files."""
    return {key: name for file in files for key, name in file.categories.items()}


def check_annotations(results: Results, annotations: Annotations) -> None:
    """InputError where the results are of another annotation file."""
    recorded = results.settings.get("annotations_sha256")
    if recorded == annotations.sha256:
        return
    known = {target.id for photo in annotations.photos for target in photo.objects}
    strange = next((result.id for result in results.objects if result.id not in known), None)
    if recorded or strange is not None:
        why = "it has changed since" if strange is None else f"object {strange} is not in it"
        raise InputError(f"{results.path} are results of another annotation file than {annotations.path}: {why}")


def find_categories(words: Sequence[str], categories: Mapping[int, str]) -> list[int]:
    """Ids of categories that are given by id or by name. UsageError with the nearest name where there is none."""
    names = {name.casefold(): key for key, name in categories.items()}
    found = []
    for word in words:
        key = int(word) if word.isascii() and word.isdigit() else names.get(word.casefold())
        if key is None and not categories:
            raise UsageError(f"no names of categories are known, so {word!r} cannot be found", "--annotations FILE")
        if key is None or (categories and key not in categories):
            near = get_close_matches(word.casefold(), names, n=1)
            hint = f"did you mean {categories[names[near[0]]]}?" if near else f"there are: {_some(categories)}"
            raise UsageError(f"unknown category: {word}", hint)
        found.append(key)
    return found


def _some(categories: Mapping[int, str], limit: int = 10) -> str:
    names = [f"{name} ({key})" for key, name in sorted(categories.items())]
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more

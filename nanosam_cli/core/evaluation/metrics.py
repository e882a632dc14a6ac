"""Statistics of result files: means with intervals, by size and category, compared object by object, merged."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, groupby, zip_longest
from operator import attrgetter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nanosam_cli.core.errors import InputError
from nanosam_cli.core.evaluation.results import ObjectResult, Results

# COCO's size classes by annotated area in square pixels, each [low, high): no object is in two of them
SIZES: Mapping[str, tuple[float, float]] = {
    "all": (0, float("inf")),
    "small": (0, 32**2),
    "medium": (32**2, 96**2),
    "large": (96**2, float("inf")),
}
THRESHOLDS = (0.5, 0.75, 0.9)
RESAMPLES = 2000  # of the bootstrap
_CHUNK = 2_000_000  # drawn photos at a time: bounds memory at 50 MB

Rows = NDArray[np.bool_]  # (objects,) which ones


@dataclass(frozen=True)
class Summary:
    """One group of objects. None where it has none; the interval is None where it has only one photo, too."""

    group: str
    objects: int
    mean_iou: float | None
    interval: tuple[float, float] | None  # 95 %
    over: Mapping[float, float] | None  # threshold -> share of objects whose IoU is above it

    def record(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "group": self.group,
            "objects": self.objects,
            "mean_iou": self.mean_iou,
            "interval": None if self.interval is None else list(self.interval),
            "over": None if self.over is None else {f"{threshold:g}": share for threshold, share in self.over.items()},
        }


@dataclass(frozen=True)
class Difference:
    """How much better the second of two results is, over the objects that both have."""

    group: str
    objects: int
    mean: float | None
    interval: tuple[float, float] | None  # 95 %

    def record(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "group": self.group,
            "objects": self.objects,
            "mean": self.mean,
            "interval": None if self.interval is None else list(self.interval),
        }


def size_rows(areas: NDArray[np.float64], size: str, *, borders_twice: bool = False) -> Rows:
    """Objects of a size class. With `borders_twice`, an area on a border is in both classes, as NanoSAM counts."""
    low, high = SIZES[size]
    return np.asarray((areas >= low) & ((areas <= high) if borders_twice else (areas < high)))


def group_rows(
    results: Results,
    *,
    size: str | None = None,
    names: Mapping[int, str] | None = None,
    borders_twice: bool = False,
) -> dict[str, Rows]:
    """The groups of a table, the one that holds all of them first.

    By size, or that `size` alone. With category `names`, by category (those that have objects, by id; one without a
    name is called by its id), of that `size` where given.
    """
    sizes = {name: size_rows(results.areas, name, borders_twice=borders_twice) for name in SIZES}
    if names is None:
        return sizes if size is None else {size: sizes[size]}
    rows = sizes[size or "all"]
    categories = {int(key): (results.category_ids == key) & rows for key in np.unique(results.category_ids[rows])}
    return {size or "all": rows} | {names.get(key, str(key)): chosen for key, chosen in categories.items()}


def of_categories(results: Results, categories: Sequence[int]) -> Results:
    """The objects of some categories."""
    return results.only(np.isin(results.category_ids, categories))


def summarise(results: Results, groups: Mapping[str, Rows]) -> list[Summary]:
    """A summary of each group."""
    return [_summary(name, results.ious[rows], results.image_ids[rows]) for name, rows in groups.items()]


def _summary(name: str, ious: NDArray[np.float64], photos: NDArray[np.int64]) -> Summary:
    if not len(ious):
        return Summary(name, 0, None, None, None)
    over = {threshold: float((ious > threshold).mean()) for threshold in THRESHOLDS}
    return Summary(name, len(ious), float(ious.mean()), bootstrap_interval(ious, photos), over)


def mean_iou_by_size(results: Sequence[ObjectResult]) -> dict[str, float]:
    """Mean over objects, for all and for each of COCO's size classes; NaN where a class has none."""
    ious = np.array([result.iou for result in results], float)
    areas = np.array([result.area for result in results], float)
    rows = {size: size_rows(areas, size) for size in SIZES}
    return {size: float(ious[chosen].mean()) if chosen.any() else float("nan") for size, chosen in rows.items()}


def bootstrap_interval(
    values: NDArray[np.float64], photos: NDArray[np.int64], *, resamples: int = RESAMPLES, seed: int = 0
) -> tuple[float, float] | None:
    """95 % percentile interval of the mean over objects; None where there are fewer than two photos.

    Photos are drawn, each with all its objects (a cluster bootstrap): objects of one photo are alike, so drawing them
    one by one would promise too much. The same input gives the same interval.
    """
    _, owner = np.unique(photos, return_inverse=True)
    counts = np.bincount(owner)
    if len(counts) < 2:
        return None
    sums = np.bincount(owner, values)
    random = np.random.default_rng(seed)
    means = np.empty(resamples)
    step = max(1, _CHUNK // len(counts))
    for start in range(0, resamples, step):
        draws = random.integers(0, len(counts), (min(step, resamples - start), len(counts)), np.int32)
        means[start : start + step] = sums[draws].sum(axis=1) / counts[draws].sum(axis=1)
    low, high = np.quantile(means, (0.025, 0.975))
    return float(low), float(high)


def common_objects(files: Sequence[Results]) -> list[Results]:
    """The objects that all results have, each file's in the first one's order.

    InputError where an object is not the same in two files, or none is in all: they are of other annotations.
    """
    first = files[0]
    hashes = {file.settings.get("annotations_sha256") for file in files} - {None}
    if len(hashes) > 1:
        raise InputError(
            f"{_names(files)} are results of different annotation files", "evaluate both on the same annotations"
        )
    shared = np.isin(first.ids, _shared_ids(files))
    if len(first.objects) and all(len(file.objects) for file in files) and not shared.any():
        raise InputError(f"{_names(files)} have no object in common", "shards of one run are joined by --merge")
    matched = []
    for file in files:
        place = {name: row for row, name in enumerate(file.ids.tolist())}
        matched.append(file.only(np.array([place[name] for name in first.ids[shared].tolist()], np.intp)))
    for file in matched[1:]:
        same = (file.areas == matched[0].areas) & (file.category_ids == matched[0].category_ids)
        odd = np.flatnonzero(~(same & (file.image_ids == matched[0].image_ids)))
        if len(odd):
            raise InputError(
                f"object {file.ids[odd[0]]} is not the same in {first.path} and {file.path}",
                "they are results of different annotation files",
            )
    return matched


def _shared_ids(files: Sequence[Results]) -> NDArray[np.int64]:
    shared = files[0].ids
    for file in files[1:]:
        shared = np.intersect1d(shared, file.ids)
    return shared


def differences(first: Results, other: Results, groups: Mapping[str, Rows]) -> list[Difference]:
    """How much better `other` is than `first`, object by object. Both come from `common_objects`."""
    paired = other.ious - first.ious
    return [
        Difference(
            name,
            int(rows.sum()),
            float(paired[rows].mean()) if rows.any() else None,
            bootstrap_interval(paired[rows], first.image_ids[rows]),
        )
        for name, rows in groups.items()
    ]


def worst(results: Results, count: int) -> list[ObjectResult]:
    """The objects of the lowest IoU, the worst first."""
    return sorted(results.objects, key=lambda result: (result.iou, result.id))[:count]


def merge(files: Sequence[Results]) -> Results:
    """Shards of one run as one. All shards of a run give the list that the run would have given undivided.

    InputError where an object is in two files, or the files are not of one run.
    """
    owners: dict[int, Results] = {}
    for file in files:
        for result in file.objects:
            other = owners.setdefault(result.id, file)
            if other is not file:
                raise InputError(
                    f"object {result.id} is in both {other.path} and {file.path}", "merge shards of one run, each once"
                )
    first = files[0]
    for file in files[1:]:
        ours, theirs = _but_shard(first), _but_shard(file)
        changed = ", ".join(key for key in ours if ours[key] != theirs.get(key)) if theirs else "their record"
        if ours != theirs:
            raise InputError(
                f"{first.path} and {file.path} are not of one run: they differ in {changed or 'their record'}",
                "merge shards that were made with the same options",
            )
    return Results(first.path, _in_turns(files), _merged_meta(files))


def missing_shards(files: Sequence[Results]) -> list[int]:
    """Numbers of the shards that a merge lacks; none where the files are not recorded as shards."""
    shards = [file.settings["shard"] for file in files if file.settings.get("shard")]
    if len(shards) < len(files):
        return []
    return sorted(set(range(1, shards[0][1] + 1)) - {part for part, _ in shards})


def _but_shard(file: Results) -> dict[str, Any]:
    """Shards of 4 and of 5 must not be mixed, so the number of shards stays."""
    return {key: value[1] if key == "shard" and value else value for key, value in file.settings.items()}


def _in_turns(files: Sequence[Results]) -> list[ObjectResult]:
    """Photo by photo from one file after the other: photos were dealt out so. Without a record, file by file."""
    if not all(file.settings.get("shard") for file in files):
        return list(chain.from_iterable(file.objects for file in files))
    ordered = sorted(files, key=lambda file: file.settings["shard"][0])
    turns = zip_longest(*(_photos(file.objects) for file in ordered), fillvalue=())
    return list(chain.from_iterable(chain.from_iterable(turns)))


def _photos(objects: Iterable[ObjectResult]) -> Iterator[tuple[ObjectResult, ...]]:
    for _, group in groupby(objects, attrgetter("image_id")):
        yield tuple(group)


def _merged_meta(files: Sequence[Results]) -> dict[str, Any]:
    meta = {key: value for key, value in files[0].meta.items() if key != "results"}
    if not meta:
        return {}
    whole = not missing_shards(files)
    per_run = {"annotations_without_mask"}  # counted before photos were dealt out
    counts = {
        key: value if key in per_run else sum(file.meta.get("counts", {}).get(key, 0) for file in files)
        for key, value in meta.get("counts", {}).items()
    }
    shard = [1, 1] if whole else sorted(file.settings["shard"] for file in files if file.settings.get("shard"))
    return {**meta, "settings": {**(meta.get("settings") or {}), "shard": shard}, "counts": counts}


def _names(files: Sequence[Results]) -> str:
    return " and ".join(str(file.path) for file in files)

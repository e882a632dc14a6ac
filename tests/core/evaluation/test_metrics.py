"""Result files, read and judged: ours and NVIDIA NanoSAM's, compared, joined and refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nanosam_cli.core.errors import InputError, UsageError
from nanosam_cli.core.evaluation.metrics import (
    bootstrap_interval,
    common_objects,
    differences,
    group_rows,
    mean_iou_by_size,
    merge,
    size_rows,
    summarise,
    worst,
)
from nanosam_cli.core.evaluation.results import Results, find_categories, read_results, write_results
from tests.evaluation_data import nanosam_results

NAMES = {1: "person", 18: "dog", 44: "Bottle"}


def save(path: Path, rows: Any) -> Path:
    path.write_text(rows if isinstance(rows, str) else json.dumps(rows))
    return path


def results(tmp_path: Path, rows: Any, name: str = "results.json") -> Results:
    return read_results(save(tmp_path / name, rows))


def recorded(tmp_path: Path, name: str, rows: Any, **settings: Any) -> Results:
    """Results with a record."""
    meta = {"settings": {"annotations_sha256": "a", "shard": [1, 1], **settings}, "counts": {"photos": 3}}
    write_results(tmp_path / name, results(tmp_path, rows, "plain.json").objects, meta, overwrite=True)
    return read_results(tmp_path / name)


# reading


def test_nanosams_own_file_is_read(tmp_path: Path) -> None:
    rows = nanosam_results(50)
    found = results(tmp_path, rows)
    assert [result.to_dict() for result in found.objects] == rows
    assert found.meta == found.categories == {}
    assert found.name == "results"


def test_what_is_written_comes_back(tmp_path: Path) -> None:
    found = results(tmp_path, nanosam_results(5))
    write_results(tmp_path / "copy.json", found.objects, {"model": "m"}, overwrite=False)
    copy = read_results(tmp_path / "copy.json")
    assert copy.objects == found.objects
    assert copy.name == "m"
    assert isinstance(json.loads((tmp_path / "copy.json").read_text()), list)


ROW = nanosam_results(3)[2]


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        (json.dumps(nanosam_results(5))[:-30], "not a whole JSON file"),
        ("", "not a whole JSON file"),
        ('{"mIoU": 0.7}', "not a list of results"),
        ([ROW, 7], "entry 1: not a result"),
        ([{key: value for key, value in ROW.items() if key != "iou"}], "entry 0: not a result: KeyError"),
        ([ROW | {"iou": "high"}], "entry 0: not a result: ValueError"),
        ([ROW | {"iou": 1.5}], "iou 1.5"),
        ([ROW | {"iou": float("nan")}], "iou nan"),
        ([ROW | {"area": -1}], "area -1"),
        ([ROW | {"area": 10**400}], "entry 0: not a result: OverflowError"),
        ("[" * 100_000, "not a whole JSON file"),
        ([ROW | {"box": [1, 2, 3]}], "entry 0"),
        ([ROW | {"id": 1.5}], "entry 0"),
        ([ROW, ROW], "two results of object 1002"),
    ],
)
def test_corrupt_results(tmp_path: Path, rows: Any, words: str) -> None:
    with pytest.raises(InputError, match=words):
        results(tmp_path, rows)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"results": 3}, "results: must be a section, not 3"),
        ({"results": {"sha256": None}}, "results.sha256: must be str, not None"),
        ({"settings": [1]}, r"settings: must be a section, not \[1\]"),
        ({"settings": {"shard": [1, 2, 3]}}, "settings.shard: needs 2 values, not 3"),
        ({"settings": {"shard": [0, 10**30]}}, r"settings.shard\[0\]: must be at least 1"),
        ({"settings": {"shard": [1, 10**9]}}, r"settings.shard\[1\]: must be at most 100000, not 1000000000"),
        ({"settings": {"steps": 3}}, "settings.steps: must be a list, not 3"),
        ({"settings": {"prompt": {}}}, "settings.prompt: must be str, not {}"),
        ({"counts": {"photos": "many"}}, "counts.photos: must be int, not 'many'"),
        ({"counts": {"photos": 1e300}}, "counts.photos: must be int, not 1e"),
        ({"data": {"annotations": 1, "images": "a"}}, "data.annotations: must be str, not 1"),
        ({"data": {"annotations": "a", "images": "b", "categories": [1]}}, "data.categories: must be a section"),
        ({"data": {"annotations": "a", "images": "b", "categories": {"one": "cat"}}}, "'one' is no whole number"),
        ({"model": ["m"]}, r"model: must be str, not \['m'\]"),
    ],
)
def test_a_record_of_the_wrong_kind(tmp_path: Path, change: dict[str, Any], words: str) -> None:
    recorded(tmp_path, "results.json", nanosam_results(3))
    record = tmp_path / "results.meta.json"
    save(record, json.loads(record.read_text()) | change)
    with pytest.raises(InputError, match=rf"results\.meta\.json cannot be read: .*{words}") as caught:
        read_results(tmp_path / "results.json")
    assert caught.value.hint == f"remove {record} to read results.json without it"


@pytest.mark.parametrize("text", ["", "[]", "[" * 100_000, "9" * 5000, "\udcff"])
def test_a_record_that_is_none(tmp_path: Path, text: str) -> None:
    recorded(tmp_path, "results.json", nanosam_results(3))
    (tmp_path / "results.meta.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(InputError, match=r"results\.meta\.json cannot be read"):
        read_results(tmp_path / "results.json")


def test_a_record_whose_parts_are_left_empty(tmp_path: Path) -> None:
    recorded(tmp_path, "results.json", nanosam_results(3))
    record = tmp_path / "results.meta.json"
    save(record, json.loads(record.read_text()) | {"settings": None, "data": None, "model": None})
    found = read_results(tmp_path / "results.json")
    assert (found.settings, found.categories, found.name) == ({}, {}, "results")
    assert merge([found]).objects == found.objects


def test_records_that_say_little_are_joined_all_the_same(tmp_path: Path) -> None:
    rows = nanosam_results(4)
    files = [recorded(tmp_path, f"{k}.json", rows[k::2], shard=None) for k in (0, 1)]
    assert [result.id for result in merge(files).objects] == [row["id"] for row in (*rows[::2], *rows[1::2])]


def test_files_that_are_not_what_they_should_be(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such results file"):
        read_results(tmp_path / "none.json")
    with pytest.raises(InputError, match="cannot read"):
        read_results(tmp_path)
    with pytest.raises(InputError, match="a run that was not finished") as caught:
        read_results(save(tmp_path / "results.jsonl", '{"settings": {}}\n{"image_id": 1}\n'))
    assert "--resume" in str(caught.value.hint)
    recorded(tmp_path, "results.json", nanosam_results(3))
    save(tmp_path / "results.json", nanosam_results(4))
    with pytest.raises(InputError, match=r"is not the file that results\.meta\.json describes"):
        read_results(tmp_path / "results.json")
    save(tmp_path / "results.meta.json", "{")
    with pytest.raises(InputError, match="cannot be read"):
        read_results(tmp_path / "results.json")


@pytest.mark.parametrize(("words", "found"), [(["18"], [18]), (["dog"], [18]), (["BOTTLE", "1"], [44, 1]), ([], [])])
def test_categories_by_name_and_id(words: list[str], found: list[int]) -> None:
    assert find_categories(words, NAMES) == found
    assert find_categories(["7"], {}) == [7]  # nothing is known, so it may be there


@pytest.mark.parametrize(
    ("word", "names", "hint"),
    [
        ("persn", NAMES, "did you mean person?"),
        ("99", NAMES, "there are: person (1)"),
        ("dog", {}, "--annotations FILE"),
    ],
)
def test_unknown_categories(word: str, names: dict[int, str], hint: str) -> None:
    with pytest.raises(UsageError) as caught:
        find_categories([word], names)
    assert hint in str(caught.value.hint)


# sizes and groups

BORDERS = np.array([0, 1023.9, 1024, 1024.1, 9215.9, 9216, 9216.1, 1e6])


@pytest.mark.parametrize(
    ("size", "ours", "nanosams"),
    [("all", 8, 8), ("small", 2, 3), ("medium", 3, 4), ("large", 3, 3)],
)
def test_borders_of_the_sizes(size: str, ours: int, nanosams: int) -> None:
    """NVIDIA's tool keeps min <= area <= max, so an object on a border is counted in both sizes."""
    assert size_rows(BORDERS, size).sum() == ours
    assert size_rows(BORDERS, size, borders_twice=True).sum() == nanosams


def test_no_object_is_in_two_sizes() -> None:
    sizes = [size_rows(BORDERS, size).astype(int) for size in ("small", "medium", "large")]
    assert (sum(sizes) == 1).all()


def test_groups(tmp_path: Path) -> None:
    found = results(tmp_path, nanosam_results(60))
    assert list(group_rows(found)) == ["all", "small", "medium", "large"]
    assert list(group_rows(found, size="small")) == ["small"]
    by_name = group_rows(found, size="small", names={1: "person"})
    assert list(by_name) == ["small", "person", "18", "44"]
    assert sum(rows.sum() for rows in by_name.values()) == 2 * by_name["small"].sum()
    empty = results(tmp_path, [], "empty.json")
    assert list(group_rows(empty, names=NAMES)) == ["all"]


# statistics


def test_summaries(tmp_path: Path) -> None:
    rows = [ROW | {"id": number, "image_id": number % 2, "iou": iou} for number, iou in enumerate((0.5, 0.6, 0.8, 1))]
    (one,) = summarise(results(tmp_path, rows), {"all": np.ones(4, bool)})
    assert one.mean_iou == pytest.approx(0.725)
    assert one.over == {0.5: 0.75, 0.75: 0.5, 0.9: 0.25}  # above, not at
    assert one.interval is not None
    assert one.interval[0] <= one.mean_iou <= one.interval[1]
    none, single = summarise(results(tmp_path, rows[:1]), {"none": np.zeros(1, bool), "one": np.ones(1, bool)})
    assert (none.objects, none.mean_iou, none.interval, none.over) == (0, None, None, None)
    assert (single.objects, single.mean_iou, single.interval) == (1, 0.5, None)
    assert json.loads(json.dumps([one.record(), none.record()]))[1]["mean_iou"] is None


def test_the_interval_is_that_of_the_normal_distribution() -> None:
    """Where every object has a photo of its own, the mean's interval is known: 1.96 standard errors."""
    values = np.random.default_rng(0).normal(0.6, 0.2, 4000)
    interval = bootstrap_interval(values, np.arange(4000))
    error = 1.96 * values.std() / np.sqrt(4000)
    assert interval == pytest.approx((values.mean() - error, values.mean() + error), abs=0.1 * error)
    assert bootstrap_interval(values, np.arange(4000)) == interval


def test_objects_of_one_photo_are_not_taken_for_independent() -> None:
    random = np.random.default_rng(0)
    per_photo = np.repeat(random.normal(0.6, 0.2, 40), 50)
    photos = np.repeat(np.arange(40), 50)
    (low, high), alone = bootstrap_interval(per_photo, photos) or (0, 0), bootstrap_interval(per_photo, np.arange(2000))
    assert alone is not None
    assert high - low > 4 * (alone[1] - alone[0])


def test_mean_iou_by_size(tmp_path: Path) -> None:
    found = results(tmp_path, [ROW | {"area": 5.0, "iou": 0.25}])
    means = mean_iou_by_size(found.objects)
    assert (means["all"], means["small"]) == (0.25, 0.25)
    assert np.isnan(means["large"])


def test_worst(tmp_path: Path) -> None:
    rows = [ROW | {"id": number, "iou": iou} for number, iou in ((1, 0.5), (2, 0.1), (4, 0.1), (3, 0.9))]
    assert [result.id for result in worst(results(tmp_path, rows), 3)] == [2, 4, 1]


def test_thirty_six_thousand_objects(tmp_path: Path) -> None:
    """As many as COCO val2017 has; what they cost in time is `benchmarks/evaluation.py`'s to say."""
    found = read_results(save(tmp_path / "results.json", nanosam_results(36_000, photos=5000)))
    summaries = summarise(found, group_rows(found))
    summaries += summarise(found, group_rows(found, names=NAMES))
    assert sum(summary.objects for summary in summaries) == 4 * 36_000


# comparing


def test_differences_are_paired(tmp_path: Path) -> None:
    """A small gain that all objects have is certain, however much they differ among themselves."""
    before = nanosam_results(200)
    after = [row | {"iou": row["iou"] * 0.99 + 0.01} for row in before[::-1] if row["id"] != 1007]
    first, second = common_objects([results(tmp_path, before), results(tmp_path, after, "after.json")])
    assert len(first.objects) == len(second.objects) == 199
    assert first.ids.tolist() == second.ids.tolist()
    (gain,) = differences(first, second, {"all": np.ones(199, bool)})
    assert gain.mean == pytest.approx(0.005, abs=0.001)
    assert gain.interval is not None
    assert gain.interval[0] > 0
    (none,) = differences(first, second, {"none": np.zeros(199, bool)})
    assert (none.objects, none.mean, none.interval) == (0, None, None)


def test_results_of_other_annotations_are_not_compared(tmp_path: Path) -> None:
    rows = nanosam_results(20)
    first = results(tmp_path, rows)
    with pytest.raises(InputError, match="no object in common"):
        common_objects([first, results(tmp_path, [row | {"id": row["id"] + 99} for row in rows], "b.json")])
    with pytest.raises(InputError, match="object 1000 is not the same"):
        common_objects([first, results(tmp_path, [row | {"area": 7.0} for row in rows], "b.json")])
    with pytest.raises(InputError, match="different annotation files"):
        common_objects(
            [recorded(tmp_path, "a.json", rows), recorded(tmp_path, "b.json", rows, annotations_sha256="other")]
        )
    none = results(tmp_path, [], "none.json")
    assert [len(file.objects) for file in common_objects([first, none])] == [0, 0]


# joining


def test_files_without_a_record_are_joined_in_their_order(tmp_path: Path) -> None:
    rows = nanosam_results(20)
    joined = merge([results(tmp_path, rows[:5], "a.json"), results(tmp_path, rows[5:], "b.json")])
    assert [result.to_dict() for result in joined.objects] == rows
    assert joined.meta == {}


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"shard": [2, 2], "protocol": "edgesam"}, "differ in protocol"),
        ({"shard": [2, 3]}, "differ in shard"),
        (None, "differ in their record"),
    ],
)
def test_files_of_other_runs_are_not_joined(tmp_path: Path, settings: dict[str, Any] | None, words: str) -> None:
    rows = nanosam_results(20)
    first = recorded(tmp_path, "a.json", rows[:5], shard=[1, 2], protocol="nanosam")
    if settings is None:
        other = results(tmp_path, rows[5:], "b.json")
    else:
        other = recorded(tmp_path, "b.json", rows[5:], **{"protocol": "nanosam", **settings})
    with pytest.raises(InputError, match=words):
        merge([first, other])


def test_no_object_is_joined_twice(tmp_path: Path) -> None:
    rows = nanosam_results(20)
    with pytest.raises(InputError, match=r"object 1004 is in both .*a\.json and .*b\.json"):
        merge([results(tmp_path, rows[:5], "a.json"), results(tmp_path, rows[4:], "b.json")])

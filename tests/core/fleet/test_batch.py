"""Jobs over many photos without Ray: sources, shards, resuming and merging, on a decoder that draws its boxes."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from nanosam_cli.core.errors import InputError, NanosamError, OutputError, UsageError
from nanosam_cli.core.loading.choice import ModelChoice
from nanosam_cli.core.loading.load import open_predictor
from nanosam_cli.core.prompting.options import PromptOptions
from tests.batch_data import picture
from tests.command_line import run_nanosam

pa = pytest.importorskip("pyarrow", reason="batches need the extra `batch`")
pq = pytest.importorskip("pyarrow.parquet")

from nanosam_cli.core.fleet.decode import Decoder, ShardWork  # noqa: E402
from nanosam_cli.core.fleet.merge import merge_shards  # noqa: E402
from nanosam_cli.core.fleet.output import Counts, read_manifest, read_rows  # noqa: E402
from nanosam_cli.core.fleet.run import BatchPlan, plan_batch, run_batch  # noqa: E402
from nanosam_cli.core.fleet.segmenter import SegmenterSpec, ShardSegmenter  # noqa: E402
from nanosam_cli.core.fleet.sources import open_source  # noqa: E402

Plan = Callable[..., BatchPlan]

FOUND = [
    {"file_name": "a.png", "image_id": 7, "category_id": 9, "bbox": [10, 20, 40, 30], "score": 0.9},
    {"file_name": "a.png", "image_id": 7, "category_id": 4, "bbox": [30, 30, 40, 40], "score": 0.6},
    {"file_name": "c.png", "image_id": 2, "category_id": 9, "bbox": [5, 5, 20, 20], "score": 0.3},
]


def one_process(works: Iterator[ShardWork], decoder: Decoder, spec: SegmenterSpec) -> Iterator[pa.Table]:
    """The two stages that Ray runs, one after the other; the last shard comes first and photos come singly."""
    segmenter = ShardSegmenter(spec)
    for work in reversed(list(works)):
        for table in reversed(list(decoder.tables(work))):
            yield segmenter(table)
    segmenter.close()


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Four photos of several sizes, one of which is broken."""
    folder = tmp_path / "photos"
    for number, name in enumerate(("a.png", "c.png", "sub/d.png")):
        picture(folder / name, number, 100 + 20 * number)
    (folder / "b.png").write_bytes(b"no picture")
    return folder


@pytest.fixture
def plan(own_files: tuple[Path, Path]) -> Plan:
    choice = ModelChoice(encoder=own_files[0], decoder=own_files[1])

    def made(source: Path | str, column: str = "image", id_column: str | None = None, **asked: Any) -> BatchPlan:
        with open_predictor(choice) as predictor:
            opened = open_source(str(source), column, id_column)
            size = asked.pop("shard_size", 2)
            return plan_batch(opened, PromptOptions(**asked), predictor, choice, shard_size=size)

    return made


def saved(path: Path, content: Any) -> Path:
    path.write_text(json.dumps(content))
    return path


def rows_of(folder: Path) -> dict[str, dict[str, Any]]:
    return {row["id"]: row for row in read_rows(folder, read_manifest(folder)["shards"])}


def test_a_folder_becomes_shards_in_the_order_of_its_photos(photos: Path, tmp_path: Path, plan: Plan) -> None:
    out = tmp_path / "out"
    counts = run_batch(plan(photos, everything=True, grid=3), out, one_process)
    assert counts == Counts(4, counts.objects, 1)
    assert counts.objects > 0
    assert sorted(path.name for path in out.iterdir()) == ["manifest.json", "part-00000.parquet", "part-00001.parquet"]
    rows = rows_of(out)
    assert list(rows) == ["a.png", "b.png", "c.png", "sub/d.png"]
    assert (rows["c.png"]["width"], rows["c.png"]["height"]) == (120, 80)
    assert "b.png" in rows["b.png"]["error"]
    assert rows["b.png"]["objects"] == []
    assert read_manifest(out)["counts"] == {"photos": 4, "objects": counts.objects, "errors": 1}


@pytest.mark.parametrize("options", [["--everything", "--grid", "3"], ["--everything", "--grid", "4", "--crops", "1"]])
def test_merged_shards_are_the_file_that_segment_writes(
    options: list[str], photos: Path, tmp_path: Path, plan: Plan, own_files: tuple[Path, Path]
) -> None:
    (photos / "b.png").unlink()
    (photos / "sub" / "d.png").rename(photos / "d.png")
    grid, crops = int(options[2]), 1 if "--crops" in options else None
    run_batch(plan(photos, everything=True, grid=grid, crop_layers=crops), tmp_path / "out", one_process)
    for kind in ("coco", "coco-dataset"):
        merged = merge_shards(tmp_path / "out", kind, tmp_path / f"{kind}.json")
        model = ["--encoder", own_files[0], "--decoder", own_files[1]]
        ran = run_nanosam("segment", photos, *options, "--format", kind, "-o", tmp_path / f"one-{kind}.json", *model)
        assert ran.code == 0, ran.err
        assert merged.photos == 3
        assert (tmp_path / f"{kind}.json").read_bytes() == (tmp_path / f"one-{kind}.json").read_bytes()


def test_detections_keep_their_numbers_scores_and_classes(
    photos: Path, tmp_path: Path, plan: Plan, own_files: tuple[Path, Path]
) -> None:
    found = saved(tmp_path / "found.json", FOUND)
    planned = plan(photos, detections=found, shard_size=1)
    assert any("left out" in note for note in planned.prompts.notes)
    run_batch(planned, tmp_path / "out", one_process)
    merge_shards(tmp_path / "out", "coco", tmp_path / "merged.json")
    ran = run_nanosam(
        *("segment", photos / "a.png", photos / "c.png", "--detections", found, "--format", "coco"),
        *("-o", tmp_path / "one.json", "--encoder", own_files[0], "--decoder", own_files[1]),
    )
    assert ran.code == 0, ran.err
    assert (tmp_path / "merged.json").read_bytes() == (tmp_path / "one.json").read_bytes()
    assert [row["image_id"] for row in json.loads((tmp_path / "merged.json").read_text())] == [7, 7, 2]


def test_yolo_rows_lie_where_the_photos_did(photos: Path, tmp_path: Path, plan: Plan) -> None:
    run_batch(plan(photos, everything=True, grid=2), tmp_path / "out", one_process)
    merged = merge_shards(tmp_path / "out", "yolo", tmp_path / "labels")
    assert merged.failed == 1
    assert (tmp_path / "labels" / "sub" / "d.txt").read_text().startswith("0 ")
    assert (tmp_path / "labels" / "classes.txt").exists()


def parquet(path: Path, photos: Path, **columns: Any) -> Path:
    rows = {"id": ["one", "two"], "image": [(photos / name).read_bytes() for name in ("a.png", "c.png")], **columns}
    pq.write_table(pa.table(rows), path)
    return path


BOXES = [[[10.0, 20.0, 50.0, 50.0], [30.0, 30.0, 70.0, 70.0]], [[5.0, 5.0, 25.0, 25.0]]]


def test_parquet_brings_bytes_boxes_and_classes(photos: Path, tmp_path: Path, plan: Plan) -> None:
    table = parquet(tmp_path / "in.parquet", photos, boxes=BOXES, classes=[["cat", "dog"], ["dog"]])
    run_batch(plan(table), tmp_path / "out", one_process)
    rows = rows_of(tmp_path / "out")
    assert list(rows) == ["one", "two"]
    assert [(one["class"], one["category_id"], one["box"]) for one in rows["one"]["objects"]] == [
        ("cat", 1, BOXES[0][0]),
        ("dog", 2, BOXES[0][1]),
    ]
    assert [one["category_id"] for one in rows["two"]["objects"]] == [2]


def test_parquet_brings_paths_points_and_their_labels(photos: Path, tmp_path: Path, plan: Plan) -> None:
    paths = [str(photos / "a.png"), str(photos / "gone.png")]
    points = [[[20.0, 30.0], [60.0, 60.0]], [[20.0, 30.0]]]
    table = parquet(tmp_path / "in.parquet", photos, image=paths, points=points, labels=[[1, 0], [1]])
    run_batch(plan(table), tmp_path / "out", one_process)
    rows = rows_of(tmp_path / "out")
    assert len(rows["one"]["objects"]) == 1
    assert "gone.png" in rows["two"]["error"]


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"boxes": BOXES, "classes": [["cat"], ["dog"]]}, "labels: 1 for 2 objects"),
        ({"boxes": [[[1.0, 2.0, float("nan"), 9.0]], BOXES[1]]}, "is not [x0, y0, x1, y1]"),
        ({"boxes": [[[1.0, 2.0, 3.0]], BOXES[1]]}, "is not [x0, y0, x1, y1]"),
        ({"points": [[[1.0, 2.0]], [[9.0, 9.0]]], "labels": [[1, 0], [1]]}, "2 labels for 1 points"),
    ],
    ids=["classes of another length", "NaN", "three numbers", "labels of another length"],
)
def test_a_row_with_a_bad_prompt_has_the_reason_and_the_next_its_masks(
    columns: dict[str, Any], words: str, photos: Path, tmp_path: Path, plan: Plan
) -> None:
    run_batch(plan(parquet(tmp_path / "in.parquet", photos, **columns)), tmp_path / "out", one_process)
    rows = rows_of(tmp_path / "out")
    assert words in rows["one"]["error"]
    assert len(rows["two"]["objects"]) == 1


def test_a_table_of_prompts_is_joined_by_id(photos: Path, tmp_path: Path, plan: Plan) -> None:
    pq.write_table(pa.table({"id": ["c.png", "nowhere"], "boxes": BOXES}), tmp_path / "prompts.parquet")
    planned = plan(photos, prompts=tmp_path / "prompts.parquet")
    run_batch(planned, tmp_path / "out", one_process)
    assert [len(row["objects"]) for row in rows_of(tmp_path / "out").values()] == [2]
    assert any("nowhere" in note for note in planned.prompts.notes)


def test_a_tar_has_photos_with_their_prompts_beside_them(photos: Path, tmp_path: Path, plan: Plan) -> None:
    with tarfile.open(tmp_path / "in.tar", "w") as tar:
        for key, name in (("x/1", "a.png"), ("x/2", "c.png")):
            about = json.dumps({"boxes": BOXES[1], "classes": [key]}).encode()
            for suffix, data in ((".png", (photos / name).read_bytes()), (".json", about)):
                member = tarfile.TarInfo(key + suffix)
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
    run_batch(plan(tmp_path / "in.tar"), tmp_path / "out", one_process)
    rows = rows_of(tmp_path / "out")
    assert {key: row["objects"][0]["category_id"] for key, row in rows.items()} == {"x/1": 1, "x/2": 2}


def bad_sources(folder: Path, photos: Path) -> dict[str, tuple[Path | str, dict[str, Any], type[NanosamError], str]]:
    twice = parquet(folder / "twice.parquet", photos, id=["one", "one"], boxes=BOXES)
    bare = parquet(folder / "bare.parquet", photos)
    (folder / "broken.parquet").write_bytes(b"PAR1")
    (folder / "empty").mkdir()
    mixed = folder / "mixed"
    mixed.mkdir()
    picture(mixed / "a.png", 0)
    (mixed / "b.tar").write_bytes(b"")
    every = {"everything": True}
    return {
        "an id twice": (twice, every, InputError, "an id twice: one"),
        "no prompts": (bare, {}, UsageError, "no prompt"),
        "no such column": (bare, {**every, "column": "img"}, InputError, "has no column img"),
        "broken": (folder / "broken.parquet", every, InputError, "cannot read"),
        "empty": (folder / "empty", every, InputError, "no photos in"),
        "missing": (folder / "nowhere", every, InputError, "no such place"),
        "several kinds": (mixed, every, InputError, "several kinds"),
        "unknown service": ("nowhere://a/b", every, InputError, "cannot read"),
    }


KINDS = [
    "an id twice",
    "no prompts",
    "no such column",
    "broken",
    "empty",
    "missing",
    "several kinds",
    "unknown service",
]


@pytest.mark.parametrize("kind", KINDS)
def test_a_bad_source_is_refused_with_words(kind: str, photos: Path, tmp_path: Path, plan: Plan) -> None:
    source, asked, error, words = bad_sources(tmp_path, photos)[kind]
    with pytest.raises(error, match=words):
        plan(source, **asked)


def cut_off(works: Iterator[ShardWork], decoder: Decoder, spec: SegmenterSpec) -> Iterator[pa.Table]:
    """A run that ends in the middle of its second shard."""
    for number, table in enumerate(one_process(works, decoder, spec)):
        if number == 3:
            raise KeyboardInterrupt
        yield table


def test_a_run_that_was_cut_off_goes_on_to_the_same_shards(photos: Path, tmp_path: Path, plan: Plan) -> None:
    planned = plan(photos, everything=True, grid=3)
    with pytest.raises(KeyboardInterrupt):
        run_batch(planned, tmp_path / "out", cut_off)
    assert read_manifest(tmp_path / "out")["shards_done"] == 1
    first = (tmp_path / "out" / "part-00001.parquet").stat().st_mtime_ns
    (tmp_path / "out" / "part-00000.parquet").write_bytes(b"PAR1 cut off")
    counts = run_batch(planned, tmp_path / "out", one_process, resume=True)
    assert (tmp_path / "out" / "part-00001.parquet").stat().st_mtime_ns == first
    assert counts == run_batch(planned, tmp_path / "whole", one_process)
    for name in ("manifest.json", "part-00000.parquet", "part-00001.parquet"):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_another_job_is_refused(photos: Path, tmp_path: Path, plan: Plan) -> None:
    run_batch(plan(photos, everything=True, grid=2), tmp_path / "out", one_process)
    with pytest.raises(OutputError, match="a job writes into this folder"):
        run_batch(plan(photos, everything=True, grid=2), tmp_path / "out", one_process)
    with pytest.raises(InputError, match="grid was 2, is 3"):
        run_batch(plan(photos, everything=True, grid=3), tmp_path / "out", one_process, resume=True)
    picture(photos / "new.png", 9)
    with pytest.raises(InputError, match="other settings: ids_sha256"):
        run_batch(plan(photos, everything=True, grid=2), tmp_path / "out", one_process, resume=True)


def test_more_broken_photos_than_allowed_end_the_job(photos: Path, tmp_path: Path, plan: Plan) -> None:
    with pytest.raises(InputError, match=r"--max-errors.*b\.png"):
        run_batch(plan(photos, everything=True, grid=2), tmp_path / "out", one_process, max_errors=0)
    with pytest.raises(InputError, match="not finished"):
        merge_shards(tmp_path / "out", "coco", tmp_path / "coco.json")


def test_a_worker_with_another_model_is_refused(photos: Path, plan: Plan) -> None:
    spec = plan(photos, everything=True).spec
    other = SegmenterSpec(spec.choice, {**spec.model, "encoder": {"file": "encoder.onnx", "sha256": "0"}})
    with pytest.raises(NanosamError, match="a worker has another model: encoder was"):
        ShardSegmenter(other)

"""An evaluation as a job: killed and resumed, divided and joined, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from nanosam_cli.core.datasets.coco import read_annotations
from nanosam_cli.core.datasets.photo_files import PhotoFiles
from nanosam_cli.core.errors import InputError, OutputError, UsageError
from nanosam_cli.core.evaluation.metrics import merge, missing_shards
from nanosam_cli.core.evaluation.plan import ObjectFilter, plan_evaluation
from nanosam_cli.core.evaluation.prompting import Prompting
from nanosam_cli.core.evaluation.protocols import PROTOCOLS
from nanosam_cli.core.evaluation.results import Results, read_results, write_results
from nanosam_cli.core.evaluation.run import EvaluationRun, start_run
from nanosam_cli.core.evaluation.segmenters import Segmenter, ShapeSegmenter, open_segmenter
from nanosam_cli.core.loading.choice import ModelChoice
from nanosam_cli.core.system.journal import Journal
from tests import evaluation_data as data
from tests.evaluation_data import save_data_set

ELLIPSE = ShapeSegmenter("ellipse")
PROMPTING = Prompting(noise=0.2, seed=3)


class Killed(BaseException):
    """As a signal would end the process: nothing catches it."""


@pytest.fixture
def places(tmp_path: Path) -> tuple[Path, Path]:
    return save_data_set(tmp_path / "data")


def evaluate(
    places: tuple[Path, Path],
    output: Path,
    *,
    segmenter: Segmenter = ELLIPSE,
    kill_after: int | None = None,
    choice: dict[str, Any] | None = None,
    prompting: Prompting = PROMPTING,
    save_masks: bool = False,
    **how: bool,
) -> EvaluationRun:
    images, annotations = places
    asked = ObjectFilter(**{"protocol": PROTOCOLS["nanosam"], **(choice or {})})
    with PhotoFiles(images) as files:
        truth = read_annotations(annotations, images)
        plan = plan_evaluation(truth, files, segmenter, asked, prompting, save_masks=save_masks)
        with start_run(plan, output, **how) as run:
            for step, _ in enumerate(run.steps(segmenter, files), start=1):
                if step == kill_after:
                    raise Killed
            run.finish()
    return run


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


@pytest.mark.parametrize("cut", [0, 1, 25])
def test_a_killed_run_goes_on_to_the_same_files(
    places: tuple[Path, Path], tmp_path: Path, own_files: tuple[Path, Path], cut: int
) -> None:
    """Killed after two of four photos; `cut` bytes of the last line were not written any more."""
    with open_segmenter(ModelChoice(encoder=own_files[0], decoder=own_files[1]), select="argmax") as segmenter:
        evaluate(places, tmp_path / "whole" / "results.json", segmenter=segmenter, save_masks=True)
        output = tmp_path / "killed" / "results.json"
        with pytest.raises(Killed):
            evaluate(places, output, segmenter=segmenter, save_masks=True, kill_after=2)
        journal = output.with_suffix(".jsonl")
        assert not output.exists()
        assert len(journal.read_text().splitlines()) == 3
        journal.write_bytes(journal.read_bytes()[: -cut or None])
        run = evaluate(places, output, segmenter=segmenter, save_masks=True, resume=True)
    assert (run.done, run.total) == (4, 4)
    assert contents(tmp_path / "killed") == contents(tmp_path / "whole")
    assert set(contents(tmp_path / "whole")) == {"results.json", "results.meta.json", "results.masks.json"}


def test_resuming_starts_where_there_is_nothing_and_leaves_what_is_done(
    places: tuple[Path, Path], tmp_path: Path
) -> None:
    output = tmp_path / "results.json"
    evaluate(places, output, resume=True)
    before = output.stat().st_mtime_ns
    assert evaluate(places, output, resume=True).done == 4
    assert output.stat().st_mtime_ns == before
    output.with_suffix(".jsonl").write_bytes(b'{"settings": {"nan')  # killed in the first moment
    assert evaluate(places, output, resume=True).done == 4


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"segmenter": ShapeSegmenter("box")}, 'model was {"name": "ellipse"}, is {"name": "box"}'),
        ({"prompting": Prompting(seed=3)}, "box_noise was 0.2, is 0.0"),
        ({"prompting": Prompting(noise=0.2, seed=4)}, "seed was 3, is 4"),
        ({"choice": {"protocol": PROTOCOLS["edgesam"]}}, 'protocol was "nanosam", is "edgesam"'),
        ({"choice": {"limit": 3}}, "limit was null, is 3"),
        ({"choice": {"categories": ["dog"]}}, r"categories was null, is \[18\]"),
        ({"save_masks": True}, "save_masks was false, is true"),
    ],
)
@pytest.mark.parametrize("finished", [False, True])
def test_other_settings_are_not_resumed(
    places: tuple[Path, Path], tmp_path: Path, change: dict[str, Any], words: str, finished: bool
) -> None:
    output = tmp_path / "results.json"
    if finished:
        evaluate(places, output)
    else:
        with pytest.raises(Killed):
            evaluate(places, output, kill_after=1)
    with pytest.raises(InputError, match=words):
        evaluate(places, output, resume=True, **change)


def test_other_annotations_are_not_resumed(places: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(Killed):
        evaluate(places, tmp_path / "results.json", kill_after=1)
    places[1].write_text(places[1].read_text() + " ")
    with pytest.raises(InputError, match="annotations_sha256 was"):
        evaluate(places, tmp_path / "results.json", resume=True)


def test_nothing_is_overwritten_unless_forced(places: tuple[Path, Path], tmp_path: Path) -> None:
    output = tmp_path / "results.json"
    with pytest.raises(Killed):
        evaluate(places, output, kill_after=1)
    with pytest.raises(OutputError, match="a run that was not finished"):
        evaluate(places, output)
    evaluate(places, output, force=True)
    with pytest.raises(OutputError, match=r"results\.json exists already"):
        evaluate(places, output)
    evaluate(places, output, force=True)
    with pytest.raises(UsageError, match="--resume goes on"):
        evaluate(places, output, resume=True, force=True)
    with pytest.raises(UsageError, match=r"a \.json file"):
        evaluate(places, tmp_path / "results.csv")
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="cannot write"):
        evaluate(places, tmp_path / "file" / "results.json")


def test_shards_join_to_the_whole(places: tuple[Path, Path], tmp_path: Path) -> None:
    evaluate(places, tmp_path / "whole.json")
    shards: list[Results] = []
    for part in (3, 1, 2):
        output = tmp_path / f"{part}.json"
        evaluate(places, output, choice={"shard": (part, 3)})
        shards.append(read_results(output))
    assert [len({result.image_id for result in shard.objects}) for shard in shards] == [1, 2, 1]
    joined = merge(shards)
    write_results(tmp_path / "joined.json", joined.objects, joined.meta, overwrite=False)
    assert contents(tmp_path)["joined.json"] == contents(tmp_path)["whole.json"]
    whole = read_results(tmp_path / "whole.json")
    assert joined.settings == whole.settings
    assert joined.meta["counts"] == whole.meta["counts"]
    assert missing_shards(shards) == []
    assert missing_shards(shards[:2]) == [2]
    with pytest.raises(UsageError, match="no shard 4 of 3"):
        evaluate(places, tmp_path / "4.json", choice={"shard": (4, 3)})


def test_limit_comes_before_shards(places: tuple[Path, Path], tmp_path: Path) -> None:
    run = evaluate(places, tmp_path / "results.json", choice={"limit": 3, "shard": (2, 2)})
    assert [photo.id for photo in run.plan.photos] == [2]


def test_results_are_nanosams_with_a_record_beside(places: tuple[Path, Path], tmp_path: Path) -> None:
    evaluate(places, tmp_path / "results.json", choice={"categories": ["44", "person"]})
    rows = json.loads((tmp_path / "results.json").read_text())
    assert [list(row) for row in rows] == [["id", "area", "category_id", "iscrowd", "image_id", "box", "iou"]] * 8
    meta = json.loads((tmp_path / "results.meta.json").read_text())
    assert meta["counts"] == {
        "photos": 4,
        "objects": 8,
        "missing_photos": 0,
        "failed_photos": 0,
        "boxes_without_area": 2,
        "empty_masks": 1,
        "annotations_without_mask": 1,
    }
    assert meta["model"] == "ellipse"
    assert meta["settings"]["categories"] == [44, 1]
    assert meta["settings"]["model"] == {"name": "ellipse"}
    assert meta["data"]["categories"] == {"1": "person", "18": "dog", "44": "Bottle"}
    assert {"python", "numpy", "pycocotools"} <= meta["versions"].keys()


def test_models_are_recorded_with_their_hashes(
    places: tuple[Path, Path], tmp_path: Path, own_files: tuple[Path, Path]
) -> None:
    with open_segmenter(ModelChoice(encoder=own_files[0], decoder=own_files[1])) as segmenter:
        model = segmenter.describe()
    assert model["name"] == "fake"
    assert model["decoder"]["file"] == "decoder.onnx"
    assert len(model["encoder"]["sha256"]) == 64
    assert "ONNX Runtime" in model["backend"][0]


def test_saved_masks_are_read_by_pycocotools(
    places: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    run = evaluate(places, tmp_path / "results.json", save_masks=True)
    content = json.loads(places[1].read_text())
    whole = [entry for entry in content["annotations"] if entry["segmentation"]]
    places[1].write_text(json.dumps({**content, "annotations": whole}))
    truth = COCO(str(places[1]))
    found = truth.loadRes(str(tmp_path / "results.masks.json"))
    evaluation = COCOeval(truth, found, "segm")
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    assert evaluation.stats[1] > 0  # AP at IoU 0.5
    ids = [row["annotation_id"] for row in json.loads((tmp_path / "results.masks.json").read_text())]
    assert ids == [target.id for photo in run.plan.photos for target in photo.objects]
    capsys.readouterr()


def test_broken_masks_fail_their_photo_and_are_tried_again(places: tuple[Path, Path], tmp_path: Path) -> None:
    content = json.loads(places[1].read_text())
    whole = places[1].read_text()
    broken = next(entry for entry in content["annotations"] if entry["id"] == 200 + data.COMPRESSED)
    broken["segmentation"] = {"size": list(data.HW), "counts": "o`0"}
    places[1].write_text(json.dumps(content))
    output = tmp_path / "results.json"
    run = evaluate(places, output)
    assert [path.name for path, _ in run.failed] == ["000000000002.png"]
    assert "object 212: the runs" in str(run.failed[0][1])
    assert {result.image_id for result in read_results(output).objects} == {1, 3, 4}
    assert read_results(output).meta["counts"]["failed_photos"] == 1
    assert output.with_suffix(".jsonl").exists()
    assert [path.name for path, _ in evaluate(places, output, resume=True).failed] == ["000000000002.png"]
    places[1].write_text(whole)


@pytest.mark.parametrize(
    ("identity", "words"), [(211, "two annotations with id 211"), ("x", "id 'x' is no whole number"), (True, "id True")]
)
def test_ids_must_tell_objects_apart(places: tuple[Path, Path], tmp_path: Path, identity: Any, words: str) -> None:
    content = json.loads(places[1].read_text())
    content["annotations"][-1]["id"] = identity
    places[1].write_text(json.dumps(content))
    with pytest.raises(InputError, match=words):
        evaluate(places, tmp_path / "results.json")


def test_an_empty_selection_gives_an_empty_list(places: tuple[Path, Path], tmp_path: Path) -> None:
    run = evaluate(places, tmp_path / "results.json", choice={"categories": ["Bottle"], "shard": (2, 2)})
    assert (run.done, run.total) == (0, 0)
    assert (tmp_path / "results.json").read_text() == "[]\n"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no full disk to write to")
def test_full_disk_is_one_message_and_keeps_what_was_written(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    with Journal(path, {"seed": 0}) as journal:
        journal.write({"image_id": 1})
        journal._file.close()
        journal._file = Path("/dev/full").open("wb")  # noqa: SIM115
        with pytest.raises(OutputError, match="disk full"):
            journal.write({"image_id": 2})
    assert [json.loads(line) for line in path.read_text().splitlines()] == [{"settings": {"seed": 0}}, {"image_id": 1}]


def test_a_line_that_was_cut_off_is_no_record(tmp_path: Path) -> None:
    """As a disk that is full leaves it, while the run that met it is still to end in order."""
    with Journal(tmp_path / "results.jsonl", {}) as journal:
        journal.write({"image_id": 1})
        journal._file.write(b'{"image_id": 2, "obj')
        journal._file.flush()
        assert list(journal.records()) == [{"image_id": 1}]


@pytest.mark.parametrize("resume", [False, True])
@pytest.mark.parametrize("content", ['{"image": "a.jpg"}\n', "notes of my own"])
def test_a_file_that_is_no_journal_is_left_alone(tmp_path: Path, content: str, resume: bool) -> None:
    path = tmp_path / "results.jsonl"
    path.write_text(content)
    with pytest.raises((InputError, OutputError), match="is not a run's journal"):
        Journal(path, {"seed": 0}, resume=resume)
    assert path.read_text() == content


def test_nothing_is_left_of_a_run_that_could_not_begin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OutputError("disk full")

    monkeypatch.setattr(Journal, "write", full)
    with pytest.raises(OutputError, match="disk full"):
        Journal(tmp_path / "results.jsonl", {})
    assert not list(tmp_path.iterdir())

"""`nanosam eval coco` from the command line."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unicodedata import normalize

import pytest
import typer
from PIL import Image

from nanosam_cli.commands.eval import CocoPrompt, ProtocolName, Shard, parse_prompt, parse_shard
from nanosam_cli.core.evaluation.protocols import PROTOCOLS
from nanosam_cli.core.evaluation.segmenters import ShapeSegmenter
from tests.command_line import Ran, run_nanosam
from tests.evaluation_data import save_data_set, zipped

Run = Callable[..., Ran]


@pytest.fixture(autouse=True)
def _working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def evaluate(tmp_path: Path) -> Run:
    """`nanosam eval coco` on a small data set in `data/`; of the ellipse unless told otherwise."""
    save_data_set(tmp_path / "data")

    def run(*arguments: object) -> Ran:
        model = () if {"--model", "--encoder"} & set(map(str, arguments)) else ("--model", "ellipse")
        return run_nanosam("eval", "coco", "--images", "data/images", *model, *arguments)

    return run


def rows(path: str = "results.json") -> list[dict[str, Any]]:
    content: list[dict[str, Any]] = json.loads(Path(path).read_text())
    return content


def edit(change: Callable[[dict[str, Any]], None]) -> None:
    path = Path("data/instances.json")
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def test_the_choices_of_the_command_are_those_of_core() -> None:
    assert [protocol.value for protocol in ProtocolName] == list(PROTOCOLS)


def test_table_and_files(evaluate: Run) -> None:
    ran = evaluate()
    assert ran.code == 0, ran.err
    for words in ("ellipse, box prompts", "all", "12", "large", "0", "-", "results.json"):
        assert words in ran.out
    assert "protocol nanosam (crowd kept, best of all masks)" in ran.out
    assert "1 annotations have no segmentation" in ran.err
    assert "2 annotated boxes have no area" in ran.err
    assert "1 annotated masks are empty; their IoU is 0" in ran.err
    assert sorted(path.name for path in Path().iterdir()) == ["data", "results.json", "results.meta.json"]
    assert len(rows()) == 12


def test_zoom(evaluate: Run, own_files: tuple[Path, Path]) -> None:
    """The record says so, the encoder's runs are told, and a run of the whole photo is another run."""
    model = ("--encoder", own_files[0], "--decoder", own_files[1])
    ran = evaluate(*model, "--zoom", "-o", "near.json")
    assert ran.code == 0, ran.err
    matched = re.search(r"the encoder ran (\d+) times for 4 photos", ran.words)
    assert matched
    assert int(matched[1]) > 4
    assert evaluate(*model, "-o", "far.json").code == 0
    near, far = (json.loads(Path(f"{name}.meta.json").read_text())["settings"]["model"] for name in ("near", "far"))
    assert near == {**far, "zoom": True}
    assert [row["id"] for row in rows("near.json")] == [row["id"] for row in rows("far.json")]
    refused = evaluate(*model, "-o", "near.json", "--resume")
    assert (refused.code, "other settings" in refused.words) == (1, True)


def test_a_baseline_takes_no_zoom(evaluate: Run) -> None:
    ran = evaluate("--zoom")
    assert (ran.code, "the baseline ellipse looks at no photo leave --zoom out" in ran.words) == (2, True)


def test_json(evaluate: Run) -> None:
    ran = evaluate("--json", "--protocol", "edgesam", "--box-noise", "0.1", "--seed", "4", "-o", "new/a.json")
    assert ran.code == 0, ran.err
    record = json.loads(ran.out)
    groups = {group["group"]: group for group in record.pop("groups")}
    counts = record.pop("counts")
    assert record == {
        "schema_version": 1,
        "output": "new/a.json",
        "model": "ellipse",
        "protocol": "edgesam",
        "prompt": "box",
        "box_noise": 0.1,
        "seed": 4,
    }
    assert counts["objects"] == groups["all"]["objects"] == 11
    assert groups["all"]["mean_iou"] == pytest.approx(sum(row["iou"] for row in rows("new/a.json")) / 11)
    assert groups["large"]["mean_iou"] is None


@pytest.mark.parametrize("prompt", ["box", "point", "points:3", "box+point"])
@pytest.mark.parametrize("files", ["own_files", "nvidia_files"])
def test_models(evaluate: Run, prompt: str, files: str, request: pytest.FixtureRequest) -> None:
    encoder, decoder = request.getfixturevalue(files)
    ran = evaluate("--image_encoder", encoder, "--mask_decoder", decoder, "--encoder", encoder, "--prompt", prompt)
    assert ran.code == 0, ran.err
    assert len(rows()) == 12
    assert any(row["iou"] > 0 for row in rows())


def test_nanosams_spellings_and_zip_files(evaluate: Run) -> None:
    whole = evaluate()
    archive = zipped(Path("data/images"), Path("photos.zip"), "val2017/")
    ran = run_nanosam(
        *("eval", "coco", "--coco_root", archive, "--coco_ann", "data/instances.json"),
        *("--model", "ellipse", "-o", "zip.json"),
    )
    assert ran.code == 0, ran.err
    assert Path("zip.json").read_bytes() == Path("results.json").read_bytes()
    assert whole.code == 0


def test_what_is_chosen(evaluate: Run) -> None:
    assert evaluate("--category", "dog", "--category", "44", "--limit", "2").code == 0
    assert [row["id"] for row in rows()] == [112, 115, 116, 212]
    assert evaluate("--shard", "2/3").code == 0
    assert {row["image_id"] for row in rows("results-2of3.json")} == {2}
    assert evaluate("--shard", "2/3").code == 1  # there already
    assert evaluate("--category", "Bottle", "--shard", "2/2").code == 0
    assert rows("results-2of2.json") == []


@pytest.mark.parametrize("place", ["--model=box", "--model=ellipse"])
def test_save_masks(evaluate: Run, place: str) -> None:
    assert evaluate("--model", place.partition("=")[2], "--save-masks").code == 0
    masks = rows("results.masks.json")
    assert [mask["annotation_id"] for mask in masks] == [row["id"] for row in rows()]
    assert {tuple(mask["segmentation"]["size"]) for mask in masks} == {(60, 80)}


def test_interrupted_and_resumed(evaluate: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    evaluate("-o", "whole.json")
    prepare = ShapeSegmenter.prepare

    def interrupt(self: ShapeSegmenter, photo: Any, read: Any) -> Any:
        def raise_it(prompt: Any) -> Any:
            raise KeyboardInterrupt

        return raise_it if photo.id == 3 else prepare(self, photo, read)

    with monkeypatch.context() as patched:
        patched.setattr(ShapeSegmenter, "prepare", interrupt)
        ran = evaluate()
    assert (ran.code, ran.out) == (130, "")
    assert "2 of 4 photos are done; --resume goes on with them" in ran.err
    ran = evaluate()
    assert ran.code == 1
    assert "results.jsonl holds a run that was not finished" in ran.err
    ran = evaluate("--resume", "--box-noise", "0.1")
    assert ran.code == 1
    assert "box_noise was 0.0, is 0.1" in ran.err
    assert evaluate("--resume").code == 0
    assert Path("results.json").read_bytes() == Path("whole.json").read_bytes()
    assert not Path("results.jsonl").exists()
    assert "ellipse, box prompts" in evaluate("--resume").out  # done already: only the table


def test_kill_9_loses_no_photo_that_was_done(evaluate: Run) -> None:
    evaluate("-o", "whole.json")
    program = (
        "import os, signal, time\n"
        "from nanosam_cli.core.evaluation import segmenters\n"
        "prepare = segmenters.ShapeSegmenter.prepare\n"
        "def slow(self, photo, read):\n"
        "    return (lambda prompt: time.sleep(60)) if photo.id == 3 else prepare(self, photo, read)\n"
        "segmenters.ShapeSegmenter.prepare = slow\n"
        "from nanosam_cli.app import main\n"
        "main()\n"
    )
    arguments = ["eval", "coco", "--images", "data/images", "--model", "ellipse"]
    root = str(Path(__file__).parents[2])
    process = subprocess.Popen([sys.executable, "-c", program, *arguments], env={**os.environ, "PYTHONPATH": root})
    journal = Path("results.jsonl")
    deadline = time.monotonic() + 60
    while not (journal.exists() and journal.read_bytes().count(b"\n") == 3):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    journal.write_bytes(journal.read_bytes() + b'{"image_id": 3, "obj')  # as a kill in the middle of a line leaves it
    assert evaluate("--resume").code == 0
    assert Path("results.json").read_bytes() == Path("whole.json").read_bytes()


# bad input


def test_missing_photos(evaluate: Run, own_files: tuple[Path, Path]) -> None:
    files = ("--encoder", own_files[0], "--decoder", own_files[1])
    Path("data/images/000000000002.png").unlink()
    ran = evaluate(*files)
    assert ran.code == 1
    assert "1 of 4 photos missing in data/images: 000000000002.png" in ran.err
    assert "--allow-missing" in ran.err
    assert not Path("results.json").exists()
    ran = evaluate(*files, "--allow-missing", "--json")
    assert ran.code == 0, ran.err
    assert json.loads(ran.out)["counts"]["missing_photos"] == 1
    assert {row["image_id"] for row in rows()} == {1, 3, 4}
    for path in Path("data/images").iterdir():
        path.unlink()
    ran = evaluate(*files, "--allow-missing", "--force")
    assert ran.code == 1
    assert "none of the 4 photos" in ran.err


def test_broken_photos(evaluate: Run, own_files: tuple[Path, Path]) -> None:
    files = ("--encoder", own_files[0], "--decoder", own_files[1])
    photo = Path("data/images/000000000002.png")
    whole = photo.read_bytes()
    photo.write_bytes(whole[:200])
    ran = evaluate(*files)
    assert ran.code == 1
    assert "000000000002.png is passed over: " in ran.err
    assert "no result for 1 photo" in ran.err
    assert {row["image_id"] for row in rows()} == {1, 3, 4}  # what could be done is there
    photo.write_bytes(whole)
    assert evaluate(*files, "--resume").code == 0
    assert len(rows()) == 12
    photo.write_bytes(whole[:200])
    assert evaluate(*files, "--allow-missing", "--force").code == 0
    assert not Path("results.jsonl").exists()


def test_no_data() -> None:
    ran = run_nanosam("eval", "coco", "--model", "box")
    assert ran.code == 1
    assert "nanosam download coco-val2017" in ran.err


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda content: content.clear(), "is not a COCO instances file: 'images' is missing"),
        (lambda content: content["annotations"][0].update(bbox=[1, 2, 3]), "annotation 111 has no usable bbox"),
        (lambda content: content["annotations"][0].update(bbox=[1, 2, 3, float("nan")]), "no finite number"),
        (lambda content: content["images"][0].update(id="one"), "image 1: id 'one' is no whole number"),
        (lambda content: content["annotations"][0].update(category_id=[1]), "annotation 111: category_id [1] is no"),
        (lambda content: content["images"][1].update(id=1), "has two images with id 1: 000000000001.png and"),
        (lambda content: content["annotations"][0].update(segmentation="abc"), "annotation 111 has a segmentation"),
        (lambda content: content["annotations"][0].update(segmentation=[[1e9] * 6]), "far outside the photo"),
        (lambda content: content["annotations"][0].update(segmentation={"size": [9, 9], "counts": [81]}), "(9, 9)"),
        (
            lambda content: content["annotations"][0].update(segmentation=[[10**400] * 6]),
            "a segmentation that cannot be",
        ),
        (lambda content: content["annotations"][0].update(area=10**400), "no usable bbox and area"),
        (lambda content: content["images"][0].update(height=-9), "image 1 has the size 80x-9"),
        (lambda content: content["annotations"][1].update(id=111), "two annotations with id 111"),
    ],
)
def test_broken_annotations(evaluate: Run, change: Callable[[dict[str, Any]], None], words: str) -> None:
    edit(change)
    ran = evaluate()
    assert ran.code == 1
    assert words in ran.words
    assert "Traceback" not in ran.err


def test_what_is_missing_is_worked_out_from_the_mask(evaluate: Run) -> None:
    assert evaluate("--model", "box").code == 0
    before = {row["id"]: row for row in rows()}
    edit(lambda content: [entry.pop(key) for entry in content["annotations"][:2] for key in ("bbox", "area")])
    assert evaluate("--model", "box", "--force").code == 0
    after = {row["id"]: row for row in rows()}
    assert after[111]["box"] == [0, 0, 37, 40]  # of the square and the corner, as annotated
    assert after[111]["area"] == 30 * 30 + 5 * 5
    assert after[112]["area"] == before[112]["area"]
    assert {key: after[key] for key in after if key > 112} == {key: before[key] for key in before if key > 112}


def test_annotations_without_a_photo_are_counted(evaluate: Run) -> None:
    edit(lambda content: content["annotations"][0].update(image_id=99))
    ran = evaluate()
    assert ran.code == 0, ran.err
    assert "1 annotation of photos that are not listed left out: annotation 111 of image 99" in ran.words
    assert len(rows()) == 11


@pytest.mark.parametrize("inside", ["", "inside/"])
def test_names_are_text_in_whatever_code_points(evaluate: Run, inside: str) -> None:
    """Composed in the annotation file, decomposed on the disk of a Mac."""
    photo = Path("data/images/000000000001.png")
    photo.rename(photo.with_name(normalize("NFD", "é.png")))
    edit(lambda content: content["images"][0].update(file_name=normalize("NFC", f"{inside}é.png")))
    zipped(Path("data/images"), Path("photos.zip"))
    for images in ("data/images", "photos.zip"):
        ran = evaluate("--images", images, "--annotations", "data/instances.json", "--force")
        assert ran.code == 0, ran.err
        assert len(rows()) == 12


def test_numbers_may_be_written_in_any_way(evaluate: Run) -> None:
    evaluate()
    before = rows()

    def change(content: dict[str, Any]) -> None:
        for image in content["images"]:
            image["id"] = str(image["id"])
        for entry in content["annotations"]:
            entry |= {"category_id": float(entry["category_id"]), "id": f"{entry['id']}.0"}

    edit(change)
    assert evaluate("--force").code == 0
    assert rows() == before
    Path("results.meta.json").unlink()
    Path("results.json").write_text(json.dumps([{**row, "image_id": str(row["image_id"])} for row in before]))
    assert run_nanosam("metrics", "results.json").code == 0


def test_annotations_of_the_photo_on_its_side_are_turned(evaluate: Run, own_files: tuple[Path, Path]) -> None:
    """EXIF 6: the pixels lie on their side, and the annotations are theirs."""
    exif = Image.Exif()
    exif[0x0112] = 6
    for number in (1, 2):
        path = Path(f"data/images/{number:012}.png")
        with Image.open(path) as stored:
            stored.save(path, exif=exif) if number == 1 else stored.resize((160, 120)).save(path)
    evaluate("--limit", 2)
    before = rows()
    ran = evaluate("--limit", 2, "--force", "--encoder", own_files[0], "--decoder", own_files[1])
    assert ran.code == 0, ran.err
    after = rows()
    assert "turned with it" in ran.words
    assert "and so or alike 1 more" in ran.words
    for was, now in zip(before, after):
        x0, y0, x1, y1 = was["box"]
        turned = [60 - y1, x0, 60 - y0, x1] if was["image_id"] == 1 else [2 * x0, 2 * y0, 2 * x1, 2 * y1]
        assert now["box"] == turned
        assert now["area"] == was["area"] * (1 if was["image_id"] == 1 else 4)
    discs = [row["iou"] for row in after if row["id"] in (112, 212)]
    assert min(discs) > 0.7  # the decoder draws the box, of which a disc is pi / 4


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("--category", "dgo"), 2, "did you mean dog?"),
        (("--category", "99"), 2, "unknown category: 99"),
        (("--prompt", "point"), 2, "the baseline ellipse needs a box prompt"),
        (("--prompt", "circle"), 2, "is not box, point, points:N or box+point"),
        (("--box-noise", "0.7"), 2, "box noise must be"),
        (("--shard", "3/2"), 2, "is not I/N"),
        (("--limit", "0"), 2, "--limit"),
        (("-o", "results.csv"), 2, "-o results.json"),
        (("--annotations", "none.json"), 1, "no such file or folder: none.json"),
        (("--images", "data/instances.json", "--annotations", "data/instances.json"), 1, "neither a folder nor a zip"),
        (("--model", "nanosam-x0"), 2, "unknown model: nanosam-x0"),
        (("--protocol", "coco"), 2, "nanosam"),
    ],
)
def test_wrong_arguments(evaluate: Run, arguments: tuple[str, ...], code: int, words: str) -> None:
    ran = evaluate(*arguments)
    assert (ran.code, ran.out) == (code, "")
    assert words in ran.words
    assert not list(Path().glob("results*"))


@pytest.mark.parametrize("line", ["coco", "coco --images nowhere", "davis nowhere"])
def test_an_unknown_model_is_told_before_missing_data(line: str) -> None:
    ran = run_nanosam("eval", *line.split(), "--model", "nanosam-x0")
    assert (ran.code, ran.out) == (2, "")
    assert "unknown model: nanosam-x0" in ran.words


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("box", CocoPrompt(True, 0)),
        ("point", CocoPrompt(False, 1)),
        ("points:12", CocoPrompt(False, 12)),
        ("box+point", CocoPrompt(True, 1)),
        ("box+points:2", CocoPrompt(True, 2)),
    ],
)
def test_prompts(text: str, kind: CocoPrompt) -> None:
    assert parse_prompt(text) == kind


@pytest.mark.parametrize("text", ["", "+", "box+", "+point", "point+box", "points", "points:0", "points:x", "boxpoint"])
def test_wrong_prompts(text: str) -> None:
    with pytest.raises(typer.BadParameter):
        parse_prompt(text)


def test_shards() -> None:
    assert parse_shard("2/4") == Shard(2, 4)
    for text in ("0/4", "5/4", "2", "2/4/6", "a/b", "/", "-1/2"):
        with pytest.raises(typer.BadParameter):
            parse_shard(text)

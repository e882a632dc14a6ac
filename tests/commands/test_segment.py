"""`nanosam segment` from the command line, on models that draw what they are asked for."""

from __future__ import annotations

import errno
import json
import os
import signal
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from PIL import Image

from nanosam_cli.core.inference.predictor import Predictor
from nanosam_cli.core.media.mask_codes import rle_to_mask
from nanosam_cli.core.segmentation.formats import FORMATS
from nanosam_cli.core.segmentation.result_record import FOLDER
from tests.command_line import Ran, run_nanosam

Run = Callable[..., Ran]
Box = "10,20,60,50"


@pytest.fixture(autouse=True)
def _working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def segment(own_files: tuple[Path, Path]) -> Run:
    """`nanosam segment` with the fake model."""

    def run(*arguments: object, stdin: bytes = b"") -> Ran:
        return run_nanosam("segment", *arguments, "--encoder", own_files[0], "--decoder", own_files[1], stdin=stdin)

    return run


def photo(path: str | Path, width: int = 100, height: int = 80) -> Path:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    Image.fromarray(noise).save(path)
    return Path(path)


def labels(path: str | Path) -> np.ndarray[Any, Any]:
    with Image.open(path) as image:
        assert image.mode == "P"
        return np.asarray(image)


def files(folder: str | Path = ".") -> list[str]:
    """Names of what is there, but for the record of a run over several photos."""
    return sorted(entry.name for entry in Path(folder).iterdir() if entry.name != FOLDER)


# what is written


def test_label_png_and_table(segment: Run) -> None:
    photo("a.jpg")
    ran = segment("a.jpg", "--box", Box, "--box", "70,60,90,75")
    assert (ran.code, ran.err) == (0, "")
    assert set(np.unique(labels("a_mask.png"))) == {0, 1, 2}
    assert labels("a_mask.png")[35, 35] == 1
    for words in ("10 20 60 50", "70 60 90 75", "predicted IoU", "read", "encode", "decode", "write", "a_mask.png"):
        assert words in ran.out
    assert files() == ["a.jpg", "a_mask.png"]


def test_json(segment: Run) -> None:
    photo("a.jpg")
    ran = segment("a.jpg", "--box", Box, "--json")
    assert ran.out.count("\n") == 1
    record = json.loads(ran.out)
    timings = record.pop("timings_ms")
    assert list(timings) == ["read", "encode", "decode", "write"]
    assert all(ms > 0 for ms in timings.values())
    (found,) = record.pop("objects")
    assert record == {"schema_version": 1, "image": "a.jpg", "size": [80, 100], "notes": [], "output": ["a_mask.png"]}
    mask = labels("a_mask.png") == 1
    assert found["area"] == mask.sum()
    x, y, width, height = found["bbox"]
    assert mask[y : y + height, x : x + width].sum() == mask.sum()
    assert (found["label"], found["object"], found["box"], found["index"]) == (1, 1, [10.0, 20.0, 60.0, 50.0], 0)
    assert 0 < found["predicted_iou"] < 1.5


def test_zoom(segment: Run) -> None:
    """A small object gets a window of its own, a large one is told to need none; masks lie where they lay."""
    photo("a.jpg", 800, 600)
    boxes = ("--box", "700,500,740,520", "--box", "10,20,600,500")
    ran = segment("a.jpg", *boxes, "--zoom", "--json")
    assert ran.code == 0, ran.err
    assert "1 of 2 objects seen closer, in 2 runs of the encoder; a window would show the others hardly" in ran.words
    record = json.loads(ran.out)
    assert record["encodings"] == 2
    assert list(record["timings_ms"]) == ["read", "segment", "write"]
    assert [found["window"] for found in record["objects"]] == [[599, 399, 800, 600], None]
    near, far = (found["bbox"] for found in record["objects"])
    np.testing.assert_allclose(near, (700, 500, 40, 20), atol=1)
    np.testing.assert_allclose(far, (10, 20, 590, 480), atol=3)
    photo("photos/b.jpg", 800, 600)
    photo("photos/c.jpg", 800, 600)
    ran = segment("photos", *boxes, "--zoom", "--exclusive")
    assert "2 of 2 photos done, 4 objects, the encoder ran 4 times; a photo: read" in ran.words


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("--everything", "--everything has no objects to look closer at before it has found them --crops 1"),
        ("--multimask", "--multimask gives readings of different sizes, for which --zoom has no one window"),
    ],
)
def test_what_cannot_be_zoomed(segment: Run, option: str, words: str) -> None:
    photo("a.jpg")
    prompt = () if option == "--everything" else ("--box", Box)
    ran = segment("a.jpg", *prompt, option, "--zoom")
    assert ran.code == 2
    assert words in ran.words


@pytest.mark.parametrize("kind", list(FORMATS))
def test_every_format_has_its_default_name(segment: Run, kind: str) -> None:
    photo("deep/a.jpg")
    ran = segment("deep/a.jpg", "--box", Box, "--format", kind)
    assert ran.code == 0, ran.err
    name = {"png": "a_mask.png", "rle": "a_rle.json", "polygon": "a_polygon.json"}
    name |= {"coco": "coco.json", "coco-dataset": "coco-dataset.json"}
    names = {"yolo": ["a.txt", "classes.txt", "data.yaml"], "labelme": ["a.json"]}.get(
        kind, [name.get(kind, f"a_{kind}.png")]
    )
    assert files() == [*names, "deep"]


def test_the_formats_of_the_command_come_from_the_table() -> None:
    shown = " ".join(run_nanosam("segment", "--help").out.replace("│", " ").split())
    assert "|".join(FORMATS) in shown
    assert all(kind.about in shown for kind in FORMATS.values())
    ran = run_nanosam("segment", "a.jpg", "--box", Box, "--format", "svg")
    assert (ran.code, "unknown format: svg; choose one of png, overlay" in ran.words) == (2, True)


@pytest.mark.parametrize("kind", [kind.name for kind in FORMATS.values() if kind.outlines])
def test_simplify(segment: Run, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    """So far that of the rectangle which this model draws only a triangle is left."""
    photo("a.jpg")
    assert segment("a.jpg", "--box", Box, "--format", kind, "--simplify", "90", "-o", "simple/").code == 0
    monkeypatch.setitem(sys.modules, "shapely", None)  # not needed for exact outlines
    assert segment("a.jpg", "--box", Box, "--format", kind, "-o", "exact/").code == 0
    simple, exact = (
        next(path for path in Path(place).iterdir() if path.name not in ("classes.txt", "data.yaml"))
        for place in ("simple", "exact")
    )
    assert simple.stat().st_size < exact.stat().st_size


def test_pictures(segment: Run) -> None:
    photo("a.png")
    segment("a.png", "--box", Box, "--format", "overlay", "-o", "new/o.png")
    segment("a.png", "--box", Box, "--format", "cutout")
    segment("a.png", "--box", Box)
    mask = labels("a_mask.png") == 1
    original = np.asarray(Image.open("a.png"))
    drawn, cut = np.asarray(Image.open("new/o.png")), np.asarray(Image.open("a_cutout.png"))
    assert drawn.shape == original.shape
    assert (drawn[40, 30] != original[40, 30]).any()
    assert (drawn[70, 90] == original[70, 90]).all()
    np.testing.assert_array_equal(cut[..., 3] > 0, mask)
    np.testing.assert_array_equal(cut[mask][:, :3], original[mask])


@pytest.mark.parametrize("kind", ["rle", "polygon"])
def test_shapes_give_the_mask_back(segment: Run, kind: str) -> None:
    from pycocotools import mask as coco_mask

    photo("a.jpg")
    segment("a.jpg", "--box", Box)
    segment("a.jpg", "--box", Box, "--format", kind)
    record = json.loads(Path(f"a_{kind}.json").read_text())
    assert (record["schema_version"], record["image"], record["size"]) == (1, "a.jpg", [80, 100])
    shape = record["objects"][0]["segmentation"]
    rle = shape if kind == "rle" else coco_mask.merge(coco_mask.frPyObjects(shape, 80, 100))
    np.testing.assert_array_equal(rle_to_mask(rle), labels("a_mask.png") == 1)


@pytest.mark.parametrize(
    ("names", "ids"), [(["000000000139.jpg", "285.jpg"], [139, 285]), (["a.jpg", "7.jpg"], [2, 1]), (["1.jpg"], [1])]
)
def test_coco_results(segment: Run, names: list[str], ids: list[int]) -> None:
    for name in names:
        photo(f"photos/{name}")
    assert segment("photos", "--box", Box, "--box", "0,0,50,50", "--format", "coco", "-o", "r.json").code == 0
    results = json.loads(Path("r.json").read_text())
    assert {(entry["file_name"], entry["image_id"]) for entry in results} == set(zip(names, ids))
    assert len(results) == 2 * len(names)
    assert "bbox" not in results[0]
    from pycocotools.coco import COCO

    truth = COCO()
    truth.dataset = {
        "images": [{"id": identity, "height": 80, "width": 100} for identity in ids],
        "categories": [{"id": 1}],
        "annotations": [],
    }
    truth.createIndex()
    assert len(truth.loadRes("r.json").getAnnIds()) == len(results)


@pytest.mark.parametrize("simplify", [[], ["--simplify", "1"]])
def test_a_coco_data_set_gives_the_masks_back(segment: Run, simplify: list[str]) -> None:
    from pycocotools.coco import COCO

    for name in ("a.jpg", "7.jpg"):
        photo(f"photos/{name}")
    boxes = ("--box", Box, "--box", "70,60,90,75")
    assert segment("photos", *boxes, "--separate", "-o", "m/").code == 0
    assert segment("photos", *boxes, "--format", "coco-dataset", *simplify).code == 0
    data = COCO("coco-dataset.json")
    assert [(image["id"], image["file_name"], image["width"], image["height"]) for image in data.dataset["images"]] == [
        (1, "7.jpg", 100, 80),
        (2, "a.jpg", 100, 80),
    ]
    assert data.dataset["categories"] == [{"id": 1, "name": "object", "supercategory": ""}]
    assert sorted(data.anns) == [1, 2, 3, 4]
    for image in data.dataset["images"]:
        for number, entry in enumerate(data.imgToAnns[image["id"]], 1):
            mask = np.asarray(Image.open(Path("m", f"{Path(image['file_name']).stem}_mask_{number}.png"))) > 0
            found = rle_to_mask(data.annToRLE(entry))
            assert (found & mask).sum() / (found | mask).sum() >= (0.95 if simplify else 1)
            assert entry["area"] == mask.sum()
            rows, columns = np.nonzero(mask)
            width, height = np.ptp(columns) + 1, np.ptp(rows) + 1
            assert entry["bbox"] == [columns.min(), rows.min(), width, height]
            assert (entry["iscrowd"], entry["category_id"]) == (0, 1)


def test_photos_of_one_name_go_by_their_paths_in_a_coco_data_set(segment: Run) -> None:
    for name in ("north/1.jpg", "south/1.jpg", "south/2.jpg"):
        photo(name)
    assert segment("north", "south", "--box", Box, "--format", "coco-dataset", "-o", "set.json").code == 0
    names = [image["file_name"] for image in json.loads(Path("set.json").read_text())["images"]]
    assert names == ["north/1.jpg", "south/1.jpg", "2.jpg"]


def test_an_empty_mask_is_no_annotation_of_a_coco_data_set(segment: Run) -> None:
    photo("a.jpg")
    line = ("a.jpg", "--box", Box, "--threshold", "1e9", "--format", "coco-dataset")
    assert segment(*line).code == 0
    content = json.loads(Path("coco-dataset.json").read_text())
    assert (len(content["images"]), content["annotations"]) == (1, [])


def test_separate(segment: Run) -> None:
    photo("a.jpg")
    segment("a.jpg", "--box", Box, "--box", "10,10,90,70", "--separate", "-o", "m.png")
    assert files() == ["a.jpg", "m_1.png", "m_2.png"]
    assert np.asarray(Image.open("m_2.png")).sum() > np.asarray(Image.open("m_1.png")).sum() > 0  # both whole


def test_multimask(segment: Run) -> None:
    photo("a.jpg")
    ran = segment("a.jpg", "--point", "50,40", "--multimask", "--separate", "--json")
    assert files() == ["a.jpg", "a_mask_1-1.png", "a_mask_1-2.png", "a_mask_1-3.png"]
    assert [found["index"] for found in json.loads(ran.out)["objects"]] == [1, 2, 3]
    assert "masks of a.jpg overlap" in segment("a.jpg", "--point", "50,40", "--multimask", "--force").words


def test_threshold(segment: Run) -> None:
    photo("a.jpg")
    areas = []
    for threshold in ("-20", "0", "20"):
        ran = segment("a.jpg", "--box", Box, "--threshold", threshold, "--force", "--json")
        areas.append(json.loads(ran.out)["objects"][0]["area"])
    assert areas[0] > areas[1] > areas[2] > 0


# what is asked


def prompts_given(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    seen = []
    predict = Predictor.predict

    def spy(self: Predictor, embedding: Any, prompt: Any, **options: Any) -> Any:
        seen.append(prompt)
        return predict(self, embedding, prompt, **options)

    monkeypatch.setattr(Predictor, "predict", spy)
    return seen


@pytest.mark.parametrize(
    ("arguments", "boxes", "points", "point_labels"),
    [
        (["--box", "-5,0,10,10"], [[-5, 0, 10, 10]], None, None),
        (["--box", "1,2,3,4", "--box", "5,6,7,8"], [[1, 2, 3, 4], [5, 6, 7, 8]], None, None),
        (["--point", "1,2", "--point", "3,4,0"], None, [[[1, 2], [3, 4]]], [[1, 0]]),
        (["--box", "1,2,30,40", "--point", "5,6"], [[1, 2, 30, 40]], [[[5, 6]]], [[1]]),
        (["--point", "1,2", "--point", "3,4", "--each-point"], None, [[[1, 2]], [[3, 4]]], [[1], [1]]),
        (
            ["--point", "1,2", "--point", "9,9,0", "--point", "3,4", "--each-point"],
            None,
            [[[1, 2], [9, 9]], [[3, 4], [9, 9]]],
            [[1, 0], [1, 0]],
        ),
    ],
)
def test_boxes_and_points(
    segment: Run, monkeypatch: pytest.MonkeyPatch, arguments: list[str], boxes: Any, points: Any, point_labels: Any
) -> None:
    seen = prompts_given(monkeypatch)
    photo("a.jpg")
    assert segment("a.jpg", *arguments).code == 0
    for got, wanted in zip((seen[0].boxes, seen[0].points, seen[0].labels), (boxes, points, point_labels)):
        assert (None if got is None else got.tolist()) == wanted


def test_a_mask_is_a_prompt(segment: Run) -> None:
    """The fake decoder gives back the mask that it is given."""
    photo("a.jpg")
    given = np.zeros((80, 100), np.uint8)
    given[20:50, 10:60], given[60:75, 70:90] = 3, 9  # any values
    Image.fromarray(given).save("given.png")
    assert segment("a.jpg", "--mask", "given.png").code == 0
    got = labels("a_mask.png")
    for value, label in ((3, 1), (9, 2)):
        assert ((given == value) & (got == label)).sum() > 0.9 * ((given == value) | (got == label)).sum()


def test_prompt_file(segment: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = prompts_given(monkeypatch)
    for name in ("a.jpg", "b.jpg", "c.jpg", "d.jpg"):
        photo(f"photos/{name}")
    content = {
        "a.jpg": {"boxes": [[1, 2, 30, 40], [5, 6, 70, 80]], "points": [[[10, 10, 1]], []]},
        "b.jpg": {"points": [[10, 10], [20, 20, 0]]},
        "c.jpg": {"boxes": [[1, 2, 30, 40]]},
        "elsewhere.jpg": {"boxes": [[1, 2, 30, 40]]},
    }
    Path("prompts.json").write_text(json.dumps(content))
    ran = segment("photos", "--prompts", "prompts.json")
    assert ran.code == 1
    assert "not in the prompt file, so left out: photos/d.jpg" in ran.words
    assert "no result for elsewhere.jpg" in ran.words
    assert [prompt.boxes is not None for prompt in seen] == [True, False, True]
    assert seen[0].labels.tolist() == [[1], [-1]]
    assert seen[1].labels.tolist() == [[1, 0]]
    assert [name for name in files() if name.endswith(".png")] == ["a_mask.png", "b_mask.png", "c_mask.png"]


def test_stdin(segment: Run) -> None:
    ran = segment("-", "--box", Box, stdin=photo("a.jpg").read_bytes())
    assert ran.code == 0, ran.err
    assert files() == ["a.jpg", "stdin_mask.png"]


def test_one_pixel(segment: Run) -> None:
    photo("a.png", 1, 1)
    assert segment("a.png", "--box", "0,0,1,1").code == 0
    assert labels("a_mask.png").shape == (1, 1)


def test_files_of_nvidia_nanosam_by_their_options(nvidia_files: tuple[Path, Path]) -> None:
    photo("a.jpg")
    encoder, decoder = nvidia_files
    ran = run_nanosam(
        "segment",
        "a.jpg",
        "--box",
        Box,
        "--box",
        "0,0,9,9",
        "--image_encoder",
        encoder,
        "--mask_decoder",
        decoder,
        "-v",
    )
    assert ran.code == 0, ran.err
    assert set(np.unique(labels("a_mask.png"))) == {0, 1, 2}
    assert str(encoder) in ran.err  # -v says with what


# what is refused


def save_header(path: str, width: int, height: int) -> None:
    """A PNG of any size in a few bytes: the header is judged before a pixel is decoded."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    pixels = chunk(b"IDAT", zlib.compress(bytes(64)))
    Path(path).write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + pixels + chunk(b"IEND", b""))


@pytest.fixture
def _bad_inputs(own_files: tuple[Path, Path], nvidia_files: tuple[Path, Path]) -> None:
    photo("good.jpg")
    Path("empty").mkdir()
    Path("text.jpg").write_text("I am no picture")
    Path("nothing.jpg").write_bytes(b"")
    Path("cut.jpg").write_bytes(photo("whole.jpg", 300, 300).read_bytes()[:20000])
    save_header("none.png", 0, 0)
    save_header("huge.png", 20_000, 20_000)
    Image.new("L", (10, 10), 1).save("small_mask.png")
    Image.new("L", (100, 80)).save("empty_mask.png")
    Image.new("RGB", (100, 80)).save("colour_mask.png")
    two = np.zeros((80, 100), np.uint8)
    two[:40], two[40:] = 1, 2
    Image.fromarray(two).save("two_masks.png")
    Path("broken.json").write_text("{")
    entry = '"good.jpg": {"boxes": [[1, 2, 30, 40]]}'
    Path("good.json").write_text(f"{{{entry}}}")
    Path("twice.json").write_text(f"{{{entry}, {entry}}}")
    Path("list.json").write_text("[1]")
    Path("three.json").write_text('{"good.jpg": {"boxes": [[1, 2, 3]]}}')
    Path("deep.json").write_text("[" * 100_000)
    Path("far.json").write_text(f'{{"good.jpg": {{"boxes": [[1, 2, 3, 1{"0" * 400}]]}}}}')
    Path("other.json").write_text('{"other.jpg": {"boxes": [[1, 2, 3, 4]]}}')
    Path("unclear.json").write_text('{"good.jpg": {"boxes": [[1,2,30,40],[1,2,30,40]], "points": [[5,5,1]]}}')
    for name, path in zip(("encoder", "decoder"), own_files):
        Path(f"{name}.onnx").symlink_to(path)
    Path("corrupt.onnx").write_bytes(b"\x08\x07 not an onnx file")
    Path("zero.onnx").write_bytes(b"")
    value = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1])
    result = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1])
    graph = onnx.helper.make_graph([onnx.helper.make_node("Relu", ["x"], ["y"])], "other", [value], [result])
    opsets = [onnx.helper.make_opsetid("", 17)]
    onnx.save(onnx.helper.make_model(graph, opset_imports=opsets, ir_version=8), "other.onnx")
    Path("taken.png").write_bytes(b"mine")
    Path("taken_1.png").write_bytes(b"mine")
    photo("twins/a.jpg")
    photo("twins/a.png")
    photo("other/a.png")


GOOD = "good.jpg --box 10,20,60,50"
MODELS = "--encoder encoder.onnx --decoder decoder.onnx"

BAD = [
    ("goood.jpg --box 1,2,3,4", 1, "no such file: goood.jpg did you mean good.jpg?"),
    ("nowhere/a.jpg --box 1,2,3,4", 1, "no such file: nowhere/a.jpg"),
    ("empty --box 1,2,3,4", 1, "no images in empty"),
    ("empty/*.jpg --box 1,2,3,4", 1, "no images in empty/*.jpg"),
    ("text.jpg --box 1,2,3,4", 1, "text.jpg is not an image"),
    ("nothing.jpg --box 1,2,3,4", 1, "nothing.jpg is empty"),
    ("cut.jpg --box 1,2,3,4", 1, "cut.jpg is broken or cut off"),
    ("none.png --box 1,2,3,4", 1, "none.png"),
    ("huge.png --box 1,2,3,4", 1, "huge.png has more than 178 million pixels make it smaller first"),
    ("good.jpg --box 200,200,300,300", 2, "box 200,200,300,300 lies outside the photo; the photo is 100x80 pixels"),
    ("good.jpg --box 60,50,10,20", 2, "is inverted"),
    ("good.jpg --box 10,20,10,50", 2, "has no area"),
    ("good.jpg --box 10,20,60", 2, "has 3 numbers; a box is x0,y0,x1,y1 in pixels, such as 10,20,300,400"),
    ("good.jpg --box nan,20,60,50", 2, "is not a finite number"),
    ("good.jpg --box 1,1,1e39,1e39", 2, "boxes must be finite numbers"),  # in float32
    ("good.jpg --point 1e39,1", 2, "points must be finite numbers"),
    ("good.jpg --point 100,10", 2, "point 100,10 lies outside the photo"),
    ("good.jpg --point 10,10,0 --each-point", 2, "every point is background"),
    ("good.jpg --each-point", 2, "no prompt"),
    (
        "good.jpg",
        2,
        "no prompt: say what to segment with --box, --point, --mask, --prompts, --detections, --text, --pose or "
        "--everything nanosam segment photo.jpg",
    ),
    ("", 2, "Missing argument"),
    (f"{GOOD} --box 1,2,3,4 --point 5,5", 2, "not clear which of the 2 objects the points belong to"),
    (f"{GOOD} --each-point --point 5,5", 2, "takes no --box"),
    (f"{GOOD} --prompts other.json", 2, "not by both"),
    ("good.jpg --prompts nowhere.json", 1, "no such file: nowhere.json"),
    ("good.jpg --prompts broken.json", 1, "broken.json is not JSON"),
    ("good.jpg --prompts deep.json", 1, "deep.json is not JSON"),
    ("good.jpg --prompts far.json", 1, "good.jpg: [1, 2, 3, <a number of 1329 bits>] is not [x0, y0, x1, y1]"),
    ("good.jpg --prompts list.json", 1, "list.json names no photos"),
    ("good.jpg --prompts three.json", 1, "three.json, good.jpg: [1, 2, 3] is not [x0, y0, x1, y1]"),
    ("good.jpg --prompts other.json", 1, "other.json names none of the photos; it has other.jpg"),
    ("good.jpg --prompts unclear.json", 1, "2 boxes, but points for 1"),
    ("good.jpg --mask small_mask.png", 1, "the mask is 10x10 pixels, the photo 100x80"),
    ("good.jpg --mask empty_mask.png", 1, "empty_mask.png is all 0"),
    ("good.jpg --mask colour_mask.png", 1, "colour_mask.png is a colour picture"),
    ("good.jpg --mask text.jpg", 1, "text.jpg is not a PNG"),
    ("good.jpg --mask nowhere.png", 1, "no such file: nowhere.png"),
    (f"{GOOD} --mask two_masks.png", 2, "two_masks.png holds 2 objects, but there are 1 boxes"),
    ("good.jpg whole.jpg --mask two_masks.png", 2, "--mask goes with one photo, not with 2"),
    (f"{GOOD} --model sam3-giant", 2, "unknown model: sam3-giant"),
    (f"{GOOD} --encoder encoder.onnx", 2, "decoder missing"),
    (f"{GOOD} --encoder nowhere.onnx --decoder decoder.onnx", 1, "nowhere.onnx does not exist"),
    (f"{GOOD} --encoder zero.onnx --decoder decoder.onnx", 1, "zero.onnx is empty"),
    (f"{GOOD} --encoder corrupt.onnx --decoder decoder.onnx", 1, "corrupt.onnx"),
    (f"{GOOD} --encoder decoder.onnx --decoder encoder.onnx", 1, "swapped"),
    (f"{GOOD} --encoder encoder.onnx --decoder other.onnx", 1, "other.onnx, given as decoder, is not a SAM model file"),
    (f"{GOOD} --encoder text.jpg --decoder decoder.onnx", 1, "text.jpg"),
    (f"{GOOD} --backend abacus", 2, "unknown backend: abacus"),
    (f"{GOOD} -o taken.png", 1, "taken.png exists already; nothing was done add `--force`"),
    (f"{GOOD} -o taken.png --separate", 1, "taken_1.png exists already"),
    (f"{GOOD} -o taken.png/mask.png", 1, "taken.png is not a directory"),
    ("good.jpg whole.jpg --box 1,2,30,40 -o both.png", 2, "both.png cannot hold the results of 2 photos -o both/"),
    ("good.jpg --prompts twice.json", 1, '"good.jpg" stands in it 2 times'),
    ("good.jpg --prompts good.json --format labelme --force", 2, "good.json would overwrite a file that is read"),
    (f"{GOOD} -o mask.jpg", 2, "--format png writes .png files, not .jpg"),
    (f"{GOOD} -o mask", 2, "--format png writes .png files"),
    (f"{GOOD} --format rle -o mask.png", 2, "--format rle writes .json files"),
    (f"{GOOD} --simplify 1", 2, "png has no outlines, so it takes no --simplify --format polygon or yolo or labelme"),
    (f"{GOOD} --format coco --simplify 1", 2, "coco has no outlines"),
    (f"{GOOD} --format yolo --simplify 0", 2, "not above 0"),
    (f"{GOOD} --format coco --separate", 2, "takes no --separate"),
    ("twins/a.png --box 1,2,30,40 -o twins/a.png --force", 2, "would overwrite a photo"),
    (
        "twins --box 1,2,30,40 --format yolo",
        2,
        "twins/a.jpg, twins/a.png would all be written to a.txt rename one of them, or run them apart",
    ),
    ("twins/a.png other/a.png --box 1,2,30,40", 2, "twins/a.png, other/a.png would all be written to a.png_mask.png"),
]


@pytest.mark.usefixtures("_bad_inputs")
@pytest.mark.parametrize(("line", "code", "words"), BAD, ids=[row[0] or "nothing" for row in BAD])
def test_bad_inputs(line: str, code: int, words: str) -> None:
    before = files()
    models = [] if "--model" in line or "coder" in line else MODELS.split()
    ran = run_nanosam("segment", *line.split(), *models)
    assert ran.code == code, ran.err
    assert words in ran.words
    assert not ran.out
    assert files() == before  # nothing was written
    assert Path("taken.png").read_bytes() == b"mine"


def test_every_taken_name_is_told_before_any_work(segment: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(9):
        photo(f"photos/{number}.jpg")
        Path(f"{number}_mask.png").write_bytes(b"mine")
    monkeypatch.setattr(Predictor, "encode_image", None)  # would fail
    ran = segment("photos", "--box", Box)
    assert ran.code == 1
    assert "9 files: 0_mask.png, 1_mask.png, 2_mask.png, 3_mask.png, 4_mask.png and 4 more exist already" in ran.words


def test_photos_of_one_stem(segment: Run) -> None:
    """Each has a result of its own, which the next run over the folder does not take for a photo."""
    for name in ("a.jpg", "a.png", "b.jpg"):
        photo(name)
    results = ["a.jpg_mask.png", "a.png_mask.png", "b_mask.png"]
    for _ in range(2):
        ran = segment(".", "--box", Box, "--force")
        assert ran.code == 0, ran.err
        assert ran.out.splitlines() == [
            f"{photo}: 1 object -> {result}" for photo, result in zip(("a.jpg", "a.png", "b.jpg"), results)
        ]
        assert files() == sorted(["a.jpg", "a.png", "b.jpg", *results])


def test_force(segment: Run) -> None:
    photo("a.jpg")
    Path("a_mask.png").write_bytes(b"old")
    assert segment("a.jpg", "--box", Box, "--force", "-o", ".").code == 0
    assert labels("a_mask.png").any()


def test_place_that_may_not_be_written(segment: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    photo("a.jpg")
    monkeypatch.setattr(os, "access", lambda _, mode: not mode & os.W_OK)  # root may write anywhere
    ran = segment("a.jpg", "--box", Box, "-o", "new/")
    assert ran.code == 1
    assert "cannot write into new: permission denied" in ran.words
    assert files() == ["a.jpg"]


def test_disk_full(segment: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    photo("a.jpg")
    photo("b.jpg")
    save = Image.Image.save

    def full(self: Image.Image, path: Path, **options: Any) -> None:
        save(self, path, **options)
        if "a_mask.png" in files():
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Image.Image, "save", full)
    ran = segment("a.jpg", "b.jpg", "--box", Box)
    assert ran.code == 1
    assert "cannot write b_mask.png: disk full" in ran.words
    assert files() == ["a.jpg", "a_mask.png", "b.jpg"]  # the first is whole, of the second nothing is left


# many photos


def test_directory_with_unreadable_photos(segment: Run) -> None:
    for number in range(5):
        photo(f"photos/{number}.jpg")
    Path("photos/2.jpg").write_text("no picture")
    save_header("photos/9.png", 20_000, 20_000)
    photo("photos/tiny.png", 5, 5)  # the box lies outside of it
    ran = segment("photos", "--box", Box, "-o", "out")
    assert ran.code == 1
    assert ran.words.count("is passed over") == 3
    assert "4 of 7 photos done, 4 objects; a photo: read" in ran.words
    assert "error: no result for photos/2.jpg, photos/9.png, photos/tiny.png" in ran.words
    assert files("out") == ["0_mask.png", "1_mask.png", "3_mask.png", "4_mask.png"]
    assert len(ran.out.splitlines()) == 4


def test_one_predictor_and_one_line_each(segment: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    make = Predictor.__init__
    monkeypatch.setattr(Predictor, "__init__", lambda self, *rest: (made.append(self), make(self, *rest))[1])
    for number in range(3):
        photo(f"photos/{number}.jpg")
    ran = segment("photos/*.jpg", "--box", Box, "--json", "-o", "out/")
    assert [json.loads(line)["image"] for line in ran.out.splitlines()] == [f"photos/{n}.jpg" for n in range(3)]
    assert len(made) == 1


def test_results_are_not_taken_for_photos(segment: Run) -> None:
    photo("a.jpg")
    photo("paper_mask.png")  # a photo all the same: there is no paper.jpg
    for _ in range(2):
        ran = segment(".", "--box", Box, "--force")
        assert ran.code == 0, ran.err
    assert files() == ["a.jpg", "a_mask.png", "paper_mask.png", "paper_mask_mask.png"]


@pytest.mark.parametrize("kind", ["png", "coco"])
def test_interrupted(segment: Run, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    for number in range(5):
        photo(f"photos/{number}.jpg")
    predict, calls = Predictor.predict, []

    def stop(self: Predictor, *arguments: Any, **options: Any) -> Any:
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return predict(self, *arguments, **options)

    monkeypatch.setattr(Predictor, "predict", stop)
    ran = segment("photos", "--box", Box, "--format", kind, "-o", "out/")
    assert ran.code == 130
    assert "2 of 5 photos done" in ran.words
    assert "interrupted" in ran.words
    assert files("out") == (["coco.json", "coco.jsonl"] if kind == "coco" else ["0_mask.png", "1_mask.png"])
    if kind == "coco":
        assert len(json.loads(Path("out/coco.json").read_text())) == 2


def test_ctrl_c(own_files: tuple[Path, Path]) -> None:
    """The real signal to a real process in the middle of its work."""
    first = photo("photos/0.jpg", 400, 300)
    for number in range(1, 400):
        Path(f"photos/{number}.jpg").write_bytes(first.read_bytes())
    run = "from nanosam_cli.app import main; main()"
    models = ["--encoder", str(own_files[0]), "--decoder", str(own_files[1])]
    process = subprocess.Popen(
        [sys.executable, "-c", run, "segment", "photos", "--box", Box, "--json", "-o", "out", *models],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    process.stdout.readline()
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert "Traceback" not in errors
    written = files("out")
    assert 0 < len(written) < 400
    for name in written:
        assert labels(Path("out", name)).shape == (300, 400)  # whole, and nothing temporary beside them

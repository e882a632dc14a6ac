"""`nanosam segment` with prompts from other models, on a decoder that draws the boxes it is given."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from nanosam_cli.core.inference.decoder_inputs import decoder_points
from nanosam_cli.core.inference.predictor import Predictor
from nanosam_cli.core.modeling.torchvision_compat import import_torchvision
from nanosam_cli.core.prompting.body_parts import COCO_KEYPOINTS
from nanosam_cli.core.prompting.people import Keypoint, Person
from nanosam_cli.core.segmentation.formats import FORMATS, PNG_KEY
from nanosam_cli.core.segmentation.label_formats import class_names
from tests.command_line import Ran, run_nanosam
from tests.evaluation_data import save_data_set
from tests.zero_shot_models import CELLS, save_owl

Run = Callable[..., Ran]


@pytest.fixture(autouse=True)
def _working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def segment(own_files: tuple[Path, Path]) -> Run:
    def run(*arguments: object) -> Ran:
        return run_nanosam("segment", *arguments, "--encoder", own_files[0], "--decoder", own_files[1])

    return run


def photo(path: str, width: int = 100, height: int = 80) -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    Image.fromarray(noise).save(path)


def save(path: str, content: Any) -> str:
    Path(path).write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def files() -> list[str]:
    return sorted(entry.name for entry in Path().iterdir())


def record(ran: Ran) -> dict[str, Any]:
    assert ran.code == 0, ran.err
    found: dict[str, Any] = json.loads(ran.out)
    return found


FOUND = [
    {"file_name": "a.jpg", "image_id": 1, "category_id": 9, "bbox": [10, 20, 40, 30], "score": 0.9},
    {"file_name": "a.jpg", "image_id": 1, "category_id": 4, "bbox": [30, 30, 40, 40], "score": 0.6},
    {"file_name": "b.jpg", "image_id": 2, "category_id": 9, "bbox": [5, 5, 20, 20], "score": 0.3},
]
NAMES = {"categories": [{"id": 4, "name": "boat"}, {"id": 9, "name": "light"}]}
PERSON = {
    "image_id": 1,
    "file_name": "a.jpg",
    "keypoints": [number for place in range(17) for number in (20 + 3 * (place % 2), 10 + 3 * place, 1)],
}


@pytest.fixture
def _inputs() -> None:
    photo("a.jpg")
    save("found.json", FOUND)
    save("names.json", NAMES)


# detections


@pytest.mark.usefixtures("_inputs")
def test_a_detector_that_found_nothing(segment: Run) -> None:
    save("empty.json", [])
    ran = segment("a.jpg", "--detections", "empty.json")
    assert (ran.code, ran.out, ran.words) == (0, "a.jpg: 0 objects -> a_mask.png\n", "warning: a.jpg: no box")


@pytest.mark.usefixtures("_inputs")
@pytest.mark.parametrize("option", ["--detections", "--pose"])
def test_nothing_found_in_any_of_several_photos(segment: Run, option: str) -> None:
    photo("b.jpg")
    save("empty.json", [])
    ran = segment("a.jpg", "b.jpg", option, "empty.json")
    assert (ran.code, ran.out) == (0, "a.jpg: 0 objects -> a_mask.png\nb.jpg: 0 objects -> b_mask.png\n")
    assert ran.words.count("warning: ") == 2


@pytest.mark.usefixtures("_inputs")
def test_detections(segment: Run) -> None:
    got = record(segment("a.jpg", "--detections", "found.json", "--class-names", "names.json", "--json"))
    light, boat = got["objects"]
    assert (light["class"], light["score"], light["box"]) == ("light", 0.9, [10, 20, 50, 50])
    assert (boat["class"], boat["score"], boat["box"]) == ("boat", 0.6, [30, 30, 70, 70])
    table = segment("a.jpg", "--detections", "found.json", "--class-names", "names.json", "--force").out
    assert "light" in table
    assert "0.90" in table


@pytest.mark.usefixtures("_inputs")
@pytest.mark.parametrize("kind", list(FORMATS))
def test_class_names_are_in_every_format(segment: Run, kind: str) -> None:
    choice = ("--class", "light", "--class-names", "names.json")
    ran = segment("a.jpg", "--detections", "found.json", *choice, "--format", kind, "-o", "out/")
    assert ran.code == 0, ran.err
    (file,) = (file for file in Path("out").iterdir() if file.name not in ("classes.txt", "data.yaml"))
    if file.suffix == ".png":
        with Image.open(file) as picture:
            assert isinstance(picture.info[PNG_KEY], str)
            (found,) = json.loads(picture.info[PNG_KEY])
        assert (found["class"], found["score"]) == ("light", 0.9)
    elif kind == "yolo":
        names = Path("out/classes.txt").read_text()
        assert names == class_names({4: "boat", 9: "light"})
        assert file.read_text().split()[0] == str(names.split().index("light"))
    elif kind == "coco-dataset":
        content = json.loads(file.read_text())
        assert [(one["id"], one["name"]) for one in content["categories"]] == [(4, "boat"), (9, "light")]
        assert [(one["category_id"], one["score"]) for one in content["annotations"]] == [(9, 0.9)]
    else:
        content = json.loads(file.read_text())
        entries = content if kind == "coco" else content["shapes"] if kind == "labelme" else content["objects"]
        name = {"coco": "category_name", "labelme": "label"}.get(kind, "class")
        assert [entry[name] for entry in entries] == ["light"]
        if kind == "coco":
            assert (entries[0]["category_id"], entries[0]["score"]) == (9, 0.9)
        if kind == "labelme":
            assert content["imagePath"] == os.path.join("..", "a.jpg")  # noqa: PTH118 as labelme has it


@pytest.mark.usefixtures("_inputs")
def test_names_are_drawn(segment: Run) -> None:
    for name, more in (("with.png", ["--class-names", "names.json"]), ("without.png", [])):
        segment("a.jpg", "--detections", "found.json", "--format", "overlay", "-o", name, *more)
    drawn, bare = (np.asarray(Image.open(name)) for name in ("with.png", "without.png"))
    assert (drawn != bare).any(2).sum() > 100


@pytest.mark.usefixtures("_inputs")
@pytest.mark.parametrize(
    ("arguments", "count"),
    [
        ([], 2),
        (["--min-score", "0.7"], 1),
        (["--class", "4"], 1),
        (["--top-k", "1"], 1),
        (["--min-score", "0.95"], 0),
        (["--nms", "0.01"], 2),  # of different classes
    ],
)
def test_choice(segment: Run, arguments: list[str], count: int) -> None:
    got = record(segment("a.jpg", "--detections", "found.json", "--json", *arguments))
    assert len(got["objects"]) == count
    assert got["notes"] == ([] if count else ["no box is left of 2"])


@pytest.mark.usefixtures("_inputs")
def test_exclusive(segment: Run) -> None:
    areas = {}
    for option in ((), ("--exclusive",)):
        got = record(segment("a.jpg", "--detections", "found.json", "--json", "--format", "rle", "--force", *option))
        areas[option] = [found["area"] for found in got["objects"]]
    assert areas["--exclusive",][0] == areas[()][0]  # the surer one keeps its pixels
    assert areas["--exclusive",][1] < areas[()][1]
    assert "overlap" in segment("a.jpg", "--detections", "found.json").err
    assert "overlap" not in segment("a.jpg", "--detections", "found.json", "--exclusive", "--force").err


@pytest.mark.usefixtures("_inputs")
def test_photos_and_names_without_the_other_are_listed(segment: Run) -> None:
    photo("c.jpg")
    ran = segment("a.jpg", "c.jpg", "--detections", "found.json")
    assert ran.code == 0, ran.err
    assert "not in the prompt file, so left out: c.jpg" in ran.words
    assert "in the prompt file, but not among the photos: b.jpg" in ran.words
    assert files() == ["a.jpg", "a_mask.png", "c.jpg", "found.json", "names.json"]


def test_a_hundred_boxes_are_two_decoder_calls(segment: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    counts = []
    decode = Predictor.decode

    def spy(self: Predictor, *arguments: Any) -> Iterator[Any]:
        for rows, masks, ious in decode(self, *arguments):
            counts.append(len(rows))
            yield rows, masks, ious

    monkeypatch.setattr(Predictor, "decode", spy)
    photo("a.jpg")
    rows = [{**FOUND[0], "bbox": [number % 50, number % 40, 30, 20]} for number in range(100)]
    got = record(segment("a.jpg", "--detections", save("many.json", rows), "--json", "--format", "rle"))
    assert len(got["objects"]) == 100
    assert counts == [64, 36]


@pytest.mark.usefixtures("_inputs")
def test_results_are_prompts_again(segment: Run) -> None:
    """labelme's, YOLO's and COCO's files of one run, read by the next, give the same boxes and names."""
    segment("a.jpg", "--detections", "found.json", "--class-names", "names.json", "--format", "rle", "-o", "first.json")
    first = json.loads(Path("first.json").read_text())["objects"]
    for kind, name in (("yolo", "a.txt"), ("labelme", "a.json"), ("coco-dataset", "coco-dataset.json")):
        given = ("--detections", "found.json", "--class-names", "names.json")
        assert segment("a.jpg", *given, "--format", kind, "-o", f"{kind}/").code == 0
        got = record(segment("a.jpg", "--detections", f"{kind}/{name}", "--json", "--force"))
        assert [found["class"] for found in got["objects"]] == ["light", "boat"]
        for found, before in zip(got["objects"], first):
            x, y, width, height = before["bbox"]
            near = 1e-3 if kind == "coco-dataset" else 0.56  # the others' corners lie within the pixels of the mask
            assert found["box"] == pytest.approx([x, y, x + width, y + height], abs=near)


def test_coco_evaluation(segment: Run) -> None:
    """A detector's file of a data set comes out as segmentation results that pycocotools evaluates."""
    images, annotations = save_data_set(Path("data"))
    content = json.loads(annotations.read_text())
    content["annotations"] = [one for one in content["annotations"] if one["segmentation"]]  # pycocotools needs one
    truth = COCO(save("truth.json", content))
    keys = ("image_id", "category_id", "bbox")
    found = [
        {**{key: one[key] for key in keys}, "score": 0.5 + one["id"] / 10_000}
        for one in content["annotations"]
        if not one["iscrowd"]
    ]
    ran = segment(images, "--detections", save("found.json", found), "--format", "coco", "-o", "coco.json")
    assert ran.code == 0, ran.err
    results = json.loads(Path("coco.json").read_text())
    scores = {(row["image_id"], row["score"]) for row in found}
    assert {(row["image_id"], row["score"]) for row in results} <= scores  # the detector's own
    evaluation = COCOeval(truth, truth.loadRes("coco.json"), "segm")
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    assert evaluation.stats[1] > 0.4  # at IoU 0.5: the decoder draws boxes, and half of the objects are boxes
    assert evaluation.stats[0] > 0.1


def test_ids_of_the_annotations_are_kept(segment: Run) -> None:
    """Names that are no numbers, ids in another order than the names: the results are those of the same file."""
    images, annotations = save_data_set(Path("data"))
    content = json.loads(annotations.read_text())
    content["annotations"] = [one for one in content["annotations"] if one["segmentation"]]
    for image in content["images"]:
        number = image["id"]
        (images / image["file_name"]).rename(images / f"p_{number}.png")
        image |= {"id": 50 - 10 * number, "file_name": f"p_{number}.png"}
    for entry in content["annotations"]:
        entry["image_id"] = 50 - 10 * entry["image_id"]
    truth = COCO(save("truth.json", content))
    ran = segment(images, "--detections", "truth.json", "--format", "coco", "-o", "coco.json")
    assert ran.code == 0, ran.err
    assert "numbered" not in ran.words
    results = json.loads(Path("coco.json").read_text())
    assert {(row["file_name"], row["image_id"]) for row in results} == {
        (f"p_{n}.png", 50 - 10 * n) for n in range(1, 5)
    }
    evaluation = COCOeval(truth, truth.loadRes("coco.json"), "segm")
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    assert evaluation.stats[1] > 0.4


def test_a_coco_data_set_keeps_the_ids_of_the_prompts(segment: Run) -> None:
    """Image and category ids as they stand in the file of boxes, and in another order than the names."""
    photo("photos/a.jpg")
    photo("photos/b.jpg")
    entry = {"bbox": [10, 20, 40, 30]}
    content = {
        "images": [{"id": 20, "file_name": "a.jpg"}, {"id": 10, "file_name": "b.jpg"}],
        "categories": [{"id": 4, "name": "boat"}, {"id": 9, "name": "light"}],
        "annotations": [
            {**entry, "id": 1, "image_id": 20, "category_id": 9},
            {**entry, "id": 2, "image_id": 10, "category_id": 4},
        ],
    }
    ran = segment("photos", "--detections", save("c.json", content), "--format", "coco-dataset", "-o", "set.json")
    assert ran.code == 0, ran.err
    data = COCO("set.json")
    assert {image["file_name"]: image["id"] for image in data.dataset["images"]} == {"a.jpg": 20, "b.jpg": 10}
    assert {(one["image_id"], one["category_id"]) for one in data.dataset["annotations"]} == {(20, 9), (10, 4)}
    assert [category["name"] for category in data.loadCats([4, 9])] == ["boat", "light"]
    assert segment("photos", "--detections", "c.json", "--format", "coco", "-o", "results.json").code == 0
    evaluation = COCOeval(data, data.loadRes("results.json"), "segm")
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    assert evaluation.stats[0] == pytest.approx(1)


@pytest.mark.usefixtures("_inputs")
def test_ids_that_are_counted_are_said(segment: Run) -> None:
    ran = segment("a.jpg", "--box", "1,2,30,40", "--format", "coco")
    assert "the photos are numbered 1, 2, ... in their order" in ran.words
    ran = segment("a.jpg", "--detections", "found.json", "--format", "coco", "--force")
    assert "numbered" not in ran.words


def test_category_ids_that_are_counted_are_said(segment: Run) -> None:
    photo("a.jpg")
    shapes = [{"label": name, "points": [[10, 20], [60, 50]]} for name in ("light", "boat")]
    save("a.json", {"shapes": shapes, "imagePath": "a.jpg"})
    ran = segment("a.jpg", "--detections", "a.json", "--format", "coco")
    assert "category ids are counted, as the prompts have names alone: 1 boat, 2 light" in ran.words
    assert [row["category_id"] for row in json.loads(Path("coco.json").read_text())] == [2, 1]


def test_photos_of_one_name_in_two_folders(segment: Run) -> None:
    for name in ("n", "s"):
        photo(f"{name}/1.jpg")
    entry = {"category_id": 1, "segmentation": []}
    save(
        "c.json",
        {
            "images": [{"id": 1, "file_name": "n/1.jpg"}, {"id": 2, "file_name": "s/1.jpg"}],
            "annotations": [
                {**entry, "image_id": 1, "bbox": [1, 2, 30, 40]},
                {**entry, "image_id": 2, "bbox": [5, 5, 40, 40]},
                {**entry, "image_id": 2},
            ],
        },
    )
    ran = segment("s", "n", "--detections", "c.json", "--json", "--format", "coco")
    boxes = {one["image"]: [found["box"] for found in one["objects"]] for one in map(json.loads, ran.out.splitlines())}
    assert boxes == {"s/1.jpg": [[5, 5, 45, 45]], "n/1.jpg": [[1, 2, 31, 42]]}
    assert "1 entry of c.json left out: 'bbox' is missing in annotation number 3" in ran.words
    save("p.json", {"1.jpg": {"boxes": [[1, 2, 30, 40]]}})
    ran = segment("s", "n", "--prompts", "p.json")
    assert ran.code == 1
    assert "1.jpg may be any of s/1.jpg, n/1.jpg" in ran.words


def test_boxes_beside_clicks(segment: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """In labelme a click of an object without a box: its row has padding where the others have corners."""
    seen = []
    decode = Predictor.decode

    def spy(self: Predictor, embedding: Any, prompt: Any, *more: Any) -> Iterator[Any]:
        seen.append(decoder_points(prompt, embedding.frame))
        return decode(self, embedding, prompt, *more)

    monkeypatch.setattr(Predictor, "decode", spy)
    photo("a.jpg")
    shapes = [
        {"label": "a", "points": [[10, 20], [60, 50]], "shape_type": "rectangle"},
        {"label": "b", "points": [[70, 40]], "shape_type": "point"},
        {"label": "b", "points": [[700, 40]], "shape_type": "point"},
    ]
    save("a.json", {"shapes": shapes, "imagePath": "a.jpg"})
    got = record(segment("a.jpg", "--detections", "a.json", "--json", "--format", "overlay"))
    assert [found["box"] for found in got["objects"]] == [[10, 20, 60, 50], None]
    assert got["notes"] == ["1 of 3 boxes dropped: outside the photo"]
    ((_, labels),) = seen
    assert labels.tolist() == [[-1, 2, 3], [1, -1, -1]]


def test_boxes_of_another_size_are_scaled_or_refused(segment: Run) -> None:
    for name in ("a", "b"):
        photo(f"{name}.jpg")
    entry = {"category_id": 1, "bbox": [20, 40, 80, 60]}
    content = {
        "images": [
            {"id": 1, "file_name": "a.jpg", "width": 200, "height": 160},
            {"id": 2, "file_name": "b.jpg", "width": 200, "height": 200},
        ],
        "annotations": [{**entry, "image_id": 1}, {**entry, "image_id": 2}],
    }
    ran = segment("a.jpg", "b.jpg", "--detections", save("c.json", content), "--json")
    assert ran.code == 1
    assert json.loads(ran.out)["objects"][0]["box"] == [10, 20, 50, 50]
    assert "a.jpg: drawn on 200x160 pixels: scaled to the photo's 100x80" in ran.words
    assert "b.jpg is passed over: b.jpg is 100x80 pixels, annotated as 200x200 give the photo that was" in ran.words


def test_what_a_folder_holds_and_is_not_read_is_said(segment: Run) -> None:
    photo("photos/a.jpg")
    for name in ("b.dng", "notes.txt"):
        Path("photos", name).write_bytes(b"")
    ran = segment("photos", "--box", "1,2,30,40")
    assert ran.code == 0
    assert "1 picture in photos left out, of kinds that are not read: b.dng" in ran.words
    assert "notes" not in ran.words


# poses


@pytest.mark.usefixtures("_inputs")
def test_pose_file(segment: Run) -> None:
    save("poses.json", [PERSON])
    got = record(segment("a.jpg", "--pose", "poses.json", "--part", "shirt", "--part", "head", "--json"))
    assert [found["class"] for found in got["objects"]] == ["shirt", "head"]
    assert got["notes"] == []
    assert len(COCO_KEYPOINTS) * 3 == len(PERSON["keypoints"])  # type: ignore[arg-type]


def test_nobody_is_a_result_too(segment: Run) -> None:
    for name in ("a.jpg", "b.jpg"):
        photo(name)
    poses = save("poses.json", {"a.jpg": [], "b.jpg": []})
    for kind in FORMATS.values():
        for photos in (["a.jpg"], ["a.jpg", "b.jpg"]):
            ran = segment(*photos, "--pose", poses, "--format", kind.name, "-o", f"out-{kind.name}/", "--force")
            assert ran.code == 0, ran.err
            assert "a.jpg: no person found" in ran.words
    assert json.loads(Path("out-coco/coco.json").read_text()) == []
    assert not np.asarray(Image.open("out-png/a_mask.png")).any()
    assert not np.asarray(Image.open("out-cutout/a_cutout.png"))[..., 3].any()
    assert Path("out-yolo/a.txt").read_text() == ""


def test_pose_auto(segment: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """The estimator is made once for all photos, and closed."""
    made: list[Any] = []

    class Estimator:
        def __init__(self) -> None:
            self.closed, self.seen = False, 0
            made.append(self)

        def people(self, image: np.ndarray[Any, Any]) -> list[Person]:
            self.seen += 1
            assert image.shape == (80, 100, 3)
            return [Person({"nose": Keypoint(50, 20), "left_ear": Keypoint(60, 22), "right_ear": Keypoint(40, 22)})]

        def __exit__(self, *_: object) -> None:
            self.closed = True

    monkeypatch.setattr("nanosam_cli.core.prompting.pose_estimator.PoseEstimator", Estimator)
    for name in ("a.jpg", "b.jpg"):
        photo(name)
    ran = segment("a.jpg", "b.jpg", "--pose", "auto", "--part", "head")
    assert ran.code == 0, ran.err
    assert "a.jpg: 1 object" in ran.out
    assert len(made) == 1
    assert (made[0].seen, made[0].closed) == (2, True)


# phrases


def test_text_boxes_reach_the_decoder(segment: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """In pixels of a photo that is far from square, by a detector that answers with a grid of boxes."""
    pytest.importorskip("transformers", reason="the extra `text` is not installed")
    import_torchvision()
    model = save_owl(Path("owl"))
    prompts: list[Any] = []
    predict = Predictor.predict

    def spy(self: Predictor, embedding: Any, prompt: Any, **options: Any) -> Any:
        prompts.append(prompt)
        return predict(self, embedding, prompt, **options)

    monkeypatch.setattr(Predictor, "predict", spy)
    photo("a.jpg", 160, 40)
    ran = segment("a.jpg", "--text", "a tree", "--text-model", model, "--min-score", "0", "--json")
    got = record(ran)
    assert "owl, licence apache-2.0" in ran.words
    assert len(got["objects"]) == len(prompts[0].boxes) == CELLS**2
    left, top = 160 / CELLS / 2, 40 / CELLS / 2
    first = min(prompts[0].boxes.tolist(), key=sum)
    assert first == pytest.approx([left, top, 3 * left, 3 * top], abs=0.05)
    assert {found["class"] for found in got["objects"]} == {"a tree"}
    assert [found["box"] for found in got["objects"]] == [pytest.approx(box) for box in prompts[0].boxes.tolist()]


# everything


@pytest.mark.parametrize("kind", ["png", "overlay", "coco"])
def test_everything(segment: Run, kind: str) -> None:
    photo("a.jpg")
    settings = ("--grid", "4", "--min-iou", "0", "--min-stability", "0", "--batch", "8", "--min-area", "4")
    got = record(segment("a.jpg", "--everything", *settings, "--format", kind, "--json"))
    assert len(got["objects"]) >= 16
    assert "segment" in got["timings_ms"]
    if kind == "png":
        assert len(np.unique(np.asarray(Image.open("a_mask.png")))) > 12
    if kind == "coco":
        assert len(json.loads(Path("coco.json").read_text())) == len(got["objects"])


def test_nothing_found_is_said(segment: Run) -> None:
    photo("a.jpg")
    ran = segment("a.jpg", "--everything", "--grid", "2", "--min-area", "9999")
    assert ran.code == 0
    assert "nothing was found that is sure enough" in ran.words


# what is refused

GOOD = "a.jpg --detections found.json"
BAD = [
    (f"{GOOD} --box 1,2,30,40", 2, "give prompts either by --detections or by --box, --point and --mask, not by both"),
    (f"{GOOD} --everything", 2, "either by --everything or by --detections, not by both"),
    ("a.jpg --box 1,2,30,40 --class boat", 2, "--class belongs to --detections, which was not given"),
    ("a.jpg --box 1,2,30,40 --part shirt", 2, "--part belongs to --pose"),
    ("a.jpg --box 1,2,30,40 --min-score 0.5", 2, "--min-score belongs to --detections or --text or --pose"),
    ("a.jpg --everything --top-k 4", 2, "--top-k belongs to"),
    ("a.jpg --detections found.json --grid 4", 2, "--grid belongs to --everything"),
    (f"{GOOD} --class bota --class-names names.json", 2, "unknown class: bota did you mean boat?"),
    (f"{GOOD} --class zebra", 2, "unknown class: zebra known are"),
    (f"{GOOD} --nms 2", 2, "an IoU is from 0 to 1"),
    (f"{GOOD} --top-k 0", 2, "--top-k must be 1 or more"),
    (f"{GOOD} --min-score high", 2, "'high' is not a number"),
    (f"{GOOD} --class-names names.json --class 7", 2, "unknown class: 7"),
    ("a.jpg --detections named.json --class-names names.json", 1, "named.json names its classes itself"),
    ("a.jpg --detections nowhere.json", 1, "no such file: nowhere.json"),
    ("a.jpg --detections a.jpg", 1, "is not JSON"),
    ("a.jpg b.jpg --detections rows.txt", 1, "rows.txt does not say which of the photos it is of"),
    ("a.jpg --detections other.json", 1, "other.json names none of the photos; it has b.jpg"),
    ("a.jpg --pose nowhere.json", 1, "no such file: nowhere.json"),
    ("a.jpg --pose skeleton.json", 1, "21 keypoints are another skeleton"),
    ("a.jpg --pose poses.json --part shrt", 2, "unknown part: shrt did you mean shirt?"),
    ("a.jpg --pose poses.json --parts bad.toml", 1, "bad.toml: a has no foreground"),
    ("a.jpg --pose poses.json --person 0", 2, "counted from 1, not from 0"),
    ("a.jpg --everything --batch 65", 2, "--batch is from 1 to 64"),
    ("a.jpg --everything --multimask", 2, "takes no --multimask"),
    (f"{GOOD} --multimask --exclusive", 2, "takes no --exclusive"),
    ("a.jpg --text {}", 2, "a phrase is empty"),
    (f"{GOOD} --format yolo", 1, "classes.txt exists already"),
]


@pytest.mark.usefixtures("_inputs")
@pytest.mark.parametrize(("line", "code", "words"), BAD, ids=[row[0] for row in BAD])
def test_bad_inputs(segment: Run, line: str, code: int, words: str) -> None:
    save("other.json", FOUND[2:])
    save("rows.txt", "0 0.5 0.5 0.2 0.2")
    photo("b.jpg")
    save("named.json", [{**FOUND[0], "category_name": "light"}])
    save("poses.json", [PERSON])
    save("skeleton.json", [{"image_id": 1, "keypoints": [1, 2, 1] * 21}])
    save("bad.toml", "[a]")
    save("classes.txt", "mine")
    before = files()
    ran = segment(*("" if word == "{}" else word for word in line.split()))
    assert ran.code == code, ran.err
    assert words in ran.words
    assert not ran.out
    assert files() == before


@pytest.mark.parametrize(
    ("options", "package", "extra"),
    [(("--text", "a tree"), "transformers", "text"), (("--pose", "auto"), "mediapipe", "pose")],
)
def test_extras_that_are_not_installed(
    segment: Run, monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...], package: str, extra: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    photo("a.jpg")
    ran = segment("a.jpg", *options)
    assert ran.code == 1
    assert f"needs {package}, which is not installed pip install 'nanosam-cli[{extra}]'" in ran.words
    assert files() == ["a.jpg"]


@pytest.mark.usefixtures("_inputs")
def test_boxes_that_cannot_be_used_are_counted(segment: Run) -> None:
    boxes = [[10, 20, 40, 30], [90, 70, 40, 40], [200, 10, 5, 5], [10, 10, 0, 5], [10, 10, -5, 5]]
    rows = [{**FOUND[0], "bbox": box} for box in boxes]
    ran = segment("a.jpg", "--detections", save("odd.json", rows), "--json")
    got = record(ran)
    assert got["notes"] == [
        "1 of 5 boxes dropped: outside the photo",
        "2 of 5 boxes dropped: without area",
        "1 of 2 boxes clipped to the photo",
    ]
    assert len(got["objects"]) == 2
    for note in got["notes"]:
        assert f"a.jpg: {note}" in ran.words


@pytest.mark.data
def test_coco_average_precision_of_the_model_in_the_box() -> None:
    """Boxes of COCO's annotations as if a perfect detector had found them, on ten photos."""
    folder = Path(os.environ["NANOSAM_TEST_DATA"]) / "coco-val"
    truth = COCO(str(folder / "instances.json"))
    photos = [folder / "images" / image["file_name"] for image in truth.dataset["images"][:10]]
    ran = run_nanosam("segment", *photos, "--detections", folder / "instances.json", "--format", "coco")
    assert ran.code == 0, ran.err
    evaluation = COCOeval(truth, truth.loadRes("coco.json"), "segm")
    evaluation.params.imgIds = truth.getImgIds()[:10]
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    assert evaluation.stats[1] > 0.7

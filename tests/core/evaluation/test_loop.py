"""The evaluation loop, what it prompts with, and what it compares: against pycocotools, object by object."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nanosam_cli.core.datasets.annotated_mask import AnnotatedMask
from nanosam_cli.core.datasets.coco import AnnotatedObject, AnnotatedPhoto, read_coco
from nanosam_cli.core.errors import InputError, UsageError
from nanosam_cli.core.evaluation.loop import EvaluatedPhoto, evaluate, evaluate_boxes
from nanosam_cli.core.evaluation.metrics import mean_iou_by_size
from nanosam_cli.core.evaluation.prompting import Prompting
from nanosam_cli.core.evaluation.protocols import PROTOCOLS, select_objects
from nanosam_cli.core.evaluation.segmenters import (
    BASELINES,
    ModelSegmenter,
    Ready,
    ScoredMask,
    ShapeSegmenter,
    box_mask,
    ellipse_mask,
    open_segmenter,
)
from nanosam_cli.core.loading.choice import ModelChoice
from nanosam_cli.core.loading.load import load_predictor
from nanosam_cli.core.masks import has_area, usable_boxes
from nanosam_cli.core.media.mask_codes import mask_to_rle
from nanosam_cli.core.types import Prompt
from tests import evaluation_data as data
from tests.evaluation_data import save_data_set
from tests.fake_models import save_decoder

Files = tuple[Path, Path]


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> list[AnnotatedPhoto]:
    images, annotations = save_data_set(tmp_path_factory.mktemp("data"))
    return read_coco(annotations, images)


def target(
    mask: np.ndarray[Any, Any], bbox: tuple[float, float, float, float] = (0, 0, 4, 4), identity: int = 7
) -> Any:
    return AnnotatedObject(identity, 1, bbox, 16.0, False, mask_to_rle(mask))


def pycocotools_iou(target: AnnotatedObject, mask: np.ndarray[Any, Any]) -> float:
    from pycocotools import mask as coco_mask

    found = coco_mask.encode(np.asfortranarray(mask, np.uint8))
    return float(coco_mask.iou([found], [target.rle], [0])[0, 0])


def assert_agrees_with_pycocotools(done: Sequence[EvaluatedPhoto]) -> None:
    for photo in done:
        for annotated, result, found in zip(photo.photo.objects, photo.results, photo.masks, strict=True):
            assert result.id == annotated.id
            assert result.iou == pytest.approx(pycocotools_iou(annotated, found.mask), abs=1e-6)


# IoU


@pytest.mark.parametrize("name", ["nanosam", "edgesam", "efficientvit"])
def test_iou_is_pycocotools(photos: list[AnnotatedPhoto], own_files: Files, name: str) -> None:
    protocol = PROTOCOLS[name]
    with load_predictor(encoder=own_files[0], decoder=own_files[1]) as predictor:
        segmenter = ModelSegmenter(predictor, protocol.select)
        done = list(evaluate(segmenter, select_objects(photos, protocol)))
    assert_agrees_with_pycocotools(done)
    assert any(0 < result.iou < 1 for photo in done for result in photo.results)
    assert sum(photo.empty for photo in done) == (0 if name == "efficientvit" else 1)  # its area is below 1


@pytest.mark.data
def test_baselines_score_what_they_are_known_to(own_files: Files) -> None:
    found = read_coco(Path(os.environ["NANOSAM_TEST_DATA"]) / "coco-val" / "instances.json")
    selected = select_objects(found, PROTOCOLS["edgesam"])
    means = {}
    for name in BASELINES:
        done = list(evaluate(ShapeSegmenter(name), selected))
        assert_agrees_with_pycocotools(done)
        means[name] = mean_iou_by_size([result for photo in done for result in photo.results])
    assert {name: [round(mean, 3) for mean in means[name].values()] for name in means} == {
        "box": [0.600, 0.611, 0.564, 0.624],
        "ellipse": [0.634, 0.645, 0.607, 0.650],
    }
    with load_predictor(encoder=own_files[0], decoder=own_files[1]) as predictor:
        segmenter = ModelSegmenter(predictor, "argmax")
        assert_agrees_with_pycocotools(list(evaluate(segmenter, select_objects(found, PROTOCOLS["nanosam"])[:10])))


FULL, NONE = np.ones((4, 6), bool), np.zeros((4, 6), bool)
LEFT = FULL & (np.arange(6) < 3)


@pytest.mark.parametrize(
    ("truth", "found", "iou"),
    [(FULL, FULL, 1.0), (LEFT, FULL, 0.5), (FULL, LEFT, 0.5), (LEFT, ~LEFT, 0.0), (NONE, FULL, 0.0), (NONE, NONE, 0.0)],
)
def test_iou_of_masks(truth: np.ndarray[Any, Any], found: np.ndarray[Any, Any], iou: float) -> None:
    known = AnnotatedMask.of(target(truth))
    assert known.iou(found) == iou == pycocotools_iou(known.target, found)


def test_broken_run_lengths_name_their_object() -> None:
    broken = AnnotatedObject(7, 1, (0, 0, 4, 4), 16.0, False, {"size": [4, 6], "counts": [3]})
    with pytest.raises(InputError, match="object 7: the runs of a COCO run-length code do not fill"):
        AnnotatedMask.of(broken)


# prompts


@pytest.mark.parametrize(
    ("box", "usable", "area"),
    [
        ((1, 2, 3, 4), (1, 2, 3, 4), True),
        ((1.25, 2, 1.75, 2.5), (1.25, 2, 1.75, 2.5), True),  # small, but an area
        ((-5, -5, 100, 100), (0, 0, 80, 60), True),
        ((5, 51, 25, 51), (5, 51, 25, 52), False),  # no height
        ((5.5, 7.5, 5.5, 7.5), (5, 7, 6, 8), False),
        ((90, 70, 95, 75), (79, 59, 80, 60), False),  # outside
        ((-9, 10, -3, 20), (0, 10, 1, 20), False),
        ((30, 10, 20, 20), (25, 10, 26, 20), False),  # inverted
        ((70, 10, 70 + 1e-9, 20), (70, 10, 71, 20), False),  # nothing is left of it in float32
    ],
)
def test_usable_boxes(box: tuple[float, ...], usable: tuple[float, ...], area: bool) -> None:
    np.testing.assert_array_equal(usable_boxes(np.array([box]), (60, 80)), [usable])
    assert has_area(box, (60, 80)) == area


def test_points_lie_on_the_object() -> None:
    ring = np.zeros((40, 40), bool)
    ring[5:35, 5:35] = True
    ring[10:30, 10:30] = False  # the centre of mass is not on it
    truth = AnnotatedMask.of(target(ring))
    points = truth.points(20, np.random.default_rng(0))
    assert len({tuple(point) for point in points.tolist()}) == 20
    assert all(ring[int(y), int(x)] for x, y in points)
    one_pixel = AnnotatedMask.of(target(np.eye(1, 9, 3, dtype=bool)))
    assert one_pixel.points(3, np.random.default_rng(0)).tolist() == [[3.5, 0.5]] * 3
    empty = AnnotatedMask.of(target(NONE, (2, 0, 2, 2)))
    assert empty.points(2, np.random.default_rng(0)).tolist() == [[3, 1]] * 2


@pytest.mark.parametrize(
    ("prompting", "name", "boxes", "points"),
    [
        (Prompting(), "box", (2, 4), None),
        (Prompting(boxes=False, points=1), "point", None, (2, 1, 2)),
        (Prompting(boxes=False, points=3), "points:3", None, (2, 3, 2)),
        (Prompting(points=1), "box+point", (2, 4), (2, 1, 2)),
        (Prompting(points=2, noise=0.1), "box+points:2", (2, 4), (2, 2, 2)),
    ],
)
def test_kinds_of_prompts(prompting: Prompting, name: str, boxes: Any, points: Any) -> None:
    prompt = prompting((4, 6), [AnnotatedMask.of(target(FULL)), AnnotatedMask.of(target(LEFT))])
    assert str(prompting) == name
    assert (None if prompt.boxes is None else prompt.boxes.shape) == boxes
    assert (None if prompt.points is None else prompt.points.shape) == points


def test_noise_depends_on_the_object_alone() -> None:
    truths = [AnnotatedMask.of(target(FULL, (20, 20, 40, 10), identity)) for identity in (1, 2, -3)]
    noisy = Prompting(noise=0.1, seed=5)
    boxes = noisy((100, 100), truths).boxes
    alone = noisy((100, 100), truths[1:2]).boxes
    assert boxes is not None
    assert alone is not None
    np.testing.assert_array_equal(boxes[1], alone[0])
    moved = np.abs(boxes - [20, 20, 60, 30])
    assert (moved > 0).all()
    assert (moved <= [4, 1, 4, 1]).all()
    assert len(np.unique(moved[:, 0])) == 3
    assert not np.array_equal(boxes, Prompting(noise=0.1, seed=6)((100, 100), truths).boxes)
    both = Prompting(noise=0.1, seed=5, points=3)((100, 100), truths)
    np.testing.assert_array_equal(both.boxes, boxes)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"boxes": False}, "no prompt"),
        ({"noise": 0.5}, "box noise must be"),
        ({"noise": -0.1}, "box noise must be"),
        ({"noise": float("nan")}, "box noise must be"),
        ({"boxes": False, "points": 1, "noise": 0.1}, "needs a box prompt"),
    ],
)
def test_wrong_prompts(arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        Prompting(**arguments)


# protocols


@pytest.mark.parametrize(
    ("name", "kinds"),
    [
        ("nanosam", {"POLYGON", "COMPRESSED", "CROWD", "EMPTY", "FLAT_BOX", "OUTSIDE_BOX"}),
        ("edgesam", {"POLYGON", "COMPRESSED", "EMPTY", "FLAT_BOX", "OUTSIDE_BOX"}),
        ("efficientvit", {"POLYGON", "COMPRESSED", "CROWD", "FLAT_BOX", "OUTSIDE_BOX"}),
    ],
)
def test_protocols_select_objects(photos: list[AnnotatedPhoto], name: str, kinds: set[str]) -> None:
    first, *others = select_objects(photos, PROTOCOLS[name])
    assert [found.id for found in first.objects] == sorted(100 + getattr(data, kind) for kind in kinds)
    assert len(others) == 3


def test_photos_without_objects_are_left_out(photos: list[AnnotatedPhoto]) -> None:
    assert [photo.id for photo in select_objects(photos, PROTOCOLS["nanosam"], [44])] == [1]


@pytest.mark.parametrize(("name", "index"), [("nanosam", 0), ("edgesam", 0), ("efficientvit", 2)])
def test_protocols_choose_masks(tmp_path: Path, own_files: Files, name: str, index: int) -> None:
    """Of four masks: the best is the first, the best of the last three the third."""
    decoder = save_decoder(tmp_path / "decoder.onnx", ious=(0.9, 0.1, 0.8, 0.7))
    with load_predictor(encoder=own_files[0], decoder=decoder) as predictor:
        embedding = predictor.encode_image(np.zeros((60, 80, 3), np.uint8))
        for prompt in (Prompt.from_boxes([[5, 5, 60, 50]]), Prompt.from_points([[40, 30]])):
            (found,) = predictor.predict(embedding, prompt, select=PROTOCOLS[name].select)
            assert found.index == index


# baselines


@pytest.mark.parametrize(
    ("box", "pixels"),
    [
        ((1, 1, 3, 4), {(x, y) for x in (1, 2) for y in (1, 2, 3)}),
        ((0.5, 0.5, 1.5, 1.5), {(0, 0)}),  # a border on a pixel's centre belongs to it on the near side alone
        ((2.6, 1.6, 2.9, 1.9), {(2, 1)}),  # no pixel's centre, so the nearest
        ((4.6, 3.6, 5, 4), {(4, 3)}),
    ],
)
def test_box_masks(box: tuple[float, ...], pixels: set[tuple[int, int]]) -> None:
    mask = box_mask(np.array(box, np.float32), (4, 5))
    assert {(x, y) for y, x in np.argwhere(mask).tolist()} == pixels
    assert ellipse_mask(np.array(box, np.float32), (4, 5)).any()


def test_ellipse_masks() -> None:
    mask = ellipse_mask(np.array([100, 50, 300, 150], np.float32), (200, 400))
    assert mask.sum() == pytest.approx(np.pi * 100 * 50, rel=0.01)
    rows, columns = np.nonzero(mask)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (50, 149, 100, 299)


def test_baselines_do_not_read_photos(photos: list[AnnotatedPhoto]) -> None:
    def read(path: Path) -> Any:
        raise AssertionError

    done = list(evaluate(ShapeSegmenter("box"), select_objects(photos, PROTOCOLS["nanosam"]), read=read))
    results = {result.id: result for photo in done for result in photo.results}
    assert len(done) == 4
    assert results[100 + data.FLAT_BOX].iou == pytest.approx(0.5)  # one row of two
    assert results[100 + data.OUTSIDE_BOX].iou == 0
    assert results[100 + data.OUTSIDE_BOX].box == (90, 70, 95, 75)  # as annotated


def test_decoders_with_a_fixed_number_of_points(tmp_path: Path, own_files: Files, photos: list[AnnotatedPhoto]) -> None:
    decoder = save_decoder(tmp_path / "decoder.onnx", points=2)
    with load_predictor(encoder=own_files[0], decoder=decoder) as predictor:
        segmenter = ModelSegmenter(predictor)
        for prompting in (Prompting(), Prompting(False, 1)):
            segmenter.check(prompting)
        for prompting in (Prompting(points=1), Prompting(False, 2)):
            with pytest.raises(UsageError, match="takes 2 points an object"):
                list(evaluate(segmenter, photos, prompting=prompting))


def test_baselines_need_boxes(photos: list[AnnotatedPhoto]) -> None:
    with pytest.raises(UsageError, match="needs a box prompt"):
        list(evaluate(ShapeSegmenter("box"), photos, prompting=Prompting(False, 1)))
    with (
        pytest.raises(UsageError, match="runs no model files"),
        open_segmenter(ModelChoice("box", encoder=Path("encoder.onnx"), decoder=Path("decoder.onnx"))),
    ):
        pass


# the loop


class Fake:
    """Finds nothing, and notes in which thread it prepared what."""

    def __init__(self) -> None:
        self.prepared: list[tuple[int, int]] = []

    def prepare(self, photo: AnnotatedPhoto, read: Any) -> Ready:
        self.prepared.append((photo.id, threading.get_ident()))
        return lambda prompt: [ScoredMask(np.zeros(photo.original_hw, bool), 0.5) for _ in range(len(prompt))]

    def check(self, prompting: Prompting) -> None:
        pass

    def describe(self) -> dict[str, Any]:
        return {"name": "fake"}


def test_photos_are_prepared_ahead_in_another_thread(photos: list[AnnotatedPhoto]) -> None:
    fake = Fake()
    steps = evaluate(fake, photos)
    assert next(steps).photo.id == 1
    done = [1, *(result.photo.id for result in steps)]
    assert done == [number for number, _ in fake.prepared] == [1, 2, 3, 4]
    assert {thread for _, thread in fake.prepared} != {threading.get_ident()}
    assert len({thread for _, thread in fake.prepared}) == 1


def test_a_loop_that_is_left_early_ends_its_thread(photos: list[AnnotatedPhoto]) -> None:
    before = threading.active_count()
    steps = evaluate(Fake(), photos)
    next(steps)
    steps.close()  # type: ignore[attr-defined]
    assert threading.active_count() == before


def test_photos_that_cannot_be_read(photos: list[AnnotatedPhoto], own_files: Files, tmp_path: Path) -> None:
    def read(path: Path) -> Any:
        if path.stem.endswith("2"):
            raise InputError(f"{path.name} is broken")
        return np.zeros((59 if path.stem.endswith("3") else 60, 80, 3), np.uint8)

    failures = []
    with load_predictor(encoder=own_files[0], decoder=own_files[1]) as predictor:
        segmenter = ModelSegmenter(predictor)
        steps = evaluate(segmenter, photos, read=read, failed=lambda photo, error: failures.append((photo.id, error)))
        assert [result.photo.id for result in steps] == [1, 4]
        assert [number for number, _ in failures] == [2, 3]
        assert "is 80x59 pixels, annotated as 80x60" in str(failures[1][1])
        with pytest.raises(InputError, match="is broken"):
            list(evaluate(segmenter, photos, read=read))


def test_training_leaves_crowds_out(photos: list[AnnotatedPhoto], own_files: Files) -> None:
    with load_predictor(encoder=own_files[0], decoder=own_files[1]) as predictor:
        results = evaluate_boxes(predictor, photos)
    assert len(results) == 11
    assert not any(result.iscrowd for result in results)

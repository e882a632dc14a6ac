"""Simulated corrections, beside a slow implementation that shares nothing with them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from nanosam_cli.core.datasets.annotated_mask import AnnotatedMask
from nanosam_cli.core.datasets.coco import AnnotatedObject, AnnotatedPhoto, read_annotations
from nanosam_cli.core.datasets.photo_files import PhotoFiles
from nanosam_cli.core.errors import InputError, UsageError
from nanosam_cli.core.evaluation.clicks import (
    MASK_STEPS,
    PROTOCOL,
    Click,
    Corrections,
    MaskPrompts,
    correct,
    plan_clicks,
    rough_mask,
)
from nanosam_cli.core.evaluation.clicks_report import measures
from nanosam_cli.core.evaluation.plan import ObjectFilter
from nanosam_cli.core.evaluation.results import ObjectResult, Results, read_results
from nanosam_cli.core.evaluation.run import start_run
from nanosam_cli.core.evaluation.segmenters import DiscSegmenter, ScoredMask, Segmenter, ShapeSegmenter, open_segmenter
from nanosam_cli.core.loading.choice import ModelChoice
from nanosam_cli.core.masks import Mask, mask_iou
from nanosam_cli.core.media.mask_codes import mask_to_rle
from nanosam_cli.core.types import BACKGROUND, FOREGROUND, PADDING, Prompt
from tests.evaluation_data import save_data_set

HW = (14, 17)


def truth_of(mask: Mask) -> AnnotatedMask:
    rows, columns = np.nonzero(mask)
    x, y = (columns.min(), rows.min()) if len(rows) else (0, 0)
    width, height = (np.ptp(columns) + 1, np.ptp(rows) + 1) if len(rows) else (1, 1)
    box = (float(x), float(y), float(width), float(height))
    return AnnotatedMask.of(AnnotatedObject(1, 1, box, float(mask.sum()), False, mask_to_rle(mask)))


def drawn(*lines: str) -> Mask:
    return np.array([[letter == "#" for letter in line] for line in lines])


# --- the slow implementation: sets of pixels, a flood for regions, every pair for distances


def slow_regions(pixels: set[tuple[int, int]]) -> list[set[tuple[int, int]]]:
    regions, left = [], set(pixels)
    for seed in sorted(pixels):
        if seed not in left:
            continue
        region, front = set(), [seed]
        left.discard(seed)
        while front:
            y, x = front.pop()
            region.add((y, x))
            for near in ((y + down, x + right) for down in (-1, 0, 1) for right in (-1, 0, 1)):
                if near in left:
                    left.discard(near)
                    front.append(near)
        regions.append(region)
    return regions


def slow_click(truth: Mask, mask: Mask, before: Sequence[Click]) -> Click | None:
    height, width = truth.shape
    grid = [(y, x) for y in range(-1, height + 1) for x in range(-1, width + 1)]
    missing = {(y, x) for y, x in grid if 0 <= y < height and 0 <= x < width and truth[y, x] and not mask[y, x]}
    surplus = {(y, x) for y, x in grid if 0 <= y < height and 0 <= x < width and mask[y, x] and not truth[y, x]}
    candidates = [(region, 1) for region in slow_regions(missing)] + [(region, 0) for region in slow_regions(surplus)]
    if not candidates:
        return None
    region, label = max(candidates, key=lambda candidate: len(candidate[0]))  # the first of equals
    outside = [place for place in grid if place not in region]
    depth = {(y, x): min((y - v) ** 2 + (x - u) ** 2 for v, u in outside) for y, x in region}
    fresh = [place for place in sorted(region) if place not in {(click.y, click.x) for click in before}]
    y, x = max(fresh or sorted(region), key=lambda place: depth[place])
    return Click(x, y, label)


def slow_dialogue(
    truth: Mask, segmenter: Segmenter, photo: AnnotatedPhoto, clicks: int
) -> tuple[list[float], list[bool]]:
    """One object, alone, from the first click on."""
    mask, made, ious, heard = np.zeros(truth.shape, bool), [], [], []
    for _ in range(clicks):
        click = slow_click(truth, mask, made)
        if click is not None:
            made.append(click)
            points = np.array([[[one.x + 0.5, one.y + 0.5] for one in made]], np.float32)
            labels = np.array([[one.label for one in made]], np.float32)
            [answer] = segmenter.prepare(photo, lambda _: np.zeros((*HW, 3), np.uint8))(Prompt(None, points, labels))
            mask = answer.mask
            heard.append(bool(mask[click.y, click.x]) == bool(click.label))
        ious.append(float((mask & truth).sum() / (mask | truth).sum()))
    return ious, heard


def blobs(seed: int) -> Mask:
    """Some discs and lines on a small photo."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[: HW[0], : HW[1]]
    mask = np.zeros(HW, bool)
    for _ in range(random.integers(1, 5)):
        cy, cx, radius = random.uniform(0, HW[0]), random.uniform(0, HW[1]), random.uniform(0.8, 5)
        mask |= (y - cy) ** 2 + (x - cx) ** 2 <= radius**2
    mask[random.integers(HW[0])] |= random.random(HW[1]) < 0.3
    return mask


@pytest.mark.parametrize("seed", range(25))
def test_clicks_are_those_of_the_slow_implementation(seed: int) -> None:
    truth, mask = blobs(seed), blobs(1000 + seed)
    before: list[Click] = []
    for _ in range(4):
        click = correct(truth_of(truth), mask, before)
        assert click == slow_click(truth, mask, before)
        before += [click] if click else []


@pytest.mark.parametrize("seed", range(8))
def test_a_dialogue_is_that_of_the_slow_implementation(seed: int) -> None:
    masks = [blobs(seed), blobs(100 + seed), blobs(200 + seed)]
    photo = AnnotatedPhoto(1, Path("photo.png"), HW, tuple(truth_of(mask).target for mask in masks))
    truths = [truth_of(mask) for mask in masks]
    ready = DiscSegmenter().prepare(photo, lambda _: np.zeros((*HW, 3), np.uint8))
    found = Corrections(clicks=7)(photo, truths, ready)
    for mask, result in zip(masks, found.results, strict=True):
        ious, heard = slow_dialogue(mask, DiscSegmenter(), photo, 7)
        assert result.ious == pytest.approx(ious)
        assert list(result.obeyed) == heard
        assert result.iou == result.ious[-1]


@pytest.mark.parametrize(
    ("truth", "mask", "expected"),
    [
        ([".....", ".###.", ".###.", ".###."], ["....."] * 4, Click(2, 2, FOREGROUND)),
        ([".....", ".###.", ".###.", ".###."], ["#####"] * 4, Click(0, 0, BACKGROUND)),  # one pixel deep: the first
        (["##...", "##...", ".....", "....."], ["##...", "##...", ".....", "....#"], Click(4, 3, BACKGROUND)),
        (["#....", ".....", ".....", "....#"], ["....."] * 4, Click(0, 0, FOREGROUND)),  # two that are equal
        (["#....", ".#...", "..#..", "...##"], ["....."] * 4, Click(0, 0, FOREGROUND)),  # corners join
        (["##..."] * 4, ["##..."] * 4, None),
        (["....."] * 4, ["....."] * 4, None),
    ],
)
def test_where_the_click_falls(truth: list[str], mask: list[str], expected: Click | None) -> None:
    assert correct(truth_of(drawn(*truth)), drawn(*mask)) == expected


def test_a_pixel_is_clicked_twice_only_where_there_is_no_other() -> None:
    truth = truth_of(drawn("###", "###", "###"))
    nothing = np.zeros((3, 3), bool)
    first = correct(truth, nothing)
    assert first == Click(1, 1, FOREGROUND)
    second = correct(truth, nothing, [first])
    assert second == Click(0, 0, FOREGROUND)
    dot = truth_of(drawn("...", ".#.", "..."))
    assert correct(dot, nothing, [Click(1, 1, FOREGROUND)]) == Click(1, 1, FOREGROUND)


class Scripted:
    """Answers with masks that were written before, and remembers what it was asked."""

    def __init__(self, answers: Sequence[Sequence[Mask]]) -> None:
        self.answers, self.asked = iter(answers), list[Prompt]()

    def __call__(self, prompt: Prompt) -> list[ScoredMask]:
        self.asked.append(prompt)
        step = float(len(self.asked))
        return [ScoredMask(mask, 1.0, np.full((256, 256), step, np.float32)) for mask in next(self.answers)]


def test_a_right_mask_is_left_alone_and_the_others_go_on_with_the_last_mask() -> None:
    good, other = drawn("##..", "##..", "...."), drawn("....", "....", ".###")
    wrong = np.zeros((3, 4), bool)
    photo = AnnotatedPhoto(1, Path("photo.png"), (3, 4), ())
    script = Scripted([[good, wrong], [wrong, other], [wrong, wrong]])
    found = Corrections(clicks=3)(photo, [truth_of(good), truth_of(other)], script)
    assert [result.ious for result in found.results] == [(1, 1, 1), (0, 1, 1)]
    assert [result.obeyed for result in found.results] == [(True,), (False, True)]
    first, second, third = script.asked
    assert first.mask_logits is None
    assert second.mask_logits is not None
    assert second.mask_logits[:, 0, 0].tolist() == [1, 1]
    assert second.labels is not None
    assert second.labels.tolist() == [[1, PADDING], [1, 1]]
    assert third.mask_logits is not None
    assert third.mask_logits[:, 0, 0].tolist() == [1, 2]  # the first one's is still that of its right mask


def test_the_box_comes_first_where_it_is_asked_for() -> None:
    mask = drawn("##..", "##..", "....")
    photo = AnnotatedPhoto(1, Path("photo.png"), (3, 4), ())
    script = Scripted([[~mask], [mask]])
    found = Corrections("box", 1)(photo, [truth_of(mask)], script)
    assert found.results[0].ious == (0, 1)
    first, second = script.asked
    assert first.points is None
    assert second.boxes is not None
    assert second.boxes.tolist() == [[0, 0, 2, 2]]
    assert second.mask_logits is not None


@pytest.mark.parametrize("clicks", [0, 101])
def test_too_few_or_too_many_clicks_are_refused(clicks: int) -> None:
    with pytest.raises(UsageError, match="--clicks is from 1 to 100"):
        Corrections(clicks=clicks)


def test_a_rough_mask_is_smooth_and_beside_the_right_one() -> None:
    y, x = np.mgrid[:80, :100]
    mask = (y - 40) ** 2 + (x - 50) ** 2 <= 25**2
    whisker = mask.copy()
    whisker[40, 75:95] = True
    rough = rough_mask(whisker, direction=(-1, 1))
    assert mask_iou(rough, np.roll(mask, (-3, 3), axis=(0, 1))) > 0.97  # 6 % of 51
    assert not rough[40, 85:].any()
    assert 0.8 < mask_iou(rough, mask) < 0.9
    line = np.zeros((20, 20), bool)
    line[10, 3:17] = True
    assert np.array_equal(rough_mask(line, (1, 1)), line)  # one pixel thin: 6 % of it are no move
    assert not rough_mask(np.zeros((4, 4), bool), (1, 1)).any()


def results(rows: Sequence[tuple[float, int, tuple[float, ...], tuple[bool, ...]]], start: str = "click") -> Results:
    steps = Corrections(start, len(rows[0][2]) - (start == "box")).steps  # type: ignore[arg-type]
    objects = [
        ObjectResult(number, area, 1, 0, photo, (0, 0, 1, 1), ious[-1], ious, obeyed)
        for number, (area, photo, ious, obeyed) in enumerate(rows)
    ]
    return Results(Path("clicks.json"), objects, {"settings": {"prompt": "clicks", "start": start, "steps": steps}})


def means(found: Results, size: str = "all") -> dict[str, float | None]:
    return {measure.name: measure.sizes[size].mean for measure in measures(found)}


def test_the_report_counts_clicks_from_one_or_after_the_box() -> None:
    rows = [
        (100.0, 1, (0.5, 0.86, 0.84), (True, True, False)),
        (100.0, 2, (0.9, 0.9, 0.95), (True, False, True)),
        (9999.0, 2, (0.1, 0.2, 0.3), (False, False, False)),
    ]
    alone = means(results(rows))
    assert alone["mIoU after 1 click"] == pytest.approx(0.5)
    assert alone["mIoU after 3 clicks"] == pytest.approx((0.84 + 0.95 + 0.3) / 3)
    assert alone["clicks to 0.85"] == pytest.approx((2 + 1 + 3) / 3)
    assert alone["share that gets to 0.85"] == pytest.approx(2 / 3)
    assert alone["clicks to 0.90"] == pytest.approx((3 + 1 + 3) / 3)
    assert alone["newest click obeyed"] == pytest.approx(4 / 9)
    assert alone["steps that worsen"] == pytest.approx(1 / 6)  # 0.86 to 0.84
    assert means(results(rows), "large")["mIoU after 2 clicks"] == pytest.approx(0.2)
    assert means(results(rows), "medium")["mIoU after 2 clicks"] is None
    after_box = means(results([(area, photo, ious, heard[:2]) for area, photo, ious, heard in rows], "box"))
    assert after_box["mIoU after box"] == pytest.approx(0.5)
    assert after_box["clicks to 0.85"] == pytest.approx((1 + 0 + 2) / 3)


def test_a_step_without_a_click_is_no_step() -> None:
    found = means(results([(100.0, 1, (1.0, 1.0, 1.0), (True,)), (100.0, 2, (0.5, 0.4, 0.6), (True, True, True))]))
    assert found["steps that worsen"] == pytest.approx(1 / 2)
    assert found["newest click obeyed"] == 1


@pytest.fixture
def places(tmp_path: Path) -> tuple[Path, Path]:
    return save_data_set(tmp_path / "data")


def run(
    places: tuple[Path, Path], output: Path, segmenter: Segmenter, examine: Any, stop: int = 99, **how: bool
) -> None:
    images, annotations = places
    with PhotoFiles(images) as files:
        plan = plan_clicks(read_annotations(annotations, images), files, segmenter, ObjectFilter(PROTOCOL), examine)
        with start_run(plan, output, examine=examine, **how) as started:
            for step, _ in enumerate(started.steps(segmenter, files), start=1):
                if step == stop:
                    raise KeyboardInterrupt
            started.finish()


@pytest.mark.parametrize("files", ["own_files", "nvidia_files"])
def test_a_killed_run_of_a_model_goes_on_to_the_same_file(
    places: tuple[Path, Path], tmp_path: Path, files: str, request: pytest.FixtureRequest
) -> None:
    encoder, decoder = request.getfixturevalue(files)
    corrections = Corrections(clicks=3)
    with open_segmenter(ModelChoice(encoder=encoder, decoder=decoder)) as segmenter:
        run(places, tmp_path / "whole.json", segmenter, corrections)
        with pytest.raises(KeyboardInterrupt):
            run(places, tmp_path / "cut.json", segmenter, corrections, stop=2)
        run(places, tmp_path / "cut.json", segmenter, corrections, resume=True)
        assert (tmp_path / "cut.json").read_bytes() == (tmp_path / "whole.json").read_bytes()
        with pytest.raises(InputError, match="clicks was 3, is 4"):
            run(places, tmp_path / "cut.json", segmenter, Corrections(clicks=4), resume=True)
    found = read_results(tmp_path / "whole.json")
    assert len(found.objects) == 10  # neither the crowd nor the one without a pixel
    assert found.meta["counts"]["empty_masks"] == 1
    assert all(len(result.ious) == 3 and 1 <= len(result.obeyed) <= 3 for result in found.objects)


def test_masks_are_prompts_for_a_model_and_not_for_a_baseline(
    places: tuple[Path, Path], tmp_path: Path, own_files: tuple[Path, Path]
) -> None:
    with open_segmenter(ModelChoice(encoder=own_files[0], decoder=own_files[1])) as segmenter:
        run(places, tmp_path / "masks.json", segmenter, MaskPrompts(segmenter, seed=5))
        run(places, tmp_path / "again.json", segmenter, MaskPrompts(segmenter, seed=5))
    found = read_results(tmp_path / "masks.json")
    assert found.settings["steps"] == list(MASK_STEPS)
    assert found.settings["seed"] == 5
    assert [measure.name for measure in measures(found)] == list(MASK_STEPS)
    assert all(result.iou == result.ious[3] for result in found.objects)
    assert (tmp_path / "masks.json").read_bytes() == (tmp_path / "again.json").read_bytes()
    for baseline in (ShapeSegmenter("box"), DiscSegmenter()):
        with pytest.raises(UsageError, match="takes no masks"):
            run(places, tmp_path / "none.json", baseline, MaskPrompts(baseline))


def test_results_without_steps_are_not_reported(tmp_path: Path) -> None:
    bare = replace(results([(1.0, 1, (0.5,), (True,))]), meta={})
    with pytest.raises(InputError, match="has not the steps"):
        measures(bare)


def test_discs_obey() -> None:
    prompt = Prompt(None, np.array([[[8, 8], [9, 8]]], np.float32), np.array([[FOREGROUND, BACKGROUND]], np.float32))
    photo = AnnotatedPhoto(1, Path("photo.png"), (32, 32), ())
    [found] = DiscSegmenter().prepare(photo, lambda _: np.zeros((32, 32, 3), np.uint8))(prompt)
    assert not found.mask[8, 9]
    assert found.mask[8, 6]


def distances(sources: NDArray[np.bool_]) -> NDArray[np.int64]:
    from nanosam_cli.core.regions import squared_distances

    return squared_distances(sources)


@pytest.mark.parametrize("seed", range(6))
def test_distances_are_exact(seed: int) -> None:
    sources = np.random.default_rng(seed).random((11, 13)) < (0.02, 0.1, 0.4)[seed % 3]
    sources[seed, 3] = True
    there = np.argwhere(sources)
    expected = [[min(((y, x) - there).__pow__(2).sum(axis=1)) for x in range(13)] for y in range(11)]
    assert distances(sources).tolist() == expected

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="training needs the extra `train`")

import torch

from nanosam_cli.core.datasets.coco import read_coco
from nanosam_cli.core.errors import InputError
from nanosam_cli.core.training.data.crops import Crop, paste_double, paste_object
from nanosam_cli.core.training.data.datasets import ResumableSteps, TrainingCrops
from nanosam_cli.core.training.data.image_folder import Unreadable
from tests.training_data import save_shapes, tiny_recipe


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> TrainingCrops:
    folder = tmp_path_factory.mktemp("data")
    save_shapes(folder / "shapes")
    return TrainingCrops(tiny_recipe(folder, steps=80))


def test_samples_are_drawn_by_index(dataset: TrainingCrops) -> None:
    again = dataset.batch([5])
    present = [(one, other) for one, other in zip(dataset.batch([5]), again) if one is not None and other is not None]
    assert len(present) == 7
    assert all(torch.equal(one, other) for one, other in present)
    assert not torch.equal(dataset.batch([5]).images, dataset.batch([6]).images)


def test_masks_fill_their_boxes(dataset: TrainingCrops) -> None:
    """Boxes are in the frame, masks in pixels of the crop: 2 frame units a pixel at 512."""
    for index in range(20):
        sample = dataset.batch([index])
        for mask, box in zip(sample.masks[:, 0], sample.boxes / 2):
            rows, columns = torch.nonzero(mask > 127, as_tuple=True)
            found = torch.stack([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
            assert (found - box).abs().max() <= 1.5


def test_padding_is_zero_as_at_inference(dataset: TrainingCrops) -> None:
    padded = [dataset.batch([index]).images[0] for index in range(20)]
    padded = [image for image in padded if not image[:, -1].any()]
    assert padded
    assert all(image.any() for image in padded)


def test_prompts_are_where_they_should_be(dataset: TrainingCrops) -> None:
    kinds = set()
    for index in range(160):
        sample = dataset.batch([index])
        for mask, coords, labels in zip(sample.masks[:, 0], sample.point_coords, sample.point_labels):
            kinds.add(tuple(labels.int().tolist()))
            x, y = (coords[0] / 2).int().tolist()
            assert mask[y, x] > 127  # every object has its point, whatever the prompt
            for point, label in zip(coords[1:], labels[1:]):
                if label in (0, 1):
                    x, y = (point / 2).int().tolist()
                    assert (mask[y, x] > 127) == (label == 1)
            if labels[1] == 2:
                assert (coords[2] > coords[1]).all()
    assert {(1, -1, -1), (1, 2, 3), (-1, 2, 3), (1, 0, -1), (1, 1, -1)} < kinds
    assert {kind[0] for kind in kinds} == {1, -1}


def test_full_steps_show_whole_photos_and_prompt_their_objects_again(tmp_path: Path) -> None:
    save_shapes(tmp_path / "shapes")
    dataset = TrainingCrops(tiny_recipe(tmp_path, steps=80, crop=256, full=0.3))
    full = [step for step in range(dataset.steps) if dataset.is_full(step)]
    assert 0.1 < len(full) / dataset.steps < 0.5
    assert len(dataset.samples_of(full[0])) == 1  # a photo has the area of four crops, a batch has two
    sample = dataset.batch(dataset.samples_of(full[0]))
    assert sample.images.shape[2:] == (512, 512)
    objects = len({mask.numpy().tobytes() for mask in sample.masks})
    assert len(sample.owner) == 4 * objects


def test_steps_go_on_where_they_stopped(dataset: TrainingCrops) -> None:
    whole = list(ResumableSteps(dataset, 0))
    assert len(whole) == len(ResumableSteps(dataset, 0)) == 80
    assert list(ResumableSteps(dataset, 33)) == whole[33:]


def test_crowds_are_not_trained_on(dataset: TrainingCrops) -> None:
    assert all(not target.iscrowd for source in dataset.sources for photo in source.photos for target in photo.objects)


def test_batches_have_a_fixed_number_of_prompts(dataset: TrainingCrops) -> None:
    available = len(dataset.batch(range(3)).owner)
    for count in (2, 3, 7):
        batch = dataset.batch(range(3), prompts=count)
        assert len(batch.owner) == len(batch.masks) == len(batch.point_labels) == count
        assert set(batch.owner.tolist()) == set(range(min(count, 3)))
        assert len({mask.numpy().tobytes() for mask in batch.masks}) == min(count, available)


def test_pasted_objects_hide_what_is_under_them() -> None:
    ours, hidden, theirs = torch.zeros(3, 64, 64, dtype=torch.uint8)
    ours[10:30, 10:30] = 255
    hidden[40:50, 40:50] = 255
    theirs[20:60, 20:60] = 255
    black, bright = torch.zeros(3, 64, 64, dtype=torch.uint8), torch.full((3, 64, 64), 200, dtype=torch.uint8)
    crop = Crop(black, (64, 64), torch.stack([ours, hidden]), [(10, 10, 30, 30), (40, 40, 50, 50)])
    donor = Crop(bright, (64, 64), theirs[None], [(20, 20, 60, 60)])
    pasted = paste_object(crop, donor, np.random.default_rng(0))
    assert pasted.image[0, 40, 40] == 200
    assert pasted.image[0, 5, 5] == 0
    assert len(pasted.masks) == 2  # the pasted one and ours; the other is wholly covered
    assert not (pasted.masks[1] & theirs).any()
    assert pasted.boxes == [(20, 20, 60, 60), (10, 10, 30, 30)]


def _one_object(box: tuple[int, int, int, int], valid_hw: tuple[int, int] = (64, 64)) -> Crop:
    """A crop with one object: a bright triangle in a box, on grey."""
    x0, y0, x1, y1 = box
    mask = torch.zeros(64, 64, dtype=torch.uint8)
    mask[y0:y1, x0:x1] = torch.ones(y1 - y0, x1 - x0, dtype=torch.uint8).tril() * 255
    image = torch.where(mask > 0, 200, 50).to(torch.uint8).expand(3, 64, 64)
    return Crop(image, valid_hw, mask[None], [(float(x0), float(y0), float(x1), float(y1))])


def test_a_double_lies_beside_its_object_and_hides_it_or_is_hidden() -> None:
    crop = _one_object((22, 22, 42, 42))
    kinds = set()
    for seed in range(60):
        doubled = paste_double(crop, np.random.default_rng(seed))
        assert len(doubled.masks) == 2
        double, own = doubled.masks > 127
        assert not (double & own).any()
        assert torch.equal(doubled.image[0] == 200, double | own)  # nothing but the two is drawn, and all of both
        for box, mask in zip(doubled.boxes, (double, own)):
            rows, columns = torch.nonzero(mask, as_tuple=True)
            assert box == (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
        whole = int((crop.masks > 127).sum())
        if int(double.sum()) < whole:
            assert int(own.sum()) == whole
            kinds.add("behind")
            continue
        rows, columns = torch.nonzero(double, as_tuple=True)  # all of it is seen
        shift = sorted(abs(float(places.min()) - 22) for places in (rows, columns))
        assert shift[0] <= 5 <= shift[1] <= 16
        kinds.add("mirrored" if double[rows.min(), columns.max()] else "as it is")
    assert kinds == {"behind", "mirrored", "as it is"}


def test_a_double_that_would_hardly_be_seen_is_left_out() -> None:
    """The object fills what the crop shows of the photo; beside it is padding."""
    crop = _one_object((0, 0, 20, 20), valid_hw=(20, 20))
    found = [paste_double(crop, np.random.default_rng(seed)) for seed in range(40)]
    assert any(one is crop for one in found)
    for one in found:
        assert not one.masks[:, 20:].any()
        assert not one.masks[:, :, 20:].any()
        assert not one.image[:, 20:].eq(200).any()
        assert not one.image[:, :, 20:].eq(200).any()
        assert all((mask > 127).sum() >= 0.39 * 210 for mask in one.masks)
    nothing = Crop(crop.image, (64, 64), torch.zeros(0, 64, 64, dtype=torch.uint8), [])
    assert paste_double(nothing, np.random.default_rng(0)) is nothing


def test_doubles_are_drawn_only_where_they_are_asked_for(tmp_path: Path) -> None:
    save_shapes(tmp_path / "shapes")
    without, none, all_of_them = (
        TrainingCrops(tiny_recipe(tmp_path, overrides=overrides))
        for overrides in ([], ["data.doubles=0"], ["data.doubles=1"])
    )
    drawn = [[dataset.draw(index).crop for index in range(12)] for dataset in (without, none, all_of_them)]
    assert all(torch.equal(one.masks, other.masks) for one, other in zip(drawn[0], drawn[1]))
    assert sum(len(one.masks) < len(other.masks) for one, other in zip(drawn[0], drawn[2])) > 3


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, "no such annotation file"),
        ("{", "is not JSON"),
        ("[]", "is not a COCO instances file"),
        ('{"images": [{"id": 1}], "annotations": [{"image_id": 2}]}', "is not a COCO instances file"),
    ],
)
def test_broken_annotation_files(tmp_path: Path, text: str | None, words: str) -> None:
    path = tmp_path / "instances.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(InputError, match=words):
        read_coco(path)


def test_annotations_are_read_in_every_notation(tmp_path: Path) -> None:
    save_shapes(tmp_path)
    first, *_ = read_coco(tmp_path / "instances.json")
    assert [target.iscrowd for target in first.objects] == [False, False, True]  # the bare one is left out
    assert first.objects[2].mask().sum() == 500
    assert first.objects[0].box == (10, 12, 50, 42)


def test_each_bad_photo_counts_once(tmp_path: Path) -> None:
    """However often it is drawn: there are four of them."""
    save_shapes(tmp_path / "shapes", photos=4)
    dataset = TrainingCrops(tiny_recipe(tmp_path))
    dataset.unreadable = Unreadable(tmp_path / "unreadable.jsonl", 4)
    for photo in dataset.photos:
        photo.path.write_bytes(b"no photo")
    with pytest.raises(InputError, match=r"^4 photos in a row cannot be read; the last is .*\.png$"):
        dataset.draw(0)


def test_a_source_that_is_not_there_is_told_with_what_to_type(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no such annotation file: .*instances\.json") as caught:
        TrainingCrops(tiny_recipe(tmp_path))
    assert caught.value.hint == "--set data.root=DIR, the folder above data.sources"

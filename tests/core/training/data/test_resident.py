"""Crops made where the photos lie are those that Pillow makes of files."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="training needs the extra `train`")

import torch
from PIL import Image

from nanosam_cli.core.errors import BackendError, InputError
from nanosam_cli.core.frame import SAM_STD
from nanosam_cli.core.training.data import resident
from nanosam_cli.core.training.data.crops import Colours, change_colours
from nanosam_cli.core.training.data.datasets import TrainingCrops
from nanosam_cli.core.training.data.image_folder import Unreadable
from nanosam_cli.core.training.data.resident import ResidentPhotos
from nanosam_cli.core.training.data.resize import resize
from nanosam_cli.core.training.distillation import train
from nanosam_cli.core.training.run_log import Event, RunNote, StepReport
from tests.fake_models import save_encoder
from tests.training_data import save_shapes, teacher, tiny_recipe

CPU = torch.device("cpu")
PIXEL = 1 / min(SAM_STD)  # one of 255, normalised


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    save_shapes(folder / "shapes")
    return folder


def _resident(dataset: TrainingCrops) -> TrainingCrops:
    dataset.pixels = ResidentPhotos(dataset.photos, CPU, lambda _: None)
    return dataset


@pytest.mark.parametrize(
    ("box", "out_hw", "different"),
    [
        ((0.0, 0.0, 50.0, 30.0), (30, 50), 0),
        ((3.3, 2.7, 41.9, 29.1), (64, 64), 0.01),
        ((0.0, 0.0, 50.0, 30.0), (7, 5), 0.01),
        ((48.9, 29.2, 49.6, 29.9), (9, 9), 0.05),  # enlarged so much that Pillow's float32 positions show
        ((10.2, 0.0, 50.0, 11.7), (3, 90), 0.3),  # where one side shrinks, newer Pillow rounds that one first
    ],
)
def test_resizing_is_pillows(box: tuple[float, float, float, float], out_hw: tuple[int, int], different: float) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (30, 50, 3), np.uint8)
    wanted = np.asarray(Image.fromarray(pixels).resize(out_hw[::-1], Image.Resampling.BILINEAR, box=box)).astype(int)
    found = resize(torch.from_numpy(pixels).permute(2, 0, 1), box, out_hw).permute(1, 2, 0).numpy().astype(int)
    assert np.abs(found - wanted).max() <= 1
    assert (found != wanted).mean() <= different


@pytest.mark.parametrize(
    "overrides",
    [
        [],
        ["data.copy_paste=1.0"],
        ["data.doubles=1.0"],
        ["data.whole=1.0", "data.mirror=1.0"],
        ["data.grey=1.0", "data.colour=0.9"],
        ["data.scale=[0.9, 2.5]"],
    ],
    ids=str,
)
def test_the_same_samples_from_the_device(root: Path, overrides: list[str]) -> None:
    """Windows, boxes and kinds of prompts are equal; pixels to 1 of 255 before colours are changed, which may triple
    it; points too, but where a mask's pixel lies between object and background."""
    recipe = tiny_recipe(root, steps=40, crop=128, full=0.2, overrides=overrides)
    files, device = TrainingCrops(recipe), _resident(TrainingCrops(recipe))
    moved, changed = 0, []
    for step in range(20):
        wanted, found = (dataset.batch(dataset.samples_of(step), prompts=4) for dataset in (files, device))
        assert torch.equal(found.owner, wanted.owner)
        assert torch.equal(found.point_labels, wanted.point_labels)
        assert torch.equal(found.ambiguous, wanted.ambiguous)
        torch.testing.assert_close(found.boxes, wanted.boxes, atol=2.1, rtol=0)  # a pixel, where something was pasted
        moved += int((found.point_coords - wanted.point_coords).abs().amax(dim=2).gt(0.01).sum())
        torch.testing.assert_close(found.images, wanted.images, atol=3 * PIXEL, rtol=0)
        changed.append((found.images - wanted.images).abs().mean())
        assert (found.masks.int() - wanted.masks.int()).abs().max() <= 2
    assert moved <= 2
    assert max(changed) < 0.03 * PIXEL


def test_a_teacher_sees_the_same(root: Path) -> None:
    recipe = tiny_recipe(root, steps=40, crop=64, overrides=["data.copy_paste=0.5"])
    files, device = TrainingCrops(recipe, 1024), _resident(TrainingCrops(recipe, 1024))
    for index in range(8):
        wanted, found = (dataset.batch([index]).teacher_images for dataset in (files, device))
        assert wanted is not None
        assert found is not None
        assert found.shape == (1, 3, 128, 128)
        torch.testing.assert_close(found, wanted, atol=1.5 * PIXEL, rtol=0)


def _losses(folder: Path) -> list[float]:
    with (folder / "log.csv").open(newline="") as file:
        return [float(row["loss"]) for row in csv.DictReader(file)]


def test_a_killed_run_on_the_device_goes_on_with_the_same_losses(root: Path, tmp_path: Path) -> None:
    class Killed(BaseException):
        pass

    def kill(event: Event) -> None:
        if isinstance(event, StepReport) and event.step == 3:
            raise Killed

    recipe = tiny_recipe(root, overrides=["data.resident=true"])
    notes: list[Event] = []
    train(recipe, tmp_path / "whole", report=notes.append)
    assert RunNote("3 photos and 6 masks need 0.00 GB on cpu") in notes
    with pytest.raises(Killed):
        train(recipe, tmp_path / "killed", report=kill)
    train(recipe, tmp_path / "killed", resume=True)
    assert _losses(tmp_path / "killed") == _losses(tmp_path / "whole")
    train(tiny_recipe(root), tmp_path / "files")
    assert _losses(tmp_path / "whole") == pytest.approx(_losses(tmp_path / "files"), abs=1e-3)


def test_a_run_may_move_to_the_device(root: Path, tmp_path: Path) -> None:
    """What is learned is the same, so a checkpoint of one way goes on in the other."""
    files, device = tiny_recipe(root), tiny_recipe(root, overrides=["data.resident=true"])
    assert files.fingerprint() == device.fingerprint()


@pytest.mark.parametrize("kind", ["folder", "shard"])
def test_photos_without_masks(root: Path, tmp_path: Path, kind: str) -> None:
    import tarfile

    source = tmp_path / "data" / "photos"
    source.mkdir(parents=True)
    for path in sorted((root / "shapes" / "images").iterdir()):
        (source / path.name).write_bytes(path.read_bytes())
    if kind == "shard":
        with tarfile.open(source / "0.tar", "w") as shard:
            for path in sorted(source.glob("*.png")):
                shard.add(path, path.name)
                path.unlink()
    taught = teacher(save_encoder(tmp_path / "encoder.onnx"))
    overrides = [taught, 'data.sources=[{path = "photos", weight = 1, kind = "images"}]']
    recipe = tiny_recipe(tmp_path / "data", masks=False, decoder="teacher", steps=20, overrides=overrides)
    files, device = TrainingCrops(recipe, 128), _resident(TrainingCrops(recipe, 128))
    for index in range(6):
        wanted, found = (dataset.batch([index]) for dataset in (files, device))
        torch.testing.assert_close(found.images, wanted.images, atol=3 * PIXEL, rtol=0)
        assert len(found.owner) == 0


def test_unreadable_photos_are_left_out_as_with_files(tmp_path: Path) -> None:
    save_shapes(tmp_path / "shapes", photos=4)
    (tmp_path / "shapes" / "images" / "2.png").write_bytes(b"no picture")
    listed = []
    for name in ("files", "device"):
        dataset = TrainingCrops(tiny_recipe(tmp_path, steps=40))
        if name == "device":
            _resident(dataset)
        with pytest.raises(InputError, match=r"2\.png"):
            [dataset.batch([index]) for index in range(20)]
        dataset.unreadable = Unreadable(tmp_path / f"{name}.jsonl", 100)
        batches = [dataset.batch([index]) for index in range(12)]
        listed.append((dataset.unreadable.path.read_text(), [batch.boxes for batch in batches]))
    (one, boxes), (other, again) = listed
    assert one == other
    assert all(torch.equal(left, right) for left, right in zip(boxes, again))


def test_photos_that_were_annotated_in_another_size_are_left_out(tmp_path: Path) -> None:
    """On its side a photo has as many pixels."""
    save_shapes(tmp_path / "shapes", photos=4)
    path = tmp_path / "shapes" / "images" / "2.png"
    with Image.open(path) as image:
        image.transpose(Image.Transpose.ROTATE_90).save(path)
    for place in ("files", "device"):
        dataset = TrainingCrops(tiny_recipe(tmp_path, steps=40))
        if place == "device":
            _resident(dataset)
        with pytest.raises(InputError, match=r"2\.png is (\d+)x(\d+) pixels, annotated as \2x\1"):
            [dataset.batch([index]) for index in range(20)]


def test_memory_that_is_not_there(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resident, "free_memory_bytes", lambda: 100_000)
    with pytest.raises(BackendError, match=r"3 photos and 6 masks need 0\.00 GB on cpu, which has 0\.00 GB left") as e:
        train(tiny_recipe(root, overrides=["data.resident=true"]), tmp_path)
    assert "data.resident=false" in str(e.value.hint)


def test_colours_are_changed_as_pillow_does() -> None:
    from PIL import ImageEnhance

    pixels = np.random.default_rng(0).integers(0, 256, (20, 20, 3), np.uint8)
    for brightness, contrast, saturation in ((1.3, 0.7, 1.2), (0.6, 1.4, 0.0), (1.0, 1.0, 1.0)):
        picture = Image.fromarray(pixels)
        for enhancer, factor in (
            (ImageEnhance.Brightness, brightness),
            (ImageEnhance.Contrast, contrast),
            (ImageEnhance.Color, saturation),
        ):
            picture = enhancer(picture).enhance(factor)
        images = torch.from_numpy(pixels).permute(2, 0, 1)[None]
        found = change_colours(images, [Colours(brightness, contrast, saturation)])
        wanted = torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None].float()
        torch.testing.assert_close(found, wanted, atol=3, rtol=0)

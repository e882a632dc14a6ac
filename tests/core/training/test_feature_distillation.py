"""Runs with a teacher: what is learned, what is cached, what is left behind."""

from __future__ import annotations

import csv
import errno
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch", reason="training needs the extra `train`")

import torch
from PIL import Image

from nanosam_cli.core.errors import BackendError, InputError, OutputError
from nanosam_cli.core.export.export import export_model
from nanosam_cli.core.modeling.checkpoint import load_state
from nanosam_cli.core.training import distillation
from nanosam_cli.core.training.data.datasets import TrainingCrops
from nanosam_cli.core.training.distillation import train
from nanosam_cli.core.training.distributed import Ranks
from nanosam_cli.core.training.recipe import Recipe
from nanosam_cli.core.training.run_log import Event, RunNote, read_steps
from nanosam_cli.core.training.teaching.teacher import open_teacher
from nanosam_cli.core.training.training_step import TrainingStep
from tests.fake_models import save_decoder, save_encoder
from tests.training_data import save_shapes, teacher, tiny_recipe

CPU = torch.device("cpu")
IMAGES = 'data.sources=[{path = "shapes", weight = 1, kind = "images"}]'


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    save_shapes(folder / "shapes")
    save_encoder(folder / "encoder.onnx")
    save_decoder(folder / "decoder.onnx")
    return folder


def _losses(folder: Path) -> list[str]:
    with (folder / "log.csv").open(newline="") as file:
        return [row["loss"] for row in csv.DictReader(file)]


def _features_only(root: Path, *overrides: str, steps: int = 4, **changes: object) -> Recipe:
    taught = teacher(root / "encoder.onnx", decoder=str(root / "decoder.onnx"), **changes)
    return tiny_recipe(root, steps=steps, masks=False, decoder="teacher", overrides=[taught, IMAGES, *overrides])


def test_an_encoder_learns_its_teachers_features(root: Path) -> None:
    recipe = _features_only(root, "data.colour=0", "optimiser.learning_rate=3e-3")
    asked, ranks = recipe.teacher, Ranks(CPU)
    assert asked is not None
    master = open_teacher(asked, CPU)
    dataset = TrainingCrops(recipe, master.image_size)
    batch = dataset.batch([0, 1], prompts=4)
    assert len(batch.owner) == 0
    training = distillation.prepare(recipe, ranks, master, fresh=True)
    found = [distillation.train_step(training, [batch], recipe, 1, 3e-3, ranks)[0] for _ in range(30)]
    assert found[-1].features < 0.5 * found[0].features
    assert found[-1].features == found[-1].loss


def test_a_run_ends_in_files_that_segment(root: Path, tmp_path: Path) -> None:
    from nanosam_cli import Prompt, load_predictor, read_image

    notes: list[Event] = []
    recipe = _features_only(root, "run.evaluate_on=shapes", "run.export=true", "run.evaluate_limit=0", steps=2)
    checkpoint = train(recipe, tmp_path, report=notes.append)
    files = tmp_path / "export"
    with load_predictor(encoder=files / "encoder.onnx", decoder=files / "decoder.onnx") as predictor:
        embedding = predictor.encode_image(read_image(root / "shapes" / "images" / "0.png"))
        [found] = predictor.predict(embedding, Prompt.from_boxes([[10, 12, 50, 42]]))
    assert found.area == pytest.approx(40 * 30, rel=0.1)  # the teacher's decoder draws boxes
    with Image.open(tmp_path / "masks.png") as sheet:
        assert sheet.size[0] > 500
    assert any(isinstance(note, RunNote) and "encoder.onnx" in note.text for note in notes)
    record = json.loads((tmp_path / "recipe.json").read_text())
    assert record["photos_per_source"] == {"shapes": 3}
    assert {len(value) for value in (*record["data_sha256"].values(), record["teacher_sha256"])} == {64}
    with pytest.raises(InputError, match="an image encoder alone"):
        export_model(checkpoint, tmp_path / "again", "decoder")
    with pytest.raises(InputError, match="an image encoder alone"):
        export_model(checkpoint, tmp_path / "again", "all")
    assert not [*(tmp_path / "again").glob("*")]  # said before the encoder takes its time


def test_cached_embeddings_change_nothing_but_rounding(root: Path, tmp_path: Path) -> None:
    """The same four crops twice: from the cache, and from a teacher that runs every time."""
    cache = {"cache": str(tmp_path / "cache"), "cache_steps": 2}
    cached = _features_only(root, "optimiser.precision=fp32", **cache)
    notes: list[Event] = []
    train(cached, tmp_path / "cached", report=notes.append)
    [note] = [event.text for event in notes if isinstance(event, RunNote)]
    assert note.startswith("teacher's embeddings of 4 crops: 0.00 GB in")
    files = sorted((tmp_path / "cache").rglob("*.npy"))
    assert [np.load(file).shape for file in files] == [(2, 256, 8, 8)] * 2
    before = [file.stat().st_mtime_ns for file in files]

    again: list[Event] = []
    train(cached, tmp_path / "again", report=again.append)
    assert not [event for event in again if isinstance(event, RunNote)]  # everything is there
    assert [file.stat().st_mtime_ns for file in files] == before
    assert _losses(tmp_path / "again") == _losses(tmp_path / "cached")

    dataset = TrainingCrops(cached, 128)
    master = open_teacher(cached.teacher, CPU) if cached.teacher else None
    assert master is not None
    fresh = [master.embed(dataset.batch(step).teacher_images) for step in ([0, 1], [2, 3])]  # type: ignore[arg-type]
    for file, embeddings in zip(files, fresh):
        torch.testing.assert_close(torch.from_numpy(np.load(file)).float(), embeddings, atol=2e-3, rtol=1e-3)
    # the same pictures come again in other colours
    assert torch.equal(dataset.batch([0]).teacher_images, dataset.batch([4]).teacher_images)  # type: ignore[arg-type]
    assert not torch.equal(dataset.batch([0]).images, dataset.batch([4]).images)


def test_a_broken_off_cache_goes_on(root: Path, tmp_path: Path) -> None:
    recipe = _features_only(root, steps=1, cache=str(tmp_path / "cache"), cache_steps=3)
    train(recipe, tmp_path / "first")
    files = sorted((tmp_path / "cache").rglob("*.npy"))
    whole = files[1].read_bytes()
    files[1].unlink()
    train(recipe, tmp_path / "second")
    assert files[1].read_bytes() == whole


def test_a_cache_that_does_not_fit_is_not_begun(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 1000})())
    with pytest.raises(OutputError, match=r"embeddings need 0\.0 GB"):
        train(_features_only(root, cache=str(tmp_path / "cache"), cache_steps=2), tmp_path / "run")
    assert not list((tmp_path / "cache").rglob("*.npy"))


@pytest.mark.parametrize(
    "overrides",
    [
        ["prompts.rounds=2", "prompts.refine=1.0"],
        ['optimiser.freeze=["decoder"]'],
        ['optimiser.freeze=["backbone", "batchnorm"]'],
        ["optimiser.schedule=constant", "data.mirror=0.0"],
    ],
    ids=str,
)
@pytest.mark.parametrize("decoder", ["region", "plain-sam"])
def test_masks_and_features_together(root: Path, tmp_path: Path, decoder: str, overrides: list[str]) -> None:
    taught = teacher(root / "encoder.onnx", decoder=str(root / "decoder.onnx"), masks="teacher", loss="l1")
    recipe = tiny_recipe(root, steps=2, decoder=decoder, overrides=[taught, *overrides])
    ranks = Ranks(CPU)
    training = distillation.prepare(recipe, ranks, None, fresh=True)
    frozen = {name for name, value in training.model.named_parameters() if not value.requires_grad}
    before = {name: value.clone() for name, value in training.model.state_dict().items()}
    train(recipe, tmp_path)
    after = load_state(tmp_path / "last.safetensors").part("model.")
    same = {name for name, value in before.items() if torch.equal(value, after[name])}
    assert frozen <= same
    assert any(name not in same for name in before if name.startswith("encoder.neck"))
    rows = read_steps(tmp_path)
    assert all(float(row["loss"]) > float(row["features"]) > 0 for row in rows)


def test_the_teachers_masks_take_the_place_of_annotated_ones(root: Path) -> None:
    """The fake decoder draws boxes, and squares of 80 frame pixels around clicks."""
    taught = teacher(root / "encoder.onnx", decoder=str(root / "decoder.onnx"), masks="teacher")
    recipe = tiny_recipe(root, overrides=[taught])
    assert recipe.teacher is not None
    master = open_teacher(recipe.teacher, CPU)
    dataset = TrainingCrops(recipe, master.image_size)
    batch = dataset.batch([0, 1], prompts=6)
    step = TrainingStep(distillation.prepare(recipe, Ranks(CPU), master, fresh=True).model, recipe, master)
    images = batch.teacher_images
    assert images is not None
    masks = step._teacher_masks(batch, master.embed(images))
    for mask, coords, labels in zip(masks[:, 0], batch.point_coords, batch.point_labels):
        if labels[1] == 2 and labels[0] == -1:
            box = (coords[1:].reshape(4) / 2).clamp(0, 64)
            rows, columns = torch.nonzero(mask, as_tuple=True)
            found = torch.stack([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
            assert (found - box).abs().max() <= 3


@pytest.mark.parametrize(("batch", "micro"), [(4, 2), (4, 1)])
def test_micro_batches_are_the_unit_of_collation(root: Path, batch: int, micro: int) -> None:
    recipe = tiny_recipe(root, overrides=[f"optimiser.batch={batch}", f"optimiser.micro_batch={micro}"])
    dataset = TrainingCrops(recipe)
    parts = [list(dataset.samples_of(3, part)) for part in range(batch // micro)]
    assert [index for part in parts for index in part] == list(range(3 * batch, 4 * batch)) == dataset.all_samples_of(3)


def test_a_step_of_micro_batches_has_their_mean_gradient(root: Path) -> None:
    overrides = ["optimiser.batch=4", "optimiser.micro_batch=2", 'optimiser.freeze=["batchnorm"]', "optimiser.clip=0"]
    recipe = tiny_recipe(root, overrides=overrides)
    dataset = TrainingCrops(recipe)
    batches = [dataset.batch(dataset.samples_of(0, part), 4) for part in range(2)]

    def gradients(chosen: list[int]) -> tuple[torch.Tensor, float]:
        ranks = Ranks(CPU, rank=chosen[0])  # as the process that takes this part
        training = distillation.prepare(recipe, ranks, None, fresh=True)
        training.optimiser = torch.optim.SGD(training.model.parameters(), lr=1.0)  # type: ignore[assignment]
        before = [parameter.detach().clone() for parameter in training.model.parameters()]
        learned, _ = distillation.train_step(training, [batches[i] for i in chosen], recipe, 1, 1.0, ranks)
        changes = [(b - p.detach()).flatten() for b, p in zip(before, training.model.parameters())]
        return torch.cat(changes), float(learned.loss)

    (both, loss), (one, first), (two, second) = gradients([0, 1]), gradients([0]), gradients([1])
    assert loss == pytest.approx((first + second) / 2, rel=1e-6)
    assert first != second
    torch.testing.assert_close(both, (one + two) / 2, atol=1e-6, rtol=1e-4)


def test_a_teacher_without_weight_is_not_asked(root: Path, tmp_path: Path) -> None:
    taught = teacher(root / "encoder.onnx")
    train(tiny_recipe(root, steps=1), tmp_path / "alone")
    train(tiny_recipe(root, steps=1, overrides=[taught, "teacher.weight=0"]), tmp_path / "unweighted")
    train(tiny_recipe(root, steps=1, overrides=[taught]), tmp_path / "taught")
    alone, unweighted, both = (read_steps(tmp_path / name)[0] for name in ("alone", "unweighted", "taught"))
    assert alone["loss"] == unweighted["loss"]
    assert float(unweighted["features"]) == 0
    # the very same samples, with the features on top
    assert float(both["loss"]) == pytest.approx(float(alone["loss"]) + float(both["features"]), rel=1e-4)


def test_the_best_and_some_numbered_checkpoints_stay(root: Path, tmp_path: Path) -> None:
    overrides = ["run.keep=2", "run.checkpoint_every=1", "run.evaluate_every=1"]
    train(tiny_recipe(root, steps=4, evaluate_on="shapes", overrides=overrides), tmp_path)
    assert sorted(path.stem for path in tmp_path.glob("step-*")) == ["step-0000003", "step-0000004"]
    records = [json.loads(line) for line in (tmp_path / "evaluation.jsonl").read_text().splitlines()]
    best = max(records, key=lambda record: (record["all"], -record["step"]))
    assert load_state(tmp_path / "best.safetensors").metadata["step"] == best["step"]
    assert load_state(tmp_path / "step-0000004.safetensors").metadata["step"] == 4


def test_a_full_disk_keeps_the_last_checkpoint(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = tiny_recipe(root, steps=4, checkpoint_every=2)
    write = Path.write_bytes

    def full(path: Path, data: bytes) -> int:
        if path.suffix == ".safetensors" and (tmp_path / "last.safetensors").exists():
            write(path, data[: len(data) // 2])
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        return write(path, data)

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OutputError, match="disk full"):
        train(recipe, tmp_path)
    assert distillation.steps_done(tmp_path) == 2
    assert not list(tmp_path.glob(".nanosam-*"))
    monkeypatch.undo()
    train(recipe, tmp_path, resume=True)
    assert distillation.steps_done(tmp_path) == 4


def test_unreadable_photos_are_left_out_and_listed(root: Path, tmp_path: Path) -> None:
    for folder in "abc":
        (tmp_path / "shapes" / folder).mkdir(parents=True)
    for number in range(40):
        path = tmp_path / "shapes" / "abc"[number % 3] / f"{number}.png"
        Image.new("RGB", (90, 70), (number * 6, 80, 90)).save(path)
    (tmp_path / "shapes" / "a" / "cut.jpg").write_bytes(b"\xff\xd8\xff\xe0 cut off")
    for name in ("encoder.onnx", "decoder.onnx"):
        (tmp_path / name).write_bytes((root / name).read_bytes())
    notes: list[Event] = []
    train(_features_only(tmp_path, steps=25), tmp_path / "run", report=notes.append)  # 50 draws: every photo once
    assert [note.text for note in notes if isinstance(note, RunNote) and note.warning] != []
    [record] = [json.loads(line) for line in (tmp_path / "run" / "unreadable.jsonl").read_text().splitlines()]
    assert record["photo"].endswith("cut.jpg")
    for number in range(4):
        (tmp_path / "shapes" / f"bad{number}.png").write_bytes(b"")
    with pytest.raises(InputError, match="cannot be read, more than 5%"):
        train(_features_only(tmp_path, steps=25), tmp_path / "worse")


def test_a_run_starts_from_another_ones_weights(root: Path, tmp_path: Path) -> None:
    first = train(tiny_recipe(root, steps=1), tmp_path / "first")
    overrides = [f"init.encoder={first.as_posix()}", f"init.decoder={first.as_posix()}"]
    recipe = tiny_recipe(root, steps=1, overrides=overrides)
    training = distillation.prepare(recipe, Ranks(CPU), None, fresh=True)
    trained = load_state(first).part("ema.module.")
    assert all(torch.equal(value, trained[name]) for name, value in training.model.state_dict().items())


def test_half_precision_needs_cuda(root: Path, tmp_path: Path) -> None:
    with pytest.raises(BackendError, match="fp16 needs CUDA"):
        train(tiny_recipe(root, overrides=["optimiser.precision=fp16", "run.device=cpu"]), tmp_path)


@pytest.mark.parametrize("why", ["offline", "none published", "no network"])
def test_random_weights_are_said_aloud(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, why: str) -> None:
    if why == "offline":
        monkeypatch.setenv("NANOSAM_OFFLINE", "1")
    elif why == "none published":
        monkeypatch.setattr("timm.models.is_model_pretrained", lambda _: False)
    else:
        import timm

        create = timm.create_model

        def unreachable(name: str, **options: Any) -> Any:
            if options.get("pretrained"):
                raise OSError("cannot find the files on the Hub\nmore words")
            return create(name, **options)

        monkeypatch.setattr(timm, "create_model", unreachable)
    notes: list[Event] = []
    recipe = tiny_recipe(root, steps=1, overrides=["model.pretrained=true"])
    checkpoint = train(recipe, tmp_path, report=notes.append)
    [note] = [event for event in notes if isinstance(event, RunNote)]
    assert note.warning
    assert note.text.startswith("test_resnet starts from random weights: ")
    assert json.loads((tmp_path / "recipe.json").read_text())["not_pretrained"] in note.text
    resumed: list[Event] = []
    train(recipe, tmp_path, resume=True, report=resumed.append)
    assert not resumed
    assert checkpoint.exists()

from __future__ import annotations

from pathlib import Path

import pytest

from nanosam_cli.core import paths
from nanosam_cli.core.errors import InputError, NanosamError, RecipeError, UsageError
from nanosam_cli.core.training.recipe import find_recipe, list_recipe_files, load_recipe
from tests.training_data import tiny_recipe

RECIPES = [path for path, _ in list_recipe_files()]


def test_recipes_are_found() -> None:
    assert "nanosam-lite2" in [path.stem for path in RECIPES]
    assert all(title for _, title in list_recipe_files())


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_recipe_is_valid(path: Path) -> None:
    assert load_recipe(path).model.name == path.stem


@pytest.mark.parametrize(
    ("override", "value"),
    [
        ("optimiser.steps=12", 12),
        ("optimiser.learning_rate=1", 1.0),
        ("optimiser.precision=fp32", "fp32"),
        ('model.backbone="resnet18"', "resnet18"),
        ("data.scale=[0.5, 2]", (0.5, 2.0)),
        ("model.pretrained=true", True),
    ],
)
def test_overrides(override: str, value: object) -> None:
    section, key = override.partition("=")[0].split(".")
    recipe = load_recipe(find_recipe("nanosam-lite2"), [override])
    assert getattr(getattr(recipe, section), key) == value


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("optimiser.step=12", "optimiser.step: no such key; did you mean steps?"),
        ("optimizer.steps=12", "optimizer: no such key; did you mean optimiser?"),
        ("optimiser.steps=0", "optimiser.steps: must be at least 1, not 0"),
        ("optimiser.steps=1.5", "optimiser.steps: must be int, not 1.5"),
        ("optimiser.steps=true", "optimiser.steps: must be int, not True"),
        ("optimiser.learning_rate=nan", "optimiser.learning_rate: must be at least 0, not nan"),
        ("optimiser.ema=1", "optimiser.ema: must be under 1"),
        ("prompts.point=1.5", "prompts.point: must be at most 1, not 1.5"),
        ("prompts.point=0.99", "point + box_and_point must not pass 1"),
        ("prompts.exact_boxes=0.99", "rough_boxes + exact_boxes must not pass 1"),
        ("model.image_size=513", "model.image_size: must be one of 512, 1024, not 513"),
        ("model.decoder=sma", "model.decoder: must be one of region, sam"),
        ("data.scale=[1]", "data.scale: needs 2 values, not 1"),
        ("data.scale=[2, 1]", "needs 0 < low <= high"),
        ("data.crop=100", "must be a multiple of 32"),
        ("data.sources=[]", "at least one source"),
        ("data.sources=[{path = 'a'}]", "data.sources[0].weight: missing"),
        ("data.sources=3", "data.sources: must be a list"),
        ("data=3", "data: must be a section"),
        ("optimiser.micro_batch=3", "optimiser.micro_batch: 3 must divide optimiser.batch"),
        ("prompts.rounds=3", "prompts.rounds: must be at most 2, not 3"),
        ('optimiser.freeze=["head"]', "optimiser.freeze[0]: must be one of backbone, fine, depthwise, encoder"),
        ('optimiser.freeze=["encoder", "decoder"]', "optimiser.freeze: with a frozen encoder"),
        ("optimiser.precision=fp8", "must be one of fp32, bf16, fp16, not fp8"),
        ("data.sources=[{path = 'a', weight = 1, kind = 'images'}]", "photos without masks need [teacher]"),
        ("model.decoder=teacher", "the teacher's decoder needs [teacher], and no [loss]"),
        ("teacher={encoder = 'x.onnx'}", "teacher.per_channel: missing"),
        ("teacher.encodr=x.onnx", "teacher.encodr: no such key; did you mean encoder?"),
        ("init.encodr=x.pt", "init.encodr: no such key; did you mean encoder?"),
        ("optimiser.restarts=[50]", "optimiser.restarts: must rise, and come after the warm-up"),
        ("optimiser.restarts=[5000, 5000]", "optimiser.restarts: must rise, and come after the warm-up"),
        ("optimiser.schedule=constant", "optimiser.restarts: a constant rate has nothing to restart"),
        ("steps", "--set steps: needs section.key=value"),
    ],
)
def test_faults_are_named(override: str, words: str) -> None:
    with pytest.raises(RecipeError) as caught:
        load_recipe(find_recipe("nanosam-lite2"), [override])
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("teacher.weight=0", "nothing to learn"),
        ("model.decoder=region", "region would stay random"),
        ("teacher.masks=teacher", "the teacher's masks need [loss] and [prompts]"),
        ("teacher.cache=there", "teacher.cache, teacher.cache_steps: one needs the other"),
        ("loss={bce = 1, dice = 1, iou = 1, click = 1}", "masks need both sections, features alone neither"),
        ('optimiser.freeze=["encoder"]', "the teacher's weight must be 0"),
        ("optimiser.restarts=[100]", "optimiser.restarts, optimiser.restart_rate: one needs the other"),
        ("optimiser.restart_rate=1e-3", "optimiser.restarts, optimiser.restart_rate: one needs the other"),
        ("teacher.loss=kl", "teacher.loss: must be one of huber, l1, mse, not kl"),
    ],
)
def test_faults_of_teaching_are_named(override: str, words: str) -> None:
    with pytest.raises(RecipeError) as caught:
        load_recipe(find_recipe("quick"), [override])
    assert words in str(caught.value)


def test_what_was_left_out_is_not_in_the_record() -> None:
    record = load_recipe(find_recipe("nanosam-b0")).to_dict()
    assert not {"teacher", "init"} & record.keys()
    assert record["data"]["sources"][0] == {"path": "train/coco", "weight": 0.55}
    assert "micro_batch" not in record["optimiser"]


def test_where_the_embeddings_are_cached_is_not_part_of_what_is_trained() -> None:
    caches = [load_recipe(find_recipe("quick"), [f"teacher.cache={place}", "teacher.cache_steps=9"]) for place in "ab"]
    assert caches[0].fingerprint() == caches[1].fingerprint() != load_recipe(find_recipe("quick")).fingerprint()


def test_all_faults_come_at_once() -> None:
    with pytest.raises(RecipeError, match="3 fault") as caught:
        load_recipe(find_recipe("nanosam-lite2"), ["model.backbon=a", "optimiser.steps=-1", "loss.dice='much'"])
    assert all(name in str(caught.value) for name in ("model.backbon", "optimiser.steps", "loss.dice"))


def test_missing_keys_are_faults(tmp_path: Path) -> None:
    path = tmp_path / "half.toml"
    path.write_text("[model]\nname = 'x'\n")
    with pytest.raises(RecipeError) as caught:
        load_recipe(path)
    assert "model.backbone: missing" in str(caught.value)
    assert "run: missing" in str(caught.value)


@pytest.mark.parametrize(
    ("name", "error", "words"),
    [("nanosam-b", UsageError, "unknown recipe: nanosam-b"), ("nothing.toml", InputError, "no such recipe")],
)
def test_unknown_recipes(name: str, error: type[NanosamError], words: str) -> None:
    with pytest.raises(error, match=words) as caught:
        load_recipe(find_recipe(name))
    assert caught.value.hint


def test_a_file_that_is_not_toml(tmp_path: Path) -> None:
    path = tmp_path / "broken.toml"
    path.write_text("[model\n")
    with pytest.raises(RecipeError, match="is not TOML"):
        load_recipe(path)


def test_the_fingerprint_ignores_where_it_runs_but_not_what(tmp_path: Path) -> None:
    one = tiny_recipe(tmp_path, workers=0, checkpoint_every=1)
    elsewhere = tiny_recipe(tmp_path, workers=2, checkpoint_every=9)
    longer = tiny_recipe(tmp_path, steps=9)
    assert one.fingerprint() == elsewhere.fingerprint() != longer.fingerprint()


def test_recipes_are_package_data() -> None:
    assert paths.resource("recipes", "nanosam-lite2.toml").is_file()

"""Training prompts in the middle of a correction: where clicks fall, what masks are given, and whole runs of them."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="training needs the extra `train`")

import torch
from torch import Tensor

from nanosam_cli.core.errors import InputError, RecipeError
from nanosam_cli.core.modeling.checkpoint import load_state
from nanosam_cli.core.modeling.prediction import Prompts, WindowPrediction
from nanosam_cli.core.training import distillation
from nanosam_cli.core.training.data.datasets import TrainingCrops
from nanosam_cli.core.training.data.photos import MaskReader
from nanosam_cli.core.training.dialogue import corrected, depths, draw_rounds, give_masks, next_clicks
from nanosam_cli.core.training.distillation import train
from nanosam_cli.core.training.distributed import Ranks
from nanosam_cli.core.training.recipe import PromptSection, Recipe, find_recipe, load_recipe
from nanosam_cli.core.training.rough_masks import rough_masks
from nanosam_cli.core.training.run_log import Event, RunNote
from tests.training_data import save_shapes, tiny_recipe

CPU = torch.device("cpu")
SECTION = PromptSection(
    point=0.2, box_and_point=0, box_jitter=0, rough_boxes=0, refine=0.5, corrections=8, mask=0.25, box_and_mask=0.25
)


def random(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def square(low: int, high: int, side: int = 256) -> Tensor:
    mask = torch.zeros(1, 1, side, side)
    mask[:, :, low:high, low:high] = 1
    return mask


def test_depth_counts_from_the_edge() -> None:
    mask = torch.zeros(1, 1, 9, 9)
    mask[0, 0, 2:7, 1:8] = 1
    assert depths(mask)[0, 0, 4].tolist() == [0, 1, 2, 3, 3, 3, 2, 1, 0]
    assert depths(torch.ones(1, 1, 3, 3))[0, 0].tolist() == [[1, 1, 1], [1, 2, 1], [1, 1, 1]]
    assert not depths(torch.zeros(1, 1, 3, 3)).any()


@pytest.mark.parametrize(
    ("cells", "label"),
    [
        ((60, 80), 1),  # a part is missing
        ((20, 120), 0),  # there is too much
        ((50, 90), -1),  # it is right
    ],
)
def test_clicks_fall_on_what_is_wrong(cells: tuple[int, int], label: int) -> None:
    """The object is cells 50 to 90 of 128 on each axis, which are 200 to 360 of the frame, and pixels 100 to 180."""
    truth, shown = square(100, 180), square(*cells, 128) * 10 - 5
    windows, boxes = torch.tensor([[60.0, 60.0, 500.0, 500.0]]), torch.tensor([[200.0, 200.0, 360.0, 360.0]])
    for seed in range(5):
        coords, labels = next_clicks(shown, windows, truth, boxes, 512, random(seed))
        assert labels.tolist() == [label]
        if label != -1:
            column, row = (coords[0] / 4).long().tolist()
            assert (square(50, 90, 128)[0, 0, row, column] == 1) == (label == 1)
            assert (shown[0, 0, row, column] > 0) == (label == 0)


def prompts(count: int) -> Prompts:
    """Boxes alone."""
    coords = torch.tensor([[[280.0, 280.0], [200.0, 200.0], [360.0, 360.0]]]).expand(count, -1, -1)
    labels = torch.tensor([[-1.0, 2.0, 3.0]]).expand(count, -1)
    return Prompts(torch.zeros(count).long(), coords, labels, torch.zeros(count, 1, 128, 128), torch.zeros(count))


def test_some_boxes_get_a_rough_mask_and_some_are_replaced_by_one() -> None:
    truth, boxes = square(100, 180).expand(20, -1, -1, -1), torch.tensor([[200.0, 200.0, 360.0, 360.0]]).expand(20, -1)
    given = give_masks(prompts(20), truth, boxes, SECTION, random())
    assert given.has_mask_input.sum() == 10
    alone = (given.point_labels == -1).all(dim=1)
    assert alone.sum() == 5
    assert given.has_mask_input[alone].all()
    shown = given.mask_input[given.has_mask_input == 1] > 0
    wanted = square(50, 90, 128) > 0
    ious = (shown & wanted).sum(dim=(1, 2, 3)) / (shown | wanted).sum(dim=(1, 2, 3))
    assert ious.min() > 0.3
    assert 0.6 < ious.mean() < 0.95
    assert not (given.mask_input[given.has_mask_input == 0]).any()


def test_rough_masks_of_things_of_every_size_have_a_pixel() -> None:
    for low, high in ((50, 51), (50, 53), (0, 128), (120, 128)):
        shares = square(low, high, 128).expand(40, -1, -1, -1)
        boxes = torch.tensor([[low, low, high, high]]).float().expand(40, -1)
        found = rough_masks(shares, boxes, random())
        assert found.isfinite().all()
        assert (found > 0).flatten(1).any(dim=1).all()
    assert rough_masks(torch.zeros(0, 1, 8, 8), torch.zeros(0, 4), random()).shape == (0, 1, 8, 8)


def test_rounds_are_drawn_for_each_prompt() -> None:
    rounds = draw_rounds(4000, SECTION, random())
    assert (rounds == 0).float().mean() == pytest.approx(0.5, abs=0.03)
    assert set(rounds.tolist()) == set(range(9))
    assert (rounds == 1).sum() > 2 * (rounds == 8).sum()


def test_prompts_are_corrected_as_often_as_was_drawn() -> None:
    asked: list[Prompts] = []

    def predict(rows: Prompts) -> WindowPrediction:
        asked.append(rows)
        count = len(rows.owner)
        low_res = (square(60, 80, 128) * 10 - 5).expand(count, 4, -1, -1)
        windows = torch.tensor([[180.0, 180.0, 380.0, 380.0]]).expand(count, -1)
        return WindowPrediction(low_res, torch.zeros(count, 4), windows, None, low_res)

    truth, boxes = square(100, 180).expand(3, -1, -1, -1), torch.tensor([[200.0, 200.0, 360.0, 360.0]]).expand(3, -1)
    rounds = torch.tensor([0, 1, 3])
    found = corrected(prompts(3), predict, truth, boxes, torch.zeros(3, dtype=torch.bool), rounds, 512, random())
    assert [len(rows.owner) for rows in asked] == [2, 1, 1]
    assert found.point_labels[:, 3:].tolist() == [[-1, -1, -1], [1, -1, -1], [1, 1, 1]]
    assert found.has_mask_input.tolist() == [0, 1, 1]
    assert (found.mask_input[2] > 0).sum() == 20 * 20


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    save_shapes(folder / "shapes")
    train(tiny_recipe(folder, steps=2), folder / "first")
    return folder


def listening(root: Path, *overrides: str, steps: int = 4) -> Recipe:
    weights = root / "first" / "weights.safetensors"
    begun = f"init={{encoder = '{weights}', decoder = '{weights}'}}"
    asked = ["prompts.mask=0.2", "prompts.box_and_mask=0.2", "prompts.corrections=3", "loss.obeyed=0.1"]
    return tiny_recipe(root, steps=steps, decoder="listening", overrides=[begun, *asked, *overrides])


def kept(folder: Path) -> tuple[str, str]:
    return f"embeddings={{cache = '{folder}', steps = 2}}", 'optimiser.freeze=["encoder", "batchnorm"]'


def losses(folder: Path) -> list[str]:
    with (folder / "log.csv").open(newline="") as file:
        return [row["loss"] for row in csv.DictReader(file)]


def test_it_begins_with_the_weights_of_a_decoder_that_does_not_listen(root: Path) -> None:
    model = distillation.prepare(listening(root), Ranks(CPU), None, fresh=True).model
    begun = load_state(root / "first" / "weights.safetensors").part("ema.module.")
    own = model.state_dict()
    assert all(torch.equal(own[name], tensor.to(own[name].dtype)) for name, tensor in begun.items())
    assert {name for name in own if name not in begun} == {
        name for name in own if name.startswith(("decoder.listening.", "decoder.clicks.see."))
    }


def test_a_run_with_kept_embeddings_leaves_the_encoder_and_goes_on_where_it_was(root: Path, tmp_path: Path) -> None:
    notes: list[Event] = []
    recipe = listening(root, *kept(tmp_path / "cache"))
    train(recipe, tmp_path / "whole", report=notes.append)
    assert any(isinstance(note, RunNote) and note.text.startswith("embeddings of 4 crops") for note in notes)
    before = load_state(root / "first" / "weights.safetensors").part("ema.module.")
    after = load_state(tmp_path / "whole" / "last.safetensors").part("model.")
    same = {name for name, tensor in before.items() if torch.equal(tensor.to(after[name].dtype), after[name])}
    assert all(name in same for name in before if name.startswith("encoder.") or "running" in name)
    assert any(name not in same for name in before if name.startswith("decoder."))
    assert after["decoder.listening.click_scale"] != 0

    train(listening(root, *kept(tmp_path / "cache"), "run.checkpoint_every=1"), tmp_path / "again")
    assert losses(tmp_path / "again") == losses(tmp_path / "whole")


def test_kept_embeddings_belong_to_the_crops_and_their_masks(root: Path, tmp_path: Path) -> None:
    recipe = listening(root, *kept(tmp_path / "cache"), "data.colour=0.0", "data.grey=0.0", "data.copy_paste=1.0")
    train(recipe, tmp_path / "run")
    model = distillation.prepare(recipe, Ranks(CPU), None, fresh=True).model.eval()
    files = sorted((tmp_path / "cache").rglob("*.npy"))
    read, unread = TrainingCrops(recipe, 512), TrainingCrops(recipe, 512)
    unread.pixels = MaskReader()
    for step, indices in enumerate(([0, 1], [2, 3], [4, 5])):
        batch, masks = read.batch(indices), unread.batch(indices)
        assert torch.equal(batch.masks, masks.masks)
        assert not masks.images.any() or masks.images.std() < batch.images.std()
        with torch.no_grad():
            expected = model.encoder(batch.images)
        found = torch.from_numpy(np.load(files[step % 2])).float()
        torch.testing.assert_close(found, expected, atol=5e-3, rtol=5e-3)


def test_a_photo_that_cannot_be_read_is_not_passed_over_where_embeddings_are_kept(root: Path, tmp_path: Path) -> None:
    save_shapes(tmp_path / "shapes", photos=1)
    (tmp_path / "shapes" / "images" / "0.png").write_bytes(b"no photo")
    recipe = listening(root, *kept(tmp_path / "cache"), f'data.root="{tmp_path}"')
    with pytest.raises(InputError, match=r"0\.png"):
        train(recipe, tmp_path / "run")


@pytest.mark.parametrize(
    ("name", "overrides", "words"),
    [
        ("nanosam-lite2", ["prompts.corrections=3"], "prompts.corrections: only a decoder that listens can"),
        ("nanosam-lite2", ["prompts.mask=0.1"], "prompts.mask: only a decoder that listens can"),
        ("nanosam-lite2", ["prompts.box_and_mask=0.1"], 'model.decoder="listening"'),
        ("nanosam-lite2", ["loss.obeyed=0.1"], "loss.obeyed: only a decoder that listens can"),
        ("nanosam-lite2", ["embeddings={cache = 'x', steps = 3}"], "only those of a frozen encoder stay"),
        ("nanosam-lite2-listen", ["prompts.rounds=2"], "they are called prompts.corrections"),
        ("nanosam-lite2-listen", ["prompts.corrections=9"], "prompts.corrections: must be at most 8, not 9"),
        ("nanosam-lite2-listen", ["prompts.mask=0.7"], "point + box_and_point + mask + box_and_mask must not pass 1"),
        ("nanosam-lite2-listen", ["embeddings.steps=0"], "embeddings.steps: must be at least 1, not 0"),
        ("nanosam-lite2-listen", ['optimiser.freeze=["backbone"]'], "only those of a frozen encoder stay"),
    ],
)
def test_faults_are_named(name: str, overrides: list[str], words: str) -> None:
    with pytest.raises(RecipeError) as caught:
        load_recipe(find_recipe(name), overrides)
    assert words in str(caught.value)

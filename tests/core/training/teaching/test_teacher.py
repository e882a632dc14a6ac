from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("torch", reason="training needs the extra `train`")

import onnx
import torch

from nanosam_cli.core.errors import InputError, ModelError, RecipeError, UsageError
from nanosam_cli.core.modeling.model import PromptableModel
from nanosam_cli.core.modeling.prediction import Prompts
from nanosam_cli.core.system.files import file_sha256
from nanosam_cli.core.training.recipe import TeacherSection
from nanosam_cli.core.training.teaching import teacher as teachers
from nanosam_cli.core.training.teaching.teacher import Teacher, load_weights, open_teacher
from tests.fake_models import save, save_decoder, save_encoder
from tests.training_data import tiny_recipe

CPU = torch.device("cpu")


def _open(encoder: Path | str, decoder: Path | None = None) -> Teacher:
    return open_teacher(TeacherSection(str(encoder), "huber", False, 1.0, "annotated", decoder and str(decoder)), CPU)


@pytest.mark.parametrize(("size", "batch"), [(128, "B"), (128, 1), (1024, 1)])
def test_files_of_any_size_embed_crops(tmp_path: Path, size: int, batch: int | str) -> None:
    """The fake encoder averages: what it says of a crop must be the crop itself, wherever the padding is."""
    teacher = _open(save_encoder(tmp_path / "encoder.onnx", size=size, batch=batch))
    assert teacher.image_size == size
    images = torch.randn(3, 3, size // 4, size // 4, generator=torch.Generator().manual_seed(0))
    found = teacher.embed(images)
    assert found.shape == (3, 256, 16, 16)
    torch.testing.assert_close(found[:, :3], torch.nn.functional.avg_pool2d(images, size // 64))


def test_weights_beside_an_encoder_are_part_of_who_teaches(tmp_path: Path) -> None:
    """By which a cache of embeddings is told from another teacher's."""
    whole, split = save_encoder(tmp_path / "encoder.onnx"), tmp_path / "split.onnx"
    onnx.save(onnx.load(whole), split, save_as_external_data=True, location="split.data", size_threshold=0)
    before = _open(split).sha256
    weights = bytearray((tmp_path / "split.data").read_bytes())
    weights[0] ^= 1
    (tmp_path / "split.data").write_bytes(weights)
    assert _open(split).sha256 != before
    assert _open(whole).sha256 == file_sha256(whole)


def test_a_checkpoint_of_ours_is_a_teacher(trained: Path) -> None:
    teacher = _open(trained)
    assert teacher.image_size == 512
    assert teacher.embed(torch.randn(2, 3, 64, 64)).shape == (2, 256, 8, 8)
    assert teacher.has_decoder


def test_masks_of_several_photos_come_in_the_order_of_their_prompts(tmp_path: Path) -> None:
    """Each photo's own embedding decides the fake decoder's predicted IoU; its masks are the boxes."""
    teacher = _open(save_encoder(tmp_path / "encoder.onnx"), save_decoder(tmp_path / "decoder.onnx"))
    embeddings = torch.stack([torch.full((256, 64, 64), value) for value in (0.0, 0.1, 0.2)])[:, :, :16, :16]
    owner = torch.tensor([2, 0, 2, 1])
    boxes = torch.tensor([[8.0, 8.0, 100.0, 60.0 + 20 * row] for row in range(4)]).reshape(4, 2, 2)
    prompts = Prompts(owner, boxes, torch.tensor([[2.0, 3.0]] * 4), torch.zeros(4, 1, 64, 64), torch.zeros(4))
    ious, logits = teacher.masks(embeddings, prompts)
    assert logits.shape == (4, 4, 64, 64)
    padded_means = torch.tensor([0.2, 0.0, 0.2, 0.1]) / 16  # a crop is a sixteenth of the square
    torch.testing.assert_close(ious[:, 0], 0.5 + padded_means)
    heights = (logits[:, 0] > 0).any(dim=2).sum(dim=1)
    assert heights.tolist() == [13, 18, 23, 28]


def test_a_checkpoint_and_its_export_teach_the_same(trained: Path, tmp_path: Path) -> None:
    from nanosam_cli.core.export.export import export_model

    encoder, decoder = export_model(trained, tmp_path, "all")
    ours, files = _open(trained), _open(encoder.path, decoder.path)
    images = torch.randn(1, 3, 512, 512, generator=torch.Generator().manual_seed(0))
    embeddings = ours.embed(images)
    torch.testing.assert_close(files.embed(images), embeddings, atol=1e-4, rtol=1e-3)
    box = torch.tensor([[[100.0, 120.0], [500.0, 640.0]]])
    prompts = Prompts(
        torch.zeros(1).long(), box, torch.tensor([[2.0, 3.0]]), torch.zeros(1, 1, 256, 256), torch.zeros(1)
    )
    for one, other in zip(ours.masks(embeddings, prompts), files.masks(embeddings, prompts)):
        torch.testing.assert_close(one, other, atol=1e-3, rtol=1e-3)


def test_bad_teachers(tmp_path: Path, trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NANOSAM_HOME", str(tmp_path / "home"))
    small = save(tmp_path / "small.onnx", [], {"image": (1, 3, 64, 64)}, {"image": (1, 3, 64, 64)})
    for name, words in (
        ("nanosam-b1", "unknown model"),
        ("mobile-sam", "the checkpoint of mobile-sam is missing"),
        (str(tmp_path / "nothing.onnx"), "does not exist"),
        (str(tmp_path / "nothing.safetensors"), "no such checkpoint"),
        (str(small), "expected image -> image_embeddings"),
    ):
        with pytest.raises((UsageError, ModelError, InputError), match=words):
            _open(name)
    with pytest.raises(ModelError, match="has no mask decoder"):
        _open(save_encoder(tmp_path / "encoder.onnx")).open_decoder()


def test_embeddings_of_another_shape(trained: Path) -> None:
    teacher = _open(trained)
    teacher.image_size = 1024  # as if it said so of itself
    with pytest.raises(ModelError, match=r"gives embeddings \(1, 256, 8, 8\), a student \(1, 256, 4, 4\)"):
        teacher.embed(torch.zeros(1, 3, 64, 64))


def test_weights_to_start_from(trained: Path, tmp_path: Path) -> None:
    recipe = tiny_recipe(tmp_path)
    model = PromptableModel(recipe.model)
    load_weights(model.encoder, "encoder", str(trained))
    source = teachers.load_source(trained)
    assert all(
        torch.equal(model.encoder.state_dict()[name], value) for name, value in source.encoder.state_dict().items()
    )

    other = PromptableModel(tiny_recipe(tmp_path, decoder="sam", overrides=["model.neck_width=24"]).model)
    with pytest.raises(RecipeError, match=r"of another shape: .*neck\.smooth\.0\.weight \(16, 16, 3, 3\)"):
        load_weights(other.encoder, "encoder", str(trained))
    assert other.decoder is not None
    with pytest.raises(RecipeError, match=r"missing: .*mask_decoder.*extra: .*attend"):
        load_weights(other.decoder, "decoder", str(trained))
    with pytest.raises(RecipeError, match="holds no weights to start from"):
        load_weights(other.decoder, "decoder", "decoder.onnx")

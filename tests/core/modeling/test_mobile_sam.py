"""Our MobileSAM against the original implementation, with the same random weights."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch", reason="models need the extra `train`")

import torch

from nanosam_cli.core.errors import InputError
from nanosam_cli.core.modeling.mobile_sam import MobileSam, load_mobile_sam
from nanosam_cli.core.modeling.torchvision_compat import import_torchvision


@pytest.fixture(scope="module")
def original() -> Any:
    import warnings

    import_torchvision()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # timm's, of names that the original imports
        mobile_sam = pytest.importorskip("mobile_sam", reason="needs mobilesam-mirror, of the extra `dev`")
        torch.manual_seed(0)
        model = mobile_sam.sam_model_registry["vit_t"](checkpoint=None).eval()
    for name, parameter in model.named_parameters():  # so that zeros and ones do not hide a missing term
        if parameter.ndim == 1 or "attention_biases" in name:
            torch.nn.init.normal_(parameter, mean=0.5, std=0.2)
    for name, buffer in model.named_buffers():
        if name.endswith(("running_mean", "running_var")):
            buffer.uniform_(0.5, 1.5)
    return model.eval()  # again: evaluation keeps a copy of the attention biases


@pytest.fixture(scope="module")
def checkpoint(original: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "mobile_sam.pt"
    torch.save(original.state_dict(), path)
    return path


@pytest.fixture(scope="module")
def ours(checkpoint: Path) -> MobileSam:
    return load_mobile_sam(checkpoint)


@torch.no_grad()
def test_the_image_encoder_is_the_originals(original: Any, ours: MobileSam) -> None:
    original.image_encoder.train()  # drops the stale copy of the biases
    original.image_encoder.eval()
    image = torch.randn(1, 3, 1024, 1024, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(ours.encoder(image), original.image_encoder(image), atol=1e-5, rtol=1e-5)


BOX = torch.tensor([[100.0, 150.0, 500.0, 620.0], [3.0, 4.0, 900.0, 1000.0]])
POINTS, LABELS = torch.tensor([[[300.0, 400.0], [10.0, 20.0]]]), torch.tensor([[1, 0]])
MASK = torch.randn(1, 1, 256, 256, generator=torch.Generator().manual_seed(1)) * 5


@torch.no_grad()
@pytest.mark.parametrize(
    ("points", "labels", "boxes", "mask"),
    [
        (None, None, BOX, None),
        (POINTS[:, :1], LABELS[:, :1], None, None),
        (POINTS, LABELS, None, None),
        (POINTS, LABELS, BOX[:1], None),
        (POINTS, LABELS, BOX[:1], MASK),
    ],
    ids=["boxes", "point", "points", "box and points", "box, points and mask"],
)
def test_prompt_encoder_and_mask_decoder_are_the_originals(
    original: Any, ours: MobileSam, points: Any, labels: Any, boxes: Any, mask: Any
) -> None:
    embedding = torch.randn(1, 256, 64, 64, generator=torch.Generator().manual_seed(2))
    sparse, dense = original.prompt_encoder(
        points=None if points is None else (points, labels), boxes=boxes, masks=mask
    )
    expected_masks, expected_ious = original.mask_decoder.predict_masks(
        embedding, original.prompt_encoder.get_dense_pe(), sparse, dense
    )
    count = len(sparse)
    parts = [] if points is None else [(points, labels.float())]
    if boxes is None:
        parts.append((torch.zeros(count, 1, 2), -torch.ones(count, 1)))
    else:
        parts.append((boxes.reshape(-1, 2, 2), torch.tensor([[2.0, 3.0]]).expand(count, -1)))
    given = torch.full((count,), float(mask is not None))
    ious, masks = ours.decoder(
        embedding,
        torch.cat([coords for coords, _ in parts], dim=1),
        torch.cat([marks for _, marks in parts], dim=1),
        torch.zeros(count, 1, 256, 256) if mask is None else mask,
        given,
    )
    torch.testing.assert_close(masks, expected_masks, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(ious, expected_ious, atol=1e-5, rtol=1e-5)


class Hostile:
    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (Path("hostile-was-here"),))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "no such checkpoint"),
        (b"", "no checkpoint of tensors alone"),
        (b"<html>not found</html>", "no checkpoint of tensors alone"),
        (b"junk", "no checkpoint of tensors alone"),  # struct.error
        (b"\x80\x02X\x01\x00\x00\x00\xff.", "no checkpoint of tensors alone"),  # UnicodeDecodeError
        (b"\x80\x02Q.", "no checkpoint of tensors alone"),  # AssertionError, IndexError
        (pickle.dumps(Hostile()), "no checkpoint of tensors alone"),
    ],
    ids=["missing", "empty", "a web page", "a word", "bad text", "an empty stack", "code"],
)
def test_files_that_are_no_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes | None, words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "mobile_sam.pt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=words):
        load_mobile_sam(path)
    assert not (tmp_path / "hostile-was-here").exists()


def test_a_pickle_in_torchs_own_wrapping_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"weight": Hostile()}, tmp_path / "hostile.pt")
    with pytest.raises(InputError, match=r"tensors alone: Unsupported global: GLOBAL getattr") as caught:
        load_mobile_sam(tmp_path / "hostile.pt")
    told = f"{caught.value} {caught.value.hint}"
    assert "code in a file is never run" in told
    assert "weights_only" not in told  # nor is it said how it could be
    assert not (tmp_path / "hostile-was-here").exists()


@pytest.mark.parametrize(
    "wrap",
    [
        lambda weights: {"model": weights, "epoch": 3},
        lambda weights: {"state_dict": {f"module.{name}": weight for name, weight in weights.items()}},
        lambda weights: {f"module.{name}": weight for name, weight in weights.items()},
        lambda weights: {"model": {"state_dict": weights}, "optimizer": {"state": {0: {"step": torch.ones(1)}}}},
        lambda weights: {
            "state_dict": {"loss.scale": torch.ones(1), **{f"net.sam.{k}": w for k, w in weights.items()}}
        },
    ],
    ids=["a key", "a key and a prefix", "a prefix", "two keys", "a prefix beside others"],
)
def test_weights_are_found_where_training_scripts_put_them(tmp_path: Path, checkpoint: Path, wrap: Any) -> None:
    weights = torch.load(checkpoint, weights_only=True)
    torch.save(wrap(weights), tmp_path / "tuned.pt")
    found = load_mobile_sam(tmp_path / "tuned.pt").weights()
    assert found.keys() == weights.keys()
    for name, weight in weights.items():
        assert torch.equal(found[name], weight)


@pytest.mark.parametrize(
    ("wrap", "words"),
    [
        (lambda weights: {"model": weights, "ema": weights}, "weights more than once, under 'model', 'ema'"),
        (
            lambda weights: {"epoch": 3, "net": dict([*weights.items()][1:])},
            r"holds 'epoch' \(int\), 'net' \(\d+ tensors\); those under 'net' are not this model's \(missing ",
        ),
        (
            lambda weights: {"net": {name: weight[..., None] for name, weight in weights.items()}},
            "those under 'net' are not this model's \\(of another shape ",
        ),
        (lambda weights: {"epoch": 3}, r"holds 'epoch' \(int\)"),
        (lambda weights: [1], "holds a list"),
    ],
)
def test_what_a_checkpoint_of_other_things_holds_is_said(
    tmp_path: Path, checkpoint: Path, wrap: Any, words: str
) -> None:
    torch.save(wrap(torch.load(checkpoint, weights_only=True)), tmp_path / "tuned.pt")
    with pytest.raises(InputError, match=words) as caught:
        load_mobile_sam(tmp_path / "tuned.pt")
    assert "torch.save(checkpoint[" in str(caught.value.hint)


def test_names_that_do_not_fit_are_listed(tmp_path: Path, checkpoint: Path) -> None:
    weights = torch.load(checkpoint, weights_only=True)
    weights["stray.weight"] = weights.pop("image_encoder.neck.0.weight")
    torch.save(weights, tmp_path / "other.pt")
    with pytest.raises(InputError) as caught:
        load_mobile_sam(tmp_path / "other.pt")
    assert "missing image_encoder.neck.0.weight" in str(caught.value)
    assert "extra stray.weight" in str(caught.value)

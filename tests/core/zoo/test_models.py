"""The table of models."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from nanosam_cli.core import paths
from nanosam_cli.core.errors import ModelError, UsageError
from nanosam_cli.core.loading.load import load_predictor
from nanosam_cli.core.loading.part_files import model_files
from nanosam_cli.core.zoo.models import DEFAULT_MODEL, MODELS, ModelSpec, file_path, find_model


@pytest.mark.parametrize("spec", MODELS.values(), ids=list(MODELS))
def test_every_entry_is_complete(spec: ModelSpec) -> None:
    assert MODELS[spec.name] is spec
    assert spec.parts.keys() == {"checkpoint"} or spec.default_precision.keys() <= spec.parts.keys()
    assert spec.default_precision.keys() == {"encoder", "decoder"}
    assert all(
        part.sha256 for name, part in spec.parts.items() if spec.parts.keys() == {"checkpoint"}
    )  # names a folder
    assert set(spec.default_precision.values()) <= {"fp32", "fp16", "bf16", "int8"}
    assert spec.description
    assert spec.licence
    assert spec.image_size % 64 == 0  # embeddings are 64x64
    for part in spec.parts.values():
        assert Path(part.file).name == part.file
        if not spec.bundled:
            assert part.urls
            assert all(url.startswith("https://") for url in part.urls)  # a hash may be missing, a certificate not
            assert part.size is None or part.size > 0
            assert part.sha256 is None or re.fullmatch("[0-9a-f]{64}", part.sha256)
            assert spec.source
    if spec.accuracy:
        assert 0 < spec.accuracy.small < spec.accuracy.medium < spec.accuracy.large < 1
        assert spec.accuracy.small < spec.accuracy.all < spec.accuracy.large
        assert spec.accuracy.published


@pytest.mark.parametrize("size", ["b1", "b2", "b4"])
def test_models_that_are_not_run_say_why(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, size: str) -> None:
    monkeypatch.setenv("NANOSAM_HOME", str(tmp_path))
    name = f"nanosam-hgnetv2-{size}"
    with pytest.raises(ModelError, match=f"model {name} is not run: it takes RGB from 0 to 255") as caught:
        model_files(find_model(name))
    hint = caught.value.hint or ""
    assert hint.startswith("models that run: nanosam-lite2, mobile-sam, nanosam-resnet18; to try this one")
    assert f"--model {name} --encoder {tmp_path / 'models' / name / f'sam_hgv2_{size}'}" in hint


def test_their_photos_are_not_normalised(own_files: tuple[Path, Path]) -> None:
    """What the hint says: files given by hand are fed as their author's training was."""
    encoder, decoder = own_files
    image = np.full((128, 64, 3), (0, 100, 255), np.uint8)
    with load_predictor("nanosam-hgnetv2-b1", encoder=encoder, decoder=decoder) as predictor:
        tensor = predictor.prepare_image(image).tensor
    assert tensor[0, :, 0, 0].tolist() == [0, 100, 255]
    assert tensor[0, :, 0, 127].tolist() == [0, 0, 0]  # padding


def test_checkpoints_have_a_place_for_what_is_made_of_them(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("NANOSAM_HOME", str(tmp_path))
    folder = tmp_path / "models" / "mobile-sam"
    assert file_path(find_model("mobile-sam"), "checkpoint") == folder / "mobile_sam.pt"
    assert file_path(find_model("mobile-sam"), "decoder") == folder / "onnx-6dbb90523a35" / "decoder.onnx"


def test_find_model() -> None:
    assert find_model(DEFAULT_MODEL).bundled  # the main job needs no download


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("nanosam-lite1", "did you mean nanosam-lite2?"),
        ("NanoSAM-Lite2", "did you mean nanosam-lite2?"),
        ("yolo", "models: nanosam-lite2"),
        ("", "models: nanosam-lite2"),
    ],
)
def test_unknown_models(name: str, hint: str) -> None:
    with pytest.raises(UsageError, match=f"unknown model: {name}") as caught:
        find_model(name)
    assert (caught.value.hint or "").startswith(hint)


@pytest.mark.parametrize("bundled", [True, False])
def test_model_files(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, bundled: bool) -> None:
    """Bundled files lie in the package, downloaded ones at home; what is missing is named, with the way to get it."""
    package, home = tmp_path / "package", tmp_path / "home"
    monkeypatch.setattr(paths, "_PACKAGE", package)
    monkeypatch.setenv("NANOSAM_HOME", str(home))
    box = find_model(DEFAULT_MODEL)
    parts = {part: box.parts[part] for part in ("encoder", "decoder")}
    spec = replace(box, name="m", bundled=bundled, parts=parts)
    folder = package / "data" / "models" / "m" if bundled else home / "models" / "m"
    folder.mkdir(parents=True)

    (folder / "encoder.onnx").touch()
    with pytest.raises(
        ModelError, match=re.escape(f"decoder of model m is missing: {folder / 'decoder.onnx'}")
    ) as caught:
        model_files(spec)
    assert caught.value.hint == ("pip install --force-reinstall nanosam-cli" if bundled else "nanosam download m")

    (folder / "decoder.onnx").touch()
    assert model_files(spec) == (folder / "encoder.onnx", folder / "decoder.onnx")

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from nanosam_cli.core import paths
from nanosam_cli.core.errors import ModelError
from nanosam_cli.core.zoo import DEFAULT_MODEL, MODELS, ModelSpec, find_model, model_files


@pytest.mark.parametrize("spec", MODELS.values(), ids=list(MODELS))
def test_every_entry_is_complete(spec: ModelSpec) -> None:
    assert MODELS[spec.name] is spec
    assert spec.parts.keys() == spec.default_precision.keys() == {"encoder", "decoder"}
    assert set(spec.default_precision.values()) <= {"fp32", "fp16", "bf16", "int8"}
    assert spec.description
    assert spec.licence
    assert spec.image_size % 64 == 0  # embeddings are 64x64
    for part in spec.parts.values():
        assert Path(part.file).name == part.file
        if not spec.bundled:  # what is fetched must be checkable
            assert part.url
            assert part.size
            assert re.fullmatch("[0-9a-f]{64}", part.sha256 or "")


def test_find_model() -> None:
    assert find_model(DEFAULT_MODEL).bundled  # the main job needs no download


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("nanosam-b1", "did you mean nanosam-b0?"),
        ("NanoSAM-B0", "did you mean nanosam-b0?"),
        ("yolo", "models: nanosam-b0"),
        ("", "models: nanosam-b0"),
    ],
)
def test_unknown_models(name: str, hint: str) -> None:
    with pytest.raises(ModelError, match=f"unknown model: {name}") as caught:
        find_model(name)
    assert (caught.value.hint or "").startswith(hint)


@pytest.mark.parametrize("bundled", [True, False])
def test_model_files(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, bundled: bool) -> None:
    """Bundled files lie in the package, downloaded ones at home; what is missing is named, with the way to get it."""
    package, home = tmp_path / "package", tmp_path / "home"
    monkeypatch.setattr(paths, "_PACKAGE", package)
    monkeypatch.setenv("NANOSAM_HOME", str(home))
    spec = replace(find_model(DEFAULT_MODEL), name="m", bundled=bundled)
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

"""What lies beside two ONNX files so that training can go on from them."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="models need the extra `train`")

import torch

from nanosam_cli.core.errors import InputError, OutputError
from nanosam_cli.core.export.export import TRAINABLE, export_part
from nanosam_cli.core.export.options import ExportOptions
from nanosam_cli.core.export.parts import make_part
from nanosam_cli.core.export.source import ExportSource, load_source
from nanosam_cli.core.export.trainable import save_trainable
from nanosam_cli.core.modeling.checkpoint import load_state, save_tensors
from nanosam_cli.core.types import DECODER, ENCODER


@pytest.fixture(scope="module")
def source(trained: Path) -> ExportSource:
    """Of a short run, with norms as after a long one, and a channel that died."""
    found = load_source(trained)
    random = torch.Generator().manual_seed(0)
    for module in (*found.encoder.modules(), *(found.decoder.modules() if found.decoder else ())):
        if isinstance(module, torch.nn.BatchNorm2d):
            assert module.running_var is not None
            module.running_var.mul_(torch.rand(module.num_features, generator=random) + 0.5)
            module.weight.data.mul_(torch.rand(module.num_features, generator=random) + 0.5)
            module.weight.data[0] = 0
    return found


@pytest.fixture(scope="module", params=["fp32", "fp16-weights"])
def folder(source: ExportSource, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Path:
    folder = tmp_path_factory.mktemp("trainable")
    options = ExportOptions(request.param)
    files = {part: folder / f"{part}.onnx" for part in (ENCODER, DECODER)}
    for part, path in files.items():
        export_part(make_part(part, source, options), source, path, options, None)
    save_trainable(folder / TRAINABLE, source, files)
    return folder


def test_what_the_files_hold_is_read_back(source: ExportSource, folder: Path) -> None:
    assert source.decoder is not None
    found = load_source(folder / TRAINABLE)
    assert found.decoder is not None
    image = torch.randn(1, 3, source.image_size, source.image_size, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        before, after = source.encoder(image), found.encoder(image)
    assert (before - after).abs().max() < 0.01 * before.abs().max()
    for module, own in ((source.encoder, found.encoder), (source.decoder, found.decoder)):
        weights = own.state_dict()
        for name, tensor in module.state_dict().items():
            if tensor.ndim == 4:  # but for channels whose norm is zero: their kernels are not in the file
                live = weights[name].flatten(1).abs().amax(dim=1) > 0
                assert live.sum() >= len(live) - 1, name
                assert torch.allclose(weights[name][live], tensor[live], rtol=2e-3, atol=2e-3 * tensor.abs().max()), (
                    name
                )
            else:
                assert torch.allclose(weights[name].float(), tensor.float(), rtol=2e-3, atol=1e-4), name


def test_nothing_is_stored_twice(source: ExportSource, folder: Path) -> None:
    everything = sum(
        tensor.numel() for part in (source.encoder, source.decoder) if part for tensor in part.parameters()
    )
    kept = sum(tensor.numel() for tensor in load_state(folder / TRAINABLE).tensors.values())
    assert kept < everything / 5


def test_it_goes_with_its_own_files(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "moved")
    load_source(tmp_path / "moved" / TRAINABLE)
    (tmp_path / "moved" / "encoder.onnx").write_bytes((folder / "decoder.onnx").read_bytes())
    with pytest.raises(InputError, match=r"goes with another encoder\.onnx"):
        load_source(tmp_path / "moved" / TRAINABLE)


def test_a_file_that_is_there_is_left(trained: Path, tmp_path: Path) -> None:
    from nanosam_cli.core.export.export import export_model

    (tmp_path / TRAINABLE).write_text("mine")
    with pytest.raises(OutputError, match="exists already"):
        export_model(trained, tmp_path, "all", ExportOptions(trainable=True))
    assert [path.name for path in tmp_path.iterdir()] == [TRAINABLE]


@pytest.mark.parametrize("place", [{"file": "other.onnx"}, {"tensor": "none"}, {"norm": "none", "how": "folded"}])
def test_places_that_are_not_there_are_refused(folder: Path, tmp_path: Path, place: dict[str, str]) -> None:
    shutil.copytree(folder, tmp_path / "moved")
    state = load_state(folder / TRAINABLE)
    name = next(iter(state.metadata["places"]))
    state.metadata["places"][name] |= place
    save_tensors(tmp_path / "moved" / TRAINABLE, state.tensors, state.metadata)
    with pytest.raises(InputError, match="says wrongly where its weights are"):
        load_source(tmp_path / "moved" / TRAINABLE)

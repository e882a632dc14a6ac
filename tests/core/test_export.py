from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("torch", reason="export needs the extra `train`")

import numpy as np
import onnx
import torch

from nanosam_cli.core import export
from nanosam_cli.core.distillation import train
from nanosam_cli.core.errors import InputError, ModelError, OutputError
from nanosam_cli.core.export import export_model, export_part
from nanosam_cli.core.modeling.region_decoder import RegionDecoder
from nanosam_cli.core.modeling.sam_decoder import SamDecoder
from nanosam_cli.core.predictor import load_predictor
from nanosam_cli.core.types import Prompt
from tests.training_data import save_shapes, tiny_recipe


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    save_shapes(folder / "shapes")
    return train(tiny_recipe(folder, steps=1), folder / "tiny")


def test_a_checkpoint_becomes_files_that_the_predictor_runs(checkpoint: Path, tmp_path: Path) -> None:
    files = export_model(checkpoint, tmp_path, ["encoder", "decoder"])
    assert [file.path.name for file in files] == ["encoder.onnx", "decoder.onnx"]
    assert all(difference < 1e-2 for file in files for difference in file.max_difference.values())
    with load_predictor(encoder=files[0].path, decoder=files[1].path) as predictor:
        assert predictor.contract.image_size == 512
        embedding = predictor.encode_image(np.zeros((60, 100, 3), np.uint8))
        found = predictor.predict(embedding, Prompt.from_boxes([[10, 10, 50, 40], [30, 5, 90, 55]]))
        assert [segmentation.mask.shape for segmentation in found] == [(60, 100), (60, 100)]
        three = predictor.predict_multimask(embedding, Prompt.from_points([[40, 30]]))
        assert [len(readings) for readings in three] == [3]


def test_files_describe_themselves(checkpoint: Path, tmp_path: Path) -> None:
    [file] = export_model(checkpoint, tmp_path, ["decoder"])
    metadata = {entry.key: entry.value for entry in onnx.load(file.path).metadata_props}
    assert metadata["nanosam.model"] == "tiny"
    assert metadata["nanosam.part"] == "decoder"
    assert metadata["nanosam.image_size"] == "512"
    assert metadata["nanosam.coordinate_size"] == "1024"
    assert metadata["nanosam.precision"] == "fp32"
    assert len(metadata["nanosam.source_sha256"]) == 64
    assert "nanosam 0" in metadata["nanosam.exporter"]


@pytest.mark.parametrize(
    "decoder", [RegionDecoder(), SamDecoder(), SamDecoder(dense_boxes=True)], ids=["region", "sam", "sam-dense"]
)
def test_every_decoder_exports_with_free_prompts(decoder: torch.nn.Module, tmp_path: Path) -> None:
    file = export_part("decoder", decoder.eval(), 512, tmp_path / "decoder.onnx", {})
    assert set(file.max_difference) == {"iou_predictions", "low_res_masks"}
    inputs = {value.name: value.type.tensor_type.shape for value in onnx.load(file.path).graph.input}
    assert inputs["point_coords"].dim[0].dim_param == "P"
    assert inputs["point_coords"].dim[1].dim_param == "N"


def test_a_failed_proof_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Liar(RegionDecoder):
        def forward(self, *inputs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            ious, masks = super().forward(*inputs)
            return ious, masks if torch.onnx.is_in_onnx_export() else masks + 1  # the file differs from the module

    with pytest.raises(ModelError, match="low_res_masks is off by 1"):
        export_part("decoder", Liar().eval(), 512, tmp_path / "decoder.onnx", {})
    assert list(tmp_path.iterdir()) == []
    assert export.TOLERANCE < 1


def test_files_are_not_overwritten_unasked(checkpoint: Path, tmp_path: Path) -> None:
    export_model(checkpoint, tmp_path, ["decoder"])
    with pytest.raises(OutputError, match="exists already"):
        export_model(checkpoint, tmp_path, ["decoder"])
    assert export_model(checkpoint, tmp_path, ["decoder"], overwrite=True)


@pytest.mark.parametrize(
    ("content", "words"), [(None, "no such checkpoint"), (b"junk", "not a whole safetensors file")]
)
def test_checkpoints_that_are_none(tmp_path: Path, content: bytes | None, words: str) -> None:
    path = tmp_path / "last.safetensors"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=words):
        export_model(path, tmp_path, ["encoder"])


def test_foreign_safetensors_are_refused(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    path = tmp_path / "foreign.safetensors"
    save_file({"weight": torch.zeros(2)}, path)
    with pytest.raises(InputError, match="not a checkpoint of this program"):
        export_model(path, tmp_path, ["encoder"])


def test_mobile_sam_becomes_files_of_the_contract(tmp_path: Path) -> None:
    from nanosam_cli.core.modeling.mobile_sam import MobileSam

    torch.manual_seed(0)
    model = MobileSam()
    weights = {f"image_encoder.{name}": weight for name, weight in model.encoder.state_dict().items()}
    torch.save({**weights, **model.decoder.state_dict()}, tmp_path / "mobile_sam.pt")
    files = export_model(tmp_path / "mobile_sam.pt", tmp_path, ["decoder"])
    assert max(files[0].max_difference.values()) < 1e-4
    metadata = {entry.key: entry.value for entry in onnx.load(files[0].path).metadata_props}
    assert metadata["nanosam.model"] == "mobile-sam"
    assert metadata["nanosam.image_size"] == "1024"


@pytest.mark.slow
def test_mobile_sams_encoder_exports(tmp_path: Path) -> None:
    from nanosam_cli.core.modeling.tiny_vit import TinyViTEncoder

    torch.manual_seed(0)
    file = export_part("encoder", TinyViTEncoder().eval(), 1024, tmp_path / "encoder.onnx", {})
    assert file.max_difference["image_embeddings"] < 1e-3

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="export needs the extra `train`")

import numpy as np
import onnx
import torch
from onnx import TensorProto

from nanosam_cli.core.errors import InputError, ModelError, OutputError, UsageError
from nanosam_cli.core.export import proof
from nanosam_cli.core.export.export import Exported, export_model, to_onnx
from nanosam_cli.core.export.options import OPSET, ExportOptions
from nanosam_cli.core.export.parts import decoder_part, encoder_part
from nanosam_cli.core.export.proof import LIMITS, prove_outputs
from nanosam_cli.core.frame import Frame
from nanosam_cli.core.inference.backends.onnxruntime import open_file
from nanosam_cli.core.inference.contract import FACTS
from nanosam_cli.core.inference.session import host
from nanosam_cli.core.loading.convert import convert_model
from nanosam_cli.core.loading.load import load_predictor
from nanosam_cli.core.media.image import read_image
from nanosam_cli.core.modeling.region_decoder import RegionDecoder
from nanosam_cli.core.modeling.sam_decoder import SamDecoder
from nanosam_cli.core.paths import resource
from nanosam_cli.core.precision.agreement import MaskAgreement
from nanosam_cli.core.types import Prompt
from tests.checkpoints import save_mobile_sam
from tests.onnx_graphs import elem_types
from tests.tiny_vit_model import shrunk_tiny_vit, small_tiny_vit


@pytest.fixture(scope="module", autouse=True)
def _two_photos() -> Iterator[None]:
    """The first, with three objects, and one that is not square."""
    photos = proof.example_photos()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(proof, "example_photos", lambda: [photos[0], photos[-1]])
        yield


@pytest.fixture(scope="module")
def notes() -> list[str]:
    """What was told while `files` were made."""
    return []


@pytest.fixture(scope="module")
def files(trained: Path, tmp_path_factory: pytest.TempPathFactory, notes: list[str]) -> list[Exported]:
    """Encoder and decoder in float32."""
    return export_model(trained, tmp_path_factory.mktemp("files"), "all", note=notes.append)


def metadata_of(path: Path) -> dict[str, str]:
    return {entry.key: entry.value for entry in onnx.load(path).metadata_props}


def shape_of(path: Path, tensor: str) -> list[int | str]:
    graph = onnx.load(path).graph
    (value,) = (value for value in (*graph.input, *graph.output) if value.name == tensor)
    return [side.dim_param or side.dim_value for side in value.type.tensor_type.shape.dim]


# what comes out


def test_a_checkpoint_becomes_files_that_the_predictor_runs(files: list[Exported], notes: list[str]) -> None:
    folder = files[0].path.parent
    assert {path.name for path in folder.iterdir()} == {"decoder.md", "decoder.onnx", "encoder.md", "encoder.onnx"}
    assert all(difference < 1e-2 for file in files for difference in file.proof.max_difference.values())
    assert [file.proof.mask_iou for file in files] == [MaskAgreement(1.0, 1.0, objects=4, photos=2)] * 2
    assert [line.split()[0] for line in notes] == ["reading", "torch's", *["tracing", "proving", "proving"] * 2]
    with load_predictor(encoder=files[0].path, decoder=files[1].path) as predictor:
        assert predictor.contract.image_size == 512
        embedding = predictor.encode_image(np.zeros((60, 100, 3), np.uint8))
        found = predictor.predict(embedding, Prompt.from_boxes([[10, 10, 50, 40], [30, 5, 90, 55]]))
        assert [segmentation.mask.shape for segmentation in found] == [(60, 100), (60, 100)]
        three = predictor.predict_multimask(embedding, Prompt.from_points([[40, 30]]))
        assert [len(readings) for readings in three] == [3]


def test_files_describe_themselves(files: list[Exported]) -> None:
    file = files[1]
    metadata = metadata_of(file.path)
    assert metadata["nanosam.model"] == "tiny"
    assert metadata["nanosam.part"] == "decoder"
    assert metadata["nanosam.image_size"] == "512"
    assert metadata["nanosam.coordinate_size"] == "1024"
    assert metadata.items() >= FACTS["decoder"].items()
    assert metadata["nanosam.precision"] == "fp32"
    assert metadata["nanosam.steps"] == "1"
    assert len(metadata["nanosam.source_sha256"]) == 64
    assert "nanosam 0" in metadata["nanosam.exporter"]
    assert shape_of(file.path, "low_res_masks") == ["P", 4, 256, 256]
    assert shape_of(file.path, "point_coords") == ["P", "N", 2]
    assert shape_of(files[0].path, "image") == ["B", 3, 512, 512]


def test_half_precision(trained: Path, files: list[Exported], tmp_path: Path) -> None:
    half = export_model(trained, tmp_path, "decoder", ExportOptions(precision="fp16"))
    for before, after in zip(files[1:], half, strict=True):
        assert after.bytes < 0.6 * before.bytes
        model = onnx.load(after.path)
        types = elem_types(model)
        assert {types[value.name] for value in (*model.graph.input, *model.graph.output)} == {TensorProto.FLOAT}
        heavy = [node.output[0] for node in model.graph.node if node.op_type in ("Conv", "LayerNormalization")]
        assert {types[name] for name in heavy} == {TensorProto.FLOAT16}
        assert metadata_of(after.path)["nanosam.precision"] == "fp16"
        # the figures are those of numbers that were rounded, which ONNX Runtime's CPU would not do
        name, difference = next(iter(after.proof.max_difference.items()))
        assert difference > 10 * before.proof.max_difference[name]
        assert 1 < (after.proof.largest or 0) < 65504
        assert "an emulation that rounds" in after.card.read_text().replace("\n", " ")
    with load_predictor(encoder=files[0].path, decoder=half[0].path) as predictor:
        found = predictor.predict(
            predictor.encode_image(np.zeros((60, 100, 3), np.uint8)), Prompt.from_boxes([[10, 10, 50, 40]])
        )
        assert found[0].mask.any()


def test_weights_in_half_leave_the_rest_as_it_is(trained: Path, files: list[Exported], tmp_path: Path) -> None:
    half = export_model(trained, tmp_path, "all", ExportOptions(precision="fp16-weights"))
    image = read_image(resource("examples", "cat.jpg"))
    answers = []
    for encoder, decoder in (files, half):
        with load_predictor(encoder=encoder.path, decoder=decoder.path) as predictor:
            embedding = predictor.encode_image(image)
            answers.append(predictor.predict(embedding, Prompt.from_boxes([[10, 10, 50, 40]]))[0].low_res_logits)
    assert not np.array_equal(*answers)
    np.testing.assert_allclose(*answers, atol=0.02 * np.abs(answers[0]).max())
    for before, after in zip(files, half, strict=True):
        assert after.bytes < 0.6 * before.bytes
        assert metadata_of(after.path)["nanosam.precision"] == "fp32"
        assert metadata_of(after.path)["nanosam.weights"] == "fp16"
        assert "fp16-weights" in after.card.read_text()


def test_one_file_does_what_the_two_do(trained: Path, files: list[Exported], tmp_path: Path) -> None:
    [whole] = export_model(trained, tmp_path, "all", ExportOptions(single_file=True))
    assert (whole.path.name, metadata_of(whole.path)["nanosam.part"]) == ("model.onnx", "model")
    encoder, decoder = files
    image = read_image(resource("examples", "rocket.jpg"))
    boxes = np.array([[311, 126, 333, 406], [20, 30, 400, 350]], np.float32)
    with load_predictor(encoder=encoder.path, decoder=decoder.path) as predictor:
        embedding = predictor.encode_image(image)
        expected = predictor.predict(embedding, Prompt.from_boxes(boxes))
        frame = Frame((image.shape[0], image.shape[1]), 512)
        feeds = {
            "image": predictor.prepare_image(image).tensor,
            "point_coords": frame.boxes_to_frame(boxes).reshape(2, 2, 2),
            "point_labels": np.array([[2, 3]] * 2, np.float32),
            "orig_im_size": np.array(image.shape[:2], np.float32),
        }
    session = open_file(whole.path, "cpu", None)
    found = {name: host(value) for name, value in session.run(feeds).items()}
    assert found["masks"].shape == (2, 4, *image.shape[:2])
    for row, segmentation in enumerate(expected):
        np.testing.assert_allclose(found["low_res_masks"][row, 0], segmentation.low_res_logits, atol=1e-4)
        assert found["iou_predictions"][row, 0] == pytest.approx(segmentation.predicted_iou, abs=1e-5)
        assert np.count_nonzero((found["masks"][row, 0] > 0) != segmentation.mask) <= 2


def test_a_checkpoint_in_another_contract_is_exported_first(trained: Path, tmp_path: Path) -> None:
    options = ExportOptions(max_points=4, contract="sam")
    [file] = convert_model(str(trained), "decoder", tmp_path, options)
    assert shape_of(file.path, "point_labels") == ["P", 4]
    assert metadata_of(file.path)["nanosam.contract"] == "sam"
    assert max(file.proof.max_difference.values()) < 1e-3


@pytest.mark.parametrize(
    ("what", "options", "tensor", "shape"),
    [
        ("teacher", ExportOptions(batch=2), "image", [2, 3, 512, 512]),
        ("decoder", ExportOptions(max_points=4), "point_coords", ["P", 4, 2]),
        ("decoder", ExportOptions(max_points=2, opset=18), "point_labels", ["P", 2]),
    ],
    ids=str,
)
def test_shapes_and_opsets(
    trained: Path, tmp_path: Path, what: str, options: ExportOptions, tensor: str, shape: list[int | str]
) -> None:
    [file] = export_model(trained, tmp_path, what, options)
    assert file.path.name == f"{what}.onnx"
    assert shape_of(file.path, tensor) == shape
    assert onnx.load(file.path).opset_import[0].version == options.opset


@pytest.mark.parametrize(
    ("what", "options", "words"),
    [
        ("encoder", ExportOptions(single_file=True), "--single-file is the whole model, not the encoder alone"),
        ("teacher", ExportOptions(max_points=4), "--max-points is for mask decoders"),
        ("decoder", ExportOptions(batch=2), "--batch is for image encoders"),
        ("all", ExportOptions(batch=2, single_file=True), "--batch is for image encoders"),
    ],
)
def test_options_that_have_no_use(tmp_path: Path, what: str, options: ExportOptions, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        export_model(tmp_path / "none.safetensors", tmp_path, what, options)


def test_a_folder_that_cannot_be_written_is_told_before_any_work(trained: Path, tmp_path: Path) -> None:
    told: list[str] = []
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match=r"file is not a directory"):
        export_model(trained, tmp_path / "file" / "models", "all", note=told.append)
    assert told == []


def test_files_are_not_overwritten_unasked(trained: Path, tmp_path: Path) -> None:
    told: list[str] = []
    for name in ("decoder.onnx", "decoder.md"):
        (tmp_path / name).write_text("mine")
        with pytest.raises(OutputError, match=r"decoder\.onnx exists already"):
            export_model(trained, tmp_path, "all", note=told.append)
    (tmp_path / "decoder.onnx").unlink()
    with pytest.raises(OutputError, match=r"decoder\.md exists already"):
        export_model(trained, tmp_path, "all", note=told.append)
    assert told == []  # known before any work is done
    assert {path.name for path in tmp_path.iterdir()} == {"decoder.md"}
    [file] = export_model(trained, tmp_path, "decoder", overwrite=True)
    assert file.card.read_text() != "mine"


# what it is made of


@pytest.mark.parametrize(
    "decoder", [RegionDecoder(), SamDecoder(), SamDecoder(dense_boxes=True)], ids=["region", "sam", "sam-dense"]
)
def test_every_decoder_exports_with_free_prompts(decoder: torch.nn.Module, tmp_path: Path) -> None:
    part = decoder_part(decoder.eval())
    onnx.save(to_onnx(part, OPSET), tmp_path / "decoder.onnx")
    differences = prove_outputs(part, open_file(tmp_path / "decoder.onnx", "cpu", None), LIMITS["fp32"])
    assert set(differences) == {"iou_predictions", "low_res_masks"}
    assert shape_of(tmp_path / "decoder.onnx", "point_coords") == ["P", "N", 2]


@pytest.mark.parametrize(
    ("module", "unused"),
    [(small_tiny_vit(), 1), (SamDecoder(), 0), (RegionDecoder(), 0)],
    ids=["TinyViT", "sam", "region"],
)
def test_every_layer_norm_is_one_node(module: torch.nn.Module, unused: int) -> None:
    """A variance that is written out squares activations, which overflows fp16. TinyViT's classifier is never run."""
    part = encoder_part(module, 64) if unused else decoder_part(module.eval())
    nodes = Counter(node.op_type for node in to_onnx(part, OPSET).graph.node)
    norms = sum(isinstance(layer, torch.nn.LayerNorm) for layer in module.modules())
    assert nodes["LayerNormalization"] == norms - unused > 0
    assert nodes["Pow"] + nodes["Sqrt"] == (1 if isinstance(module, RegionDecoder) else 0)  # its F.normalize


def test_tiny_vits_graph_computes_no_shapes() -> None:
    """Its windows are cut by constants: the exported graph was twice as long before."""
    nodes = Counter(node.op_type for node in to_onnx(encoder_part(small_tiny_vit(), 64), OPSET).graph.node)
    blocks = 3
    assert nodes["Shape"] <= 2 * blocks  # of the attention's last reshape
    assert nodes["Mod"] <= blocks


def test_mobile_sam_becomes_files_of_the_contract(tmp_path: Path) -> None:
    path = save_mobile_sam(tmp_path / "mobile_sam.pt")
    with shrunk_tiny_vit():
        [file] = export_model(path, tmp_path, "decoder")
    assert max(file.proof.max_difference.values()) < 1e-4
    metadata = metadata_of(file.path)
    assert metadata["nanosam.model"] == "mobile-sam"
    assert metadata["nanosam.image_size"] == "1024"
    assert metadata["nanosam.licence"] == "Apache-2.0"
    assert "licence of the weights | Apache-2.0" in file.card.read_text()


# what does not pass


class Liar(RegionDecoder):
    """The file differs from the module."""

    def __init__(self, by: float) -> None:
        super().__init__()
        self._by = by

    def forward(self, *inputs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        ious, masks = super().forward(*inputs)
        return ious, masks if torch.onnx.is_in_onnx_export() else masks + self._by


@pytest.fixture
def lying(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from nanosam_cli.core.modeling import model

    monkeypatch.setattr(model, "RegionDecoder", lambda: Liar(1.0))


def test_a_failed_proof_leaves_no_file(trained: Path, tmp_path: Path, lying: None) -> None:
    with pytest.raises(ModelError, match="low_res_masks is off by 1"):
        export_model(trained, tmp_path, "decoder")
    assert list(tmp_path.iterdir()) == []


def test_masks_that_differ_leave_no_file(
    trained: Path, tmp_path: Path, lying: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(LIMITS, "fp32", replace(LIMITS["fp32"], output=10))  # type: ignore[arg-type]
    with pytest.raises(ModelError, match=r"gives other masks than torch: mean IoU 0\.\d+, worst 0\.\d+"):
        export_model(trained, tmp_path, "decoder")
    assert list(tmp_path.iterdir()) == []


def test_a_model_that_does_not_fit_into_half_is_refused(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ONNX Runtime's CPU computes its right masks, in float32: the proof does not rest on that."""

    class Huge(RegionDecoder):
        def forward(self, image_embeddings: torch.Tensor, *prompts: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return super().forward(image_embeddings * 3e4 * 10 / 3e4 / 10, *prompts)

    from nanosam_cli.core.modeling import model

    monkeypatch.setattr(model, "RegionDecoder", Huge)
    with pytest.raises(ModelError, match=r"does not fit into fp16, which ends at 65504: .* reaches \d") as caught:
        export_model(trained, tmp_path / "fp16", "decoder", ExportOptions(precision="fp16"))
    assert "--precision fp32" in (caught.value.hint or "")
    assert not [*(tmp_path / "fp16").glob("*")]


@pytest.mark.parametrize(
    ("content", "words"), [(None, "no such checkpoint"), (b"junk", "not a whole safetensors file")]
)
def test_checkpoints_that_are_none(tmp_path: Path, content: bytes | None, words: str) -> None:
    path = tmp_path / "last.safetensors"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=words):
        export_model(path, tmp_path, "encoder")


def test_foreign_safetensors_are_refused(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    path = tmp_path / "foreign.safetensors"
    save_file({"weight": torch.zeros(2)}, path)
    with pytest.raises(InputError, match="not a checkpoint of this program"):
        export_model(path, tmp_path, "encoder")

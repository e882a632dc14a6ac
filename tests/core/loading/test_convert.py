"""A model in other tools' contracts, from its ONNX files: without torch, proved, and refused in words."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from PIL import Image

from nanosam_cli import load_predictor
from nanosam_cli.core.errors import InputError, ModelError, NanosamError, OutputError, UsageError
from nanosam_cli.core.export import contract_files
from nanosam_cli.core.export.contract_files import Converted
from nanosam_cli.core.export.options import ContractName, ExportOptions
from nanosam_cli.core.frame import COORDINATE_SIZE, Frame
from nanosam_cli.core.graphs import contracts
from nanosam_cli.core.inference.backends.onnxruntime import open_file
from nanosam_cli.core.inference.session import host
from nanosam_cli.core.loading.convert import convert_model
from nanosam_cli.core.masks import mask_iou
from nanosam_cli.core.media.image import read_image
from nanosam_cli.core.paths import resource
from nanosam_cli.core.types import DECODER, ENCODER, Prompt
from tests.fake_models import save_decoder, save_encoder

MODEL = "nanosam-lite2"


@pytest.fixture(scope="module")
def samexporter(tmp_path_factory: pytest.TempPathFactory) -> list[Converted]:
    folder = tmp_path_factory.mktemp("samexporter")
    return convert_model(MODEL, "all", folder, ExportOptions(contract="samexporter"))


def test_names_and_shapes_are_those_of_the_other_tool(samexporter: list[Converted]) -> None:
    encoder, decoder = (open_file(file.path, "cpu", None) for file in samexporter)
    assert [str(info) for info in encoder.inputs] == ["input_image (any, any, 3) float32"]
    assert [str(info) for info in encoder.outputs] == ["image_embeddings (1, 256, 64, 64) float32"]
    assert [info.name for info in decoder.inputs] == [
        *("image_embeddings", "point_coords", "point_labels", "mask_input", "has_mask_input", "orig_im_size")
    ]
    assert [info.name for info in decoder.outputs] == ["masks", "iou_predictions", "low_res_masks"]


def test_both_files_are_proved_and_say_what_they_are(samexporter: list[Converted]) -> None:
    for file in samexporter:
        assert file.proof.mask_iou is not None
        assert (file.proof.mask_iou.objects, file.proof.mask_iou.photos) == (8, 6)
        assert file.proof.mask_iou.mean > 0.99
        told = {entry.key: entry.value for entry in onnx.load(file.path).metadata_props}
        assert told["nanosam.contract"] == "samexporter"
        assert told["nanosam.part"] == file.part
        card = " ".join(file.card.read_text().split())
        assert "contract samexporter" in card
        assert f"worst {file.proof.mask_iou.worst:.4f}" in card
    assert max(samexporter[0].proof.max_difference.values()) < 1e-3
    assert set(samexporter[1].proof.max_difference) == {"masks", "iou_predictions", "low_res_masks"}


@pytest.mark.parametrize("turned", [False, True], ids=["landscape", "portrait"])
def test_a_client_of_samexporter_gets_the_mask_of_segment(samexporter: list[Converted], turned: bool) -> None:
    """What such a program does: longest side to 1,024, pixels in, masks out at the photo's size."""
    photo, box = read_image(resource("examples", "raccoon.jpg")), np.array([0, 0, 588, 417], np.float32)
    if turned:
        photo, box = np.ascontiguousarray(photo.transpose(1, 0, 2)), box[[1, 0, 3, 2]]
    height, width = photo.shape[:2]
    scale = COORDINATE_SIZE / max(height, width)
    small = Image.fromarray(photo).resize((int(width * scale + 0.5), int(height * scale + 0.5)))
    encoder, decoder = (open_file(file.path, "cpu", None) for file in samexporter)
    [embedding] = encoder.run({"input_image": np.asarray(small, np.float32)}).values()
    masks = decoder.run(
        {
            "image_embeddings": embedding,
            "point_coords": (box.reshape(1, 2, 2) * scale).astype(np.float32),
            "point_labels": np.array([[2, 3]], np.float32),
            "mask_input": np.zeros((1, 1, 256, 256), np.float32),
            "has_mask_input": np.zeros(1, np.float32),
            "orig_im_size": np.array([height, width], np.float32),
        }
    )["masks"]
    with load_predictor() as predictor:
        [wanted] = predictor.predict(predictor.encode_image(photo), Prompt.from_boxes([box]))
    assert mask_iou(np.asarray(host(masks)[0, 0] > 0), wanted.mask) >= 0.99


@pytest.mark.parametrize("original_hw", [(427, 640), (611, 300), (1, 900), (3000, 1999), (301, 301)])
def test_masks_in_the_graph_are_those_of_frame(original_hw: tuple[int, int], tmp_path: Path) -> None:
    decoder = save_decoder(tmp_path / "d.onnx")
    onnx.save(contracts.sam_decoder(onnx.load(decoder), 512), decoder)
    feeds: dict[str, Any] = {
        "image_embeddings": np.zeros((1, 256, 64, 64), np.float32),
        "point_coords": np.array([[[100, 50], [400, 300]]], np.float32),
        "point_labels": np.array([[2, 3]], np.float32),
        "mask_input": np.zeros((1, 1, 256, 256), np.float32),
        "has_mask_input": np.zeros(1, np.float32),
        "orig_im_size": np.array(original_hw, np.float32),
    }
    found = open_file(decoder, "cpu", None).run(feeds)
    wanted = Frame(original_hw, 512).masks_to_original(host(found["low_res_masks"]))
    np.testing.assert_allclose(host(found["masks"]), wanted, atol=0.02)


def test_torch_is_not_loaded(tmp_path: Path) -> None:
    program = (
        "import sys; sys.argv = ['nanosam', 'export', 'decoder', 'nanosam-lite2', '--contract', 'sam', '-o', 'out']\n"
        "from nanosam_cli.app import main\n"
        "try: main()\n"
        "except SystemExit as exit: assert exit.code == 0, exit.code\n"
        "assert 'torch' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", program], cwd=tmp_path, check=True, capture_output=True)
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"decoder.onnx", "decoder.md"}


def test_an_onnx_file_of_ones_own_is_converted_without_its_other_half(tmp_path: Path) -> None:
    source = save_decoder(tmp_path / "mine.onnx", metadata={"nanosam.image_size": "128"})
    [file] = convert_model(str(source), DECODER, tmp_path / "out", ExportOptions(contract="sam"))
    assert file.proof.mask_iou is None
    assert max(file.proof.max_difference.values()) < 1e-2
    [encoder] = convert_model(
        str(save_encoder(tmp_path / "e.onnx")), ENCODER, tmp_path / "out", ExportOptions(contract="samexporter")
    )
    assert encoder.path.name == "encoder.onnx"


def test_a_failed_proof_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    right = contract_files.sam_decoder
    monkeypatch.setattr(contract_files, "sam_decoder", lambda model, _: right(model, 700))
    source = save_decoder(tmp_path / "mine.onnx", metadata={"nanosam.image_size": "64"})
    with pytest.raises(ModelError, match="has masks off by"):
        convert_model(str(source), DECODER, tmp_path / "out", ExportOptions(contract="sam"))
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize(
    ("source", "what", "contract", "options", "error", "words"),
    [
        ("encoder.onnx", "decoder", "sam", {}, ModelError, "given as decoder, is an image encoder"),
        ("text.onnx", "decoder", "sam", {}, ModelError, "not a whole ONNX file"),
        ("none.onnx", "decoder", "sam", {}, InputError, "no such ONNX file"),
        ("decoder.onnx", "decoder", "sam", {}, ModelError, "does not say which image size it goes with"),
        ("frame.onnx", "decoder", "sam", {}, ModelError, "prompts in a square of 512"),
        ("encoder.onnx", "all", "sam", {}, UsageError, "is one part of a model"),
        ("decoder.onnx", "decoder", "sam", {"max_points": 5}, UsageError, "is an ONNX file already"),
        (MODEL, "encoder", "sam", {}, UsageError, "sam is the contract of a mask decoder"),
        (MODEL, "teacher", "samexporter", {}, UsageError, "the teacher has nanosam's contract alone"),
        (MODEL, "all", "samexporter", {"batch": 2}, UsageError, "takes one photo a run"),
        (MODEL, "all", "sam", {"single_file": True}, UsageError, "--single-file has nanosam's contract alone"),
        ("full", "decoder", "sam", {}, OutputError, "decoder.onnx exists already"),
    ],
)
def test_what_is_refused(
    source: str,
    what: str,
    contract: ContractName,
    options: dict[str, Any],
    error: type[NanosamError],
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    save_encoder(tmp_path / "encoder.onnx")
    save_decoder(tmp_path / "decoder.onnx")
    save_decoder(tmp_path / "frame.onnx", metadata={"nanosam.coordinate_size": "512", "nanosam.image_size": "512"})
    (tmp_path / "text.onnx").write_text("hello")
    folder = tmp_path / "out"
    if source == "full":
        folder, source = tmp_path, "frame.onnx"
    with pytest.raises(error, match=words) as caught:
        convert_model(source, what, folder, ExportOptions(contract=contract, **options))
    assert caught.value.hint

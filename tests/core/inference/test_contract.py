from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx
import pytest

from nanosam_cli.core.errors import ModelError
from nanosam_cli.core.inference.contract import Contract, read_contract
from nanosam_cli.core.inference.session import Session, open_session
from tests.fake_models import save_decoder, save_encoder

Files = tuple[Path, Path]


def sessions(files: Files) -> tuple[Session, Session]:
    return open_session(files[0]), open_session(files[1])


class Told:
    """A session that says other shapes and dtypes of some of its inputs and outputs, or has other metadata."""

    metadata: dict[str, str]

    def __init__(self, session: Session, told: Mapping[str, tuple[tuple[int | None, ...], str]]) -> None:
        self._session = session
        self.inputs, self.outputs = (
            tuple(
                replace(info, shape=told[info.name][0], dtype=told[info.name][1]) if info.name in told else info
                for info in infos
            )
            for infos in (session.inputs, session.outputs)
        )

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)


def test_what_files_leave_open(own_files: Files, nvidia_files: Files) -> None:
    own = Contract(128, 1024, prompts=None, points=None, mask_prompts=None, has_mask_prompts=None, masks=4)
    nvidia = Contract(1024, 1024, prompts=1, points=None, mask_prompts=1, has_mask_prompts=1, masks=4)
    assert read_contract(*sessions(own_files)) == own
    assert read_contract(*sessions(nvidia_files)) == nvidia


@pytest.mark.parametrize(
    ("encoder", "decoder", "expected"),
    [
        ({"size": 64, "side": "S"}, {}, {"image_size": 64}),
        ({"batch": 1}, {"points": 5}, {"points": 5}),
        ({}, {"ious": (0.5,)}, {"masks": 1}),
        ({}, {"metadata": {"nanosam.coordinate_size": "512"}}, {"coordinate_size": 512}),
        ({"metadata": False}, {"mask_prompts": 1}, {"mask_prompts": 1, "prompts": None}),
    ],
)
def test_variants(tmp_path: Path, encoder: dict[str, Any], decoder: dict[str, Any], expected: dict[str, Any]) -> None:
    files = save_encoder(tmp_path / "e.onnx", **encoder), save_decoder(tmp_path / "d.onnx", **decoder)
    found = vars(read_contract(*sessions(files)))
    assert {key: found[key] for key in expected} == expected


def test_swapped_files(own_files: Files) -> None:
    encoder, decoder = own_files
    with pytest.raises(ModelError, match=r"these look swapped: .*decoder.onnx is a mask decoder") as caught:
        read_contract(*sessions((decoder, encoder)))
    assert caught.value.hint == f"--encoder {encoder} --decoder {decoder}"


def test_the_same_file_twice(own_files: Files) -> None:
    encoder, decoder = own_files
    with pytest.raises(ModelError, match=r"decoder.onnx, given as encoder, is a mask decoder: expected image ->"):
        read_contract(*sessions((decoder, decoder)))
    with pytest.raises(
        ModelError,
        match=r"encoder.onnx, given as decoder, is an image encoder: expected image_embeddings, point_coords, "
        r"point_labels, mask_input, has_mask_input -> iou_predictions, low_res_masks; found image -> image_embeddings",
    ):
        read_contract(*sessions((encoder, encoder)))


def rename(path: Path, names: Mapping[str, str]) -> None:
    model = onnx.load(path)
    for info in (*model.graph.input, *model.graph.output):
        info.name = names.get(info.name, info.name)
    for node in model.graph.node:
        for links in (node.input, node.output):
            for place, link in enumerate(links):
                links[place] = names.get(link, link)
    onnx.save(model, path)


@pytest.mark.parametrize(
    ("encoder", "decoder", "message"),
    [
        ({"size": 64, "side": "S", "metadata": False}, {}, "e.onnx takes images of any size and does not say"),
        ({"batch": 2}, {}, "e.onnx takes exactly 2 images a run; expected 1"),
        ({}, {"prompts": 2}, "d.onnx takes exactly 2 prompts a call; expected 1"),
        ({}, {"metadata": {"nanosam.coordinate_size": "1024.0"}}, "metadata nanosam.coordinate_size=1024.0; expected"),
        ({}, {"metadata": {"nanosam.coordinate_size": "0"}}, "metadata nanosam.coordinate_size=0; expected"),
    ],
)
def test_files_outside_the_contract(
    tmp_path: Path, encoder: dict[str, Any], decoder: dict[str, Any], message: str
) -> None:
    files = save_encoder(tmp_path / "e.onnx", **encoder), save_decoder(tmp_path / "d.onnx", **decoder)
    with pytest.raises(ModelError, match=message):
        read_contract(*sessions(files))


@pytest.mark.parametrize(
    ("file", "names", "message"),
    [
        (
            "e.onnx",
            {"image": "pixel_values"},
            "e.onnx, given as encoder, is not a SAM model file: .* found pixel_values ->",
        ),
        ("e.onnx", {"image_embeddings": "logits"}, "e.onnx, given as encoder, .* found image -> logits"),
        (
            "d.onnx",
            {"has_mask_input": "orig_im_size"},
            "d.onnx, given as decoder, is not a SAM .* found .*orig_im_size ->",
        ),
        ("d.onnx", {"low_res_masks": "masks"}, "d.onnx, given as decoder, .* found .* -> iou_predictions, masks"),
    ],
)
def test_files_that_are_not_sam(tmp_path: Path, file: str, names: dict[str, str], message: str) -> None:
    files = save_encoder(tmp_path / "e.onnx"), save_decoder(tmp_path / "d.onnx")
    rename(tmp_path / file, names)
    with pytest.raises(ModelError, match=message):
        read_contract(*sessions(files))


def test_image_shapes(own_files: Files) -> None:
    """One dynamic side is the other; two that differ are refused."""
    encoder, decoder = sessions(own_files)
    half_dynamic = Told(encoder, {"image": ((None, 3, 64, None), "float32")})
    assert read_contract(half_dynamic, decoder).image_size == 64
    with pytest.raises(ModelError, match="takes images of 64x128 pixels; expected a square"):
        read_contract(Told(encoder, {"image": ((None, 3, 128, 64), "float32")}), decoder)


@pytest.mark.parametrize("text", ["", "0", "-1", "1e3", "12.5", "128\n", "4097", "1000000000", "9" * 5000, "\u0661"])
def test_metadata_that_is_no_number_of_pixels(own_files: Files, text: str) -> None:
    encoder, decoder = sessions(own_files)
    said = Told(encoder, {"image": ((None, 3, None, None), "float32")})
    said.metadata = {"nanosam.image_size": text}
    with pytest.raises(
        ModelError, match=r"(?s)encoder\.onnx has metadata nanosam\.image_size=.*; expected a number of pix"
    ):
        read_contract(said, decoder)
    said = Told(decoder, {})
    said.metadata = {"nanosam.coordinate_size": text}
    with pytest.raises(ModelError, match=r"(?s)decoder\.onnx has metadata nanosam\.coordinate_size=.*, 4096 at most"):
        read_contract(encoder, said)


def test_shapes_that_ask_for_more_than_a_machine_has(own_files: Files) -> None:
    encoder, decoder = sessions(own_files)
    with pytest.raises(ModelError, match=r"encoder.onnx takes images of 100000 pixels a side; expected 4096 or fewer"):
        read_contract(Told(encoder, {"image": ((None, 3, 100_000, 100_000), "float32")}), decoder)
    with pytest.raises(ModelError, match=r"decoder.onnx takes exactly 1000000000 points a prompt; expected 65536 or"):
        read_contract(encoder, Told(decoder, {"point_coords": ((None, 10**9, 2), "float32")}))


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        ("image_embeddings", (1, 256, 32, 32), r"image_embeddings \(1, 256, 64, 64\) float32; found .*32, 32\)"),
        ("image_embeddings", (1, 64, 64), r"expected image_embeddings \(1, 256, 64, 64\) float32; found"),
        ("mask_input", ("P", 1, 128, 128), r"expected mask_input \(any, 1, 256, 256\) float32; found .*128"),
        ("has_mask_input", ("P", 1), r"expected has_mask_input \(any\) float32; found has_mask_input \(any, 1\)"),
        ("point_labels", ("P",), r"expected point_labels \(any, any\) float32; found point_labels \(any\)"),
    ],
)
def test_decoder_inputs(own_files: Files, name: str, shape: tuple[int | str, ...], message: str) -> None:
    encoder, decoder = sessions(own_files)
    dims = tuple(None if isinstance(side, str) else side for side in shape)
    with pytest.raises(ModelError, match=f"decoder.onnx is not a usable decoder: .*{message}"):
        read_contract(encoder, Told(decoder, {name: (dims, "float32")}))


def test_other_dtypes(own_files: Files) -> None:
    encoder, decoder = sessions(own_files)
    half = Told(encoder, {"image": ((None, 3, 128, 128), "float16")})
    with pytest.raises(ModelError, match=r"expected image \(any, 3, any, any\) float32; found image .* float16"):
        read_contract(half, decoder)
    labels = Told(decoder, {"point_labels": ((None, None), "int64")})
    with pytest.raises(ModelError, match=r"expected point_labels \(any, any\) float32; found .* int64"):
        read_contract(encoder, labels)


def test_outputs_without_a_shape_are_taken_on_trust(own_files: Files) -> None:
    encoder, decoder = sessions(own_files)
    told = Told(decoder, {"low_res_masks": ((), "float32"), "iou_predictions": ((), "float32")})
    assert read_contract(encoder, told).masks is None
    with pytest.raises(ModelError, match=r"expected point_coords"):
        read_contract(encoder, Told(decoder, {"point_coords": ((), "float32")}))

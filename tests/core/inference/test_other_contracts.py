"""Files that other exporters wrote, read beside this project's own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import ModelProto, TensorProto, helper

from nanosam_cli.core.errors import ModelError
from nanosam_cli.core.graphs.contracts import sam_decoder, samexporter_encoder
from nanosam_cli.core.graphs.graph import set_metadata
from nanosam_cli.core.inference.predictor import Predictor
from nanosam_cli.core.inference.session import open_session
from nanosam_cli.core.types import Prompt, Segmentation
from tests.fake_models import save_decoder, save_encoder

BOXES = Prompt.from_boxes([[20, 30, 80, 50], [5, 5, 60, 40]])
PHOTO = np.random.default_rng(0).integers(0, 256, (61, 101, 3)).astype(np.uint8)


def segment(encoder: Path, decoder: Path) -> list[Segmentation]:
    with Predictor(open_session(encoder), open_session(decoder)) as predictor:
        return predictor.predict(predictor.encode_image(PHOTO), BOXES)


def renamed(model: ModelProto) -> ModelProto:
    """The image input has the name of another exporter."""
    for node in model.graph.node:
        node.input[:] = ["pixel_values" if name == "image" else name for name in node.input]
    model.graph.input[0].name = "pixel_values"
    return model


def pixels_of_fixed_size(model: ModelProto) -> ModelProto:
    """samexporter's encoder, with both sides fixed at the model's own."""
    fixed = samexporter_encoder(model, 128)
    ratio = next(tensor for tensor in fixed.graph.initializer if tensor.name.endswith("frame_ratio"))
    ratio.CopyFrom(onnx.numpy_helper.from_array(np.array(1, np.float32), ratio.name))
    for axis in (0, 1):
        fixed.graph.input[0].type.tensor_type.shape.dim[axis].dim_value = 128
    return fixed


def typed(model: ModelProto, **types: int) -> ModelProto:
    """Inputs of other number types, which the file casts."""
    for value in model.graph.input:
        if value.name in types:
            for node in model.graph.node:
                node.input[:] = [f"{name}_float" if name == value.name else name for name in node.input]
            value.type.tensor_type.elem_type = types[value.name]
            cast = helper.make_node("Cast", [value.name], [f"{value.name}_float"], to=TensorProto.FLOAT)
            model.graph.node.insert(0, cast)
    return model


@pytest.mark.parametrize("change", [renamed, pixels_of_fixed_size], ids=["another name", "pixels, fixed sides"])
def test_encoders_of_other_kinds_give_the_same_masks(
    change: Callable[[ModelProto], ModelProto], tmp_path: Path
) -> None:
    encoder, decoder = save_encoder(tmp_path / "e.onnx"), save_decoder(tmp_path / "d.onnx")
    onnx.save(change(onnx.load(encoder)), tmp_path / "other.onnx")
    for found, wanted in zip(segment(tmp_path / "other.onnx", decoder), segment(encoder, decoder), strict=True):
        np.testing.assert_array_equal(found.mask, wanted.mask)
        assert found.predicted_iou == pytest.approx(wanted.predicted_iou, abs=1e-5)


def test_a_pixel_encoder_of_any_size_is_given_the_photo_without_padding(tmp_path: Path) -> None:
    """The file says what it was given: the photo at 1,024 pixels, whose last row is no padding."""
    encoder = save_encoder(tmp_path / "e.onnx")
    model = samexporter_encoder(onnx.load(encoder), 128)
    model.graph.node.append(helper.make_node("Shape", ["input_image"], ["given"]))
    model.graph.output.append(helper.make_tensor_value_info("given", TensorProto.INT64, [3]))
    onnx.save(model, tmp_path / "other.onnx")
    with Predictor(open_session(tmp_path / "other.onnx"), open_session(save_decoder(tmp_path / "d.onnx"))) as predictor:
        outputs = predictor.encoder.run({"image": predictor.prepare_image(PHOTO).tensor})
    assert np.array_equal(outputs["given"], (618, 1024, 3))


@pytest.mark.parametrize(
    "change",
    [
        lambda model: sam_decoder(model, 128),
        lambda model: typed(model, point_labels=TensorProto.INT64),
        lambda model: typed(model, point_labels=TensorProto.INT32, has_mask_input=TensorProto.BOOL),
        lambda model: typed(sam_decoder(model, 128), point_labels=TensorProto.INT64),
    ],
    ids=["segment-anything's", "int64 labels", "int32 labels and a flag", "segment-anything's with int64 labels"],
)
def test_decoders_of_other_kinds_give_the_same_masks(
    change: Callable[[ModelProto], ModelProto], tmp_path: Path
) -> None:
    encoder, decoder = save_encoder(tmp_path / "e.onnx"), save_decoder(tmp_path / "d.onnx")
    onnx.save(change(onnx.load(decoder)), tmp_path / "other.onnx")
    for found, wanted in zip(segment(encoder, tmp_path / "other.onnx"), segment(encoder, decoder), strict=True):
        np.testing.assert_array_equal(found.low_res_logits, wanted.low_res_logits)


def test_swapped_files_are_seen_whatever_their_kind(tmp_path: Path) -> None:
    encoder, decoder = save_encoder(tmp_path / "e.onnx"), save_decoder(tmp_path / "d.onnx")
    onnx.save(samexporter_encoder(onnx.load(encoder), 128), encoder)
    onnx.save(sam_decoder(onnx.load(decoder), 128), decoder)
    with pytest.raises(ModelError, match="these look swapped"):
        Predictor(open_session(decoder), open_session(encoder))


def test_the_files_of_a_labelling_tool_are_refused_by_name(tmp_path: Path) -> None:
    model = onnx.load(save_encoder(tmp_path / "e.onnx"))
    set_metadata(model, contract="anylabeling")
    onnx.save(model, tmp_path / "e.onnx")
    with pytest.raises(ModelError, match="made for anylabeling's own pair of files") as caught:
        Predictor(open_session(tmp_path / "e.onnx"), open_session(save_decoder(tmp_path / "d.onnx")))
    assert "--contract samexporter" in (caught.value.hint or "")


def test_what_is_none_of_them_names_those_that_are_read(tmp_path: Path) -> None:
    decoder = save_decoder(tmp_path / "d.onnx")
    with pytest.raises(ModelError, match="not a SAM model file") as caught:
        Predictor(open_session(save_flat(tmp_path / "e.onnx")), open_session(decoder))
    assert "samexporter" in (caught.value.hint or "")


def save_flat(path: Path) -> Path:
    """An image input without channels."""
    shape = ["H", "W"]
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in ("photo", "image_embeddings")]
    node = helper.make_node("Relu", ["photo"], ["image_embeddings"])
    graph = helper.make_graph([node], "flat", values[:1], values[1:])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path

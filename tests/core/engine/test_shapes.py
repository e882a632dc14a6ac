from __future__ import annotations

import pytest

from nanosam_cli.core.engine.shapes import EncoderShape, Shapes, profile
from nanosam_cli.core.errors import UsageError
from nanosam_cli.core.inference.session import TensorInfo
from nanosam_cli.core.inference.sidecar import FixedShape

DECODER = [
    TensorInfo("image_embeddings", (1, 256, 64, 64), "float32"),
    TensorInfo("point_coords", (None, None, 2), "float32"),
    TensorInfo("point_labels", (None, None), "float32"),
    TensorInfo("mask_input", (None, 1, 256, 256), "float32"),
    TensorInfo("has_mask_input", (None,), "float32"),
]
ENCODER = EncoderShape(512)
NONE: dict[str, FixedShape] = {}


def text(shapes: Shapes, name: str) -> str:
    found = profile("decoder", DECODER, shapes, ENCODER)[name]
    return " ".join("x".join(map(str, shape)) for shape in (found.min, found.opt, found.max))


@pytest.mark.parametrize(
    ("shapes", "name", "expected"),
    [
        (Shapes(NONE, NONE, NONE), "image_embeddings", "1x256x64x64 1x256x64x64 1x256x64x64"),
        (Shapes(NONE, NONE, NONE), "point_coords", "1x2x2 8x2x2 64x16x2"),
        (Shapes(NONE, NONE, NONE), "point_labels", "1x2 8x2 64x16"),
        (Shapes(NONE, NONE, NONE), "mask_input", "1x1x256x256 8x1x256x256 64x1x256x256"),
        (Shapes(NONE, NONE, NONE), "has_mask_input", "1 8 64"),
        (Shapes(NONE, NONE, {"point_labels": (256, 32)}), "point_labels", "1x2 8x2 256x32"),
        # what is asked of one input holds for the others
        (Shapes(NONE, NONE, {"point_labels": (256, 32)}), "point_coords", "1x2x2 8x2x2 256x32x2"),
        (Shapes(NONE, NONE, {"point_labels": (256, 32)}), "mask_input", "1x1x256x256 8x1x256x256 256x1x256x256"),
        (Shapes(NONE, {"has_mask_input": (3,)}, {"point_labels": (4, 2)}), "point_labels", "1x2 3x2 4x2"),
        # what is given moves the defaults that it would contradict
        (Shapes(NONE, NONE, {"point_labels": (4, 2)}), "point_labels", "1x2 4x2 4x2"),
        (Shapes({"point_labels": (16, 4)}, NONE, NONE), "point_labels", "16x4 16x4 64x16"),
        (Shapes(NONE, {"point_labels": (100, 20)}, NONE), "point_labels", "1x2 100x20 100x20"),
        (
            Shapes({"has_mask_input": (2,)}, {"has_mask_input": (3,)}, {"has_mask_input": (4,)}),
            "has_mask_input",
            "2 3 4",
        ),
    ],
)
def test_ranges(shapes: Shapes, name: str, expected: str) -> None:
    assert text(shapes, name) == expected


@pytest.mark.parametrize(
    ("info", "encoder", "expected"),
    [
        (TensorInfo("image", (None, 3, 512, 512), "float32"), EncoderShape(512), (1, 1, 1)),
        (TensorInfo("image", (None, 3, 512, 512), "float32"), EncoderShape(512, 8), (1, 8, 8)),
        (TensorInfo("image", (1, 3, 512, 512), "float32"), EncoderShape(512, 8), (1, 1, 1)),
        (TensorInfo("image", (None, 3, None, None), "float32"), EncoderShape(512), (1, 1, 1)),
    ],
)
def test_encoders(info: TensorInfo, encoder: EncoderShape, expected: tuple[int, int, int]) -> None:
    found = profile("encoder", [info], Shapes(NONE, NONE, NONE), encoder)["image"]
    assert tuple(shape[0] for shape in (found.min, found.opt, found.max)) == expected
    assert found.max[1:] == (3, 512, 512)


@pytest.mark.parametrize(
    ("shapes", "words"),
    [
        (Shapes(NONE, {"point_labels": (8,)}, NONE), r"8 is no shape of point_labels \(any, any\) float32"),
        (Shapes(NONE, {"point_coords": (8, 2, 3)}, NONE), "8x2x3 is no shape of point_coords"),
        (
            Shapes(NONE, NONE, {"point_labels": (128, 16), "has_mask_input": (64,)}),
            "not have the same number of prompts: point_labels:128x16, has_mask_input:64",
        ),
        (Shapes(NONE, {"has_mask_input": (0,)}, NONE), "0 is no shape of has_mask_input"),
        (Shapes({"point_labels": (9, 2)}, {"point_labels": (8, 2)}, NONE), "prompts must not shrink .* 9, 8, 64"),
    ],
)
def test_shapes_that_do_not_fit(shapes: Shapes, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        profile("decoder", DECODER, shapes, ENCODER)

from __future__ import annotations

import pytest

pytest.importorskip("torch", reason="models need the extra `train`")

import torch

from nanosam_cli.core.modeling.backbones import create_backbone
from nanosam_cli.core.modeling.complexity import encoder_cost
from nanosam_cli.core.modeling.encoder import ImageEncoder
from nanosam_cli.core.training.students import list_students


@pytest.mark.parametrize(("image_size", "crop"), [(512, 64), (1024, 128)])
@pytest.mark.parametrize("neck", ["pyramid", "nanosam"])
def test_every_neck_lays_64_cells_over_the_square(neck: str, image_size: int, crop: int) -> None:
    encoder = ImageEncoder("test_resnet", image_size, width=16, neck=neck).eval()
    with torch.no_grad():
        assert encoder(torch.randn(2, 3, crop, crop)).shape == (2, 256, 8, 8)


def test_the_nanosam_neck_knows_where_it_is() -> None:
    encoder = ImageEncoder("test_resnet", 512, width=16, neck="nanosam").eval()
    position = torch.randn(1, 256, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        plain = encoder(torch.zeros(1, 3, 64, 64))
        encoder.neck.position.copy_(position)
        torch.testing.assert_close(
            encoder(torch.zeros(1, 3, 64, 64)) - plain, position[:, :, :8, :8], atol=1e-3, rtol=0
        )


def test_the_table_of_students_is_what_they_cost() -> None:
    students = {student.backbone: student for student in list_students()}
    assert {"resnet18", "resnet34", "resnet50", "hgnetv2_b4", "fastvit_t8", "efficientvit_b1"} < students.keys()
    student = students["mobilenetv4_conv_small"]
    parameters, gmacs = encoder_cost(student.backbone, 512)
    assert parameters == student.parameters
    assert gmacs == pytest.approx(student.gmacs_512, abs=0.001)
    assert [s.gmacs_512 for s in list_students()] == sorted(s.gmacs_512 for s in students.values())


def test_what_the_names_promise() -> None:
    made = create_backbone("test_resnet", finest=8, pretrained=False)
    assert made.strides == [8, 16, 32]
    assert made.not_pretrained is None
    maps = made.module(torch.zeros(1, 3, 64, 64))
    assert [tuple(found.shape) for found in maps] == [
        (1, c, 64 // s, 64 // s) for c, s in zip(made.channels, made.strides)
    ]

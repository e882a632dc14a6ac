from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from nanosam_cli.core.frame import Frame

SIZES = [(427, 640), (640, 427), (333, 501), (17, 13), (1, 1), (1, 900), (5, 3001), (3024, 4032)]  # height, width


@pytest.mark.parametrize(
    ("original_hw", "input_size", "input_hw"),
    [
        ((427, 640), 1024, (683, 1024)),  # 683.2
        ((640, 427), 512, (512, 342)),  # 341.6: rounded, not cut as NanoSAM does
        ((1, 2), 1024, (512, 1024)),
        ((3, 4096), 512, (1, 512)),  # 0.375: never empty
        ((1024, 1024), 1024, (1024, 1024)),
    ],
)
def test_input_hw(original_hw: tuple[int, int], input_size: int, input_hw: tuple[int, int]) -> None:
    assert Frame(original_hw, input_size).input_hw == input_hw


@pytest.mark.parametrize("input_size", [512, 1024])
@pytest.mark.parametrize("original_hw", SIZES)
def test_points_and_boxes_come_back(original_hw: tuple[int, int], input_size: int) -> None:
    height, width = original_hw
    frame = Frame(original_hw, input_size)
    points = np.random.default_rng(0).random((3, 5, 2), np.float32) * [width, height]
    boxes = np.concatenate([points, points + 1], axis=-1)
    np.testing.assert_allclose(frame.points_to_original(frame.points_to_frame(points)), points, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(frame.boxes_to_original(frame.boxes_to_frame(boxes)), boxes, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("input_size", [512, 1024])
def test_points_use_the_rounded_size_of_each_axis(input_size: int) -> None:
    frame = Frame((427, 640), input_size)
    corner = frame.points_to_frame(np.array([640.0, 427.0]))
    np.testing.assert_allclose(corner, [1024, 683 if input_size == 1024 else 684])


@pytest.mark.parametrize("original_hw", [(427, 640), (64, 64), (7, 300), (1, 90)])
def test_image_to_input(original_hw: tuple[int, int]) -> None:
    size, mean, std = 64, np.array([123.675, 116.28, 103.53], np.float32), np.array([58.4, 57.1, 57.4], np.float32)
    image = np.random.default_rng(1).integers(0, 256, (*original_hw, 3), np.uint8)
    frame = Frame(original_hw, size)
    height, width = frame.input_hw
    resized = np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR), np.float64)
    expected = np.zeros((1, 3, size, size))
    expected[0, :, :height, :width] = ((resized - mean) / std).transpose(2, 0, 1)
    found = frame.image_to_input(image, mean, std)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("original_hw", [(480, 640), (427, 640), (640, 427), (33, 1000), (1, 1), (1, 500)])
@pytest.mark.parametrize(
    "blob", [(0, 4, 0, 4), (100, 130, 40, 41), (60, 256, 0, 256), (250, 256, 250, 256), (0, 0, 0, 0)]
)
def test_one_mask_is_worked_out_where_it_is(original_hw: tuple[int, int], blob: tuple[int, int, int, int]) -> None:
    frame = Frame(original_hw, 512)
    low_res = np.random.default_rng(0).normal(-9, 1, (256, 256)).astype(np.float32)
    low_res[blob[0] : blob[1], blob[2] : blob[3]] += 18
    for threshold in (-8.0, 0.0, 3.0):
        expected = frame.masks_to_original(low_res) > threshold
        assert np.count_nonzero(frame.mask_to_original(low_res, threshold) != expected) <= expected.size * 1e-4


@pytest.mark.parametrize("input_size", [512, 768, 1024, 2048])
@pytest.mark.parametrize("original_hw", [(427, 640), (640, 427), (333, 501), (1, 900), (900, 1), (40, 30), (1, 4096)])
def test_masks_to_original_is_sams_postprocessing(original_hw: tuple[int, int], input_size: int) -> None:
    torch = pytest.importorskip("torch")
    low_res = np.random.default_rng(2).normal(0, 5, (2, 256, 256)).astype(np.float32)
    frame = Frame(original_hw, input_size)
    height, width = (max(1, round(side * 1024 / input_size)) for side in frame.input_hw)

    def resize(masks: object, hw: tuple[int, int]) -> object:
        return torch.nn.functional.interpolate(masks, hw, mode="bilinear", align_corners=False)

    # in float64: torch's float32 positions are off by 1e-4 of a pixel
    full = resize(torch.from_numpy(low_res[None]).double(), (1024, 1024))
    expected = resize(full[..., :height, :width], original_hw)[0].numpy()  # type: ignore[index]
    np.testing.assert_allclose(frame.masks_to_original(low_res), expected, atol=1e-4)


@pytest.mark.parametrize("edge", [3, 320, 600, 637])
@pytest.mark.parametrize("input_size", [512, 1024])
@pytest.mark.parametrize("original_hw", [(427, 640), (640, 427)])
def test_edges_stay_where_they_are(original_hw: tuple[int, int], input_size: int, edge: int) -> None:
    """A mask that begins at `edge` of the long side begins there in the photo, near the far end too."""
    frame = Frame(original_hw, input_size)
    logits = np.broadcast_to((np.arange(256, dtype=np.float32) + 0.5) * 4 - edge * 1.6, (256, 256))
    along = 1 if original_hw[1] == 640 else 0
    mask = frame.masks_to_original(logits if along == 1 else logits.T) > 0
    assert mask.all(axis=1 - along).nonzero()[0].tolist() == list(range(edge, 640))
    assert mask.any(axis=1 - along).nonzero()[0].tolist() == list(range(edge, 640))


@pytest.mark.parametrize("original_hw", SIZES)
@pytest.mark.parametrize("input_size", [512, 1024])
def test_masks_to_frame_of_a_full_mask_covers_the_photo_only(original_hw: tuple[int, int], input_size: int) -> None:
    frame = Frame(original_hw, input_size)
    share = frame.masks_to_frame(np.ones(original_hw, np.bool_))
    height, width = (side / input_size * 256 for side in frame.input_hw)
    assert share.shape == (256, 256)
    assert share.max() <= 1 + 1e-5
    np.testing.assert_allclose(share.sum(), height * width, rtol=1e-4)
    assert not share[int(np.ceil(height)) :].any()
    assert not share[:, int(np.ceil(width)) :].any()


@pytest.mark.parametrize("original_hw", [(427, 640), (640, 427), (333, 501), (1500, 2001)])
def test_masks_come_back(original_hw: tuple[int, int]) -> None:
    height, width = original_hw
    rows, columns = np.mgrid[:height, :width]
    mask = ((rows / height - 0.6) ** 2 + (columns / width - 0.7) ** 2) < 0.08
    back = Frame(original_hw, 512).masks_to_original(Frame(original_hw, 512).masks_to_frame(mask)) > 0.5
    assert np.count_nonzero(mask & back) / np.count_nonzero(mask | back) > 0.985

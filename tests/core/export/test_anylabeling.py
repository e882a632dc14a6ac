"""What AnyLabeling and X-AnyLabeling load; tests/clients runs these tools' own code on it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from nanosam_cli.core.errors import InputError, NanosamError, OutputError, UsageError
from nanosam_cli.core.export.anylabeling import PICTURE_HW, ForAnyLabeling
from nanosam_cli.core.export.options import ExportOptions
from nanosam_cli.core.graphs.anylabeling import anylabeling_decoder, anylabeling_encoder
from nanosam_cli.core.inference.backends.onnxruntime import open_file
from nanosam_cli.core.inference.session import host
from nanosam_cli.core.loading.convert import convert_for_anylabeling
from tests.fake_models import save_decoder, save_encoder


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> ForAnyLabeling:
    return convert_for_anylabeling(None, tmp_path_factory.mktemp("model"), ExportOptions())


def test_two_files_and_a_config_that_names_them(written: ForAnyLabeling) -> None:
    assert {path.name for path in written.config.parent.iterdir()} == {"config.yaml", "encoder.onnx", "decoder.onnx"}
    assert written.config.read_text() == (
        'type: "segment_anything"\nname: "nanosam-lite2"\ndisplay_name: "nanosam-lite2 (nanosam)"\n'
        'encoder_model_path: "encoder.onnx"\ndecoder_model_path: "decoder.onnx"\n'
        "input_size: 1024\nmax_width: 1024\nmax_height: 684\n"
    )
    assert written.record()["bytes"] < 20e6


def test_masks_were_compared_with_segment_upright_and_turned(written: ForAnyLabeling) -> None:
    assert (written.mask_iou.objects, written.mask_iou.photos) == (16, 12)
    assert written.mask_iou.mean >= 0.99


@pytest.mark.parametrize(
    ("used", "told"),
    [((684, 512), (684, 512)), ((200, 1024), (200, 1024)), ((0, 0), (1, 1))],
    ids=["portrait", "panorama", "black"],
)
def test_the_encoder_finds_the_photo_in_the_picture(
    used: tuple[int, int], told: tuple[int, int], tmp_path: Path
) -> None:
    path = save_encoder(tmp_path / "e.onnx")
    onnx.save(anylabeling_encoder(onnx.load(path), 128), path)
    picture = np.zeros((*PICTURE_HW, 3), np.float32)
    picture[: used[0], : used[1]] = 200
    [found] = open_file(path, "cpu", None).run({"input_image": picture}).values()
    assert host(found).shape == (1, 258, 64, 64)
    assert tuple(host(found)[0, 256:, 0, 0]) == told


@pytest.mark.parametrize(
    ("labels", "ious", "wanted"),
    [
        ([1, -1], (0.5, 0.7, 0.9, 0.8), 0.9),
        ([2, 3, -1], (0.5, 0.7, 0.9, 0.8), 0.5),
        ([1, 0, -1], (0.5, 0.7, 0.9, 0.8), 0.5),
        ([2, 3, -1], (0.5, 0.7), 0.7),
    ],
    ids=["a click: the best reading", "a box: mask 0", "two points: mask 0", "two masks: the better"],
)
def test_one_mask_is_chosen_as_segment_chooses(
    labels: list[int], ious: tuple[float, ...], wanted: float, tmp_path: Path
) -> None:
    path = save_decoder(tmp_path / "d.onnx", ious=ious)
    onnx.save(anylabeling_decoder(onnx.load(path), 128), path)
    embedding = np.zeros((1, 258, 64, 64), np.float32)
    embedding[0, 256:] = np.array(PICTURE_HW)[:, None, None]
    feeds = {
        "image_embeddings": embedding,
        "point_coords": np.array([[[100, 50], [400, 300], [0, 0]]], np.float32)[:, : len(labels)],
        "point_labels": np.array([labels], np.float32),
        "mask_input": np.zeros((1, 1, 256, 256), np.float32),
        "has_mask_input": np.zeros(1, np.float32),
        "orig_im_size": np.array(PICTURE_HW, np.float32),
    }
    masks, iou, low_res = open_file(path, "cpu", None).run(feeds).values()
    assert host(iou)[0, 0] == pytest.approx(wanted)
    assert (host(masks).shape, host(low_res).shape) == ((1, 1, *PICTURE_HW), (1, 1, 256, 256))


@pytest.mark.parametrize(
    ("source", "options", "error", "words"),
    [
        (None, ExportOptions(contract="sam"), UsageError, "anylabeling says what its files are like"),
        (None, ExportOptions(max_points=4), UsageError, "anylabeling says what its files are like"),
        (None, ExportOptions(), OutputError, "config.yaml exists already"),
        ("encoder.onnx", ExportOptions(), UsageError, "is one part of a model"),
        ("nothing.pt", ExportOptions(), InputError, "no such checkpoint"),
    ],
)
def test_what_is_refused(
    source: str | None, options: ExportOptions, error: type[NanosamError], words: str, tmp_path: Path
) -> None:
    pytest.importorskip("torch", reason="a checkpoint needs the extra `train`")
    (tmp_path / "config.yaml").write_text("mine")
    with pytest.raises(error, match=words):
        convert_for_anylabeling(source, tmp_path, options)

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from nanosam_cli.core import paths, timing
from nanosam_cli.core.errors import InputError, ModelError, UsageError
from nanosam_cli.core.frame import SAM_MEAN, SAM_STD
from nanosam_cli.core.inference import predictor
from nanosam_cli.core.inference.decoder_inputs import mask_to_logits
from nanosam_cli.core.inference.predictor import Predictor
from nanosam_cli.core.inference.session import open_session
from nanosam_cli.core.loading import load
from nanosam_cli.core.loading.load import load_predictor
from nanosam_cli.core.timing import Timings
from nanosam_cli.core.types import Prompt
from tests.fake_models import IOUS, Recorder, save_decoder, save_encoder

Files = tuple[Path, Path]

LANDSCAPE, PORTRAIT = (427, 640), (640, 427)


def photo(original_hw: tuple[int, int], value: int = 128) -> Any:
    return np.full((*original_hw, 3), value, np.uint8)


@pytest.fixture(params=["own", "nvidia"])
def files(request: pytest.FixtureRequest, own_files: Files, nvidia_files: Files) -> Files:
    return own_files if request.param == "own" else nvidia_files


@pytest.fixture
def recorded(own_files: Files) -> Iterator[tuple[Predictor, Recorder]]:
    """A predictor and the record of what its decoder is fed."""
    decoder = Recorder(open_session(own_files[1]))
    with Predictor(open_session(own_files[0]), decoder) as made:
        yield made, decoder


@pytest.fixture
def single_recorded(nvidia_files: Files) -> Iterator[tuple[Predictor, Recorder]]:
    """The same of a decoder that takes one prompt a call."""
    decoder = Recorder(open_session(nvidia_files[1]))
    with Predictor(open_session(nvidia_files[0]), decoder) as made:
        yield made, decoder


@pytest.mark.parametrize("original_hw", [LANDSCAPE, PORTRAIT, (333, 501), (90, 61)])
def test_a_box_comes_back_as_its_mask(files: Files, original_hw: tuple[int, int]) -> None:
    """From original pixels through the frame and the decoder back: the same rectangle, at the far edges too."""
    height, width = original_hw
    boxes = np.array(
        [
            [10, 20, width / 2, height / 2],
            [width / 2, height / 3, width - 8, height - 9],
            [width - 30, height - 40, width, height],
            [0, 0, width, height],
        ]
    )
    with load_predictor(encoder=files[0], decoder=files[1]) as sam:
        found = sam.predict(sam.encode_image(photo(original_hw)), Prompt.from_boxes(boxes), select="single")
    for (x0, y0, x1, y1), one in zip(boxes, found, strict=True):
        assert one.mask.shape == original_hw
        assert one.mask.dtype == np.bool_
        assert one.bbox is not None
        x, y, box_width, box_height = one.bbox
        tolerance = 1.5 * max(1, max(original_hw) / 1024) + 0.5
        np.testing.assert_allclose([x, y, x + box_width, y + box_height], [x0, y0, x1, y1], atol=tolerance)
        assert one.area > 0.99 * box_width * box_height


def test_a_point_is_where_it_was(files: Files) -> None:
    with load_predictor(encoder=files[0], decoder=files[1]) as sam:
        (found,) = sam.predict(sam.encode_image(photo(LANDSCAPE)), Prompt.from_points([[500, 300]]), select="single")
    x, y, width, height = found.bbox or (0, 0, 0, 0)
    np.testing.assert_allclose([x + width / 2, y + height / 2, width, height], [500, 300, 50, 50], atol=1.5)


@pytest.mark.parametrize("original_hw", [(1, 900), (900, 1), (1, 1), (2, 3000)])
def test_extreme_photos(files: Files, original_hw: tuple[int, int]) -> None:
    height, width = original_hw
    with load_predictor(encoder=files[0], decoder=files[1]) as sam:
        embedding = sam.encode_image(photo(original_hw))
        (found,) = sam.predict(embedding, Prompt.from_boxes([[0, 0, width, height]]), select="single")
    assert found.mask.shape == original_hw


def test_a_window_is_encoded_as_large_as_a_photo_and_its_masks_lie_in_the_photo(files: Files) -> None:
    image = photo((1200, 1600), 0)
    image[400:450, 1000:1040] = 255
    window = (960, 380, 1088, 508)
    with load_predictor(encoder=files[0], decoder=files[1]) as sam:
        embedding = sam.encode_window(image, window)
        alone = sam.encode_image(np.ascontiguousarray(image[380:508, 960:1088]))
        np.testing.assert_array_equal(embedding.numpy(), alone.numpy())
        prompt = Prompt.from_boxes([[1001, 401, 1042, 453]])
        (near,) = sam.predict(embedding, prompt, select="single")
        (far,) = sam.predict(sam.encode_image(image), prompt, select="single")
    assert near.mask.shape == far.mask.shape == (1200, 1600)
    assert near.bbox == far.bbox == (1001, 401, 41, 52)
    cells_near, cells_far = (np.count_nonzero(one.low_res_logits > 0) for one in (near, far))
    assert cells_near == pytest.approx(cells_far * (1600 / 128) ** 2, rel=0.2)  # so much more is seen of it


@pytest.mark.parametrize(
    "window", [(0, 0, 0, 5), (5, 5, 5, 9), (9, 5, 5, 9), (-1, 0, 5, 5), (0, -1, 5, 5), (0, 0, 101, 5), (0, 0, 5, 81)]
)
def test_windows_that_leave_the_photo_are_refused(
    recorded: tuple[Predictor, Recorder], window: tuple[int, int, int, int]
) -> None:
    with pytest.raises(UsageError, match="is empty or leaves the photo, which is 100x80 pixels"):
        recorded[0].encode_window(photo((80, 100)), window)


def test_the_encoder_sees_the_normalised_photo_in_rgb(files: Files) -> None:
    colour = np.array([200, 100, 50])
    image = np.broadcast_to(colour.astype(np.uint8), (640, 640, 3))
    mean, std = (100.0, 90.0, 80.0), (10.0, 20.0, 30.0)
    with Predictor(open_session(files[0]), open_session(files[1]), mean, std) as sam:
        embedding = sam.encode_image(image)
        assert embedding.original_hw == (640, 640)
        np.testing.assert_allclose(embedding.numpy()[0, :3, 32, 32], (colour - mean) / std, rtol=1e-5)
        # and the decoder sees the embedding: the fake one adds its mean to the IoU
        (found,) = sam.predict(embedding, Prompt.from_boxes([[0, 0, 9, 9]]), select="single")
        assert np.isclose(found.predicted_iou, IOUS[0] + embedding.numpy().mean(), atol=1e-4)


def test_embeddings_are_independent(own_files: Files) -> None:
    """The predictor keeps no image: two embeddings are used in turn, in any order."""
    with load_predictor(encoder=own_files[0], decoder=own_files[1]) as sam:
        dark, light = sam.encode_image(photo(LANDSCAPE, 10)), sam.encode_image(photo(PORTRAIT, 240))
        prompt = Prompt.from_boxes([[10, 20, 300, 400]])
        first, second, again = (sam.predict(embedding, prompt)[0] for embedding in (dark, light, dark))
    assert (first.mask.shape, second.mask.shape) == (LANDSCAPE, PORTRAIT)
    assert first.predicted_iou == again.predicted_iou != second.predicted_iou
    assert np.array_equal(first.mask, again.mask)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((5, 5), np.uint8), r"not \(5, 5\) uint8"),
        (np.zeros((5, 5, 4), np.uint8), r"not \(5, 5, 4\) uint8"),
        (np.zeros((3, 5, 5), np.uint8), r"not \(3, 5, 5\) uint8"),
        (np.zeros((1, 5, 5, 3), np.uint8), r"not \(1, 5, 5, 3\) uint8"),
        (np.zeros((0, 5, 3), np.uint8), r"not \(0, 5, 3\) uint8"),
        (np.zeros((5, 5, 3), np.float32), r"not \(5, 5, 3\) float32"),
        ("photo.jpg", r"no such file: photo\.jpg"),
        (7, "must be a numpy array, not int"),
    ],
)
def test_bad_images(recorded: tuple[Predictor, Recorder], image: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        recorded[0].encode_image(image)


def test_paths_and_pillow_images_are_read_as_photos(tmp_path: Path, recorded: tuple[Predictor, Recorder]) -> None:
    """Turned as their EXIF says; the caller's image stays as it is."""
    pixels = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees
    Image.fromarray(pixels).save(tmp_path / "a.png", exif=exif)
    shown = np.ascontiguousarray(np.rot90(pixels, -1))
    with Image.open(tmp_path / "a.png") as opened:
        embeddings = [
            recorded[0].encode_image(one) for one in (shown, tmp_path / "a.png", str(tmp_path / "a.png"), opened)
        ]
        assert (opened.size, opened.getexif()[0x0112]) == ((60, 40), 6)
    for embedding in embeddings[1:]:
        assert embedding.original_hw == (60, 40)
        np.testing.assert_array_equal(embedding.numpy(), embeddings[0].numpy())


def test_stray_boxes_are_refused_or_skipped_and_named(recorded: tuple[Predictor, Recorder]) -> None:
    sam, _ = recorded
    embedding = sam.encode_image(photo((40, 60)))
    prompt = Prompt.from_boxes([[1, 1, 20, 20], [70, 1, 90, 20], [5, 5, 5, 9], [30, 10, 80, 30]])
    with pytest.raises(UsageError, match="object 3: box 5,5,5,9 is empty or inverted"):
        sam.predict(embedding, prompt)
    found = sam.predict(embedding, prompt, invalid="skip")
    assert (len(found), found.kept) == (2, [0, 3])
    assert list(found.skipped) == [1, 2]
    assert found.skipped[1] == "box 70,1,90,20 lies outside the photo; the photo is 60x40 pixels"
    assert found.skipped[2].startswith("box 5,5,5,9 is empty or inverted")
    whole = sam.predict(embedding, Prompt.from_boxes([[1, 1, 20, 20], [30, 10, 80, 30]]))
    assert (whole.kept, whole.skipped) == ([0, 1], {})
    for one, other in zip(found, whole):
        np.testing.assert_array_equal(one.mask, other.mask)
    none = sam.predict(embedding, Prompt.from_boxes([[70, 1, 90, 20]]), invalid="skip")
    assert (none, none.kept, list(none.skipped)) == ([], [], [0])
    with pytest.raises(UsageError, match="unknown invalid: drop"):
        sam.predict(embedding, prompt, invalid="drop")  # type: ignore[arg-type]


@pytest.mark.parametrize(("count", "calls"), [(0, []), (1, [1]), (64, [64]), (65, [64, 1])])
def test_prompts_go_through_the_decoder_together(
    tmp_path: Path, own_files: Files, count: int, calls: list[int]
) -> None:
    decoder = Recorder(open_session(save_decoder(tmp_path / "one_mask.onnx", ious=(0.5,))))
    boxes = [[x, 1, x + 3, 9] for x in range(count)]
    with Predictor(open_session(own_files[0]), decoder) as sam:
        found = sam.predict(sam.encode_image(photo((12, 200))), Prompt.from_boxes(boxes))
    assert [len(call["point_coords"]) for call in decoder.calls] == calls
    assert [one.bbox[0] for one in found if one.bbox] == list(range(count))  # in their order


def test_a_decoder_of_one_prompt_is_looped(single_recorded: tuple[Predictor, Recorder]) -> None:
    sam, decoder = single_recorded
    boxes = [[x, 1, x + 3, 9] for x in range(5)]
    found = sam.predict(sam.encode_image(photo((12, 200))), Prompt.from_boxes(boxes), select="single")
    assert [call["has_mask_input"].shape for call in decoder.calls] == [(1,)] * 5
    assert [call["mask_input"].shape for call in decoder.calls] == [(1, 1, 256, 256)] * 5
    assert [one.bbox[0] for one in found if one.bbox] == list(range(5))


def test_what_the_decoder_is_fed(recorded: tuple[Predictor, Recorder]) -> None:
    """Points get SAM's padding point, boxes do not; nothing says that there is a mask where there is none."""
    sam, decoder = recorded
    embedding = sam.encode_image(photo((512, 1024)))
    sam.predict(embedding, Prompt.from_points([[10, 20], [30, 40]], [1, 0]))
    sam.predict(embedding, Prompt.from_boxes([[10, 20, 30, 40], [0, 0, 1024, 512]]))
    points, boxes = decoder.calls
    assert points["point_coords"].tolist() == [[[10, 20], [30, 40], [0, 0]]]
    assert points["point_labels"].tolist() == [[1, 0, -1]]
    assert boxes["point_coords"].tolist() == [[[10, 20], [30, 40]], [[0, 0], [1024, 512]]]
    assert boxes["point_labels"].tolist() == [[2, 3], [2, 3]]
    for call in decoder.calls:
        assert not call["has_mask_input"].any()
        assert not call["mask_input"].any()
        assert np.array_equal(call["image_embeddings"], embedding.numpy())


def test_coordinates_live_in_the_frame_that_the_decoder_names(tmp_path: Path, own_files: Files) -> None:
    small = save_decoder(tmp_path / "small.onnx", metadata={"nanosam.coordinate_size": "512"})
    decoder = Recorder(open_session(small))
    with Predictor(open_session(own_files[0]), decoder) as sam:
        sam.predict(sam.encode_image(photo((512, 1024))), Prompt.from_boxes([[10, 20, 30, 40]]))
    assert decoder.calls[0]["point_coords"].tolist() == [[[5, 10], [15, 20]]]


def test_a_fixed_number_of_points_is_filled_up(tmp_path: Path, own_files: Files) -> None:
    decoder = Recorder(open_session(save_decoder(tmp_path / "five.onnx", points=5)))
    with Predictor(open_session(own_files[0]), decoder) as sam:
        embedding = sam.encode_image(photo((512, 1024)))
        sam.predict(embedding, Prompt.from_boxes([[10, 20, 30, 40]]))
        with pytest.raises(UsageError, match="takes 5 points an object"):
            sam.predict(embedding, Prompt.from_points([[1, 1]] * 5))
    assert decoder.calls[0]["point_labels"].tolist() == [[2, 3, -1, -1, -1]]


def test_a_mask_as_prompt(files: Files) -> None:
    """Drawn at the photo's size, given as logits, answered by the fake decoder as it is: the same mask."""
    first, second = np.zeros((2, *LANDSCAPE), np.bool_)
    first[100:200, 50:600], second[300:420, 400:633] = True, True
    with load_predictor(encoder=files[0], decoder=files[1]) as sam:
        embedding = sam.encode_image(photo(LANDSCAPE))
        logits = np.stack([mask_to_logits(mask, embedding.frame) for mask in (first, second)])
        found = sam.predict(embedding, Prompt(mask_logits=logits))
        again = sam.predict(embedding, Prompt(mask_logits=found[0].low_res_logits[None]))
    for mask, one in zip((first, second), found, strict=True):
        assert np.count_nonzero(mask & one.mask) / np.count_nonzero(mask | one.mask) > 0.98
    assert np.array_equal(again[0].mask, found[0].mask)


def test_masks_where_all_prompts_share_one(tmp_path: Path, own_files: Files) -> None:
    """P dynamic but a single mask_input: without masks still one call, with masks one call a prompt."""
    decoder = Recorder(open_session(save_decoder(tmp_path / "shared.onnx", mask_prompts=1)))
    with Predictor(open_session(own_files[0]), decoder) as sam:
        embedding = sam.encode_image(photo(LANDSCAPE))
        boxes = np.array([[1, 1, 50, 50], [60, 60, 90, 90]], np.float32)
        sam.predict(embedding, Prompt(boxes))
        assert [call["point_coords"].shape for call in decoder.calls] == [(2, 2, 2)]
        sam.predict(embedding, Prompt(boxes, mask_logits=np.ones((2, 256, 256), np.float32)))
    assert [call["point_coords"].shape for call in decoder.calls[1:]] == [(1, 2, 2)] * 2
    assert [call["has_mask_input"].tolist() for call in decoder.calls] == [[0], [1], [1]]


BOX = Prompt.from_boxes([[10, 10, 90, 90]])
POINT = Prompt.from_points([[50, 50]])
NEGATIVE = Prompt.from_points([[50, 50]], [0])
POINTS = Prompt.from_points([[50, 50], [60, 60]], [1, 0])
BOX_AND_POINT = Prompt(BOX.boxes, POINT.points, POINT.labels)
POINT_AND_MASK = Prompt(None, POINT.points, POINT.labels, np.ones((1, 256, 256), np.float32))
MIXED = Prompt(  # two objects, the first with one point
    points=np.array([[[50, 50], [0, 0]], [[50, 50], [60, 60]]], np.float32),
    labels=np.array([[1, -1], [1, 1]], np.float32),
)


@pytest.mark.parametrize(
    ("prompt", "select", "ious", "indices"),
    [
        (BOX, "single", IOUS, [0]),
        (POINT, "single", IOUS, [0]),
        (BOX, "argmax", IOUS, [2]),
        (POINT, "argmax", IOUS, [2]),
        (POINT, "argmax", (0.9, 0.1, 0.2, 0.3), [0]),
        (POINT, "auto", (0.9, 0.1, 0.2, 0.3), [3]),
        (NEGATIVE, "auto", IOUS, [2]),
        (BOX, "auto", IOUS, [0]),
        (POINTS, "auto", IOUS, [0]),
        (BOX_AND_POINT, "auto", IOUS, [0]),
        (POINT_AND_MASK, "auto", IOUS, [0]),
        (MIXED, "auto", IOUS, [2, 0]),
        (BOX, "auto", (0.4,), [0]),
        (POINT, "auto", (0.4,), [0]),
        (POINT, "argmax", (0.4,), [0]),
        (BOX, "auto", (0.1, 0.5, 0.3), [1]),  # three readings, and no mask for unambiguous prompts
        (BOX, "single", (0.1, 0.5, 0.3), [0]),
    ],
)
def test_select(
    tmp_path: Path, own_files: Files, prompt: Prompt, select: Any, ious: tuple[float, ...], indices: list[int]
) -> None:
    with load_predictor(encoder=own_files[0], decoder=save_decoder(tmp_path / "d.onnx", ious=ious)) as sam:
        embedding = sam.encode_image(photo((100, 100)))
        found = sam.predict(embedding, prompt, select=select)
        mean = embedding.numpy().mean()
    assert [one.index for one in found] == indices
    np.testing.assert_allclose([one.predicted_iou for one in found], [ious[k] + mean for k in indices], atol=1e-3)


@pytest.mark.parametrize(
    ("ious", "indices"), [(IOUS, [1, 2, 3]), ((0.4,), [0]), ((0.1, 0.5, 0.3), [0, 1, 2]), ((0.1, 0.5), [0, 1])]
)
def test_multimask(tmp_path: Path, own_files: Files, ious: tuple[float, ...], indices: list[int]) -> None:
    """Every reading of each prompt; the fake decoder's mask k is 16 k frame pixels smaller on every side."""
    with load_predictor(encoder=own_files[0], decoder=save_decoder(tmp_path / "d.onnx", ious=ious)) as sam:
        embedding = sam.encode_image(photo((1024, 1024)))
        found = sam.predict_multimask(embedding, Prompt.from_boxes([[100, 100, 400, 400], [500, 500, 900, 800]]))
    assert [[one.index for one in readings] for readings in found] == [indices] * 2
    for x0, readings in zip((100, 500), found, strict=True):
        lefts = [one.bbox[0] for one in readings if one.bbox]
        np.testing.assert_allclose(lefts, [x0 + 16 * k for k in indices], atol=2)


def test_threshold(recorded: tuple[Predictor, Recorder]) -> None:
    """The fake decoder's logits are frame pixels to the box's edge, so a threshold of 20 shrinks it by 20."""
    sam, _ = recorded
    embedding = sam.encode_image(photo((1024, 1024)))
    prompt = Prompt.from_boxes([[100, 200, 400, 600]])
    (found,) = sam.predict(embedding, prompt, threshold=20)
    ((smallest, *_),) = sam.predict_multimask(embedding, prompt, threshold=20 - 16)
    np.testing.assert_allclose(found.bbox or (), (120, 220, 260, 360), atol=2)
    np.testing.assert_allclose(smallest.bbox or (), (120, 220, 260, 360), atol=2)


def test_results_do_not_hold_the_whole_batch(recorded: tuple[Predictor, Recorder]) -> None:
    sam, _ = recorded
    found = sam.predict(sam.encode_image(photo((50, 50))), Prompt.from_boxes([[1, 1, 9, 9]] * 3))
    assert all(one.low_res_logits.base is None and one.low_res_logits.shape == (256, 256) for one in found)


@pytest.mark.parametrize(
    ("prompt", "options", "message"),
    [
        (Prompt.from_boxes([[90, 10, 20, 90]]), {}, "object 1: box 90,10,20,90 is empty or inverted"),
        (Prompt.from_boxes([[10, 10, 20, 20], [200, 0, 300, 9]]), {}, "object 2: box 200,0,300,9 lies outside"),
        (
            Prompt.from_points([[100, 5]]),
            {},
            "object 1: point 100,5 lies outside the photo; the photo is 100x80 pixels",
        ),
        (BOX, {"select": "best"}, "unknown select: best"),
    ],
)
def test_bad_prompts(
    recorded: tuple[Predictor, Recorder], prompt: Prompt, options: dict[str, Any], message: str
) -> None:
    sam, decoder = recorded
    embedding = sam.encode_image(photo((80, 100)))
    with pytest.raises(UsageError, match=message):
        sam.predict(embedding, prompt, **options)
    assert not decoder.calls


def test_numbers_that_are_not_finite(tmp_path: Path, own_files: Files) -> None:
    decoder = save_decoder(tmp_path / "d.onnx", ious=(0.5, float("nan"), 0.5, 0.5))
    with load_predictor(encoder=own_files[0], decoder=decoder) as sam:
        embedding = sam.encode_image(photo((100, 100)))
        with pytest.raises(ModelError, match=r"encoder.onnx with .*d.onnx computed numbers that are not finite"):
            sam.predict(embedding, BOX)


def test_timings_add_up(recorded: tuple[Predictor, Recorder], monkeypatch: pytest.MonkeyPatch) -> None:
    sam, _ = recorded
    monkeypatch.setattr(predictor, "MAX_PROMPTS", 2)
    ticks = iter(np.arange(100) ** 2 / 1000)  # the n-th span of two ticks lasts 4 n + 1 ms
    monkeypatch.setattr(timing, "perf_counter", lambda: next(ticks))
    timings = Timings()
    embedding = sam.encode_image(photo((100, 100)), timings)  # span 0
    sam.predict(embedding, Prompt.from_boxes([[1, 1, 9, 9]] * 3), timings=timings)  # spans 1 to 4
    sam.predict_multimask(embedding, BOX, timings=timings)  # spans 5 and 6
    np.testing.assert_allclose(
        [timings.encode_ms, timings.decode_ms, timings.post_ms], [1, 5 + 13 + 21, 9 + 17 + 25], atol=1e-6
    )


def test_closing(own_files: Files) -> None:
    encoder, decoder = Recorder(open_session(own_files[0])), Recorder(open_session(own_files[1]))
    with Predictor(encoder, decoder):
        assert (encoder.closed, decoder.closed) == (False, False)
    assert (encoder.closed, decoder.closed) == (True, True)


def test_swapped_files(files: Files) -> None:
    encoder, decoder = files
    with pytest.raises(ModelError, match="these look swapped") as caught:
        load_predictor(encoder=decoder, decoder=encoder)
    assert caught.value.hint == f"--encoder {encoder} --decoder {decoder}"


def test_sessions_are_closed_where_loading_fails(own_files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[Recorder] = []

    wanted: dict[str, Any] = {"backend": "onnxruntime", "device": "cpu", "threads": 1}

    def record(path: Path, **options: Any) -> Recorder:
        assert options == wanted
        opened.append(Recorder(open_session(path, **options)))
        return opened[-1]

    monkeypatch.setattr(load, "open_session", record)
    with pytest.raises(ModelError):
        load_predictor(encoder=own_files[1], decoder=own_files[0], **wanted)
    assert [session.closed for session in opened] == [True, True]
    with pytest.raises(ModelError):
        load_predictor(encoder=own_files[0], decoder=own_files[0].with_name("none.onnx"), **wanted)
    assert [session.closed for session in opened] == [True, True, True]
    load_predictor(encoder=own_files[0], decoder=own_files[1], **wanted)
    assert [session.closed for session in opened[3:]] == [False, False]


@pytest.mark.parametrize(
    ("options", "error", "message", "hint"),
    [
        (
            {"encoder": "e.onnx"},
            UsageError,
            "encoder file given, decoder missing",
            "give --decoder FILE too, or --model",
        ),
        (
            {"decoder": "d.onnx"},
            UsageError,
            "decoder file given, encoder missing",
            "give --encoder FILE too, or --model",
        ),
        ({"model": "nanosam-lite9"}, UsageError, "unknown model: nanosam-lite9", "did you mean nanosam-lite2?"),
        ({"encoder": "e.onnx", "decoder": "d.onnx"}, ModelError, "model file e.onnx does not exist", ""),
        ({"encoder": "e.pt", "decoder": "d.onnx"}, ModelError, "no backend reads model file e.pt", "supported: .onnx"),
        (
            {"encoder": "e.onnx", "decoder": "d.onnx", "device": "vpu"},
            UsageError,
            "unknown device: vpu",
            "choose one of",
        ),
    ],
)
def test_bad_requests(options: dict[str, Any], error: type[Exception], message: str, hint: str) -> None:
    with pytest.raises(error, match=message) as caught:
        load_predictor(**options)
    assert (getattr(caught.value, "hint", None) or "").startswith(hint)


def test_named_models(tmp_path: Path, own_files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without files the default model; a file replaces one part of a named model."""
    monkeypatch.setattr(paths, "_PACKAGE", tmp_path)
    folder = tmp_path / "data" / "models" / "nanosam-lite2"
    folder.mkdir(parents=True)
    with pytest.raises(ModelError, match="encoder of model nanosam-lite2 is missing"):
        load_predictor()
    (folder / "encoder.onnx").write_bytes(own_files[0].read_bytes())
    with load_predictor("nanosam-lite2", decoder=own_files[1]) as sam:
        assert (sam.encoder.path, sam.decoder.path) == (folder / "encoder.onnx", own_files[1])
    (folder / "decoder.onnx").write_bytes(own_files[1].read_bytes())
    (folder / "encoder-int8.onnx").write_bytes(own_files[0].read_bytes())
    with load_predictor() as sam:
        assert sam.decoder.path == folder / "decoder.onnx"
        features = sam.encode_image(photo((64, 64))).numpy()[0, :3, 32, 32]
    np.testing.assert_allclose(features, (128 - np.array(SAM_MEAN)) / SAM_STD, rtol=1e-4)


def test_threads_share_a_predictor(own_files: Files) -> None:
    def left(x: int) -> int:
        (found,) = sam.predict(embedding, Prompt.from_boxes([[x, 10, x + 40, 90]]))
        return found.bbox[0] if found.bbox else -1

    with load_predictor(encoder=own_files[0], decoder=own_files[1], threads=1) as sam:
        embedding = sam.encode_image(photo((256, 256)))
        with ThreadPoolExecutor(2) as pool:
            assert list(pool.map(left, range(0, 200, 10))) == list(range(0, 200, 10))


def test_other_input_sizes(tmp_path: Path, own_files: Files) -> None:
    """S is read from the file, or from metadata where the file takes any size."""
    for name, options, size in (("fixed", {"size": 256}, 256), ("any", {"size": 64, "side": "S"}, 64)):
        encoder = save_encoder(tmp_path / f"{name}.onnx", **options)
        with load_predictor(encoder=encoder, decoder=own_files[1]) as sam:
            embedding = sam.encode_image(photo((427, 640)))
            assert embedding.frame.input_size == size
            (found,) = sam.predict(embedding, Prompt.from_boxes([[100, 150, 600, 400]]))
            np.testing.assert_allclose(found.bbox or (), (100, 150, 500, 250), atol=2)

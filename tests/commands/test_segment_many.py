"""Thousands of objects or photos in one run of `nanosam segment`: bounded memory, and prompts checked first."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nanosam_cli.core.inference.predictor import Predictor
from nanosam_cli.core.loading.load import load_predictor
from nanosam_cli.core.media.mask_files import LabelMasks
from nanosam_cli.core.prompting.request import Request
from nanosam_cli.core.segmentation.job import Job
from nanosam_cli.core.segmentation.segment_photo import MaskOptions, segment_photo
from tests.command_line import Ran, run_nanosam


@pytest.fixture(autouse=True)
def _place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def models(own_files: tuple[Path, Path]) -> list[str]:
    return ["--encoder", str(own_files[0]), "--decoder", str(own_files[1]), "--threads", "1"]


@pytest.mark.parametrize("kind", ["boxes", "masks"])
def test_memory_does_not_grow_with_objects_times_pixels(own_files: tuple[Path, Path], kind: str) -> None:
    """Of 256 masks of 360,000 pixels: as arrays they are 92 MB, those of a call of the decoder 23 MB."""
    side, peaks, kept = 600, {}, {}
    labels = np.repeat(np.repeat(np.arange(1, 257, dtype=np.int32).reshape(16, 16), 38, 0), 38, 1)[:side, :side]
    low, high = np.divmod(np.arange(256), 20)
    boxes = np.stack([low, high, side - 1 - low, side - 1 - high], axis=1).astype(np.float32)
    with load_predictor(encoder=own_files[0], decoder=own_files[1], threads=1) as predictor:
        for count in (64, 256):
            asked = (
                Request(boxes[:count]) if kind == "boxes" else Request(masks=LabelMasks(labels, range(1, count + 1)))
            )
            job = Job({Path("a.png"): asked})
            Image.new("RGB", (side, side)).save("a.png")
            tracemalloc.start()
            found = segment_photo(predictor, job, Path("a.png"), Path("a.png"), MaskOptions()).found
            kept[count], peaks[count] = tracemalloc.get_traced_memory()
            tracemalloc.stop()
            assert len(found) == count
            assert all(one.segmentation.area for one in found)
    assert peaks[256] - peaks[64] < 4e6
    assert kept[256] - kept[64] < 1e6


def test_all_objects_of_a_mask_are_found_in_their_order(models: list[str]) -> None:
    """More than one call of the decoder, which draws the masks it is given."""
    Image.new("L", (200, 160), 90).convert("RGB").save("a.png")
    rows, columns = np.mgrid[:160, :200] // 16
    Image.fromarray((1 + rows * 13 + columns).astype(np.uint8)).save("labels.png")
    ran = run_nanosam("segment", "a.png", "--mask", "labels.png", *models, "--json")
    assert ran.code == 0, ran.err
    objects = json.loads(ran.out)["objects"]
    assert [one["object"] for one in objects] == [*range(1, 131)]
    for number in (1, 64, 65, 130):
        x, y, width, height = objects[number - 1]["bbox"]
        row, column = divmod(number - 1, 13)
        assert abs(x + width / 2 - (column * 16 + 8)) < 6
        assert abs(y + height / 2 - (row * 16 + 8)) < 6


@pytest.mark.parametrize(
    ("prompt", "words"),
    [
        ({"boxes": [[1, 2, 30, 40], [900, 900, 990, 990]]}, "object 2: box 900,900,990,990 lies outside the photo"),
        ({"boxes": [[30, 40, 1, 2]]}, "object 1: box 30,40,1,2 is empty or inverted"),
        ({"points": [[500, 10, 1]]}, "object 1: point 500,10 lies outside the photo"),
    ],
)
def test_bad_prompts_are_found_before_their_photos_are_encoded(
    models: list[str], monkeypatch: pytest.MonkeyPatch, prompt: object, words: str
) -> None:
    names = [f"{number:02}.png" for number in range(10)]
    for name in names:
        Image.new("RGB", (100, 80)).save(name)
    Path("prompts.json").write_text(json.dumps(dict.fromkeys(names, prompt)))
    encoded: list[object] = []
    monkeypatch.setattr(Predictor, "encode_image", lambda self, image: encoded.append(image))
    ran: Ran = run_nanosam("segment", ".", "--prompts", "prompts.json", *models, "-o", "out/")
    assert (ran.code, ran.out, encoded) == (1, "", [])
    assert ran.words.count(words) == 10
    assert "0 of 10 photos done" in ran.words


def test_a_mask_of_another_size_is_found_before_the_photo_is_encoded(
    models: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    Image.new("RGB", (100, 80)).save("a.png")
    Image.fromarray(np.full((10, 10), 255, np.uint8)).save("mask.png")
    monkeypatch.setattr(Predictor, "encode_image", None)
    ran = run_nanosam("segment", "a.png", "--mask", "mask.png", *models)
    assert (ran.code, ran.out) == (1, "")
    assert "the mask is 10x10 pixels, the photo 100x80 give a mask of the photo's size" in ran.words

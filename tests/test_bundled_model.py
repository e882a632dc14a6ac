"""The model in the box: what ships must segment, be small, and say what it is."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nanosam_cli.core.datasets.annotated_mask import AnnotatedMask
from nanosam_cli.core.datasets.coco import AnnotatedObject, AnnotatedPhoto, read_coco
from nanosam_cli.core.evaluation.loop import evaluate_boxes
from nanosam_cli.core.evaluation.metrics import mean_iou_by_size
from nanosam_cli.core.loading.load import load_predictor
from nanosam_cli.core.loading.part_files import model_files
from nanosam_cli.core.media.image import read_image
from nanosam_cli.core.paths import resource
from nanosam_cli.core.types import Prompt
from nanosam_cli.core.zoo.models import DEFAULT_MODEL, find_model
from tests.command_line import run_nanosam

PHOTOS = read_coco(resource("examples", "instances.json"), resource("examples"))
FILES = (
    ("encoder.onnx", "encoder", "fp32"),
    ("encoder-int8.onnx", "encoder", "int8"),
    ("decoder.onnx", "decoder", "fp32"),
)
OBJECTS = [(photo, target) for photo in PHOTOS for target in photo.objects]


def iou_of(photo: AnnotatedPhoto, target: AnnotatedObject, *prompt: str) -> float:
    ran = run_nanosam("segment", photo.path, *prompt, "-o", "mask.png", "--force")
    assert ran.code == 0, ran.err
    with Image.open("mask.png") as mask:
        return AnnotatedMask.of(target).iou(np.asarray(mask) == 1)


def test_the_cat_through_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    [(photo, cat)] = [(photo, target) for photo, target in OBJECTS if photo.path.stem == "cat"]
    assert iou_of(photo, cat, "--box", ",".join(f"{side:g}" for side in cat.box)) >= 0.8


def test_it_is_small() -> None:
    assert sum(path.stat().st_size for path in resource("models", DEFAULT_MODEL).iterdir()) < 45e6


def test_its_files_are_those_of_the_zoo() -> None:
    """Whoever ships another model writes its hashes into the zoo."""
    ran = run_nanosam("download", "--verify", DEFAULT_MODEL)
    assert ran.code == 0, ran.err
    assert [line.partition(": ")[2] for line in ran.out.splitlines()] == ["ok, sha256 as published"] * 4


def test_it_says_what_it_is() -> None:
    import onnx

    safe_open = pytest.importorskip("safetensors", reason="checkpoints need the extra `train`").safe_open
    with safe_open(resource("models", DEFAULT_MODEL, "weights.safetensors"), framework="numpy") as file:
        weights = json.loads(file.metadata()["nanosam"])["source_sha256"]  # of the checkpoint that all came from
    for file, part, precision in FILES:
        path = resource("models", DEFAULT_MODEL, file)
        metadata = {entry.key: entry.value for entry in onnx.load(path).metadata_props}
        assert metadata["nanosam.model"] == DEFAULT_MODEL
        assert metadata["nanosam.part"] == part
        assert metadata["nanosam.precision"] == precision
        assert metadata["nanosam.source_sha256"] == weights


def test_the_wheel_stays_small() -> None:
    files = resource("models", DEFAULT_MODEL, "encoder.onnx").parent
    assert sum(file.stat().st_size for file in files.iterdir()) < 25e6


def test_training_can_go_on_from_it() -> None:
    """What its ONNX files hold is read back from them."""
    pytest.importorskip("torch", reason="models need the extra `train`")
    from nanosam_cli.core.export.source import load_source

    source = load_source(resource("models", DEFAULT_MODEL, "weights.safetensors"))
    assert source.decoder is not None
    assert sum(tensor.numel() for part in (source.encoder, source.decoder) for tensor in part.parameters()) > 6e6


def test_on_a_cpu_its_encoder_is_the_int8_one() -> None:
    with load_predictor(device="cpu") as predictor:
        assert predictor.encoder.path.name == "encoder-int8.onnx"
        assert predictor.decoder.path.name == "decoder.onnx"


def test_its_int8_encoder_makes_the_same_masks() -> None:
    """Goal of the int8 file: what it costs cannot be seen."""
    encoder, decoder = model_files(find_model(DEFAULT_MODEL))
    with load_predictor(device="cpu") as fast, load_predictor(encoder=encoder, decoder=decoder) as exact:
        for photo in PHOTOS:
            image = read_image(photo.path)
            prompt = Prompt.from_boxes([target.box for target in photo.objects])
            masks, truths = (one.predict(one.encode_image(image), prompt) for one in (fast, exact))
            for mask, truth in zip(masks, truths):
                either = np.count_nonzero(mask.mask | truth.mask)
                assert np.count_nonzero(mask.mask & truth.mask) >= 0.85 * either, photo.path


def test_it_has_a_card() -> None:
    card = resource("models", DEFAULT_MODEL, "README.md").read_text(encoding="utf-8")
    for heading in ("## Data", "## Recipe", "## Numbers", "## Limits", "## Licences"):
        assert heading in card


def test_three_readings_of_a_click_differ(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    photo = resource("examples", "astronaut.jpg")
    ran = run_nanosam("segment", photo, "--point", "220,120", "--multimask", "--json", "-o", "masks/")
    assert ran.code == 0, ran.err
    areas = [found["area"] for found in json.loads(ran.out)["objects"]]
    assert len(areas) == 3
    face, head, more = sorted(areas)
    assert face < 0.8 * head
    assert head < 0.8 * more


def test_it_is_clearly_better_than_the_ellipse_on_the_examples() -> None:
    """The ellipses have 0.718."""
    with load_predictor() as predictor:
        assert mean_iou_by_size(evaluate_boxes(predictor, PHOTOS))["all"] >= 0.85


@pytest.mark.slow
@pytest.mark.data
def test_it_is_clearly_better_than_the_ellipse() -> None:
    """0.634 is what the box's inscribed ellipse scores on these photos; a model near it has learned nothing."""
    folder = Path(os.environ["NANOSAM_TEST_DATA"]) / "coco-val"
    with load_predictor() as predictor:
        results = evaluate_boxes(predictor, read_coco(folder / "instances.json"))
    assert mean_iou_by_size(results)["all"] >= 0.66

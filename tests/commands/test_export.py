"""`nanosam export` from the command line, and its card's own words."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="export needs the extra `train`")

import numpy as np
from PIL import Image

from nanosam_cli.core.export import proof
from nanosam_cli.core.paths import resource
from tests.checkpoints import save_mobile_sam
from tests.command_line import run_nanosam
from tests.tiny_vit_model import shrunk_tiny_vit


@pytest.fixture(autouse=True)
def _home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("NANOSAM_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    photos = proof.example_photos()[-1:]
    monkeypatch.setattr(proof, "example_photos", lambda: photos)


def test_a_model_of_the_zoo_in_one_file_that_runs_as_its_card_says(tmp_path: Path) -> None:
    save_mobile_sam(tmp_path / "home" / "models" / "mobile-sam" / "mobile_sam.pt")
    with shrunk_tiny_vit():
        ran = run_nanosam("export", "all", "mobile-sam", "--single-file", "--max-points", "3", "-o", "out")
    assert ran.code == 0, ran.err
    assert "out/model.onnx: mask IoU, 1 box(es) on 1 photo(s) with torch" in ran.out
    assert "low_res_masks" in ran.out
    assert ran.err.splitlines()[-1] == "proving model on the example photos"
    (code,) = re.findall(r"```python\n(.*?)```", (tmp_path / "out" / "model.md").read_text(), re.DOTALL)
    photo = tmp_path / "photo.jpg"
    photo.write_bytes(resource("examples", "cat.jpg").read_bytes())
    exec(compile(code.replace('"model.onnx"', '"out/model.onnx"'), "card", "exec"), {})
    assert np.asarray(Image.open("mask.png")).shape == (300, 451)


def test_the_teacher_is_mobile_sam_in_half_precision_too(tmp_path: Path) -> None:
    save_mobile_sam(tmp_path / "home" / "models" / "mobile-sam" / "mobile_sam.pt")
    with shrunk_tiny_vit():
        ran = run_nanosam("export", "teacher", "--precision", "fp16", "--json", "-q")
    assert (ran.code, ran.err) == (0, "")
    record = json.loads(ran.out)
    assert (record["part"], record["path"], record["card"]) == ("teacher", "teacher.onnx", "teacher.md")
    assert record["precision"] == "fp16"
    assert record["mask_iou"]["objects"] == 1
    assert 0 < record["largest"] < 65504


@pytest.mark.parametrize(
    ("line", "code", "words"),
    [
        ("all", 2, "no checkpoint given nanosam export all"),
        ("teacher", 1, "the checkpoint of mobile-sam is not here"),
        ("teacher", 1, "nanosam download mobile-sam"),
        ("all mobilesam", 1, "no such checkpoint: mobilesam did you mean mobile-sam?"),
        ("all nothing.pt", 1, "no such checkpoint: nothing.pt"),
        ("all nanosam-resnet18", 2, "nanosam-resnet18 comes as ONNX files, so there is nothing to export"),
        ("encoder x.pt --single-file", 2, "--single-file is the whole model, not the encoder alone"),
        ("decoder x.pt --batch 2", 2, "--batch is for image encoders"),
        ("encoder x.pt --max-points 3", 2, "--max-points is for mask decoders"),
        ("encoder x.pt --contract sam", 2, "sam is the contract of a mask decoder"),
        ("all x.pt --contract onnx", 2, "onnx"),
        ("all x.pt --precision int8", 2, "int8"),
        ("all x.pt --opset 11", 2, "--opset"),
        ("all x.pt --max-points 1", 2, "--max-points"),
    ],
)
def test_bad_usage(line: str, code: int, words: str, tmp_path: Path) -> None:
    ran = run_nanosam("export", *line.split())
    assert ran.code == code
    assert words in ran.words
    assert ran.out == ""
    assert list(tmp_path.iterdir()) == []

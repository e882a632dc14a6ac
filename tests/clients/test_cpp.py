"""examples/cpp, built with what is installed here and run on the example photos, gives the masks of `segment`."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nanosam_cli import Prompt, load_predictor, read_image
from nanosam_cli.core.masks import mask_iou
from nanosam_cli.core.paths import resource
from tests.clients.conftest import Report

SOURCE = Path(__file__).parents[2] / "examples" / "cpp"
MODEL = [str(resource("models", "nanosam-lite2", f"{part}.onnx")) for part in ("encoder", "decoder")]
RUN_IN_TESTS = "openvino"
openvino = find_spec("openvino")
MISSING = [
    *([] if shutil.which("cmake") else ["cmake"]),
    *([] if any(Path("/usr").glob("lib/*/cmake/opencv4/OpenCVConfig.cmake")) else ["libopencv-dev"]),
    *([] if openvino else ["openvino"]),
]
if MISSING:
    pytest.skip(f"not installed: {', '.join(MISSING)}", allow_module_level=True)


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sample, built with OpenVINO of the package index."""
    build = tmp_path_factory.mktemp("build")
    assert openvino is not None
    assert openvino.origin is not None
    package = Path(openvino.origin).parent / "cmake"
    for command in (["-S", str(SOURCE), "-B", str(build), f"-DOpenVINO_DIR={package}"], ["--build", str(build)]):
        done = subprocess.run(["cmake", *command], capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
    return build / f"segment-{RUN_IN_TESTS}"


def test_boxes_give_the_masks_of_segment(program: Path, report: Report, tmp_path: Path) -> None:
    ious = {}
    with load_predictor() as predictor:
        for name, entry in json.loads(resource("examples", "prompts.json").read_text()).items():
            photo = resource("examples", name)
            embedding = predictor.encode_image(read_image(photo))
            for number, (box, wanted) in enumerate(
                zip(entry["boxes"], predictor.predict(embedding, Prompt.from_boxes(entry["boxes"])))
            ):
                arguments = [*MODEL, str(photo), ",".join(map(str, box)), str(tmp_path / "mask.png")]
                subprocess.run([program, *arguments], check=True, capture_output=True)
                found = np.asarray(Image.open(tmp_path / "mask.png"))
                assert found.shape == wanted.mask.shape
                ious[f"{name} {number}"] = mask_iou(found > 0, wanted.mask)
    report("openvino", "examples/cpp, encoder.onnx and decoder.onnx", [*ious.values()])


@pytest.mark.parametrize(
    ("photo", "box", "words"),
    [
        ("nothing.jpg", "1,2,30,40", "cannot read the photo nothing.jpg"),
        (str(resource("examples", "cat.jpg")), "30,2,1,40", "not a box"),
        (str(resource("examples", "cat.jpg")), "9000,2,9010,40", "outside the photo"),
    ],
)
def test_bad_input_is_said(program: Path, photo: str, box: str, words: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [program, *MODEL, photo, box, str(tmp_path / "mask.png")],
        capture_output=True,
        text=True,
        env={**os.environ, "OPENCV_LOG_LEVEL": "SILENT"},
    )
    assert done.returncode == 1
    assert words in done.stderr
    assert list(tmp_path.iterdir()) == []

"""From the published checkpoint to a mask, beside the original's own predictor: same weights, same photo, same mask."""

from __future__ import annotations

import json
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch", reason="export needs the extra `train`")

import torch
from numpy.typing import NDArray
from PIL import Image

from nanosam_cli.core import export_proof
from nanosam_cli.core.files import file_sha256
from nanosam_cli.core.image import read_image
from nanosam_cli.core.modeling.torchvision_compat import import_torchvision
from nanosam_cli.core.paths import resource
from nanosam_cli.core.zoo import CHECKPOINT, MODELS
from tests.command_line import run_nanosam

PHOTO = resource("examples", "rocket.jpg")  # 640x427: the far edge is where rounding shows
BOXES = [(311, 126, 333, 406), (20, 30, 600, 400)]
POINT = (322, 300)


@pytest.fixture(scope="module")
def original() -> Any:
    """MobileSAM with random weights whose masks are neither empty nor full."""
    import_torchvision()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # timm's, of names that the original imports
        mobile_sam = pytest.importorskip("mobile_sam", reason="needs mobilesam-mirror, of the extra `dev`")
        torch.manual_seed(0)
        return mobile_sam.sam_model_registry["vit_t"](checkpoint=None).eval()


@pytest.fixture(scope="module")
def expected(original: Any) -> dict[str, NDArray[np.bool_]]:
    from mobile_sam import SamPredictor

    predictor = SamPredictor(original)
    predictor.set_image(read_image(PHOTO))
    boxes = [predictor.predict(box=np.array(box), multimask_output=False)[0][0] for box in BOXES]
    point = {"point_coords": np.array([POINT]), "point_labels": np.array([1])}
    readings, _, _ = predictor.predict(**point, multimask_output=True)
    return {"boxes": np.stack(boxes), "readings": readings}


@pytest.mark.slow
def test_masks_are_the_originals(
    original: Any, expected: dict[str, NDArray[np.bool_]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NANOSAM_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    photos = export_proof.example_photos()[-1:]
    monkeypatch.setattr(export_proof, "example_photos", lambda: photos)
    (tmp_path / "mirror").mkdir()
    weights = tmp_path / "mirror" / "mobile_sam.pt"
    torch.save(original.state_dict(), weights)
    spec = MODELS["mobile-sam"]
    file = replace(spec.parts[CHECKPOINT], size=weights.stat().st_size, sha256=file_sha256(weights))
    monkeypatch.setitem(MODELS, "mobile-sam", replace(spec, parts={CHECKPOINT: file}))  # type: ignore[arg-type]

    assert run_nanosam("download", "mobile-sam", "--mirror", tmp_path / "mirror").code == 0
    ran = run_nanosam("export", "teacher", "--batch", "1", "--json")
    assert ran.code == 0, ran.err
    assert json.loads(ran.out)["mask_iou"]["worst"] == 1
    assert (tmp_path / "teacher.onnx").is_file()

    boxes = [part for box in BOXES for part in ("--box", ",".join(map(str, box)))]
    segment = ("segment", PHOTO, "--model", "mobile-sam", "--separate")
    ran = run_nanosam(*segment, *boxes)
    assert ran.code == 0, ran.err
    found = masks(tmp_path, "rocket_mask")
    compare(found, expected["boxes"])
    ran = run_nanosam(*segment, "--point", ",".join(map(str, POINT)), "--multimask", "-o", "readings.png")
    assert ran.code == 0, ran.err
    compare(masks(tmp_path, "readings"), expected["readings"])


def masks(folder: Path, stem: str) -> NDArray[np.bool_]:
    return np.stack([np.asarray(Image.open(path)) > 0 for path in sorted(folder.glob(f"{stem}*.png"))])


def compare(found: NDArray[np.bool_], expected: NDArray[np.bool_]) -> None:
    """Equal but for pixels whose logit is 0 to within what float32 sums differ by: torch's and ONNX Runtime's order."""
    assert found.shape == expected.shape
    for one, other in zip(found, expected):
        assert 0.02 < other.mean() < 0.98  # or there is nothing to compare
        assert export_proof.mask_iou(one, other) >= 0.9999
        assert np.count_nonzero(one != other) <= 10

"""From the published checkpoint to a mask, beside the original's own predictor: same weights, same photo, same mask."""

from __future__ import annotations

import json
import shutil
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

from nanosam_cli.core.export import proof
from nanosam_cli.core.masks import mask_iou
from nanosam_cli.core.media.image import read_image
from nanosam_cli.core.modeling.torchvision_compat import import_torchvision
from nanosam_cli.core.paths import resource
from nanosam_cli.core.system.files import file_sha256
from nanosam_cli.core.zoo.models import CHECKPOINT, MODELS
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
    photos = proof.example_photos()[-1:]
    monkeypatch.setattr(proof, "example_photos", lambda: photos)
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


@pytest.fixture(scope="module")
def published(original: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The same weights as NVIDIA publishes its files: by the original's own code for ONNX, one prompt a call, K = 4."""
    from mobile_sam.utils.onnx import SamOnnxModel

    class Decoder(SamOnnxModel):  # type: ignore[misc]  # no types
        def forward(self, image_embeddings: Any, point_coords: Any, point_labels: Any, mask: Any, has_mask: Any) -> Any:
            masks, scores = self.mask_decoder.predict_masks(
                image_embeddings=image_embeddings,
                image_pe=self.model.prompt_encoder.get_dense_pe(),
                sparse_prompt_embeddings=self._embed_points(point_coords, point_labels),
                dense_prompt_embeddings=self._embed_masks(mask, has_mask),
            )
            return scores, masks

    folder = tmp_path_factory.mktemp("published")
    sizes = {"image_embeddings": (1, 256, 64, 64), "point_coords": (1, 3, 2), "point_labels": (1, 3)}
    sizes |= {"mask_input": (1, 1, 256, 256), "has_mask_input": (1,)}
    parts = (
        (original.image_encoder, {"image": (1, 3, 1024, 1024)}, ["image_embeddings"], {}),
        (
            Decoder(original, return_single_mask=False).eval(),
            sizes,
            ["iou_predictions", "low_res_masks"],
            {"point_coords": {1: "num_points"}, "point_labels": {1: "num_points"}},
        ),
    )
    paths = folder / "encoder.onnx", folder / "decoder.onnx"
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # of tracing, and of the exporter's age
        for path, (module, inputs, outputs, axes) in zip(paths, parts):
            examples = tuple(torch.ones(shape) for shape in inputs.values())
            options = {"input_names": list(inputs), "output_names": outputs, "dynamic_axes": axes}
            torch.onnx.export(module, examples, path, opset_version=17, dynamo=False, **options)  # type: ignore[arg-type]
    return paths


@pytest.mark.slow
def test_files_by_another_exporter_run_unchanged(
    published: tuple[Path, Path],
    expected: dict[str, NDArray[np.bool_]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """`segment`, `build-engine`, and `segment` with what was built; `eval` runs such files in its own tests."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    shutil.copy(PHOTO, tmp_path / "photos")
    built = tmp_path / "encoder.onnxruntime.onnx", tmp_path / "decoder.onnxruntime.onnx"
    boxes = [part for box in BOXES for part in ("--box", ",".join(map(str, box)))]
    for number, files in enumerate((published, built)):
        if number:
            ran = run_nanosam(
                *("build-engine", *published, "--fp32", "--backend", "onnxruntime"),
                *("--model", "mobile-sam", "--validate", "photos", "-o", "."),
            )
            assert ran.code == 0, ran.err
        model = ("--image_encoder", files[0], "--mask_decoder", files[1])
        ran = run_nanosam("segment", PHOTO, *model, "--separate", *boxes, "-o", f"boxes{number}.png")
        assert ran.code == 0, ran.err
        compare(masks(tmp_path, f"boxes{number}"), expected["boxes"])
        click = ("--point", ",".join(map(str, POINT)), "--multimask", "--separate", "-o", f"click{number}.png")
        ran = run_nanosam("segment", PHOTO, *model, *click)
        assert ran.code == 0, ran.err
        compare(masks(tmp_path, f"click{number}"), expected["readings"])


def masks(folder: Path, stem: str) -> NDArray[np.bool_]:
    return np.stack([np.asarray(Image.open(path)) > 0 for path in sorted(folder.glob(f"{stem}*.png"))])


def compare(found: NDArray[np.bool_], expected: NDArray[np.bool_]) -> None:
    """Equal but for pixels whose logit is 0 to within what float32 sums differ by: torch's and ONNX Runtime's order."""
    assert found.shape == expected.shape
    for one, other in zip(found, expected):
        assert 0.02 < other.mean() < 0.98  # or there is nothing to compare
        assert mask_iou(one, other) >= 0.9999
        assert np.count_nonzero(one != other) <= 10

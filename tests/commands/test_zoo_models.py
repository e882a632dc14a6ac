"""Models by name, straight from the cache: NVIDIA's two files, and MobileSAM's checkpoint, which is exported first."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from nanosam_cli.core.benchmark.measure import find_candidate
from nanosam_cli.core.errors import ModelError
from nanosam_cli.core.loading import cached_export
from nanosam_cli.core.loading.part_files import model_files
from nanosam_cli.core.paths import resource
from nanosam_cli.core.system.files import file_sha256
from nanosam_cli.core.types import DECODER, ENCODER
from nanosam_cli.core.zoo.models import CHECKPOINT, MODELS, ModelSpec, file_path, find_model
from tests.command_line import Ran, run_nanosam
from tests.evaluation_data import save_data_set

PHOTO, BOX = resource("examples", "rocket.jpg"), "311,126,333,406"


@pytest.fixture(autouse=True)
def home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("NANOSAM_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "home"


def segment(model: str, *arguments: object) -> Ran:
    return run_nanosam("segment", PHOTO, "--box", BOX, "--model", model, "--force", *arguments)


def publish(monkeypatch: pytest.MonkeyPatch, checkpoint: Path) -> ModelSpec:
    """As if `checkpoint` were what MobileSAM's authors published."""
    spec = MODELS["mobile-sam"]
    facts = {"size": checkpoint.stat().st_size, "sha256": file_sha256(checkpoint)}
    ours = replace(spec, parts={CHECKPOINT: replace(spec.parts[CHECKPOINT], **facts)})  # type: ignore[arg-type]
    monkeypatch.setitem(MODELS, "mobile-sam", ours)  # type: ignore[arg-type]
    return ours


def test_nvidias_files(nvidia_files: tuple[Path, Path], tmp_path: Path) -> None:
    ran = segment("nanosam-resnet18")
    assert (ran.code, "nanosam download nanosam-resnet18" in ran.words) == (1, True)
    mirror = tmp_path / "mirror"
    mirror.mkdir()
    for path in nvidia_files:
        shutil.copy(path, mirror)
    assert run_nanosam("download", "nanosam-resnet18", "--mirror", mirror).code == 0
    ran = segment("nanosam-resnet18", "--json")
    assert (ran.code, ran.err) == (0, "")
    assert json.loads(ran.out)["objects"][0]["area"] > 1000


class TestCheckpoint:
    """A small MobileSAM, published and downloaded."""

    @pytest.fixture
    def spec(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[ModelSpec]:
        pytest.importorskip("torch", reason="export needs the extra `train`")
        from nanosam_cli.core.export import proof
        from tests.checkpoints import save_mobile_sam
        from tests.tiny_vit_model import shrunk_tiny_vit

        photos = proof.example_photos()[-1:]
        monkeypatch.setattr(proof, "example_photos", lambda: photos)
        (tmp_path / "mirror").mkdir()
        spec = publish(monkeypatch, save_mobile_sam(tmp_path / "mirror" / "mobile_sam.pt"))
        assert run_nanosam("download", "mobile-sam", "--mirror", tmp_path / "mirror").code == 0
        with shrunk_tiny_vit():
            yield spec

    def test_it_is_exported_once(self, spec: ModelSpec, home: Path, tmp_path: Path) -> None:
        folder = home / "models" / "mobile-sam" / f"onnx-{(spec.parts[CHECKPOINT].sha256 or '')[:12]}"
        first = segment("mobile-sam", "--json")
        assert first.code == 0, first.err
        assert "mobile-sam is a checkpoint: exporting it to ONNX, once" in first.words
        assert "encoder.onnx: mask IoU, 1 box(es) on 1 photo(s) with torch: mean 1.0000" in first.words
        assert f"mobile-sam is in {folder} now, and runs without torch" in first.words
        assert {path.name for path in folder.iterdir()} == {"encoder.onnx", "encoder.md", "decoder.onnx", "decoder.md"}

        again = without_torch("segment", PHOTO, "--box", BOX, "--model", "mobile-sam", "--force", "--json", spec=spec)
        assert (again.returncode, again.stderr) == (0, "")
        assert json.loads(again.stdout)["objects"] == json.loads(first.out)["objects"]

        images, annotations = save_data_set(tmp_path / "data", photos=1)
        where = ("--images", images, "--annotations", annotations)
        ran = run_nanosam("eval", "coco", "--model", "mobile-sam", *where, "--json")
        assert ran.code == 0, ran.err
        assert find_candidate("mobile-sam").encoder == folder / "encoder.onnx"

        assert run_nanosam("download", "--rm", "mobile-sam").code == 0
        assert list(folder.parent.iterdir()) == []

    def test_without_torch_it_says_what_to_install(self, spec: ModelSpec, home: Path) -> None:
        ran = without_torch("segment", PHOTO, "--box", BOX, "--model", "mobile-sam", spec=spec)
        assert ran.returncode == 1
        assert "mobile-sam is a checkpoint; making ONNX files of it needs torch" in ran.stderr
        assert "pip install 'nanosam-cli[train]'" in ran.stderr

    def test_a_checkpoint_that_was_changed_is_not_exported(self, spec: ModelSpec, home: Path) -> None:
        with file_path(spec, CHECKPOINT).open("ab") as file:
            file.write(b"more")
        ran = segment("mobile-sam")
        assert ran.code == 1
        assert "mobile_sam.pt is not the published file: its sha256 is" in ran.words
        assert "nanosam download mobile-sam --force" in ran.words


WITHOUT_TORCH = """
import sys
from dataclasses import replace
from nanosam_cli.core.zoo import models
sys.modules["torch"] = None
spec = models.MODELS["mobile-sam"]
file = replace(spec.parts["checkpoint"], sha256=sys.argv.pop(1))
models.MODELS["mobile-sam"] = replace(spec, parts={"checkpoint": file})
from nanosam_cli.app import main
main()
"""


def without_torch(*arguments: object, spec: ModelSpec) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH, str(spec.parts[CHECKPOINT].sha256), *map(str, arguments)],
        capture_output=True,
        text=True,
        env={**os.environ, "TERM": "dumb"},
    )


def test_a_checkpoint_that_is_not_here() -> None:
    with pytest.raises(ModelError, match="the checkpoint of model mobile-sam is missing") as caught:
        model_files(find_model("mobile-sam"))
    assert caught.value.hint == "nanosam download mobile-sam"


class FakeExport:
    """In the place of `export_model`: writes files, or fails half way."""

    def __init__(self) -> None:
        self.calls = 0
        self.fails = False

    def __call__(self, checkpoint: Path, folder: Path, what: str, note: Any) -> list[Any]:
        self.calls += 1
        (folder / f"{ENCODER}.onnx").write_bytes(b"encoder")
        if self.fails:
            raise ModelError("the proof failed")
        (folder / f"{DECODER}.onnx").write_bytes(b"decoder")
        return []


def test_a_failed_export_leaves_nothing(monkeypatch: pytest.MonkeyPatch, home: Path, tmp_path: Path) -> None:
    export = pytest.importorskip("nanosam_cli.core.export.export", reason="export needs the extra `train`")
    fake = FakeExport()
    monkeypatch.setattr(export, "export_model", fake)
    (tmp_path / "mobile_sam.pt").write_bytes(b"weights")
    spec = publish(monkeypatch, tmp_path / "mobile_sam.pt")
    file_path(spec, CHECKPOINT).parent.mkdir(parents=True)
    shutil.copy(tmp_path / "mobile_sam.pt", file_path(spec, CHECKPOINT))
    fake.fails = True
    with pytest.raises(ModelError, match="the proof failed"):
        model_files(spec)
    folder = file_path(spec, ENCODER).parent
    assert {path.name for path in folder.parent.iterdir()} <= {"mobile_sam.pt", f".{folder.name}.lock"}
    fake.fails = False
    assert model_files(spec) == (folder / "encoder.onnx", folder / "decoder.onnx")
    assert model_files(spec)
    assert fake.calls == 2
    cached_export.export_into_cache(spec, lambda _: None)  # as a process does that waited for another
    assert fake.calls == 2

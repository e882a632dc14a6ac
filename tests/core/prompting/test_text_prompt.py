"""Phrases through real detectors of transformers, tiny and with random weights."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nanosam_cli.core.errors import DownloadError, InputError, MissingExtraError, ModelError, UsageError
from nanosam_cli.core.modeling.torchvision_compat import import_torchvision
from nanosam_cli.core.prompting.detections import BoxFilter
from nanosam_cli.core.prompting.options import PromptOptions
from nanosam_cli.core.prompting.text_prompt import TextPrompt
from nanosam_cli.core.segmentation.job import make_job
from tests.fault_server import fault_server
from tests.zero_shot_models import CELLS, save_grounding_dino, save_owl

WIDE, TALL = (80, 120), (150, 90)


def image(original_hw: tuple[int, int]) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return np.random.default_rng(0).integers(0, 256, (*original_hw, 3), np.uint8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the detectors lie: owlvit, owlv2 and grounding-dino."""
    pytest.importorskip("transformers", reason="the extra `text` is not installed")
    import_torchvision()
    models = tmp_path_factory.mktemp("models")
    save_grounding_dino(models / "grounding-dino")
    save_owl(models / "owlv2", "owlv2", licence=None)
    return save_owl(models / "owlvit").parent


def grid(width: float, height: float) -> np.ndarray[Any, Any]:
    """The boxes of a detector whose box head says nothing: one a cell, a cell large, at the cell's lower right."""
    centres = (np.arange(CELLS) + 1) / CELLS
    x, y = (side.ravel() for side in np.meshgrid(centres, centres))
    half = 0.5 / CELLS
    return np.stack([x - half, y - half, x + half, y + half], axis=1) * (width, height, width, height)


@pytest.mark.parametrize("original_hw", [WIDE, TALL])
@pytest.mark.parametrize("kind", ["owlvit", "owlv2"])
def test_boxes_are_pixels_of_photos_that_are_not_square(folder: Path, kind: str, original_hw: tuple[int, int]) -> None:
    """OWL-ViT squeezes a photo into its square, OWLv2 pads it to one."""
    height, width = original_hw
    with TextPrompt(["a tree"], str(folder / kind), BoxFilter(min_score=0)) as prompt:
        found = np.array([one.box for one in prompt.detect(image(original_hw))])
        request = prompt.request_for(image(original_hw))
    side = max(original_hw)
    wanted = grid(width, height) if kind == "owlvit" else grid(side, side)
    order, right = (np.lexsort(np.round(boxes.T)) for boxes in (found, wanted))
    np.testing.assert_allclose(found[order], wanted[right], atol=0.05)
    assert request.boxes is not None
    assert (request.boxes >= 0).all()
    assert (request.boxes <= [width, height, width, height]).all()
    inside = (wanted[:, 0] < width) & (wanted[:, 1] < height)
    assert len(request.boxes) == inside.sum()


@pytest.mark.parametrize("kind", ["owlvit", "grounding-dino"])
def test_every_box_has_its_phrase(folder: Path, kind: str) -> None:
    phrases = ["a tree", "a cat"]
    with TextPrompt(phrases, str(folder / kind), BoxFilter(min_score=0)) as prompt:
        found = prompt.detect(image(WIDE))
        assert {(one.name, one.category_id) for one in found} <= {("a tree", 1), ("a cat", 2)}
        assert len(found) == (CELLS**2 if kind == "owlvit" else 2 * 8)  # eight queries for each phrase
        alone = [one for one in found if one.category_id == 2]
        if kind == "grounding-dino":  # which reads one phrase at a time, so the others change nothing
            with TextPrompt(["a cat"], str(folder / kind), BoxFilter(min_score=0)) as single:
                assert [one.box for one in single.detect(image(WIDE))] == [one.box for one in alone]


def test_threshold_and_top_k(folder: Path) -> None:
    with TextPrompt(["a tree"], str(folder / "owlvit"), BoxFilter(min_score=0)) as prompt:
        scores = sorted(one.score or 0 for one in prompt.detect(image(WIDE)))
    middle = (scores[7] + scores[8]) / 2
    with TextPrompt(["a tree"], str(folder / "owlvit"), BoxFilter(min_score=middle, top_k=3)) as prompt:
        assert len(prompt.detect(image(WIDE))) == 8
        request = prompt.request_for(image(WIDE))
    assert sorted(tag.score or 0 for tag in request.tags) == pytest.approx(scores[-3:])
    with TextPrompt(["a tree"], str(folder / "owlvit"), BoxFilter(min_score=1)) as prompt:
        assert list(prompt.request_for(image(WIDE)).notes) == ["nothing found like a tree"]


def test_the_licence_is_known(folder: Path) -> None:
    for kind, licence in (("owlvit", "licence apache-2.0"), ("owlv2", "no licence stated")):
        with TextPrompt(["a tree"], str(folder / kind)) as prompt:
            assert prompt.about == f"{folder / kind}, {licence}"


@pytest.mark.parametrize(("kind", "limit"), [("owlvit", 16), ("grounding-dino", 64)])
def test_phrases_that_are_too_long(folder: Path, kind: str, limit: int) -> None:
    with pytest.raises(UsageError, match=rf"a phrase of 300 words is \d+ tokens; .*{kind} reads {limit}"):
        TextPrompt(["a tree", "tree " * 300], str(folder / kind)).__enter__()


@pytest.mark.parametrize("phrase", ["", "  "])
def test_empty_phrases(phrase: str) -> None:
    with pytest.raises(UsageError, match="a phrase is empty"):
        TextPrompt(["a tree", phrase])


def test_extra_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(MissingExtraError, match="--text needs transformers") as caught:
        TextPrompt(["a tree"]).__enter__()
    assert caught.value.hint == "pip install 'nanosam-cli[text]'"


@pytest.fixture
def hub_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of the hub, which is not to be asked."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("NANOSAM_OFFLINE", "1")
    return tmp_path / "hub"


def test_from_the_cache_while_offline(folder: Path, hub_cache: Path) -> None:
    snapshot = hub_cache / "models--tiny--owl" / "snapshots" / "abc"
    shutil.copytree(folder / "owlvit", snapshot)
    (hub_cache / "models--tiny--owl" / "refs").mkdir()
    (hub_cache / "models--tiny--owl" / "refs" / "main").write_text("abc")
    with TextPrompt(["a tree"], "tiny/owl") as prompt:
        assert prompt.about == "tiny/owl, licence apache-2.0"
        assert prompt.detect(image(WIDE))


def test_the_revision_of_a_detector_is_kept(folder: Path, hub_cache: Path) -> None:
    for commit in ("abc", "d" * 40):
        shutil.copytree(folder / "owlvit", hub_cache / "models--tiny--owl" / "snapshots" / commit)
    (hub_cache / "models--tiny--owl" / "refs").mkdir()
    (hub_cache / "models--tiny--owl" / "refs" / "main").write_text("abc")
    assert TextPrompt(["a tree"], "tiny/owl").settings() == {"text_model": "tiny/owl@abc"}
    assert TextPrompt(["a tree"], "tiny/owl@main").settings() == {"text_model": "tiny/owl@abc"}
    assert TextPrompt(["a tree"], f"tiny/owl@{'d' * 40}").settings() == {"text_model": f"tiny/owl@{'d' * 40}"}
    with TextPrompt(["a tree"], f"tiny/owl@{'d' * 40}") as prompt:
        assert prompt.about == f"tiny/owl@{'d' * 40}, licence apache-2.0"
    asked = PromptOptions(text=["a tree"], text_model="tiny/owl")
    assert make_job([Path("a.jpg")], asked).settings() == {"text_model": "tiny/owl@abc"}
    with pytest.raises(DownloadError, match="tiny/owl@123 is not in the cache"):
        TextPrompt(["a tree"], "tiny/owl@123").settings()
    assert TextPrompt(["a tree"], str(folder / "owlvit")).settings() == {"text_model": str(folder / "owlvit")}


CODE = "raise SystemExit('code of a model ran')"


@pytest.mark.parametrize("file", ["config.json", "preprocessor_config.json", "tokenizer_config.json"])
def test_code_that_lies_with_a_model_is_refused_and_nobody_is_asked(
    folder: Path, tmp_path: Path, file: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = shutil.copytree(folder / "owlvit", tmp_path / "other")
    place = other / file
    content = json.loads(place.read_text()) if place.is_file() else {}
    where = {name: f"mine.{name}" for name in ("AutoConfig", "AutoProcessor", "AutoTokenizer", "AutoImageProcessor")}
    place.write_text(json.dumps({**content, "auto_map": where}))
    (other / "mine.py").write_text(CODE)
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("somebody was asked"))
    with pytest.raises(
        ModelError, match=f"needs code of its own, by its {file}; such code is never run here"
    ) as caught:
        TextPrompt(["a tree"], str(other)).__enter__()
    assert caught.value.hint


@pytest.mark.parametrize(
    ("file", "data"),
    [
        ("config.json", b"[]"),
        ("config.json", b"[" * 100_000),
        ("config.json", b'{"model_type": 3}'),
        ("config.json", b'{"model_type": "owlvit", "text_config": 3}'),
        ("config.json", b"\xff"),
        ("tokenizer_config.json", b"[]"),
        ("tokenizer.json", b'{"version": 3}'),
        ("model.safetensors", b""),
        ("model.safetensors", b"\xff" * 100),
        ("README.md", b"---\n[a\n---\n"),
        ("README.md", b"---\nlicense: [1]\n---\n"),
        ("README.md", b"\xff\xfe"),
    ],
)
def test_a_folder_whose_files_are_broken(folder: Path, tmp_path: Path, file: str, data: bytes) -> None:
    other = shutil.copytree(folder / "owlvit", tmp_path / "other")
    (other / file).write_bytes(data)
    prompt = TextPrompt(["a tree"], str(other))
    if file == "README.md":  # the licence is then unknown, and nothing else
        with prompt:
            assert prompt.about == f"{other}, no licence stated"
        return
    with pytest.raises((ModelError, InputError)) as caught:
        prompt.__enter__()
    assert caught.value.hint


def test_not_in_the_cache_while_offline(folder: Path, hub_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The hub, which could be reached, is asked nothing."""
    with fault_server() as hub:
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", hub.url)
        with pytest.raises(DownloadError, match="tiny/owl is not in the cache, and NANOSAM_OFFLINE is set") as caught:
            TextPrompt(["a tree"], "tiny/owl").__enter__()
        assert not hub.asked
    assert (
        caught.value.hint
        == "run it once without NANOSAM_OFFLINE, or give a folder with a model's files: --text-model DIR"
    )


def test_hub_that_cannot_be_reached(folder: Path, hub_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NANOSAM_OFFLINE")
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")  # nobody listens
    with pytest.raises(DownloadError, match="tiny/owl is not in the cache, and the hub cannot be reached"):
        TextPrompt(["a tree"], "tiny/owl").__enter__()


def test_names_and_folders_that_are_no_detector(folder: Path, tmp_path: Path) -> None:
    other = shutil.copytree(folder / "owlvit", tmp_path / "other")
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps({**config, "model_type": "bert"}))
    pickled = shutil.copytree(folder / "owlvit", tmp_path / "pickled")
    (pickled / "model.safetensors").rename(pickled / "pytorch_model.bin")
    (tmp_path / "empty").mkdir()
    for name, words in (
        ("other", "is no zero-shot detector that can be loaded"),
        ("pickled", "no safetensors file; pickled weights are not read"),
        ("empty", "no safetensors file"),
    ):
        with pytest.raises(ModelError, match=words):
            TextPrompt(["a tree"], str(tmp_path / name)).__enter__()
    with pytest.raises(ModelError, match="no such folder, and no name of a model"):
        TextPrompt(["a tree"], "no/such/folder").__enter__()

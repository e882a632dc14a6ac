"""Fixtures shared by all tests."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

if "PYTEST_XDIST_WORKER" in os.environ:
    # A worker has one core to itself: more threads of torch and BLAS wait for those of the others. It must stand before
    # numpy comes in, and is inherited by what tests start. ONNX Runtime keeps its own number; its threads do not spin.
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import platformdirs
import pytest

from nanosam_cli.core.paths import VARIABLES
from tests.fake_models import save_decoder, save_encoder

# A shell starts what it puts in the background with SIGINT ignored, and children inherit it: Ctrl-C would do nothing.
signal.signal(signal.SIGINT, signal.default_int_handler)


def _has_cuda() -> bool:
    import torch

    return torch.cuda.is_available()


def _has_chromium() -> bool:
    return any(shutil.which(name) for name in ("chromium", "chromium-browser", "google-chrome"))


# marker -> whether its tests can run here, and why they do not
NEEDS: dict[str, tuple[Callable[[], bool], str]] = {
    "data": (lambda: bool(os.environ.get("NANOSAM_TEST_DATA")), "NANOSAM_TEST_DATA does not say where photos are"),
    "gpu": (_has_cuda, "needs a CUDA device"),
    "browser": (_has_chromium, "needs Chromium"),
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for name, (is_here, reason) in NEEDS.items():
        marked = [item for item in items if item.get_closest_marker(name)]
        if marked and not is_here():
            for item in marked:
                item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """The user's own settings, downloads and engines decide nothing here.

    NANOSAM_TEST_DATA stays, it says where the photos are.
    """
    if "MPLCONFIGDIR" not in os.environ:  # its list of fonts takes seconds to make
        monkeypatch.setenv("MPLCONFIGDIR", str(platformdirs.user_cache_path("matplotlib")))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "cache"))
    for variable in VARIABLES:
        if variable.name != "NANOSAM_TEST_DATA":
            monkeypatch.delenv(variable.name, raising=False)


@pytest.fixture(scope="session")
def own_files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Encoder and decoder as this project exports them: P and N dynamic, K = 4, metadata."""
    folder = tmp_path_factory.mktemp("own")
    metadata = {"nanosam.part": "decoder", "nanosam.coordinate_size": "1024"}
    return save_encoder(folder / "encoder.onnx"), save_decoder(folder / "decoder.onnx", metadata=metadata)


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkpoint of a run of one step: to export, and to learn from."""
    pytest.importorskip("torch", reason="training needs the extra `train`")
    from nanosam_cli.core.training.distillation import train
    from tests.training_data import save_shapes, tiny_recipe

    folder = tmp_path_factory.mktemp("trained")
    save_shapes(folder / "shapes")
    return train(tiny_recipe(folder, steps=1), folder / "tiny")


@pytest.fixture(scope="session")
def nvidia_files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Encoder and decoder as NVIDIA NanoSAM's: B and P fixed at 1, 1024 pixels, K = 4, no metadata."""
    folder = tmp_path_factory.mktemp("nvidia")
    return (
        save_encoder(folder / "resnet18_image_encoder.onnx", size=1024, batch=1, metadata=False),
        save_decoder(folder / "mobile_sam_mask_decoder.onnx", prompts=1, reverse_inputs=True),
    )

"""Fixtures shared by all tests."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import platformdirs
import pytest

from nanosam_cli.core.paths import VARIABLES
from tests.fake_models import save_decoder, save_encoder

# A shell starts what it puts in the background with SIGINT ignored, and children inherit it: Ctrl-C would do nothing.
signal.signal(signal.SIGINT, signal.default_int_handler)


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
def nvidia_files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Encoder and decoder as NVIDIA NanoSAM's: B and P fixed at 1, 1024 pixels, K = 4, no metadata."""
    folder = tmp_path_factory.mktemp("nvidia")
    return (
        save_encoder(folder / "resnet18_image_encoder.onnx", size=1024, batch=1, metadata=False),
        save_decoder(folder / "mobile_sam_mask_decoder.onnx", prompts=1, reverse_inputs=True),
    )

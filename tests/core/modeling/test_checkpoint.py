"""Checkpoints as they come from anywhere: what is none is said, in words."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch", reason="checkpoints need the extra `train`")

import torch
from torch import nn

from nanosam_cli.core.errors import InputError
from nanosam_cli.core.export.source import load_source
from nanosam_cli.core.modeling.checkpoint import load_state, put_weights, save_tensors

MODEL = {
    **{"name": "a", "backbone": "resnet18", "pretrained": False, "image_size": 512, "neck_width": 32},
    **{"finest_stride": 8, "decoder": "region"},
}


def packed(header: bytes, length: int | None = None, body: bytes = b"") -> bytes:
    """A safetensors file: https://github.com/huggingface/safetensors#format."""
    return struct.pack("<Q", len(header) if length is None else length) + header + body


def tensor(**changes: Any) -> bytes:
    about = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4], **changes}
    return packed(json.dumps({"a": about, "__metadata__": {"nanosam": "{}"}}).encode(), body=b"\0" * 4)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "is not a whole safetensors file"),
        (b"\0" * 7, "is not a whole safetensors file"),
        (b"a page of text, which is longer than eight bytes", "is not a whole safetensors file"),
        (packed(b"{}", 2**63), "is not a whole safetensors file"),
        (packed(b"{}", 99), "is not a whole safetensors file"),
        (packed(b"\xff\xff"), "is not a whole safetensors file"),
        (packed(b"[" * 10_000), "is not a whole safetensors file"),
        (packed(b"[]"), "is not a whole safetensors file"),
        (packed(b'{"__metadata__": 3}'), "is not a whole safetensors file"),
        (packed(b'{"__metadata__": {"nanosam": 3}}'), "is not a whole safetensors file"),
        (packed(b"{}"), "its metadata has no 'nanosam' entry"),
        (packed(b'{"__metadata__": {"format": "pt"}}'), "its metadata has no 'nanosam' entry"),
        (tensor(shape=[2**40]), "is not a whole safetensors file"),
        (tensor(shape=[-1]), "is not a whole safetensors file"),
        (tensor(shape=[2**62, 2**62]), "is not a whole safetensors file"),
        (tensor(data_offsets=[0, 2**50]), "is not a whole safetensors file"),
        (tensor(data_offsets=[4, 0]), "is not a whole safetensors file"),
        (tensor(dtype="F33"), "is not a whole safetensors file"),
    ],
)
def test_bytes_that_are_no_checkpoint(tmp_path: Path, data: bytes, words: str) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(data)
    with pytest.raises(InputError, match=words):
        load_state(path)


def test_a_folder_and_nothing_at_all(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such checkpoint"):
        load_state(tmp_path / "a.safetensors")
    with pytest.raises(InputError, match="cannot read"):
        load_state(tmp_path)


@pytest.mark.parametrize(
    ("metadata", "words"),
    [
        ("", "Expecting value"),
        ("[]", r"it must be a section, not \[\]"),
        ("[" * 100_000, "it is nested too deeply"),
        ("9" * 5000, "it has a number of thousands of digits"),
        ('{"step": "three"}', "step: must be int, not 'three'"),
        ('{"step": -1}', "step: must be at least 0, not -1"),
        ('{"step": NaN}', "step: must be int, not nan"),
        ('{"recipe": []}', r"recipe: must be a section, not \[\]"),
        ('{"recipe": {"model": {"name": 3}}}', "recipe.model.name: must be str, not 3"),
        ('{"recipe": {"teacher": "mobile-sam"}}', "recipe.teacher: must be a section, not 'mobile-sam'"),
        ('{"fingerprint": {}}', "fingerprint: must be str, not {}"),
        ('{"scaler": 1}', "scaler: must be a section, not 1"),
    ],
)
def test_metadata_of_the_wrong_kind(tmp_path: Path, metadata: str, words: str) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(packed(json.dumps({"__metadata__": {"nanosam": metadata}}).encode()))
    with pytest.raises(InputError, match=rf"a\.safetensors is not a checkpoint of this program: .*{words}"):
        load_state(path)


@pytest.mark.parametrize(
    ("recipe", "words"),
    [
        ({}, "does not say which model it holds"),
        ({"model": {**MODEL, "image_size": 10**6}}, "recipe.model.image_size: must be one of 512, 1024"),
        ({"model": {**MODEL, "neck_width": 10**9}}, "recipe.model.neck_width: must be at most 4096, not 1000000000"),
        ({"model": {**MODEL, "decoder": "other"}}, "recipe.model.decoder: must be one of"),
        ({"model": MODEL}, "does not fit its model: missing .*; extra odd"),
    ],
)
def test_a_checkpoint_of_no_model_of_ours(tmp_path: Path, recipe: dict[str, Any], words: str) -> None:
    path = tmp_path / "a.safetensors"
    save_tensors(path, {"ema.module.odd": torch.zeros(1)}, {"step": 3, "recipe": recipe})
    with pytest.raises(InputError, match=words):
        load_source(path)


@pytest.mark.parametrize(
    ("weights", "words"),
    [
        ({}, "missing bias, weight"),
        ({"weight": torch.zeros(2, 3), "bias": torch.zeros(2), "more": torch.zeros(1)}, "extra more"),
        ({"weight": torch.zeros(3, 2), "bias": torch.zeros(2)}, "of another shape weight"),
    ],
)
def test_weights_of_another_module(tmp_path: Path, weights: dict[str, torch.Tensor], words: str) -> None:
    with pytest.raises(InputError, match=f"last does not fit its model: {words}"):
        put_weights(nn.Linear(3, 2), weights, tmp_path / "last")

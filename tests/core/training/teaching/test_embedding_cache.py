from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch", reason="training needs the extra `train`")

import torch

from nanosam_cli.core.errors import InputError
from nanosam_cli.core.training.teaching.embedding_cache import EmbeddingCache


def saved(array: Any) -> bytes:
    file = BytesIO()
    np.save(file, np.asarray(array))
    return file.getvalue()


def test_embeddings_come_back_in_half_precision(tmp_path: Path) -> None:
    cache = EmbeddingCache(tmp_path, {"teacher": "a"}, 2)
    embeddings = torch.arange(2 * 256 * 4, dtype=torch.float32).reshape(2, 256, 2, 2) / 4096
    cache.write(1, embeddings)
    assert cache.missing() == [0]
    assert torch.equal(cache.read(1, 1), embeddings[1].half())


GOOD = saved(np.zeros((1, 256, 2, 2), np.float16))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"text",
        GOOD[:64],
        GOOD[:-1],
        GOOD.replace(b"'shape': (1", b"'shape': (9"),
        GOOD.replace(b"(1, 256, 2, 2)", b"(1 * 256 * 2) "),
        saved(np.zeros((1, 256, 2, 2), np.float32)),
        saved(np.zeros(9, np.float16)),
        GOOD.replace(b"(1, 256, 2, 2), }", b"(1, 256, 2, 2,  "),
        saved([{"an": "object"}]),
    ],
    ids=range(10),
)
def test_a_broken_file_is_named_with_what_mends_it(tmp_path: Path, data: bytes) -> None:
    cache = EmbeddingCache(tmp_path, {"teacher": "a"}, 1)
    path = cache.folder / "step-000000.npy"
    path.parent.mkdir()
    path.write_bytes(data)
    with pytest.raises(InputError, match=r"step-000000\.npy holds no embeddings of a step") as caught:
        cache.read(0, 0)
    assert caught.value.hint == f"delete it, and --resume makes it again: rm {path}"

"""A teacher's embeddings on disk: made once, so that going through the same crops again costs no teacher.

One file a training step, float16, (B, 256, h, w): what a step reads lies together, and a broken-off job goes on after
the last whole file.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from tokenize import TokenError
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nanosam_cli.core.errors import InputError, OutputError
from nanosam_cli.core.system.files import atomic_write, write_text


class EmbeddingCache:
    """The embeddings of one teacher on one set of crops, in a folder named after both."""

    def __init__(self, root: Path, identity: Mapping[str, Any], steps: int) -> None:
        """`identity` is everything that decides what is in the files."""
        text = json.dumps(identity, sort_keys=True)
        self.folder = root / sha256(text.encode()).hexdigest()[:16]
        self.steps = steps
        self._identity = text

    def missing(self) -> list[int]:
        """The steps whose file is not there yet."""
        return [step for step in range(self.steps) if not self._file(step).exists()]

    def reserve(self, size: int) -> None:
        """Make the folder. OutputError where the disk has no room for `size` more bytes."""
        write_text(self.folder / "identity.json", self._identity, overwrite=True)
        free = shutil.disk_usage(self.folder).free
        if free < size:
            raise OutputError(
                f"the teacher's embeddings need {size / 1e9:.1f} GB, {self.folder} has {free / 1e9:.1f} GB left",
                "name another disk with teacher.cache, or lower teacher.cache_steps",
            )

    def write(self, step: int, embeddings: Tensor) -> None:
        """Keep the embeddings (B, 256, h, w) of a step's samples."""
        with atomic_write(self._file(step), overwrite=True) as temporary, temporary.open("wb") as file:
            np.save(file, embeddings.to("cpu", torch.float16).numpy())

    def read(self, step: int, row: int) -> Tensor:
        """(256, h, w) float16 of one sample. InputError where the step's file is broken."""
        path = self._file(step)
        try:
            embeddings: NDArray[np.float16] = np.load(path, mmap_mode="r", allow_pickle=False)
            if embeddings.ndim != 4 or embeddings.dtype != np.float16 or len(embeddings) <= row:
                raise ValueError(f"it holds {embeddings.dtype} of shape {embeddings.shape}")
            return torch.from_numpy(np.array(embeddings[row]))
        except (OSError, ValueError, EOFError, SyntaxError, AttributeError, TokenError) as error:
            raise InputError(
                f"{path} holds no embeddings of a step: {error}", f"delete it, and --resume makes it again: rm {path}"
            ) from error

    def _file(self, step: int) -> Path:
        return self.folder / f"step-{step:06}.npy"

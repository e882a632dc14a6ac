"""Embeddings by handle, within so many bytes: what was used longest ago falls out."""

from __future__ import annotations

from collections import OrderedDict
from threading import Lock

import numpy as np

from nanosam_cli.core.serving.answers import GoneError, NotFoundError
from nanosam_cli.core.types import ImageEmbedding

_BYTES = 256 * 64 * 64 * 4  # of one on a device, which does not say
_REMEMBERED = 10_000  # handles that fell out, to tell them from those that never were
_AGAIN = "encode the photo again: POST /api/v1/encode"


class HeldEmbeddings:
    """Threads may share it. The newest stays even where it is larger than all that is allowed."""

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self._held: OrderedDict[str, ImageEmbedding] = OrderedDict()
        self._fallen: OrderedDict[str, None] = OrderedDict()
        self._lock = Lock()
        self.bytes = 0

    def __len__(self) -> int:
        return len(self._held)

    def __contains__(self, handle: str) -> bool:
        return handle in self._held

    def put(self, handle: str, embedding: ImageEmbedding) -> None:
        """Keep an embedding, and let go what there is no room for."""
        with self._lock:
            if handle not in self._held:
                self.bytes += _size(embedding)
            self._held[handle] = embedding
            self._held.move_to_end(handle)
            self._fallen.pop(handle, None)
            while self.bytes > self.max_bytes and len(self._held) > 1:
                old, gone = self._held.popitem(last=False)
                self.bytes -= _size(gone)
                self._fallen[old] = None
            while len(self._fallen) > _REMEMBERED:
                self._fallen.popitem(last=False)

    def get(self, handle: str) -> ImageEmbedding:
        """GoneError where it fell out, NotFoundError where there never was one."""
        with self._lock:
            if handle in self._held:
                self._held.move_to_end(handle)
                return self._held[handle]
            if handle in self._fallen:
                raise GoneError(f"the embedding {handle} fell out: {len(self._held)} newer ones fill the cache", _AGAIN)
            raise NotFoundError(f"there is no embedding {handle[:64]!r}", _AGAIN)


def _size(embedding: ImageEmbedding) -> int:
    features = embedding.features
    return features.nbytes if isinstance(features, np.ndarray) else _BYTES

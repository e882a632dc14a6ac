"""A download that is not finished: `NAME.part`, and beside it what is needed to go on after kill -9."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from nanosam_cli.core.errors import InputError
from nanosam_cli.core.schema import Whole, read_section
from nanosam_cli.core.system.documents import RECORD_BYTES, parse_json
from nanosam_cli.core.system.files import read_input

_BLOCK = 1 << 20


@dataclass(frozen=True)
class Origin:
    """The file that the bytes are part of."""

    url: str  # as `source_key` has it once it is on disk
    validator: str | None  # changes with the file
    total: Whole | None  # bytes of the whole file


def source_key(url: str) -> str:
    """What is kept of an address: enough to know it again, without the password that it may hold."""
    return hashlib.blake2b(url.encode("utf-8", "surrogateescape"), digest_size=16).hexdigest()


class PartFile:
    """The bytes that are here, and where they came from. It hashes them as they come."""

    def __init__(self, target: Path) -> None:
        self.path = target.with_name(f"{target.name}.part")
        self._about = target.with_name(f"{target.name}.part.json")
        self._digest, self._hashed = hashlib.sha256(), 0

    @property
    def size(self) -> int:
        return self.path.stat().st_size if self.path.is_file() else 0

    def origin(self) -> Origin | None:
        """None where there is nothing to go on with."""
        try:
            return read_section(Origin, parse_json(read_input(self._about, most=RECORD_BYTES))) if self.size else None
        except (InputError, ValueError):  # not there, cut off, or not what this program wrote
            return None

    @contextmanager
    def append(self, start: int, origin: Origin) -> Iterator[Callable[[bytes], None]]:
        """Yield what writes a block, from byte `start` on: the end of what is here, or 0 to begin anew.

        Each block is with the system at once: kill -9 must not lose what is in a buffer here.
        """
        self._hash_up_to(start)
        with self.path.open("ab" if start else "wb") as file:
            about = {**asdict(origin), "url": source_key(origin.url)}
            self._about.write_text(json.dumps(about), encoding="utf-8")

            def write(block: bytes) -> None:
                file.write(block)
                file.flush()
                self._digest.update(block)
                self._hashed += len(block)

            yield write
            os.fsync(file.fileno())

    def sha256(self) -> str:
        """The hash of everything that is here."""
        self._hash_up_to(self.size)
        return self._digest.hexdigest()

    def become(self, place: Path) -> None:
        """Take the place of `place`, at once and whole."""
        self.path.replace(place)
        self._about.unlink(missing_ok=True)

    def remove(self) -> None:
        self.path.unlink(missing_ok=True)
        self._about.unlink(missing_ok=True)

    def _hash_up_to(self, end: int) -> None:
        if end < self._hashed:
            self._digest, self._hashed = hashlib.sha256(), 0
        if end == self._hashed:
            return
        with self.path.open("rb") as file:
            file.seek(self._hashed)
            while self._hashed < end and (block := file.read(min(_BLOCK, end - self._hashed))):
                self._digest.update(block)
                self._hashed += len(block)

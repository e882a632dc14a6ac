"""An annotation file that is worked on: every change is on disk before it is answered.

A change is first a line of the journal `annotations.jsonl`, then `annotations.json` is written anew, atomically, in a
thread of its own, because a data set of thousands of photos takes seconds to write. After a kill the journal's lines
are applied to the file again.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from threading import Condition, Lock, Thread
from time import monotonic
from types import TracebackType

from nanosam_cli.core.errors import InputError, NanosamError, UsageError, fault
from nanosam_cli.core.serving.answers import ConflictError
from nanosam_cli.core.serving.label.label_file import LabelFile, LabelledObject, LabelledPhoto, parse_content
from nanosam_cli.core.system.files import check_writable, read_input, write_text
from nanosam_cli.core.system.journal import Journal, journal_path

_REST = 5  # times as long as a write took, before the next


@dataclass(frozen=True)
class PhotoState:
    """What the list of photos shows of one."""

    name: str
    objects: int
    done: bool  # it is in the file


class AnnotationStore:
    """Threads may share it. Leaving the `with` block writes the file and removes the journal."""

    def __init__(self, path: Path, names: Sequence[str], classes: Sequence[str] = ()) -> None:
        """Open a file or begin one, for the photos of these names; classes that it has not are added.

        Raises:
            OutputError: another process works on it, or it cannot be written.
            InputError: it is no COCO data set.
        """
        if path.suffix.lower() != ".json":
            raise UsageError(f"annotations are a .json file, not {path}", f"-o {path.with_suffix('.json')}")
        check_writable(path.parent)
        self.path = path
        self.names = names
        self.trouble: str | None = None  # why the file could not be written; the journal has what it lacks
        self._lock = Lock()
        self._changed = Condition(self._lock)
        self._version = self._written = 0
        self._closing = False
        with self._lock, ExitStack() as opened:
            self._journal = opened.enter_context(Journal(journal_path(path), {"annotations": path.name}, resume=True))
            content = parse_content(path, read_input(path)) if path.exists() else {}
            self._file = LabelFile(path, content, names)
            for record in self._journal.records():
                try:
                    self._file.apply(record)
                except (AttributeError, KeyError, TypeError, ValueError) as error:
                    raise InputError(
                        f"{self._journal.path} holds a change that cannot be read: {fault(error)}",
                        f"move it away to go on with {path} alone",
                    ) from error
                self._version += 1
            for name in classes:
                if name not in self._file.categories.values():
                    self._keep(self._file.with_category(name))
            opened.pop_all()
        self._writer = Thread(target=self._write_changes, name="annotations", daemon=True)
        self._writer.start()

    def __enter__(self) -> AnnotationStore:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def categories(self) -> dict[int, str]:
        """Names by id, in the order of the file."""
        return dict(self._file.categories)

    def photos(self) -> list[PhotoState]:
        """Every opened photo."""
        with self._lock:
            return [PhotoState(name, self._file.count(name), self._file.is_listed(name)) for name in self.names]

    def is_done(self, name: str) -> bool:
        """Whether the file has the photo, be it with no object."""
        with self._lock:
            return self._file.is_listed(name)

    def photo(self, name: str, original_hw: tuple[int, int]) -> LabelledPhoto:
        """A photo's objects. NotFoundError where it was not opened; see `LabelFile.photo`."""
        with self._lock:
            return self._file.photo(name, original_hw)

    def save(
        self, name: str, original_hw: tuple[int, int], objects: Sequence[LabelledObject], revision: str
    ) -> LabelledPhoto:
        """Make these the photo's objects. Once this returns, killing the process cannot undo it.

        Raises:
            ConflictError: they are not what they were at `revision`, so another window was here.
            OutputError: the disk takes no more; nothing is changed then.
            InputError, UsageError: an object cannot be kept; see `LabelFile.changed`.
        """
        with self._lock:
            now = self._file.photo(name, original_hw)
            if now.revision != revision:
                if _same(now.objects, objects):  # saved already, and the answer got lost
                    return now
                raise ConflictError(f"{name} was changed in another window", "load the photo again to see how it is")
            self._keep(self._file.changed(name, original_hw, objects))
            return self._file.photo(name, original_hw)

    def tracked(self, name: str, original_hw: tuple[int, int]) -> LabelledPhoto:
        """The photo's objects, each with a track id, which is kept. Raises as `save` does."""
        with self._lock:
            record = self._file.with_tracks(name, original_hw)
            if record is not None:
                self._keep(record)
            return self._file.photo(name, original_hw)

    def add_category(self, name: str) -> int:
        """A new class -> its id. UsageError where it cannot be called so."""
        with self._lock:
            self._keep(self._file.with_category(name))
            return max(self._file.categories)

    def close(self) -> None:
        """Write what is left. OutputError where that cannot be done; the journal stays then."""
        with self._lock:
            if self._closing:
                return
            self._closing = True
            self._changed.notify()
        self._writer.join()
        with self._journal:
            if self._version > self._written:
                self._write()
            self._journal.remove()

    def _keep(self, record: dict[str, object]) -> None:
        """First on disk, then here; the lock is held."""
        self._journal.write(record)
        self._file.apply(record)
        self._version += 1
        self._changed.notify()

    def _write_changes(self) -> None:
        """The writer's thread."""
        while True:
            with self._lock:
                self._changed.wait_for(lambda: self._closing or self._version > self._written)
                if self._closing:
                    return
            start = monotonic()
            try:
                self._write()
                self.trouble = None
            except (NanosamError, OSError) as error:
                self.trouble = str(error)
            with self._lock:  # a large file does not keep the disk busy, nor does a full one
                rest = max(_REST * (monotonic() - start), 1.0 if self.trouble else 0.0)
                self._changed.wait_for(lambda: self._closing, timeout=rest)

    def _write(self) -> None:
        with self._lock:
            version, content = self._version, self._file.content()
        write_text(self.path, json.dumps(content) + "\n", overwrite=True)
        with self._lock:
            self._written = version
            if version == self._version:
                self._journal.clear()


def _same(some: Sequence[LabelledObject], others: Sequence[LabelledObject]) -> bool:
    return [(one.category_id, one.rle["counts"]) for one in some] == [
        (one.category_id, one.rle["counts"]) for one in others
    ]

"""One file for many photos, kept photo by photo in a journal beside it until all are done."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from nanosam_cli.core.errors import InputError
from nanosam_cli.core.messages import some
from nanosam_cli.core.segmentation.formats import PhotoTarget, SharedLayout
from nanosam_cli.core.segmentation.result import PhotoResult
from nanosam_cli.core.segmentation.result_record import ANEW, ResultRecord, other_photos, photo_hashes
from nanosam_cli.core.system.files import write_text
from nanosam_cli.core.system.journal import Journal, journal_path


@dataclass(frozen=True)
class _Kept:
    """A line of the journal."""

    photo: str
    results: Any  # what the layout keeps
    sha256: str | None = None


class SharedFile:
    """`coco.json`, and while photos are left `coco.jsonl`.

    Leaving the `with` block writes the file with the photos that are done, after an error or Ctrl-C too. It is made
    from the journal alone, in the order of the photos, so a resumed run leaves the same bytes as an undisturbed one.
    """

    def __init__(
        self,
        target: PhotoTarget,
        layout: SharedLayout,
        image_ids: Mapping[Path, int],
        journal: Journal,
        record: ResultRecord | None,
    ) -> None:
        self._target = target
        self._layout = layout
        self._image_ids = image_ids  # of all photos, in their order
        self._journal = journal
        self._record = record  # of what is finished
        self.photos: dict[str, str | None] = {one["photo"]: one.get("sha256") for one in journal.records()}

    @property
    def done(self) -> set[Path]:
        return {*map(Path, self.photos)}

    def add(self, result: PhotoResult) -> None:
        """Keep a photo's results; once this returns, killing the process cannot undo it."""
        ((photo, content),) = photo_hashes([result.photo]).items()
        kept = self._layout.keep(self._target, result)
        self._journal.write({"photo": photo, "sha256": content, "results": kept})
        self.photos[photo] = content

    def __enter__(self) -> SharedFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._journal:
            if self.done != self._image_ids.keys():
                if self.done:
                    self._write()
                else:
                    self._journal.remove()
                return
            with self._record.writing(self._target.file, self.photos) if self._record else nullcontext():
                self._write()
            self._journal.remove()

    def _write(self) -> None:
        records = {Path(record["photo"]): record["results"] for record in self._journal.records()}
        # ids anew, because those of photos without a number count those of this run
        kept = [(photo, image_id, records[photo]) for photo, image_id in self._image_ids.items() if photo in records]
        content = self._layout.join(kept, self._target.classes or {})
        write_text(self._target.file, json.dumps(content) + "\n", self._target.overwrite)


def open_shared_file(
    target: PhotoTarget,
    layout: SharedLayout,
    image_ids: Mapping[Path, int],
    settings: Mapping[str, Any],
    resume: bool = False,
    record: ResultRecord | None = None,
) -> SharedFile:
    """Start a file, or with `resume` go on with one.

    InputError where what is there was made with other settings, or has a photo that is not among these and would be
    lost, or has changed.
    """
    place = journal_path(target.file)
    journal = Journal(place, settings, resume=resume, kind=_Kept)
    with ExitStack() as opened:
        opened.enter_context(journal)
        file = SharedFile(target, layout, image_ids, journal, record)
        _check_photos(place, file, image_ids)
        opened.pop_all()
    return file


def _check_photos(place: Path, file: SharedFile, photos: Collection[Path]) -> None:
    if others := sorted(file.done - {*photos}):
        raise InputError(f"{place} is a run over other photos: it has {some(others)}", f"give those too, {ANEW}")
    if changed := other_photos(file.photos, photo_hashes(file.done)):
        raise InputError(f"{place} is a run over other photos: {changed}", ANEW)

"""One file for many photos, kept photo by photo in a journal beside it until all are done."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from nanosam_cli.core.errors import InputError
from nanosam_cli.core.messages import some
from nanosam_cli.core.segmentation.formats import PhotoTarget, SharedLayout
from nanosam_cli.core.segmentation.result import PhotoResult
from nanosam_cli.core.system.files import write_text
from nanosam_cli.core.system.journal import Journal, journal_path


class SharedFile:
    """`coco.json`, and while photos are left `coco.jsonl`.

    Leaving the `with` block writes the file with the photos that are done, after an error or Ctrl-C too. It is made
    from the journal alone, in the order of the photos, so a resumed run leaves the same bytes as an undisturbed one.
    """

    def __init__(
        self, target: PhotoTarget, layout: SharedLayout, image_ids: Mapping[Path, int], journal: Journal
    ) -> None:
        self._target = target
        self._layout = layout
        self._image_ids = image_ids  # of all photos, in their order
        self._journal = journal
        self.done = {Path(record["photo"]) for record in journal.records()}

    def add(self, result: PhotoResult) -> None:
        """Keep a photo's results; once this returns, killing the process cannot undo it."""
        self._journal.write({"photo": str(result.photo), "results": self._layout.keep(self._target, result)})
        self.done.add(result.photo)

    def __enter__(self) -> SharedFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._journal:
            if self.done:
                self._write()
            if not self.done or self.done == self._image_ids.keys():
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
) -> SharedFile:
    """Start a file, or with `resume` go on with one.

    InputError where what is there was made with other settings, or has a photo that is not among these and would be
    lost.
    """
    place = journal_path(target.file)
    journal = Journal(place, settings, resume=resume)
    file = SharedFile(target, layout, image_ids, journal)
    others = sorted(file.done - image_ids.keys())
    if others:
        with journal:
            raise InputError(
                f"{place} is a run over other photos: it has {some(others)}",
                "give those too, `--force` to start anew, or give another place with `-o`",
            )
    return file

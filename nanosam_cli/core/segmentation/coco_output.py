"""One COCO results file for many photos, kept photo by photo in a journal beside it until all are done."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from nanosam_cli.core.errors import InputError
from nanosam_cli.core.media.mask_codes import coco_annotation, coco_results
from nanosam_cli.core.messages import some
from nanosam_cli.core.segmentation.result import PhotoResult, score
from nanosam_cli.core.system.files import write_text
from nanosam_cli.core.system.journal import Journal, journal_path


class CocoFile:
    """`coco.json`, and while photos are left `coco.jsonl`.

    Leaving the `with` block writes the file with the photos that are done, after an error or Ctrl-C too. It is made
    from the journal alone, in the order of the photos, so a resumed run leaves the same bytes as an undisturbed one.
    """

    def __init__(self, path: Path, image_ids: Mapping[Path, int], journal: Journal, overwrite: bool = False) -> None:
        self.path = path
        self._image_ids = image_ids  # of all photos, in their order
        self._journal = journal
        self._overwrite = overwrite
        self.done = {Path(record["photo"]) for record in journal.records()}

    def add(self, result: PhotoResult) -> None:
        """Keep a photo's results; once this returns, killing the process cannot undo it."""
        rows = _rows(result, self._image_ids[result.photo])
        self._journal.write({"photo": str(result.photo), "results": rows})
        self.done.add(result.photo)

    def __enter__(self) -> CocoFile:
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
        # anew, because the ids of photos without a number count those of this run
        rows = [
            {**row, "image_id": image_id}
            for photo, image_id in self._image_ids.items()
            for row in records.get(photo, [])
        ]
        write_text(self.path, json.dumps(rows) + "\n", self._overwrite)


def open_coco_file(
    path: Path,
    image_ids: Mapping[Path, int],
    settings: Callable[[], Mapping[str, Any]],
    resume: bool = False,
    force: bool = False,
) -> CocoFile:
    """Start a file, or with `resume` go on with one.

    InputError where what is there was made with other settings, or has a photo that is not among these and would be
    lost.
    """
    place = journal_path(path)
    journal = Journal.resume(place, settings()) if resume else Journal(place, settings())
    file = CocoFile(path, image_ids, journal, overwrite=resume or force)
    others = sorted(file.done - image_ids.keys())
    if others:
        with journal:
            raise InputError(
                f"{place} is a run over other photos: it has {some(others)}",
                "give those too, `--force` to start anew, or give another place with `-o`",
            )
    return file


def _rows(result: PhotoResult, image_id: int) -> list[dict[str, Any]]:
    """What `loadRes` reads, and names, which it ignores: without them no id would say which photo it stands for."""
    rows = []
    for one in result.found:
        tag = result.request.tag(one.prompt)
        entry = coco_annotation(one.segmentation, 0, image_id, tag.category_id)
        (row,) = coco_results([{**entry, "score": score(one, result.request)}])
        name = {} if tag.name is None else {"category_name": tag.name}
        rows.append({**row, "file_name": result.photo.name, **name})
    return rows

"""What to segment in each photo of a job: from columns of its source, from files of prompts, or everything."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from nanosam_cli.core.errors import InputError, UsageError
from nanosam_cli.core.fleet.sources import PROMPT_COLUMNS, PhotoSource
from nanosam_cli.core.messages import some
from nanosam_cli.core.prompting.labels import UNNAMED
from nanosam_cli.core.prompting.options import PromptOptions
from nanosam_cli.core.prompting.prompt_files import labelled_request
from nanosam_cli.core.prompting.request import PromptLabel, PromptSource, Request
from nanosam_cli.core.segmentation.everything import Everything
from nanosam_cli.core.segmentation.job import make_job

Entry = Mapping[str, Any]  # PROMPT_COLUMNS of a photo


@dataclass(frozen=True)
class BatchPrompts:
    """Which photos of a source are done, and with what."""

    places: Sequence[int]  # in the source, of the photos that something is asked of
    sources: Sequence[PromptSource | Entry | None] = ()  # one a place; empty: the photos' own entries, or everything
    everything: Everything | None = None
    class_ids: Mapping[str, int] = field(default_factory=dict)  # of names in entries
    classes: Mapping[int, str] = field(default_factory=dict)  # names by category id
    image_ids: Mapping[int, int] = field(default_factory=dict)  # by place
    notes: Sequence[str] = ()  # for people

    def source(self, number: int) -> PromptSource | Entry | None:
        """The prompts of the photo at `places[number]`."""
        return self.sources[number] if self.sources else None


def plan_prompts(source: PhotoSource, asked: PromptOptions) -> BatchPrompts:
    """Match prompts and photos. Without options they come from the source's own columns.

    Raises:
        UsageError: nothing is asked, or two things are.
        InputError: a file of prompts cannot be used, or names none of the photos.
    """
    everywhere = range(len(source.ids))
    if asked.prompts is not None and asked.prompts.suffix == ".parquet":
        if asked.place() != "--prompts":
            raise UsageError("give prompts in one way only")
        return _from_table(source, asked.prompts)
    if asked == PromptOptions():
        if not source.has_prompts:
            raise UsageError(
                "no prompt: the photos have no column boxes or points",
                "--detections FILE, --prompts FILE or --everything",
            )
        return _from_entries(source.class_names, everywhere, ())
    paths = source.paths() if asked.place() != "--everything" else []
    job = make_job(paths, asked)
    if job.everything is not None:
        return BatchPrompts(everywhere, everything=job.everything)
    places = [place for place, path in enumerate(paths) if path in job.sources]
    return BatchPrompts(
        places,
        [job.sources[paths[place]] for place in places],
        classes=job.classes,
        image_ids={place: job.image_ids[paths[place]] for place in places if paths[place] in job.image_ids},
        notes=[*job.notes, *_left_out(job.unasked), *_unknown([*job.missing, *job.unmatched])],
    )


def _from_entries(
    names: Sequence[str], places: Sequence[int], entries: Sequence[Entry], notes: Sequence[str] = ()
) -> BatchPrompts:
    ids = {name: number for number, name in enumerate(names, 1)}
    return BatchPrompts(
        places, entries, class_ids=ids, classes={number: name for name, number in ids.items()}, notes=notes
    )


def _from_table(source: PhotoSource, path: Path) -> BatchPrompts:
    """A Parquet file with a row for each photo: `id` and PROMPT_COLUMNS."""
    try:
        names = pq.read_schema(path).names
        if "id" not in names or not {"boxes", "points"} & {*names}:
            raise InputError(f"{path} needs the columns id and boxes or points; it has {some(names, 20)}")
        columns = [name for name in PROMPT_COLUMNS if name in names]
        rows = pq.read_table(path, columns=["id", *columns]).to_pylist()
    except FileNotFoundError as error:
        raise InputError(f"no such file: {path}", "check the path") from error
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"cannot read {path}: {error}", "give a Parquet file") from error
    entries = {str(row.pop("id")): row for row in rows}
    if len(entries) != len(rows):
        raise InputError(f"{path} has an id twice", "give every photo one row with all of its boxes")
    places = [place for place, name in enumerate(source.ids) if name in entries]
    if not places:
        raise InputError(f"{path} names none of the photos; it has {some([*entries])}", f"ids: {some(source.ids)}")
    known = [entries[source.ids[place]] for place in places]
    classes = dict.fromkeys(name for entry in known for name in entry.get("classes") or () if isinstance(name, str))
    there = {*source.ids}
    unknown = [name for name in entries if name not in there]
    unasked = [name for name in source.ids if name not in entries]
    return _from_entries([*classes], places, known, [*_left_out(unasked), *_unknown(unknown)])


def _left_out(photos: Sequence[Any]) -> list[str]:
    return [f"not in the prompt file, so left out: {some(photos)}"] if photos else []


def _unknown(names: Sequence[str]) -> list[str]:
    return [f"in the prompt file, but not among the photos: {some(names)}"] if names else []


def entry_request(entry: Entry, class_ids: Mapping[str, int], where: str) -> Request:
    """The request of a photo's columns; one without boxes and points asks for nothing, and notes that.

    `labels` are those of the points, `classes` the names of the objects. InputError, which says `where`, where columns
    do not go together.
    """
    boxes, points, labels, classes = (_plain(entry.get(key)) for key in PROMPT_COLUMNS)
    if not boxes and not points:
        return Request(notes=["no box"])
    content = {"boxes": boxes, "points": _with_labels(points, labels, where)}
    request = labelled_request({**content, **({"labels": classes} if classes else {})}, where)
    if not class_ids:
        return request
    tags = request.tags or [PromptLabel(UNNAMED)] * request.count
    ids = {UNNAMED: len(class_ids) + 1, **class_ids}
    return replace(request, tags=[replace(tag, category_id=ids[str(tag.name)]) for tag in tags])


def _plain(value: Any) -> list[Any]:
    return [] if value is None else list(value)


def _with_labels(points: list[Any], labels: list[Any], where: str) -> list[Any]:
    """Points [x, y] and their labels as [x, y, label], for one object or a list for each."""
    if not labels:
        return points
    if len(points) != len(labels):
        raise InputError(f"{where}: {len(labels)} labels for {len(points)} points")
    if isinstance(labels[0], list):
        return [_with_labels(group, marks, where) for group, marks in zip(points, labels)]
    return [[*point, label] for point, label in zip(points, labels)]

"""Reads, decodes and resizes photos in tasks of their own, so that the encoder never waits."""

from __future__ import annotations

import pickle
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from nanosam_cli.core.errors import InputError, NanosamError, UsageError, machine_error
from nanosam_cli.core.fleet.prompts import BatchPrompts, Entry, entry_request
from nanosam_cli.core.fleet.sources import PhotoShard, PhotoSource, RawPhoto
from nanosam_cli.core.frame import Frame
from nanosam_cli.core.media.image import read_image
from nanosam_cli.core.prompting.request import PromptSource, Request

# what travels from a task that decodes to an actor that segments
DECODED = pa.schema(
    [
        ("shard", pa.int64()),
        ("place", pa.int64()),  # in the shard
        ("id", pa.string()),
        ("source", pa.string()),
        ("image_id", pa.int64()),
        ("height", pa.int64()),
        ("width", pa.int64()),
        ("pixels", pa.large_binary()),  # uint8 RGB: resized for the encoder, or the whole photo
        ("request", pa.binary()),  # pickled
        ("error", pa.string()),
    ]
)


@dataclass(frozen=True)
class ShardWork:
    """A shard and what is asked of each of its photos."""

    number: int
    photos: PhotoShard
    prompts: Sequence[PromptSource | Entry | None]
    image_ids: Sequence[int | None]


def shard_work(number: int, source: PhotoSource, prompts: BatchPrompts, start: int, stop: int) -> ShardWork:
    """The work of the places `start` to `stop` of what is asked."""
    places = prompts.places[start:stop]
    return ShardWork(
        number,
        source.shard(places),
        [prompts.source(place) for place in range(start, start + len(places))],
        [prompts.image_ids.get(place) for place in places],
    )


@dataclass(frozen=True)
class Decoder:
    """How photos become what the encoder takes."""

    image_size: int
    coordinate_size: int
    everything: bool = False  # nothing is asked of each photo
    whole: bool = False  # the photo itself is needed, to be cut into crops
    class_ids: Mapping[str, int] = field(default_factory=dict)

    def tables(self, work: ShardWork) -> Iterator[pa.Table]:
        """A table of one row for each photo, in their order."""
        known = zip(work.photos.photos(), work.prompts, work.image_ids)
        for place, (photo, asked, image_id) in enumerate(known):
            row = {"shard": work.number, "place": place, "id": photo.id, "source": photo.source, "image_id": image_id}
            try:
                row |= self._decoded(photo, asked)
            except (InputError, UsageError) as error:
                row["error"] = _words(error)
            except (OSError, MemoryError) as error:
                known_error = machine_error(error)
                if known_error is None:
                    raise
                row["error"] = _words(known_error)
            yield pa.Table.from_pylist([row], DECODED)

    def _decoded(self, photo: RawPhoto, asked: PromptSource | Entry | None) -> dict[str, Any]:
        if photo.data is None:
            raise InputError(photo.error or f"{photo.source} cannot be read")
        image = read_image(photo.data)
        original_hw = (image.shape[0], image.shape[1])
        request = Request() if self.everything else self._request(photo, asked, image)
        frame = Frame(original_hw, self.image_size, self.coordinate_size)
        pixels = image if self.whole else frame.resize(image)
        return {
            "height": original_hw[0],
            "width": original_hw[1],
            "pixels": np.ascontiguousarray(pixels).tobytes(),
            "request": pickle.dumps(request),
        }

    def _request(self, photo: RawPhoto, asked: PromptSource | Entry | None, image: NDArray[np.uint8]) -> Request:
        if asked is None or isinstance(asked, Mapping):
            return entry_request(asked or photo.entry or {}, self.class_ids, photo.id)
        return asked.request_for(image)


def _words(error: NanosamError) -> str:
    return f"{error}; {error.hint}" if error.hint else str(error)

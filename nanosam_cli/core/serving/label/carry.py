"""Objects of one frame taken to the next by the tracker, to be corrected there.

A memory is kept from frame to frame, as `nanosam track` keeps it, as long as the person goes on where it ended. What
was corrected starts anew from its corrected mask; what was removed is forgotten; what was lost is looked for further.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from nanosam_cli.core.errors import InputError
from nanosam_cli.core.inference.predictor import Predictor
from nanosam_cli.core.media.mask_codes import mask_to_rle, rle_to_mask
from nanosam_cli.core.prompting.request import Request
from nanosam_cli.core.serving.label.label_file import LabelledObject
from nanosam_cli.core.tracking.target import TrackState
from nanosam_cli.core.tracking.tracker import Tracker
from nanosam_cli.core.types import ImageEmbedding


@dataclass(frozen=True)
class CarriedObject:
    """An object where the tracker sees it in the next frame."""

    object: LabelledObject  # of its track, without an id
    score: float  # how sure the tracker is, 0 to 1


@dataclass
class _Track:
    """What is known of one object. Each has a tracker of its own, because labelled objects may lie in each other."""

    tracker: Tracker
    category_id: int
    shown: str | None = None  # the counts of the mask that it has in the last frame; None: it was lost there


class CarryOn:
    """Not to be shared by threads. The predictor stays the caller's."""

    def __init__(self, predictor: Predictor) -> None:
        self._predictor = predictor
        self._frame: str | None = None  # that the tracks have come to
        self._tracks: dict[int, _Track] = {}

    def carry(
        self,
        frames: tuple[str, str],
        embeddings: tuple[ImageEmbedding, ImageEmbedding],
        objects: Sequence[LabelledObject],
    ) -> list[CarriedObject]:
        """From the first of two frames to the second, by their names; every object has its `track_id`.

        Lost objects are missing. InputError where the frames are of two sizes.
        """
        here, there = embeddings
        if here.original_hw != there.original_hw:
            sizes = [f"{name} is {one.original_hw[1]}x{one.original_hw[0]}" for name, one in zip(frames, embeddings)]
            raise InputError(f"{' and '.join(sizes)} pixels", "objects are carried on between frames of one size")
        if self._frame != frames[0]:
            self._tracks.clear()
        self._frame = None  # an error leaves half of the tracks behind
        self._learn(here, objects)
        carried = []
        for number, track in self._tracks.items():
            (found,) = track.tracker.update(there)
            track.shown = None
            if found.state is not TrackState.lost and found.segmentation.area:
                rle = mask_to_rle(found.segmentation.mask)
                track.shown = rle["counts"]
                carried.append(CarriedObject(LabelledObject(track.category_id, rle, track_id=number), found.score))
        self._frame = frames[1]
        return carried

    def _learn(self, here: ImageEmbedding, objects: Sequence[LabelledObject]) -> None:
        """Make the tracks those of a frame as the person has left it."""
        given = {one.track_id: one for one in objects if one.track_id is not None}
        removed = [number for number, track in self._tracks.items() if track.shown and number not in given]
        for number in removed:
            del self._tracks[number]
        for number, one in given.items():
            known = self._tracks.get(number)
            if known is not None and known.shown == one.rle["counts"]:
                known.category_id = one.category_id
                continue
            tracker = Tracker(self._predictor)
            tracker.init(here, Request(masks=rle_to_mask(one.rle)[None]).prompt(here.frame))
            self._tracks[number] = _Track(tracker, one.category_id)

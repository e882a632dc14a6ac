"""What a run of `track` has found so far, kept until it ends: a run that was killed goes on from there.

`.NAME.run/` beside the results holds every frame's record, and every few seconds the tracker's state. To go on, frames
up to the state are read and drawn again from their records, without the model; then the tracker goes on as if nothing
had been, so video, masks and JSON become those of an undisturbed run.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path
from time import monotonic
from typing import Any

from nanosam_cli.core.errors import InputError
from nanosam_cli.core.inference.predictor import Predictor
from nanosam_cli.core.media.frame_range import FrameRange
from nanosam_cli.core.media.video import list_frames
from nanosam_cli.core.prompting.options import PromptOptions
from nanosam_cli.core.system.journal import Journal, Record
from nanosam_cli.core.tracking.run import TrackedFrame, TrackingRun
from nanosam_cli.core.tracking.state_file import read_state, write_state
from nanosam_cli.version import __version__

FRAMES, STATE = "frames.jsonl", "state.npz"
EVERY = 5.0  # seconds of work that a kill may cost
_ENDS = 1 << 20  # bytes at both ends of a video that stand for all of it


class TrackRecord:
    """The records of the frames that are done, and the state after the last that a resumed run need not do again."""

    def __init__(self, folder: Path | None = None, journal: Journal | None = None, *, resume: bool = False) -> None:
        """Read what is there, where the run is to `resume`. Without a folder nothing is kept."""
        self.kept = 0  # frames that need not be done again
        self.state: Mapping[str, Any] | None = None  # after them
        self._folder, self._journal = folder, journal
        self._done = 0
        self._written = monotonic()
        if folder is None or journal is None:
            return
        if resume and (folder / STATE).exists():
            state = read_state(folder / STATE)
            if type(state.get("frames")) is not int or not isinstance(state.get("run"), dict):
                raise InputError(f"{folder / STATE} is not the state of a run", "`--force` starts anew")
            if state["frames"] <= sum(1 for _ in journal.records()):  # a power cut may have taken the last of them
                self.state, self.kept = state["run"], state["frames"]
        if self.state is None:
            (folder / STATE).unlink(missing_ok=True)
        journal.keep(self.kept)

    @property
    def is_needed(self) -> bool:
        """Whether a run that ends now has not got to where the one before it was."""
        return self._done < self.kept

    def past(self) -> Iterator[Record]:
        """The records up to the state, in their order."""
        return iter(()) if self._journal is None else islice(self._journal.records(), self.kept)

    def add(self, tracked: TrackedFrame, run: TrackingRun) -> None:
        """Keep a frame that is drawn and written; now and then the state after it too."""
        self._done += 1
        if self._folder is None or self._journal is None or self._done <= self.kept:
            return
        self._journal.write(tracked.record)
        if monotonic() - self._written >= EVERY:
            write_state(self._folder / STATE, {"frames": self._done, "run": run.state()})
            self._written = monotonic()


@contextmanager
def opened_record(
    folder: Path | None, settings: Callable[[], Mapping[str, Any]], *, resume: bool
) -> Iterator[TrackRecord]:
    """The record of a run, removed when the run ends, however it does, but for a kill. Without a folder none is kept.

    InputError, with what differs, where the run to go on with had other settings; then it stays.
    """
    if folder is None:
        yield TrackRecord()
        return
    with Journal(folder / FRAMES, settings(), resume=resume) as journal:
        record = TrackRecord(folder, journal, resume=resume)
        try:
            yield record
        finally:
            if not record.is_needed:
                with suppress(OSError):  # it is in nobody's way
                    shutil.rmtree(folder)


def track_settings(
    source: str,
    predictor: Predictor,
    asked: PromptOptions,
    frames: FrameRange,
    max_side: int | None,
    fps: float | None,
    grey: bool = False,
) -> dict[str, Any]:
    """What decides a run's results: it goes on only where all this is the same."""
    stop = None if frames.stop is None else str(frames.stop)
    return {
        "nanosam": __version__,
        "model": predictor.describe(),
        **_source_settings(source),
        **asked.settings(),
        **{"start": str(frames.start), "stop": stop, "stride": frames.stride, "max_side": max_side, "fps": fps},
        "grey": grey,
    }


def _source_settings(source: str) -> dict[str, Any]:
    """What tells a video, or a folder of frames, from another without reading all of it: names, sizes, both ends."""
    path = Path(source)
    files = list_frames(path) if path.is_dir() else [path]
    digest = hashlib.sha256()
    for file in files:
        digest.update(f"{file.name} {file.stat().st_size}\n".encode())
    for block in _ends(files):
        digest.update(block)
    return {"video": path.name, "files": len(files), "content": digest.hexdigest()}


def _ends(files: Sequence[Path]) -> Iterator[bytes]:
    for file in (files[0], files[-1]):
        with file.open("rb") as opened:
            yield opened.read(_ENDS)
            opened.seek(max(0, file.stat().st_size - _ENDS))
            yield opened.read(_ENDS)

"""People followed through a video: parts of them are prompted where they are first seen, and where they are lost."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from nanosam_cli.core.media.video_time import VideoTime
from nanosam_cli.core.messages import some
from nanosam_cli.core.prompting.by_photo import ByPhoto
from nanosam_cli.core.prompting.options import PromptOptions, pose_choice
from nanosam_cli.core.prompting.people import Person
from nanosam_cli.core.prompting.pose import AUTO, PoseChoice, SeenPeople, pose_request
from nanosam_cli.core.prompting.pose_files import read_poses
from nanosam_cli.core.tracking.timed_requests import TimedRequest

if TYPE_CHECKING:
    from nanosam_cli.core.media.video import VideoFrame
    from nanosam_cli.core.tracking.tracker import Tracked

PAUSE = 5  # frames from one look for somebody who is lost to the next, where a look takes time

Box = NDArray[np.float64]  # (4,) x0 y0 x1 y1 in shares of the frame's sides
Place = NDArray[np.float64]  # (2,) x y likewise


class FollowedPeople:
    """Whom to follow, and which parts of them: asked at every frame for the prompts that are due.

    The people are those of the first frame that shows any who are wanted; whoever comes later is not followed. Every
    part of a person is an object. One that is lost, or was not to be seen before, is prompted anew when its person is
    seen: where other parts of the person are still tracked it is known by them, else it is the nearest who is left.

    Poses of a file are those of the frame of this name or number. An estimator is loaded at the start of the `with`
    block. `note` is told what is followed.
    """

    def __init__(
        self, poses: ByPhoto[Person] | SeenPeople, choice: PoseChoice, note: Callable[[str], None] = lambda _: None
    ) -> None:
        self.names: dict[int, str] = {}  # parts by the number of their object
        self._poses = poses
        self._choice = choice
        self._note = note
        self._numbers: dict[tuple[int, str], int] = {}  # of objects, by person and part; people count from 1
        self._places: dict[int, Place] = {}  # where each person was seen last
        self._looks = 0
        self._rest = 0  # frames until the next look
        self._opened = ExitStack()

    def __enter__(self) -> FollowedPeople:
        if isinstance(self._poses, SeenPeople):
            self._opened.enter_context(self._poses)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._opened.close()

    @property
    def nobody(self) -> str:
        """Says that nobody was found to be followed; empty where somebody was."""
        if self._places:
            return ""
        known = "" if isinstance(self._poses, SeenPeople) else f"; {self._poses.path} has {some([*self._poses.photos])}"
        return f"no person found in {self._looks} frame{'s' * (self._looks != 1)}{known}"

    def state(self) -> dict[str, Any]:
        """Whom it follows, for `restore`."""
        return {
            "numbers": [[person, part, number] for (person, part), number in self._numbers.items()],
            "places": [[person, *place.tolist()] for person, place in self._places.items()],
            "looks": self._looks,
            "rest": self._rest,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on following. KeyError, TypeError or ValueError where it is no state."""
        self._numbers = {(person, part): number for person, part, number in state["numbers"]}
        self.names = {number: part for (_, part), number in self._numbers.items()}
        self._places = {person: np.array(place) for person, *place in state["places"]}
        self._looks, self._rest = state["looks"], state["rest"]

    def requests_for(self, frame: VideoFrame, tracked: Mapping[int, Tracked]) -> list[TimedRequest]:
        """What is to be prompted in a frame, part by part, where `tracked` were found in it by their numbers."""
        seen = self._seen(tracked)
        for person, parts in seen.items():
            if parts:
                self._places[person] = np.mean([_middle(box) for box in parts.values()], axis=0)
        self._rest -= 1
        whole = bool(seen) and all(len(parts) == len(self._choice.parts) for parts in seen.values())
        if whole or self._rest > 0:
            return []
        people = self._look(frame)
        owners = self._owners(frame, people, seen) if seen else self._wanted(people)
        requests = []
        for person, pose in owners.items():
            middles = self._middles(frame, pose)
            for part in self._choice.parts:
                if part.name in middles and part.name not in seen.get(person, ()):
                    self._places.setdefault(person, _mean(middles))
                    number = self._number(person, part.name, frame, tracked)
                    choice = PoseChoice([part], min_confidence=self._choice.min_confidence)
                    request = pose_request([pose], frame.image.shape[:2], choice)
                    requests.append(TimedRequest(VideoTime(frame.index), request, [number], may_fail=True))
        return requests

    def _seen(self, tracked: Mapping[int, Tracked]) -> dict[int, dict[str, Box]]:
        """Where the parts of each person are that are not lost."""
        seen: dict[int, dict[str, Box]] = {person: {} for person in self._places}
        for (person, part), number in self._numbers.items():
            if number in tracked and (box := tracked[number].box) is not None:
                height, width = tracked[number].segmentation.mask.shape
                seen[person][part] = np.array(box) / (width, height, width, height)
        return seen

    def _look(self, frame: VideoFrame) -> Sequence[Person]:
        """Who is in a frame, as far as it is known."""
        self._looks += 1
        if isinstance(self._poses, SeenPeople):
            self._rest = PAUSE if self._places else 0
            return self._poses.people(frame.image)
        if self._poses.nameless:  # it is of one picture, so of the first
            return next(iter(self._poses.photos.values())) if self._looks == 1 else ()
        return self._poses.of(Path(f"{frame.name}.jpg"))

    def _wanted(self, people: Sequence[Person]) -> dict[int, Person]:
        numbers = self._choice.people or range(1, len(people) + 1)
        return {number: people[number - 1] for number in numbers if number <= len(people)}

    def _owners(
        self, frame: VideoFrame, people: Sequence[Person], seen: Mapping[int, Mapping[str, Box]]
    ) -> dict[int, Person]:
        """Which of the people who are in a frame is which of those who are followed; each is nobody else."""
        pairs = []
        for row, pose in enumerate(people):
            middles = self._middles(frame, pose)
            for person, parts in seen.items():
                near = [
                    _distance(middles[part], _middle(box))
                    for part, box in parts.items()
                    if part in middles and _inside(middles[part], box)
                ]
                if near:
                    pairs.append((False, min(near), person, row))
                elif not parts and middles:
                    pairs.append((True, _distance(_mean(middles), self._places[person]), person, row))
        owners: dict[int, int] = {}
        for _, _, person, row in sorted(pairs):  # first those who are still seen
            if person not in owners and row not in owners.values():
                owners[person] = row
        return {person: people[row] for person, row in owners.items()}

    def _middles(self, frame: VideoFrame, pose: Person) -> dict[str, Place]:
        """The middle of the keypoints on each part that shows any."""
        hw = frame.image.shape[:2]
        points = pose.visible(hw, self._choice.min_confidence)
        places = {
            part.name: [(points[name].x, points[name].y) for name in part.foreground if name in points]
            for part in self._choice.parts
        }
        return {part: np.mean(shown, axis=0) / hw[::-1] for part, shown in places.items() if shown}

    def _number(self, person: int, part: str, frame: VideoFrame, tracked: Mapping[int, Tracked]) -> int:
        """The number of an object; a new object gets one that no other has, those that were clicked included."""
        if (person, part) not in self._numbers:
            number = 1 + max((*self._numbers.values(), *tracked), default=0)
            self._numbers[person, part], self.names[number] = number, part
            self._note(f"frame {frame.index}: object {number} is the {part} of person {person}")
        return self._numbers[person, part]


def follow_people(asked: PromptOptions, note: Callable[[str], None]) -> FollowedPeople | None:
    """The people of `--pose`, or None without it.

    Raises:
        UsageError: options do not go together, or a part is not known.
        InputError: a file cannot be used.
    """
    place = asked.place()
    if place != "--pose":
        return None
    choice = pose_choice(asked)
    return FollowedPeople(SeenPeople(choice) if asked.pose == AUTO else read_poses(Path(str(asked.pose))), choice, note)


def _middle(box: Box) -> Place:
    return (box[:2] + box[2:]) / 2


def _mean(middles: Mapping[str, Place]) -> Place:
    return np.asarray(np.mean(list(middles.values()), axis=0))


def _inside(place: Place, box: Box) -> bool:
    return bool((box[:2] <= place).all() and (place <= box[2:]).all())


def _distance(one: Place, other: Place) -> float:
    return float(np.hypot(*(one - other)))

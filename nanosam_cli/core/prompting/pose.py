"""People as keypoints, and prompts for parts of them: points on the part, points beside it, and a box."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from nanosam_cli.core.errors import UsageError
from nanosam_cli.core.media.declared_size import DeclaredPhoto, SizeFit
from nanosam_cli.core.messages import some
from nanosam_cli.core.prompting.body_parts import CROWN, BodyPart
from nanosam_cli.core.prompting.people import EARS, HIPS, SHOULDERS, Keypoint, Person, middle_of
from nanosam_cli.core.prompting.request import PromptLabel, Request, padded_points
from nanosam_cli.core.types import BACKGROUND, FOREGROUND

if TYPE_CHECKING:
    from nanosam_cli.core.prompting.pose_estimator import PoseEstimator

AUTO = "auto"  # in the place of a file: look for people in the photo
MIN_CONFIDENCE = 0.3

_CROWN = 0.4  # of the way from the neck to the ears, beyond them; the box's margin adds to it
_SHOULDERS_TO_TORSO, _EARS_TO_TORSO = 1.4, 3.5  # how long a torso is for each width, facing the camera


@dataclass(frozen=True)
class PoseChoice:
    """Which parts of which people become objects."""

    parts: Sequence[BodyPart]
    people: Sequence[int] = ()  # numbers from 1; empty means all
    min_confidence: float = MIN_CONFIDENCE  # of a keypoint

    def __post_init__(self) -> None:
        if any(number < 1 for number in self.people):
            raise UsageError(f"people are counted from 1, not from {min(self.people)}", "--person 1")


@dataclass(frozen=True)
class PosePrompt:
    """The people of one photo, from a file: a `Source` of its request."""

    people: Sequence[Person]
    choice: PoseChoice
    declared: DeclaredPhoto | None = None  # the size of the photo that the poses are of, where the file says it

    def request_for(self, image: NDArray[np.uint8]) -> Request:
        """Every part of every person is an object.

        InputError where the photo has another size than the file says, which neither a turn nor a scale explains.
        """
        fit = None if self.declared is None else self.declared.fit((image.shape[0], image.shape[1]))
        if fit is None:
            return pose_request(self.people, image.shape[:2], self.choice)
        people = [replace(person, keypoints=_fitted(person.keypoints, fit)) for person in self.people]
        request = pose_request(people, image.shape[:2], self.choice)
        return replace(request, notes=[fit.note, *request.notes])


class SeenPeople:
    """The people that an estimator sees in a photo, or in a frame of a video: a `Source` of its request.

    The estimator is loaded at the start of its `with` block. MissingExtraError where it is not installed.
    """

    def __init__(self, choice: PoseChoice) -> None:
        self.choice = choice
        self._estimator: PoseEstimator | None = None

    def __enter__(self) -> SeenPeople:
        from nanosam_cli.core.prompting.pose_estimator import PoseEstimator

        self._estimator = PoseEstimator()
        return self

    def __exit__(self, *_: object) -> None:
        if self._estimator is not None:
            self._estimator.__exit__()
            self._estimator = None

    def people(self, image: NDArray[np.uint8]) -> Sequence[Person]:
        """Who is in (H, W, 3) uint8 RGB, the largest first."""
        if self._estimator is None:
            raise RuntimeError("the estimator is used inside its `with` block")
        return self._estimator.people(image)

    def request_for(self, image: NDArray[np.uint8]) -> Request:
        """Every part of every person is an object; people are counted from the largest."""
        return pose_request(self.people(image), image.shape[:2], self.choice)


def pose_request(people: Sequence[Person], original_hw: tuple[int, int], choice: PoseChoice) -> Request:
    """An object for each part of each person, person by person; which may be none.

    Keypoints that are not sure enough or lie outside the photo are not used. A person whose part has no foreground
    point left, and a person who was asked for and is not there, are noted.
    """
    if not people:
        return Request(np.zeros((0, 4), np.float32), notes=["no person found"])
    numbers = choice.people or range(1, len(people) + 1)
    absent = [number for number in numbers if number > len(people)]
    notes = [f"there is no person {some(absent)}: {len(people)} found"] if absent else []
    objects = []
    for number, (place, part) in product(numbers, enumerate(choice.parts, 1)):
        if number > len(people):
            continue
        person = people[number - 1]
        points = person.visible(original_hw, choice.min_confidence)
        if any(name in points for name in part.foreground):
            extent = {**person.beyond(original_hw), **points, **_crown(points)}
            objects.append(_PartPrompt(part, points, extent, PromptLabel(part.name, place, person.score)))
        else:
            notes.append(f"person {number} shows no keypoint of {part.name}")
    return _request(objects, original_hw, notes)


@dataclass(frozen=True)
class _PartPrompt:
    part: BodyPart
    visible: Mapping[str, Keypoint]
    extent: Mapping[str, Keypoint]  # the visible ones, and more that say how far the body goes
    tag: PromptLabel

    def points(self) -> list[tuple[float, float, int]]:
        """x y label."""
        marks = ((self.part.foreground, FOREGROUND), (self.part.background, BACKGROUND))
        return [
            (self.visible[name].x, self.visible[name].y, label)
            for names, label in marks
            for name in names
            if name in self.visible
        ]

    def box(self, original_hw: tuple[int, int]) -> NDArray[np.float64]:
        """x0 y0 x1 y1 around the keypoints that the part names for it and around its foreground, within the photo."""
        corners = _places(self.extent, (*self.part.box, *self.part.foreground))
        margin = max(1.0, self.part.margin * _torso_length(self.visible))
        low, high = corners.min(0) - margin, corners.max(0) + margin
        return np.asarray(np.clip(np.concatenate([low, high]), 0, np.tile(original_hw[::-1], 2)))


def _request(objects: Sequence[_PartPrompt], original_hw: tuple[int, int], notes: Sequence[str]) -> Request:
    """Boxes are for all objects or for none: where one part has no box, points alone say what is meant."""
    points, labels = padded_points([one.points() for one in objects])
    boxes = None
    if all(one.part.box for one in objects):
        boxes = np.array([one.box(original_hw) for one in objects], np.float32).reshape(-1, 4)
    return Request(boxes, points, labels, tags=[one.tag for one in objects], notes=notes)


def _fitted(keypoints: Mapping[str, Keypoint], fit: SizeFit) -> dict[str, Keypoint]:
    places = fit.points(_places(keypoints, tuple(keypoints)))
    return {name: replace(point, x=x, y=y) for (name, point), (x, y) in zip(keypoints.items(), places.tolist())}


def _crown(points: Mapping[str, Keypoint]) -> dict[str, Keypoint]:
    """The top of the head, which no skeleton has: beyond the ears, or the nose, as they are seen from the neck."""
    face = [points[name] for name in EARS if name in points] or [points[name] for name in ("nose",) if name in points]
    if "neck" not in points or not face:
        return {}
    neck, middle = points["neck"], middle_of(face)
    x, y = (end + _CROWN * (end - start) for start, end in ((neck.x, middle.x), (neck.y, middle.y)))
    return {CROWN: Keypoint(x, y, middle.confidence)}


def _torso_length(points: Mapping[str, Keypoint]) -> float:
    """From the shoulders to the hips in pixels; where they are not seen, guessed from what is."""
    shoulders, hips, ears = (_places(points, names) for names in (SHOULDERS, HIPS, EARS))
    guesses = []
    if len(shoulders) and len(hips):
        guesses.append(_distance(shoulders.mean(0), hips.mean(0)))
    if len(shoulders) == 2:  # turned aside they lie close together, which the length from above corrects
        guesses.append(_SHOULDERS_TO_TORSO * _distance(*shoulders))
    elif len(ears) == 2 and not guesses:
        guesses.append(_EARS_TO_TORSO * _distance(*ears))
    every = _places(points, tuple(points))
    return max(guesses, default=float(np.ptp(every, axis=0).max() / 2))


def _places(points: Mapping[str, Keypoint], names: Sequence[str]) -> NDArray[np.float64]:
    return np.array([(points[name].x, points[name].y) for name in names if name in points]).reshape(-1, 2)


def _distance(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    return float(np.hypot(*(one - other)))

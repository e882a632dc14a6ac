"""What one run is to do: which photos, and where the prompts of each come from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from nanosam_cli.core.errors import NanosamError, UsageError
from nanosam_cli.core.media.find_photos import STDIN
from nanosam_cli.core.media.image import image_hw
from nanosam_cli.core.prompting.by_photo import ByPhoto
from nanosam_cli.core.prompting.detection_files import read_detections
from nanosam_cli.core.prompting.detections import BoxFilter, PhotoDetections, known_classes
from nanosam_cli.core.prompting.labels import check_class_name, classes_of, labelled, numbered
from nanosam_cli.core.prompting.options import GRID, PromptOptions, pose_choice
from nanosam_cli.core.prompting.pose import AUTO, PosePrompt, SeenPeople
from nanosam_cli.core.prompting.pose_files import read_poses
from nanosam_cli.core.prompting.prompt_files import read_prompts
from nanosam_cli.core.prompting.request import PromptSource, Request, make_request
from nanosam_cli.core.prompting.text_prompt import DEFAULT_DETECTOR, TextPrompt
from nanosam_cli.core.segmentation.everything import Everything

T = TypeVar("T")


@dataclass
class Job:
    """Photos with what to segment in each, in the photos' order, and what cannot be done.

    Models that find the prompts are loaded at the start of its `with` block and closed at the end.
    """

    sources: Mapping[Path, PromptSource]
    unasked: Sequence[Path] = ()  # photos that the prompt file does not name
    missing: Sequence[str] = ()  # names in a file of prompts that no photo has: asked for and not done
    unmatched: Sequence[str] = ()  # the same in another tool's file, which may be of a whole data set
    image_ids: Mapping[Path, int] = field(default_factory=dict)  # the numbers that the file of prompts has for photos
    notes: Sequence[str] = ()  # what cannot be used of the file of prompts, or is doubtful, of no photo in particular
    classes: Mapping[int, str] = field(default_factory=dict)  # names of the category ids that objects may have
    classes_counted: bool = False  # whether their ids are ours, because what gave the prompts has names alone
    everything: Everything | None = None
    model: TextPrompt | SeenPeople | None = None
    _opened: ExitStack = field(default_factory=ExitStack)

    @property
    def about(self) -> str:
        """The loaded model and its licence, where it came from elsewhere."""
        return self.model.about if isinstance(self.model, TextPrompt) else ""

    def settings(self) -> dict[str, Any]:
        """What decides the prompts beside what was asked, for the record of a long run."""
        return self.model.settings() if isinstance(self.model, TextPrompt) else {}

    def __enter__(self) -> Job:
        if self.model is not None:
            self._opened.enter_context(self.model)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._opened.close()


def make_job(photos: Sequence[Path], asked: PromptOptions) -> Job:
    """Decide where the prompts of each photo come from; files of prompts are matched by photo name.

    Raises:
        UsageError: nothing is asked, two places of prompts are given, or options do not go together.
        InputError: a file cannot be used, or names none of the photos.
    """
    place = asked.place()
    if place == "--prompts":
        return _from_prompts(photos, asked)
    if place == "--detections":
        return _from_detections(photos, asked)
    if place == "--text":
        return _from_text(photos, asked)
    if place == "--pose":
        return _from_pose(photos, asked)
    if place == "--everything":
        return Job(dict.fromkeys(photos, Request()), everything=_everything(asked))  # which asks for nothing by itself
    request = make_request(asked.boxes, asked.points, each_point=asked.each_point, masks=asked.mask)
    if request.masks is not None and len(photos) > 1:
        raise UsageError(f"--mask goes with one photo, not with {len(photos)}", "run the photos one by one")
    if asked.labels:
        request = numbered({"": labelled(request, asked.labels)})[""]
    notes = [] if (note := size_note(photos)) is None else [note]
    return Job(dict.fromkeys(photos, request), notes=notes, classes=classes_of([request]), classes_counted=True)


def size_note(photos: Sequence[Path]) -> str | None:
    """Says that what was drawn once is not the same place in all photos, by their headers; None where it is.

    Photos that cannot be read are left to the run, which names each of them.
    """
    first: tuple[Path, tuple[int, int]] | None = None
    for photo in photos if len(photos) > 1 else ():
        if photo == STDIN:
            continue
        try:
            hw = image_hw(photo)
        except NanosamError:
            continue
        first = first or (photo, hw)
        if hw != first[1]:
            sizes = [f"{name} is {width}x{height}" for name, (height, width) in (first, (photo, hw))]
            return (
                f"the prompt is in pixels, and the photos are of several sizes: {', '.join(sizes)}; "
                "--prompts FILE gives each photo its own"
            )
    return None


def _from_prompts(photos: Sequence[Path], asked: PromptOptions) -> Job:
    assert asked.prompts is not None
    file = ByPhoto(asked.prompts, {name: [request] for name, request in read_prompts(asked.prompts).items()})
    keys = file.match(photos)
    sources = {photo: file.photos[key][0] for photo, key in keys.items()}
    return Job(
        sources,
        [photo for photo in photos if photo not in keys],
        file.unmatched(keys),
        classes=classes_of(request for (request,) in file.photos.values()),
        classes_counted=True,
    )


def _from_detections(photos: Sequence[Path], asked: PromptOptions) -> Job:
    assert asked.detections is not None
    file = read_detections(asked.detections, asked.class_names)
    choice = BoxFilter(asked.min_score, known_classes(asked.classes, file.classes), asked.nms, asked.top_k)
    keys = file.match(photos)
    sources = {
        photo: PhotoDetections(
            file.photos[key], choice, [file.skipped[key]] if key in file.skipped else [], file.declared(photo, key)
        )
        for photo, key in keys.items()
    }
    return _job(file, photos, keys, sources, file.classes, file.classes_counted)


def _from_text(photos: Sequence[Path], asked: PromptOptions) -> Job:
    if not all(phrase.strip() for phrase in asked.text):
        raise UsageError("a phrase is empty", '--text "a tree"')
    phrases = list(dict.fromkeys(map(check_class_name, asked.text)))  # they are the classes of what is found
    choice = BoxFilter(asked.min_score, nms=asked.nms, top_k=asked.top_k)
    source = TextPrompt(phrases, asked.text_model or DEFAULT_DETECTOR, choice)
    classes = dict(enumerate(phrases, 1))
    return Job(dict.fromkeys(photos, source), classes=classes, classes_counted=True, model=source)


def _from_pose(photos: Sequence[Path], asked: PromptOptions) -> Job:
    choice = pose_choice(asked)
    classes = {number: part.name for number, part in enumerate(choice.parts, 1)}
    if asked.pose == AUTO:
        source = SeenPeople(choice)
        return Job(dict.fromkeys(photos, source), classes=classes, classes_counted=True, model=source)
    file = read_poses(Path(str(asked.pose)))
    keys = file.match(photos)
    sources = {photo: PosePrompt(file.photos[key], choice, file.declared(photo, key)) for photo, key in keys.items()}
    return _job(file, photos, keys, sources, classes, classes_counted=True)


def _everything(asked: PromptOptions) -> Everything:
    given = {name: getattr(asked, name) for name in GRID if getattr(asked, name) is not None}
    if asked.nms is not None:
        given["max_overlap"] = asked.nms
    return Everything(**given)


def _job(
    file: ByPhoto[T],
    photos: Sequence[Path],
    keys: Mapping[Path, str],
    sources: Mapping[Path, PromptSource],
    classes: Mapping[int, str],
    classes_counted: bool,
) -> Job:
    unasked = [photo for photo in photos if photo not in keys]
    image_ids = {photo: file.image_ids[key] for photo, key in keys.items() if key in file.image_ids}
    return Job(
        sources,
        unasked,
        unmatched=file.unmatched(keys),
        image_ids=image_ids,
        notes=file.notes,
        classes=classes,
        classes_counted=classes_counted,
    )

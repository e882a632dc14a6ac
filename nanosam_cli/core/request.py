"""What is asked of one run: which photos, and what to segment in each, from options, prompt files and mask files."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from nanosam_cli.core.errors import InputError, UsageError
from nanosam_cli.core.frame import Frame
from nanosam_cli.core.image import list_images
from nanosam_cli.core.prompts import mask_to_logits
from nanosam_cli.core.render import separate_masks
from nanosam_cli.core.types import BACKGROUND, FOREGROUND, PADDING, Prompt

Box = Sequence[float]  # x0 y0 x1 y1, original pixels
Point = Sequence[float]  # x y label, original pixels

PLACES = "--box, --point, --mask, --prompts, --detections, --text, --pose or --everything"
STDIN = Path("-")  # stands for a photo that comes through a pipe

_OUTPUT = re.compile(r"_(mask|overlay|cutout)(_\d+(-\d+)?)?$")  # how `outputs` names pictures
_LARGEST = float(np.finfo(np.float32).max)
_EXAMPLE = "nanosam segment photo.jpg --box 10,20,300,400"
_LAYOUT = '{"photo.jpg": {"boxes": [[x0, y0, x1, y1], ...], "points": [[x, y, label], ...]}}'


@dataclass(frozen=True)
class Tag:
    """What the model that gave a prompt says of its object."""

    name: str | None = None  # a class, a phrase, or a part of a person
    category_id: int = 1  # the number that COCO files and YOLO's have for it
    score: float | None = None  # how sure that model was, from 0 to 1


@dataclass(frozen=True, eq=False)
class Request:
    """What to segment in one photo, before its geometry is known. Boxes, points and masks count the same P objects."""

    boxes: NDArray[np.float32] | None = None  # (P, 4) x0 y0 x1 y1, original pixels
    points: NDArray[np.float32] | None = None  # (P, N, 2) x y, original pixels
    labels: NDArray[np.float32] | None = None  # (P, N) 1 foreground, 0 background, -1 padding
    masks: NDArray[np.bool_] | None = None  # (P, H, W), the photo's size
    tags: Sequence[Tag] = ()  # one an object, or none at all
    notes: Sequence[str] = ()  # what was asked for and is not in it, for people and for the results' files

    def tag(self, prompt: int) -> Tag:
        """What is known of an object beside its place."""
        return self.tags[prompt] if self.tags else Tag()

    def request_for(self, image: NDArray[np.uint8]) -> Request:
        """Itself: a `Source` that needs no look at the photo."""
        return self

    def prompt(self, frame: Frame) -> Prompt:
        """The prompt for a photo. UsageError where nothing was asked; InputError where a mask has another size."""
        logits = None if self.masks is None else np.stack([mask_to_logits(mask, frame) for mask in self.masks])
        return Prompt(self.boxes, self.points, self.labels, logits)


class Source(Protocol):
    """What to segment in a photo, which may depend on what is seen in it."""

    def request_for(self, image: NDArray[np.uint8]) -> Request:
        """The request for a photo (H, W, 3) uint8 RGB."""
        ...


def make_request(
    boxes: Sequence[Box], points: Sequence[Point], *, each_point: bool = False, masks: Path | None = None
) -> Request:
    """The request of one command line.

    Every box is an object, and every value of the mask file. Points describe one object, with the box or the mask if
    there is one; with `each_point` every foreground point is an object, and background points belong to all of them.

    Raises:
        UsageError: nothing is asked, or it is not clear which object a point belongs to.
        InputError: the mask file cannot be read.
    """
    objects = None if masks is None else read_masks(masks)
    if not boxes and not points and objects is None:
        raise UsageError(f"no prompt: say what to segment with {PLACES}", _EXAMPLE)
    if each_point and (boxes or objects is not None):
        raise UsageError("--each-point makes every point an object of its own, so it takes no --box and no --mask")
    count = len(boxes) or (1 if objects is None else len(objects))
    if points and count > 1:
        raise UsageError(
            f"it is not clear which of the {count} objects the points belong to",
            "give one box with its points, or use --prompts FILE.json, where each box can have its own points",
        )
    if objects is not None and boxes and len(boxes) != len(objects):
        raise UsageError(f"{masks} holds {len(objects)} objects, but there are {len(boxes)} boxes", "give one box each")
    request = _request(boxes, _each(points) if each_point else [points] if points else [])
    return replace(request, masks=objects)


def read_prompts(path: Path) -> dict[str, Request]:
    """Requests by photo name from a JSON file such as `{"photo.jpg": {"boxes": [[x0, y0, x1, y1]], "points": ...}}`.

    `points` is `[[x, y, label], ...]` for one object (the label may be left out), or a list of such lists: one for each
    box, or without boxes one for each object.

    Raises:
        InputError: the file cannot be read or is laid out in another way; the message names the photo.
    """
    content = read_entries(path, "photos", _LAYOUT)
    return {name: parse_request(entry, f"{path}, {name}") for name, entry in content.items()}


def read_entries(path: Path, what: str, layout: str) -> dict[str, Any]:
    """A JSON file with an entry for each of `what`, laid out as in `layout`; InputError where it is not."""
    try:
        content = json.loads(path.read_bytes(), object_pairs_hook=_unique)
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}", "check the path") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is not JSON: {error}", f"expected {layout}") from error
    if not isinstance(content, dict) or not content:
        raise InputError(f"{path} names no {what}", f"expected {layout}")
    return content


def _unique(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object; ValueError where a name is in it twice, of which JSON would keep the last."""
    for name, count in Counter(name for name, _ in pairs).items():
        if count > 1:
            raise ValueError(f'"{name}" stands in it {count} times')
    return dict(pairs)


def parse_request(entry: Any, where: str) -> Request:
    """One entry of a prompt file. InputError, which says `where`, if it is laid out in another way."""
    if not isinstance(entry, dict) or not entry or not entry.keys() <= {"boxes", "points"}:
        raise InputError(f"{where}: expected boxes or points", f"the layout is {_LAYOUT}")
    boxes, points = (_list(entry.get(key, []), f"{where}: {key}") for key in ("boxes", "points"))
    nested = bool(points) and all(
        isinstance(point, list) and all(isinstance(p, list) for p in point) for point in points
    )
    groups = [[_row(p, (2, 3), where) for p in group] for group in (points if nested else [points] if points else [])]
    rows = [_row(box, (4,), where) for box in boxes]
    if not rows and not any(groups):
        raise InputError(f"{where}: no box and no point", f"the layout is {_LAYOUT}")
    if rows and groups and len(rows) != len(groups):
        raise InputError(
            f"{where}: {len(rows)} boxes, but points for {len(groups)}",
            "give a list of points for each box, [] for none",
        )
    return _request(rows, groups)


def _list(value: Any, where: str) -> list[Any]:
    if not isinstance(value, list):
        raise InputError(f"{where} must be a list", f"the layout is {_LAYOUT}")
    return value


def _row(value: Any, lengths: tuple[int, ...], where: str) -> list[float]:
    numbers = isinstance(value, list) and all(isinstance(v, (int, float)) and not isinstance(v, bool) for v in value)
    if not numbers or len(value) not in lengths or not all(abs(v) <= _LARGEST for v in value):  # NaN neither
        wanted = "x0, y0, x1, y1" if lengths == (4,) else "x, y or x, y, label"
        raise InputError(f"{where}: {json.dumps(value)} is not [{wanted}]", f"the layout is {_LAYOUT}")
    return [float(v) for v in value]


@np.errstate(over="ignore")  # a number beyond float32 becomes infinite, and is refused as that
def _request(boxes: Sequence[Box], groups: Sequence[Sequence[Point]]) -> Request:
    """Boxes and, for each object, its points."""
    corners = np.array(boxes, np.float32) if boxes else None
    return Request(corners, *padded_points(groups)) if any(groups) else Request(corners)


def padded_points(groups: Sequence[Sequence[Point]]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The points (P, N, 2) x y and labels (P, N) of P objects, lists that are shorter filled up with padding.

    A point without a label is on its object.
    """
    longest = max(map(len, groups), default=0)
    points = np.zeros((len(groups), longest, 2), np.float32)
    labels = np.full((len(groups), longest), PADDING, np.float32)
    for row, group in enumerate(groups):
        for column, point in enumerate(group):
            points[row, column] = point[:2]
            labels[row, column] = point[2] if len(point) > 2 else FOREGROUND
    return points, labels


def _each(points: Sequence[Point]) -> list[list[Point]]:
    background = [point for point in points if point[2] == BACKGROUND]
    objects = [[point, *background] for point in points if point[2] != BACKGROUND]
    if not objects:
        raise UsageError("every point is background, so there is no object", "give a point with label 1: --point x,y")
    return objects


def read_masks(path: Path) -> NDArray[np.bool_]:
    """(P, H, W) masks of a PNG: every value but 0 of an indexed or greyscale image is an object, in ascending order.

    A binary mask (0 and 255) is one object. InputError where the file cannot be read, has colours, or is all 0.
    """
    try:
        with Image.open(path, formats=["PNG"]) as image:
            if image.mode not in ("1", "L", "P", "I", "I;16"):
                raise InputError(f"{path} is a colour picture, not a mask", "save it as an indexed or greyscale PNG")
            labels = np.asarray(image).astype(np.int32)
    except FileNotFoundError as error:
        raise InputError(f"no such file: {path}", "check the path") from error
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise InputError(f"{path} is not a PNG that can be read: {error}", "give a PNG mask") from error
    masks = list(separate_masks(labels).values())
    if not masks:
        raise InputError(f"{path} is all 0, so it marks no object")
    return np.stack(masks)


def find_photos(arguments: Sequence[str]) -> list[Path]:
    """The photos of files, directories and patterns, each once; `-` is STDIN.

    Results of an earlier run that lie beside their photo are left out of directories and patterns.
    """
    photos: dict[Path, None] = {}
    for argument in arguments:
        found = [STDIN] if argument == str(STDIN) else list_images(argument)
        photos_of = {known for path in found for known in (path.stem, path.name)}
        endings = {path: _OUTPUT.search(path.stem) for path in found if len(found) > 1}
        outputs = {path for path, ending in endings.items() if ending and path.stem[: ending.start()] in photos_of}
        photos.update(dict.fromkeys(path for path in found if path not in outputs))
    return list(photos)


def some(names: Sequence[object], limit: int = 5) -> str:
    """A list for a message, cut short."""
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(str(name) for name in names[:limit]) + more

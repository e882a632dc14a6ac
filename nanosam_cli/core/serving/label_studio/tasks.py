"""What Label Studio sends and gets: labelling configurations, photos of tasks, smart regions and brush regions."""

from __future__ import annotations

import base64
import binascii
import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit
from xml.etree import ElementTree

from pydantic import BaseModel, ConfigDict, Field

from nanosam_cli.core.errors import InputError, UsageError
from nanosam_cli.core.media.brush_code import mask_to_brush
from nanosam_cli.core.serving.answers import NotFoundError
from nanosam_cli.core.serving.limits import MOST_POINTS
from nanosam_cli.core.serving.photos import OpenedPhotos
from nanosam_cli.core.serving.service import ObjectPrompt
from nanosam_cli.core.types import Segmentation

_EXAMPLE = 'such as <Image name="image" value="$image"/> <BrushLabels name="brush" toName="image"> ... </BrushLabels>'
_INSIDE = "open the folder that Label Studio has its photos in: `nanosam serve FOLDER`"


class LabelStudioBody(BaseModel):
    """Part of what Label Studio sends; the rest of it is of no use here."""

    model_config = ConfigDict(extra="ignore", allow_inf_nan=False)


class SmartRegion(LabelStudioBody):
    """A region that was drawn with a smart tool, as the editor serialises it."""

    type: str
    to_name: str
    original_width: int
    original_height: int
    image_rotation: float = 0
    item_index: int = 0
    is_positive: bool = True
    value: dict[str, Any]

    def numbers(self, *names: str) -> list[float]:
        """Some of its numbers, per cent of the photo's sides. UsageError where one is none."""
        found = [self.value.get(name) for name in names]
        if any(isinstance(one, bool) or not isinstance(one, (int, float)) for one in found):
            raise UsageError(f"a region of type {self.type!r} lacks numbers: {', '.join(names)}")
        return [float(one) for one in found if one is not None]

    @property
    def label(self) -> str | None:
        """The class that was chosen for it."""
        names = self.value.get(self.type) or self.value.get("labels")
        return str(names[0]) if isinstance(names, list) and names else None


class Context(LabelStudioBody):
    result: list[SmartRegion] = Field(default=[], max_length=MOST_POINTS)


class Parameters(LabelStudioBody):
    context: Context | None = None


class Task(LabelStudioBody):
    data: dict[str, Any]


class PredictBody(LabelStudioBody):
    """POST /predict, as Label Studio's `MLApi.make_predictions` sends it."""

    tasks: list[Task]
    label_config: str = Field(max_length=2**20)
    params: Parameters = Parameters()


class SetupBody(LabelStudioBody):
    """POST /setup. Its `hostname` and `access_token` would let this server ask Label Studio; it asks nobody."""

    label_config: str = Field(alias="schema", max_length=2**20)


@dataclass(frozen=True)
class BrushControl:
    """Where masks go in a labelling configuration."""

    from_name: str  # of <BrushLabels>
    to_name: str  # of its <Image>
    data_key: str  # under which a task has the photo
    labels: Sequence[str]  # empty where the task brings them

    def label_of(self, regions: Sequence[SmartRegion]) -> str:
        """The class of an object. UsageError where the brush has none of that name."""
        label = next((one.label for one in reversed(regions) if one.label), None)
        if label is None:
            raise UsageError("no label is chosen for the smart region", "choose one before drawing")
        if self.labels and label not in self.labels:
            raise UsageError(
                f"<BrushLabels name={self.from_name!r}> has no label {label!r}",
                "give the smart tool and the brush the same labels",
            )
        return label


def find_brush(config: str, to_name: str | None = None) -> BrushControl:
    """The first <BrushLabels> of a labelling configuration that is for an <Image>, for that of a name where given.

    InputError where it is no such configuration, or has none.
    """
    if "<!DOCTYPE" in config:  # the only place for entities, which can unfold to any size
        raise InputError("a labelling configuration has no document type")
    try:
        tags = list(ElementTree.fromstring(config).iter())
    except (ElementTree.ParseError, ValueError) as error:  # ValueError: half a character
        raise InputError(f"the labelling configuration is not XML: {error}") from error
    images = {tag.get("name", ""): tag.get("value", "") for tag in tags if tag.tag.lower() == "image"}
    for tag in tags:
        target = tag.get("toName", "")
        if tag.tag.lower() == "brushlabels" and target in images and to_name in (None, target):
            labels = [one.get("value", "") for one in tag.iter() if one.tag.lower() == "label"]
            return BrushControl(tag.get("name", ""), target, images[target].removeprefix("$"), labels)
    wanted = "an <Image>" if to_name is None else f"the <Image name={to_name!r}>"
    raise InputError(f"the labelling configuration has no <BrushLabels> for {wanted}, where masks could go", _EXAMPLE)


def task_photo(value: object, photos: OpenedPhotos) -> bytes | Path:
    """The photo of a task: below the opened folder, or carried by the task itself as a `data:` address.

    Local files and uploads of Label Studio are known by the ends of their paths: `/data/local-files/?d=set/a.jpg` is
    a.jpg in an opened folder `set`, or set/a.jpg in any. NotFoundError, InputError where it is none of these: nothing
    is ever fetched.
    """
    if not isinstance(value, str):
        raise InputError("the task has no address of a photo under the name that <Image> gives")
    if value.startswith("data:"):
        return _carried(value)
    for name in _names(_path_of(value), photos.root):
        try:
            return photos.find(name)
        except NotFoundError as error:
            fault = error
    raise NotFoundError(f"{value[:200]!r} is not in the opened folder: {fault}", _INSIDE)


def _carried(value: str) -> bytes:
    head, _, data = value.partition(",")
    if not head.endswith(";base64"):
        raise InputError("a photo in a data: address must be in base64")
    try:
        return base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError) as error:
        raise InputError(f"the photo in the data: address is not base64: {error}") from error


def _path_of(value: str) -> str:
    """The path that an address means, whoever serves it."""
    try:
        parts = urlsplit(value)
    except ValueError as error:
        raise InputError(f"{value[:200]!r} is no address of a photo: {error}") from error
    if parts.path == "/data/local-files/":
        return parse_qs(parts.query).get("d", [""])[-1]
    if parts.path.startswith("/data/upload/"):
        return unquote(parts.path.removeprefix("/data/"))
    if parts.scheme:
        raise InputError(f"{value[:200]!r} is elsewhere, and this server fetches nothing", _INSIDE)
    return value


def _names(path: str, root: Path) -> Iterator[str]:
    """What a path may be called below a root: itself, and without first folders that are the root's last ones."""
    below = PurePosixPath(path)
    if below.is_relative_to(root.as_posix()):
        below = below.relative_to(root.as_posix())
    yield str(below)
    for count in range(1, len(below.parts)):
        if below.parts[:count] == root.parts[-count:]:
            yield str(PurePosixPath(*below.parts[count:]))


def smart_prompt(regions: Sequence[SmartRegion], original_hw: tuple[int, int]) -> ObjectPrompt:
    """Smart keypoints and rectangles of one object -> its clicks, and its last rectangle as its box.

    UsageError where they are of another kind, or of another picture than the photo of this size.
    """
    height, width = original_hw
    box: tuple[float, float, float, float] | None = None
    points: list[tuple[float, float, int]] = []
    for one in regions:
        _check(one, original_hw)
        if one.type.startswith("keypoint"):
            x, y = one.numbers("x", "y")
            points.append((_within(x, width), _within(y, height), int(one.is_positive)))
        elif one.type.startswith("rectangle"):
            x, y, across, down = one.numbers("x", "y", "width", "height")
            box = x / 100 * width, y / 100 * height, (x + across) / 100 * width, (y + down) / 100 * height
        else:
            raise UsageError(f"smart regions of type {one.type!r} are not understood", "use keypoints and rectangles")
    return ObjectPrompt(box, points)


def _within(share: float, length: int) -> float:
    """Per cent of a side -> pixels, moved into the photo: the editor lets keypoints lie on its border."""
    return min(max(share / 100 * length, 0.0), length - 0.5)


def _check(one: SmartRegion, original_hw: tuple[int, int]) -> None:
    height, width = original_hw
    if (one.original_height, one.original_width) != (height, width):
        shown = f"{one.original_width}x{one.original_height}"
        raise UsageError(f"Label Studio shows the photo with {shown} pixels, and it has {width}x{height}")
    if one.image_rotation or one.value.get("rotation"):
        raise UsageError("a photo or a rectangle that was turned is not understood", "turn it back")
    if one.item_index:
        raise UsageError("a task of several photos is not understood", "give each photo a task of its own")


def brush_region(one: Segmentation, control: BrushControl, label: str) -> dict[str, Any]:
    """A mask as a region of Label Studio's results."""
    height, width = one.mask.shape
    return {
        "id": secrets.token_hex(5),
        "from_name": control.from_name,
        "to_name": control.to_name,
        "type": "brushlabels",
        "origin": "prediction",
        "readonly": False,
        "score": one.predicted_iou,
        "original_width": width,
        "original_height": height,
        "image_rotation": 0,
        "value": {"format": "rle", "rle": mask_to_brush(one.mask), "brushlabels": [label]},
    }

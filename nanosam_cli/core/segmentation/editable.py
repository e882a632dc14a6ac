"""One object of a file of results: its mask, and the same file with another mask in its place.

Every entry but that object's is written as it was read: in a label PNG the pixels, in JSON the values, in YOLO's file
the lines. What is said of the object (class, score, ids) stays; what is said of its mask is new.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from struct import error as StructError
from typing import Any

import numpy as np
from PIL import Image

from nanosam_cli.core.datasets.coco import annotation_rle
from nanosam_cli.core.datasets.coco_layout import ListedAnnotation, ListedImage, read_layout
from nanosam_cli.core.errors import InputError, UsageError, fault
from nanosam_cli.core.masks import Mask
from nanosam_cli.core.media.image import png_bytes
from nanosam_cli.core.media.mask_codes import join_rings, mask_to_polygons, mask_to_rle, rle_to_mask
from nanosam_cli.core.media.render import filled_corners
from nanosam_cli.core.messages import some
from nanosam_cli.core.prompting.by_photo import ByPhoto, photo_keys
from nanosam_cli.core.prompting.coco_detections import photo_of
from nanosam_cli.core.segmentation.formats import PNG_KEY
from nanosam_cli.core.system.documents import parse_json
from nanosam_cli.core.system.files import read_input, read_input_text
from nanosam_cli.core.types import Segmentation

Content = dict[str, Any]

_FAULTS = (AttributeError, KeyError, TypeError, ValueError, OverflowError, IndexError)  # of a file's layout
_KINDS = "label PNGs, YOLO's rows and the JSON of rle, polygon, coco, coco-dataset and labelme can be corrected"


@dataclass(frozen=True)
class EditableObject:
    """What is to be corrected."""

    number: int  # as the file counts its objects
    mask: Mask
    with_mask: Callable[[Segmentation], bytes]  # the whole file with another mask for it
    free: Mask | None = None  # the pixels that it may have; None: all of them


@dataclass(frozen=True)
class ResultPlace:
    """Where to look for an object."""

    path: Path
    photo: Path
    original_hw: tuple[int, int]
    number: int | None = None  # None: the only one
    simplify: float = 0.0  # pixels, of new outlines; see `mask_to_polygons`

    def choose(self, numbers: Sequence[int]) -> int:
        """The place of the object among those of the file. UsageError or InputError where it is not clear, or none."""
        if not numbers:
            raise InputError(f"{self.path} has no object of {self.photo}", _KINDS)
        if self.number is None and len(numbers) > 1:
            raise UsageError(f"{self.path} has {len(numbers)} objects: {some(numbers, 10)}", "say which: --object K")
        if self.number is not None and self.number not in numbers:
            raise InputError(f"{self.path} has no object {self.number}; it has {some(numbers, 10)}")
        return 0 if self.number is None else list(numbers).index(self.number)


def open_object(place: ResultPlace) -> EditableObject:
    """Find the object in a file of any kind.

    Raises:
        InputError: the file cannot be read, is of a kind that cannot be corrected, or has no such object of the photo.
        UsageError: it has several, and no number was given.
    """
    suffix = place.path.suffix.lower()
    if suffix == ".png":
        return _of_labels(place)
    if suffix not in (".txt", ".json"):
        raise InputError(f"{place.path} is no file of results that can be corrected", _KINDS)
    try:
        found = _of_rows(place) if suffix == ".txt" else _of_json(place)
    except _FAULTS as error:
        raise InputError(f"{place.path} cannot be corrected: {fault(error)}", _KINDS) from error
    if found.mask.shape != place.original_hw:
        height, width = found.mask.shape
        raise InputError(
            f"{place.path} has masks of {width}x{height} pixels, {place.photo} is "
            f"{place.original_hw[1]}x{place.original_hw[0]}",
            "give the photo that they are of",
        )
    return found


def _of_labels(place: ResultPlace) -> EditableObject:
    """A label PNG: object k has the value k."""
    try:
        with Image.open(place.path, formats=["PNG"]) as image:
            image.load()
            mode, colours = image.mode, image.getpalette()
            texts = {key: str(text) for key, text in getattr(image, "text", {}).items()}
            labels = np.array(image)
    except FileNotFoundError as error:
        raise InputError(f"no such file: {place.path}", "check the path") from error
    except (OSError, SyntaxError, *_FAULTS, StructError, Image.DecompressionBombError) as error:
        raise InputError(f"{place.path} is not a PNG that can be read: {error}", _KINDS) from error
    if mode not in ("P", "L", "I;16") or labels.shape != place.original_hw:
        what = f"is {labels.shape[1]}x{labels.shape[0]} pixels" if mode in ("P", "L", "I;16") else "is no label PNG"
        raise InputError(f"{place.path} {what}, which does not fit {place.photo}", _KINDS)
    numbers = [int(value) for value in np.unique(labels) if value]
    number = numbers[place.choose(numbers)]
    own = labels == number
    palette = None if colours is None else np.reshape(colours, (-1, 3)).astype(np.uint8)

    def with_mask(one: Segmentation) -> bytes:
        changed = np.where(own, labels.dtype.type(0), labels)
        changed[one.mask] = number
        return png_bytes(changed, palette, {**texts, **_measured_text(texts, number, one)})

    return EditableObject(number, own, with_mask, own | (labels == 0))


def _measured_text(texts: Mapping[str, str], number: int, one: Segmentation) -> dict[str, str]:
    """What a PNG of ours says of its objects, with the new mask's figures."""
    try:
        objects = parse_json(texts[PNG_KEY])
        return {PNG_KEY: json.dumps([{**o, **_figures(one)} if o["label"] == number else o for o in objects])}
    except _FAULTS:  # another tool's
        return {}


def _figures(one: Segmentation) -> Content:
    box = None if one.bbox is None else list(one.bbox)
    return {"bbox": box, "area": one.area, "predicted_iou": one.predicted_iou, "index": one.index}


def _of_rows(place: ResultPlace) -> EditableObject:
    """YOLO's rows: object k is the k-th of them."""
    text = read_input_text(place.path)
    lines = text.splitlines(keepends=True)
    rows = [number for number, line in enumerate(lines) if line.strip()]
    chosen = place.choose(range(1, len(rows) + 1))
    row = rows[chosen]
    category, *words = lines[row].split()
    if len(words) < 6 or len(words) % 2:
        raise InputError(
            f"{place.path}, line {row + 1}: no outline that can be corrected", "a row is `class x y x y ...`"
        )
    size = np.array(place.original_hw[::-1])
    mask = filled_corners([np.reshape([float(word) for word in words], (-1, 2)) * size], place.original_hw)

    def with_mask(one: Segmentation) -> bytes:
        outline = join_rings(mask_to_polygons(one.mask, place.simplify, inclusive=True))
        sides = (np.reshape(outline, (-1, 2)) / size).ravel()
        end = lines[row][len(lines[row].rstrip()) :]
        changed = " ".join([category, *(f"{side:.6f}" for side in sides)]) + end
        return "".join([*lines[:row], changed, *lines[row + 1 :]]).encode()

    return EditableObject(chosen + 1, mask, with_mask)


def _of_json(place: ResultPlace) -> EditableObject:
    text = read_input(place.path)
    try:
        content = parse_json(text)
    except ValueError as error:
        raise InputError(f"{place.path} is not JSON: {error}", _KINDS) from error

    def written() -> bytes:
        indent = 2 if text.strip().count(b"\n") else None  # as labelme and people have it, or in one line
        try:
            return (json.dumps(content, indent=indent, ensure_ascii=text.isascii()) + "\n").encode()
        except UnicodeEncodeError:  # half a character, which only an escape can hold
            return (json.dumps(content, indent=indent) + "\n").encode()

    if isinstance(content, list):
        return _of_results(place, content, written)
    if "shapes" in content:
        return _of_shapes(place, content, written)
    if "annotations" in content:
        return _of_data_set(place, content, written)
    if "objects" in content:
        return _of_objects(place, content, written)
    raise InputError(f"{place.path} is no file of results that can be corrected", _KINDS)


def _of_objects(place: ResultPlace, content: Content, written: Callable[[], bytes]) -> EditableObject:
    """Our own rle and polygon files: object k has the label k."""
    entries = content["objects"]
    entry = entries[place.choose([one["label"] for one in entries])]
    mask = _mask_of(place, entry)

    def with_mask(one: Segmentation) -> bytes:
        entry.update(_figures(one), segmentation=_as_before(entry, one.mask, place.simplify))
        return written()

    return EditableObject(entry["label"], mask, with_mask)


def _of_results(place: ResultPlace, rows: Sequence[Content], written: Callable[[], bytes]) -> EditableObject:
    """COCO results: object k is the k-th row of the photo."""
    names = [photo_of(row)[0] for row in rows]
    keys = photo_keys(names)
    photos = {key: [row for name, row in zip(names, rows) if keys[name] == key] for key in keys.values()}
    file = ByPhoto(place.path, photos, names={key: name for name, key in keys.items()})
    own = file.photos[file.match([place.photo])[place.photo]]
    chosen = place.choose(range(1, len(own) + 1))
    entry = dict(own[chosen])
    mask = _mask_of(place, entry)

    def with_mask(one: Segmentation) -> bytes:
        row = own[chosen]
        row.update(_box_and_area(row, one), segmentation=_as_before(row, one.mask, place.simplify))
        row.pop("note", None)  # which said that it was empty
        return written()

    return EditableObject(chosen + 1, mask, with_mask)


def _of_data_set(place: ResultPlace, content: Content, written: Callable[[], bytes]) -> EditableObject:
    """A COCO data set: object k is the k-th annotation of the photo."""
    layout = read_layout(place.path, content)
    keys = photo_keys(image.name for image in layout.images.values())
    photos: dict[str, list[ListedAnnotation]] = {key: [] for key in keys.values()}
    for annotation in layout.annotations:
        photos[keys[annotation.image.name]].append(annotation)
    file = ByPhoto(place.path, photos, names={key: name for name, key in keys.items()})
    own = file.photos[file.match([place.photo])[place.photo]]
    chosen = place.choose(range(1, len(own) + 1))
    entry = own[chosen].content
    if (size := own[chosen].image.size) not in (None, place.original_hw):
        raise InputError(f"{place.path} has {place.photo} with {size[1]}x{size[0]} pixels", "give that photo")
    mask = _mask_of(place, entry)

    def with_mask(one: Segmentation) -> bytes:
        assert isinstance(entry, dict)
        entry.update(
            _box_and_area({"bbox": 0, "area": 0}, one), segmentation=_as_before(entry, one.mask, place.simplify)
        )
        return written()

    return EditableObject(chosen + 1, mask, with_mask)


def _of_shapes(place: ResultPlace, content: Content, written: Callable[[], bytes]) -> EditableObject:
    """labelme's shapes: object k has the group k where all groups are numbers of one label, else it is the k-th."""
    shapes: list[Content] = content["shapes"]
    groups: dict[tuple[Any, Any], list[Content]] = {}
    for number, shape in enumerate(shapes):
        group = shape.get("group_id")
        groups.setdefault((shape["label"], ("alone", number) if group is None else group), []).append(shape)
    ids = [group for _, group in groups]
    counted = not all(isinstance(one, int) for one in ids) or len({*ids}) < len(ids)
    numbers = list(range(1, len(ids) + 1)) if counted else ids
    chosen = place.choose(numbers)
    own = [*groups.values()][chosen]
    mask = filled_corners([_corners(place, shape) for shape in own], place.original_hw)

    def with_mask(one: Segmentation) -> bytes:
        first = next(number for number, shape in enumerate(shapes) if shape is own[0])
        rings = mask_to_polygons(one.mask, place.simplify, inclusive=True)
        group = own[0].get("group_id")
        if group is None and len(rings) > 1:  # parts of one object share a number
            group = max([one for one in ids if isinstance(one, int)], default=0) + 1
        changed = [
            {**own[0], "points": np.reshape(ring, (-1, 2)).tolist(), "shape_type": "polygon", "group_id": group}
            for ring in rings
        ]
        kept = [[shape] if all(shape is not mine for mine in own) else [] for shape in shapes]
        kept[first] = changed
        content["shapes"] = [shape for part in kept for shape in part]
        return written()

    return EditableObject(numbers[chosen], mask, with_mask)


def _corners(place: ResultPlace, shape: Content) -> Any:
    """(N, 2) x y of a shape's outline."""
    kind = shape.get("shape_type") or "polygon"  # labelme's own default
    points = np.array(shape["points"], float).reshape(-1, 2)
    if kind == "rectangle" and len(points) == 2:
        (x0, y0), (x1, y1) = points
        return np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]])
    if kind not in ("polygon", "rectangle") or len(points) < 3:
        raise InputError(f"{place.path}: a shape of the kind {kind} has no outline that can be corrected", _KINDS)
    return points


def _mask_of(place: ResultPlace, entry: Mapping[str, Any]) -> Mask:
    """Of an entry with COCO's segmentation. InputError where it has none."""
    height, width = place.original_hw
    code = entry.get("segmentation")
    if isinstance(code, Mapping):
        return rle_to_mask(code)
    listed = ListedAnnotation(f"{place.path}: the object", ListedImage(0, place.photo.name, (height, width)), entry)
    rle = annotation_rle(listed, height, width)
    if rle is None:
        raise InputError(f"{place.path}: the object has no mask that can be corrected", "segment it anew")
    return rle_to_mask(rle)


def _as_before(entry: Mapping[str, Any], mask: Mask, simplify: float) -> Any:
    """A mask as polygons where the entry has some, else as a run-length code."""
    return mask_to_polygons(mask, simplify) if isinstance(entry["segmentation"], list) else mask_to_rle(mask)


def _box_and_area(entry: Mapping[str, Any], one: Segmentation) -> Content:
    """Those of COCO's figures that the entry has."""
    figures = {"bbox": [float(side) for side in one.bbox or (0, 0, 0, 0)], "area": one.area}
    return {key: value for key, value in figures.items() if key in entry}

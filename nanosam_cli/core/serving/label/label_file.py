"""The content of an annotation file: a COCO data set, of which a photo's objects are read and replaced.

What the file has and the page does not show (annotations without a mask, photos that were not opened, further keys)
stays as it is. Entries are replaced, never changed, so a copy of the lists is a picture of one moment.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from itertools import count
from pathlib import Path, PurePosixPath
from typing import Any
from unicodedata import normalize

from nanosam_cli.core.datasets.coco import annotation_rle
from nanosam_cli.core.datasets.coco_layout import ListedAnnotation, ListedImage, category_names, read_layout
from nanosam_cli.core.errors import InputError, UsageError, fault
from nanosam_cli.core.ids import LARGEST_ID, read_id, whole_number
from nanosam_cli.core.masks import mask_window
from nanosam_cli.core.media.mask_codes import coco_image, mask_to_rle, rle_to_mask
from nanosam_cli.core.messages import quoted
from nanosam_cli.core.prompting.labels import check_class_name
from nanosam_cli.core.serving.answers import NotFoundError
from nanosam_cli.core.system.documents import parse_json
from nanosam_cli.version import __version__

Entry = Mapping[str, Any]

_MOST = LARGEST_ID - 2**32  # ids are counted on from the largest one
_EXPECTED = "give a COCO data set with images, annotations and categories, or another place with -o"


@dataclass(frozen=True)
class LabelledObject:
    """One object of a photo."""

    category_id: int
    rle: Mapping[str, Any]  # compressed, of the photo's size
    id: int | None = None  # of the annotation; None: a new one
    track_id: int | None = None  # the same in all frames of a video; None: not known


@dataclass(frozen=True)
class LabelledPhoto:
    """A photo's objects, and a mark of this state, by which a later save knows that nobody else was there."""

    objects: Sequence[LabelledObject]
    revision: str


class LabelFile:
    """The content, and which of its images the opened photos are."""

    def __init__(self, path: Path, content: Mapping[str, Any], names: Sequence[str]) -> None:
        """InputError where the content is no COCO data set."""
        try:
            layout = read_layout(path, {"images": [], "annotations": [], **content})
            self.categories = category_names(path, layout.categories)
            self._images: dict[int, Entry] = {read_id(one, "id", str(path)): one for one in content.get("images", [])}
            self._annotations: dict[int, list[Entry]] = {}
            ids = []
            for one in content.get("annotations", []):
                image_id, identity, _ = (read_id(one, key, str(path)) for key in ("image_id", "id", "category_id"))
                self._annotations.setdefault(image_id, []).append(one)
                ids.append(identity)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise InputError(f"{path} is not a COCO data set: {fault(error)}", _EXPECTED) from error
        if max([*ids, *self._images, *self._annotations, *self.categories], default=0) >= _MOST:
            raise InputError(
                f"{path} has an id of {_MOST} or more, which leaves none for what is new", "number it anew"
            )
        if len(set(ids)) != len(ids):
            raise InputError(f"{path} has two annotations of one id", "give each annotation an id of its own")
        self._path = path
        self._category_entries: list[Entry] = list(content.get("categories") or [])
        self._rest = {key: value for key, value in content.items() if key not in _OWN}
        self._next_id = max(ids, default=0) + 1
        self._image_ids = _image_ids(names, {image.id: image.name for image in layout.images.values()})

    def content(self) -> dict[str, Any]:
        """A picture of this moment, to be written. Annotations are in the order of the images."""
        known = [*self._images, *(one for one in self._annotations if one not in self._images)]
        annotations = [entry for image_id in known for entry in self._annotations.get(image_id, ())]
        return {
            **({"info": {"description": f"annotated with nanosam {__version__}"}} | self._rest),
            "images": list(self._images.values()),
            "annotations": annotations,
            "categories": list(self._category_entries),
        }

    def is_listed(self, name: str) -> bool:
        """Whether the file has the photo, be it with no object."""
        return self._image_ids[name] in self._images

    def count(self, name: str) -> int:
        """How many annotations the photo has."""
        return len(self._annotations.get(self._image_ids[name], ()))

    def photo(self, name: str, original_hw: tuple[int, int]) -> LabelledPhoto:
        """The objects that have a mask. InputError where they were drawn on a photo of another size."""
        entries = self._entries(name)
        image = self._listed(name, original_hw)
        objects = []
        for entry in entries:
            rle = _rle(entry, image, original_hw)
            if rle is not None:
                category, identity = whole_number(entry["category_id"]), whole_number(entry["id"])
                objects.append(LabelledObject(category, rle, identity, _track_id(entry)))
        return LabelledPhoto(objects, _revision(entries))

    def changed(self, name: str, original_hw: tuple[int, int], objects: Sequence[LabelledObject]) -> dict[str, Any]:
        """The record that makes these the photo's objects, for `apply`. Nothing is changed yet.

        InputError where a mask is broken, empty or of another size, UsageError where a class is unknown.
        """
        image = self._listed(name, original_hw)
        before = {whole_number(entry["id"]): entry for entry in self._entries(name)}
        shown = {key: rle for key, entry in before.items() if (rle := _rle(entry, image, original_hw)) is not None}
        kept = [entry for key, entry in before.items() if key not in shown]
        known = {*self.categories, *(whole_number(entry["category_id"]) for entry in before.values())}
        written, fresh = [], self._next_id
        for number, one in enumerate(objects, 1):
            if one.category_id not in known:
                raise UsageError(f"object {number} has the unknown class {one.category_id}", "make the class first")
            entry = {} if one.id not in shown else dict(before[one.id])
            if one.id not in shown or shown[one.id]["counts"] != one.rle["counts"]:
                entry |= _measured(one.rle, original_hw, number)
            identity, fresh = (one.id, fresh) if one.id in shown else (fresh, fresh + 1)
            place = {"id": identity, "image_id": image.id, "category_id": one.category_id}
            track = {} if one.track_id is None else {"track_id": one.track_id}
            written.append({**place, **entry, **place, **track, "iscrowd": entry.get("iscrowd", 0)})
        listed = {**coco_image(image.id, name, original_hw), **self._images.get(image.id, {})}
        return {"photo": name, "image": listed, "annotations": [*kept, *written]}

    def apply(self, record: Mapping[str, Any]) -> None:
        """Make what a record says the case: a photo's image and annotations, or the categories."""
        if "categories" in record:
            self._category_entries = list(record["categories"])
            self.categories = {whole_number(one["id"]): str(one["name"]) for one in self._category_entries}
            return
        image_id = whole_number(record["image"]["id"])
        self._images[image_id] = record["image"]
        self._annotations[image_id] = record["annotations"]
        if record["photo"] in self._image_ids:
            self._image_ids[record["photo"]] = image_id
        self._next_id = max([self._next_id, *(whole_number(one["id"]) + 1 for one in record["annotations"])])

    def with_tracks(self, name: str, original_hw: tuple[int, int]) -> dict[str, Any] | None:
        """The record that gives each of a photo's objects a track id; None where all have one."""
        objects = self.photo(name, original_hw).objects
        if all(one.track_id is not None for one in objects):
            return None
        known = (_track_id(entry) for entries in self._annotations.values() for entry in entries)
        fresh = count(max((number for number in known if number is not None), default=0) + 1)
        numbered = [one if one.track_id is not None else replace(one, track_id=next(fresh)) for one in objects]
        return self.changed(name, original_hw, numbered)

    def with_category(self, name: str) -> dict[str, Any]:
        """The record that adds a class. UsageError where it has no name, a long one, or one that is there."""
        name = check_class_name(name)
        if name in self.categories.values():
            raise UsageError(f"there is a class {name} already", "choose it from the list")
        entry = {"id": max(self.categories, default=0) + 1, "name": name}
        return {"categories": [*self._category_entries, entry]}

    def _entries(self, name: str) -> Sequence[Entry]:
        if name not in self._image_ids:
            raise NotFoundError(f"no photo called {name!r} was opened")
        return self._annotations.get(self._image_ids[name], ())

    def _listed(self, name: str, original_hw: tuple[int, int]) -> ListedImage:
        """The photo's entry. InputError where it declares another size."""
        image_id = self._image_ids[name]
        entry = self._images.get(image_id, {})
        size = entry.get("height"), entry.get("width")
        if None not in size and size != original_hw:
            raise InputError(
                f"{name} is {original_hw[1]}x{original_hw[0]} pixels, annotated as {size[1]}x{size[0]}",
                f"give the photo that was annotated, or correct its entry in {self._path}",
            )
        return ListedImage(image_id, name, original_hw)


_OWN = ("images", "annotations", "categories")


def parse_content(path: Path, data: bytes) -> Mapping[str, Any]:
    """The object of a JSON file. InputError where it is none."""
    try:
        content = parse_json(data)
    except ValueError as error:
        raise InputError(f"{path} is not JSON: {error}", _EXPECTED) from error
    if not isinstance(content, dict) or not {"images", "annotations"} <= content.keys():
        raise InputError(f"{path} is not a COCO data set: it has no images and annotations", _EXPECTED)
    return content


def _image_ids(names: Sequence[str], listed: Mapping[int, str]) -> dict[str, int]:
    """Each photo's image id: that of the file, by its path or by a plain name that is only once on both sides.

    Others get the number that is their name where all are numbers, as in COCO's own data sets, else they are counted.
    """
    composed = {normalize("NFC", name): image_id for image_id, name in listed.items()}
    plain_here = Counter(PurePosixPath(name).name for name in names)
    plain_there = Counter(PurePosixPath(name).name for name in composed)
    by_plain = {PurePosixPath(name).name: image_id for name, image_id in composed.items()}
    found = {}
    for name in names:
        key = normalize("NFC", name)
        plain = PurePosixPath(key).name
        if key in composed:
            found[name] = composed[key]
        elif plain_here[plain] == 1 and plain_there[plain] == 1 and by_plain[plain] not in found.values():
            found[name] = by_plain[plain]
    left = [name for name in names if name not in found]
    stems = [PurePosixPath(name).stem for name in left]
    if all(stem.isascii() and stem.isdigit() for stem in stems):
        numbers = [int(stem) for stem in stems]
        if len({*numbers, *listed}) == len(numbers) + len(listed) and max(numbers, default=0) < _MOST:
            return found | dict(zip(left, numbers))
    start = max(listed, default=0) + 1
    return found | dict(zip(left, range(start, start + len(left))))


def _rle(entry: Entry, image: ListedImage, original_hw: tuple[int, int]) -> dict[str, Any] | None:
    """The mask of an annotation, ready for JSON; None where it has none."""
    segmentation = entry.get("segmentation")
    if isinstance(segmentation, Mapping) and isinstance(segmentation.get("counts"), str):
        if segmentation.get("size") != list(original_hw):
            raise InputError(
                f"annotation {entry['id']} has a mask of {quoted(segmentation.get('size'))}, its photo {original_hw}"
            )
        return dict(segmentation)
    rle = annotation_rle(ListedAnnotation(f"annotation {entry['id']}", image, entry), *original_hw)
    return rle and {"size": list(original_hw), "counts": rle["counts"].decode("ascii")}


def _track_id(entry: Entry) -> int | None:
    """None where the entry has none, or one that is no number, which stays as it is."""
    number = entry.get("track_id")
    return number if isinstance(number, int) else None


def _measured(rle: Mapping[str, Any], original_hw: tuple[int, int], number: int) -> dict[str, Any]:
    """Mask, box and area of an entry. InputError where the mask cannot be kept."""
    mask = rle_to_mask(rle)
    window = mask_window(mask)
    if mask.shape != original_hw or window is None:
        fault = "is empty" if window is None else f"is of another size than the photo, {mask.shape}"
        raise InputError(f"the mask of object {number} {fault}")
    rows, columns = window
    sides = (columns.start, rows.start, columns.stop - columns.start, rows.stop - rows.start)
    return {"segmentation": mask_to_rle(mask), "bbox": [float(side) for side in sides], "area": int(mask.sum())}


def _revision(entries: Sequence[Entry]) -> str:
    return sha256(json.dumps(list(entries), sort_keys=True).encode()).hexdigest()[:16]

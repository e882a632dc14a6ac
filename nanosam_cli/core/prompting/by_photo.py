"""Files of other tools say which photo they speak of by its path, its name or a number. This matches them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path, PureWindowsPath
from typing import Generic, TypeVar
from unicodedata import normalize

from nanosam_cli.core.errors import InputError
from nanosam_cli.core.media.declared_size import DeclaredPhoto
from nanosam_cli.core.media.image import IMAGE_FORMATS
from nanosam_cli.core.messages import some

T = TypeVar("T")

_SAME_NAME, _SAME_STEM, _LOOSELY = 3, 2, 1  # how two names are alike: whole, without a suffix, with another or a number
_Rank = tuple[int, int]  # how alike the names are, then how many folders before them are the same


@dataclass(frozen=True)
class ByPhoto(Generic[T]):
    """What a file, or a folder of files, says of its photos.

    A name means the photo whose path ends as it does, the longest such end first; else the photo of this file name;
    else the one that is called so but for the suffix of an image, or whose number it is. Names are compared as NFC.
    """

    path: Path
    photos: Mapping[str, Sequence[T]]  # by what the file calls them: names, stems, or image ids
    nameless: bool = False  # whether nothing in it says which photo it is of
    names: Mapping[str, str] = field(default_factory=dict)  # of those that are written with folders: the whole of it
    image_ids: Mapping[str, int] = field(default_factory=dict)  # the numbers that the file has for its photos
    sizes: Mapping[str, tuple[int, int]] = field(default_factory=dict)  # height width, of those that it declares
    skipped: Mapping[str, str] = field(default_factory=dict)  # by photo: what is there and cannot be used
    notes: Sequence[str] = ()  # what was left out of the file, of no photo in particular

    def match(self, photos: Sequence[Path]) -> dict[Path, str]:
        """How the file calls each of the photos that it knows.

        A nameless file is that of the only photo; where nothing is in it, nothing was found in any of the photos.

        Raises:
            InputError: it knows none of them, or a name may mean several.
        """
        found = self._pairs(photos)
        if not found and self.nameless and len(self.photos) == 1:
            key, content = next(iter(self.photos.items()))
            if len(photos) == 1 or not content:
                return dict.fromkeys(photos, key)
        if not found:
            known = f"names none of the photos; it has {some(list(self.photos))}"
            raise InputError(
                f"{self.path} {'does not say which of the photos it is of' if self.nameless else known}",
                "a photo is known by its file name, by its stem, or by an image id that is its name",
            )
        return found

    def of(self, photo: Path) -> Sequence[T]:
        """What it says of one photo; nothing where it does not know it."""
        key = self._pairs([photo]).get(photo)
        return () if key is None else self.photos[key]

    def declared(self, photo: Path, key: str) -> DeclaredPhoto | None:
        """The size that it says a photo of it has, to be held against the photo's own."""
        return DeclaredPhoto(photo, self.sizes[key]) if key in self.sizes else None

    def unmatched(self, keys: Mapping[Path, str]) -> list[str]:
        """What it has beside the photos that were matched."""
        used = {*keys.values()}
        return [key for key in self.photos if key not in used]

    def left_out(self, keys: Mapping[Path, str]) -> list[str]:
        """What it has and is not used for the photos that were matched, for people."""
        unknown = self.unmatched(keys)
        return [*self.notes, *([f"in {self.path}, but not among the photos: {some(unknown)}"] if unknown else [])]

    def _pairs(self, photos: Sequence[Path]) -> dict[Path, str]:
        """Each photo with its key, where both are the best for each other."""
        chosen: dict[str, list[tuple[_Rank, Path]]] = defaultdict(list)
        for photo in photos:
            if (best := self._best_of(photo)) is not None:
                key, rank = best
                chosen[key].append((rank, photo))
        pairs = {}
        for key, rivals in chosen.items():
            first = max(rank for rank, _ in rivals)
            winners = [photo for rank, photo in rivals if rank == first]
            if len(winners) > 1:
                raise InputError(
                    f"{self.path}: {self.names.get(key, key)} may be any of {some(winners)}",
                    "write the photo's folder or suffix in the file too, or give the photos in separate runs",
                )
            pairs[winners[0]] = key
        return {photo: pairs[photo] for photo in photos if photo in pairs}

    def _best_of(self, photo: Path) -> tuple[str, _Rank] | None:
        """The key that a photo is most like. InputError where several keys are."""
        parts = _parts(str(photo.absolute()) if len(photo.parts) else "")
        likeness = {key: _likeness(self._parts[key], parts) for form in _forms(parts[-1]) for key in self._keys[form]}
        best = max(likeness.values(), default=None)
        if best is None:
            return None
        keys = [key for key, rank in likeness.items() if rank == best]
        if len(keys) == 1:
            return keys[0], best
        if best[0] == _LOOSELY:  # a.jpg and a.png of the file, neither of which is a.webp
            return None
        raise InputError(
            f"{self.path} has several entries that may be {photo}: {some([self.names.get(key, key) for key in keys])}",
            "give the photo with its folders as the file has them, or name it once only",
        )

    @cached_property
    def _parts(self) -> Mapping[str, tuple[str, ...]]:
        return {key: _parts(self.names.get(key, key)) for key in self.photos}

    @cached_property
    def _keys(self) -> Mapping[str, Sequence[str]]:
        """Keys by all that can be alike in a photo's name."""
        keys: dict[str, list[str]] = defaultdict(list)
        for key, parts in self._parts.items():
            for form in _forms(parts[-1]):
                keys[form].append(key)
        return keys


def photo_keys(names: Iterable[str]) -> dict[str, str]:
    """What to call each photo of a file: its file name, or all that is written where two have the same."""
    paths = {name: PureWindowsPath(name) for name in names}
    owners: dict[str, set[PureWindowsPath]] = defaultdict(set)
    for path in paths.values():
        owners[path.name].add(path)
    return {name: path.as_posix() if len(owners[path.name]) > 1 else path.name for name, path in paths.items()}


def _parts(name: str) -> tuple[str, ...]:
    """The folders and the file name, as Windows or others write them."""
    return PureWindowsPath(normalize("NFC", name)).parts or ("",)


def _stem(name: str) -> str:
    """Without the suffix of an image, and no more: `a.rf.1` stays whole."""
    stem, dot, suffix = name.rpartition(".")
    return stem if stem and f"{dot}{suffix}".lower() in IMAGE_FORMATS else name


def _number(stem: str) -> str | None:
    """000000000285 -> 285."""
    return (stem.lstrip("0") or "0") if stem.isascii() and stem.isdigit() else None


def _forms(name: str) -> list[str]:
    stem = _stem(name)
    number = _number(stem)
    return list(dict.fromkeys([stem, *([] if number is None else [number])]))


def _likeness(one: tuple[str, ...], other: tuple[str, ...]) -> _Rank:
    """Of two paths whose names are alike in one form."""
    names = one[-1], other[-1]
    stems = tuple(map(_stem, names))
    kind = _LOOSELY
    if names[0] == names[1]:
        kind = _SAME_NAME
    elif stems[0] == stems[1] and any(name == stem for name, stem in zip(names, stems)):
        kind = _SAME_STEM
    folders = 0
    for mine, its in zip(one[-2::-1], other[-2::-1]):
        if mine != its:
            break
        folders += 1
    return kind, folders

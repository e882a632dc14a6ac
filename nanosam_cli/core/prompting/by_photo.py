"""Files of other tools say which photo they speak of by its name, by its stem or by a number. This matches them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PureWindowsPath
from typing import Generic, TypeVar

from nanosam_cli.core.errors import InputError
from nanosam_cli.core.messages import some

T = TypeVar("T")


@dataclass(frozen=True)
class ByPhoto(Generic[T]):
    """What a file, or a folder of files, says of its photos."""

    path: Path
    photos: Mapping[str, Sequence[T]]  # by file name, by its stem, or by image id
    nameless: bool = False  # whether nothing in it says which photo it is of

    def match(self, photos: Sequence[Path]) -> dict[Path, str]:
        """How the file calls each of the photos that it knows.

        A nameless file is that of the only photo; where nothing is in it, nothing was found in any of the photos.

        Raises:
            InputError: it knows none of them.
        """
        found = {photo: key for photo in photos if (key := self._key_of(photo)) is not None}
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
        key = self._key_of(photo)
        return () if key is None else self.photos[key]

    def unmatched(self, keys: Mapping[Path, str]) -> list[str]:
        """What it has beside the photos that were matched."""
        used = {*keys.values()}
        return [key for key in self.photos if key not in used]

    def _key_of(self, photo: Path) -> str | None:
        if photo.name in self.photos:
            return photo.name
        return next((self._owners[alias] for alias in _aliases(photo.name) if alias in self._owners), None)

    @cached_property
    def _owners(self) -> Mapping[str, str]:
        """Other names that can stand for one photo of the file only: not `a` for a.jpg and a.png."""
        owners: dict[str, list[str]] = defaultdict(list)
        for key in self.photos:
            for alias in _aliases(key):
                owners[alias].append(key)
        return {alias: keys[0] for alias, keys in owners.items() if len(keys) == 1}


def _aliases(name: str) -> list[str]:
    """000000000285.jpg -> its stem, and 285."""
    stem = Path(name).stem
    number = [str(int(stem))] if stem.isascii() and stem.isdigit() else []
    return list(dict.fromkeys([stem, *number]))


def file_name(name: str) -> str:
    """Without the folders before it, as Windows or others write them."""
    return PureWindowsPath(name).name

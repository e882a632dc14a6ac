"""The numbers of photos in COCO files: those of the file that gave the prompts, else those in the photos' names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import count
from pathlib import Path

from nanosam_cli.core.ids import LARGEST_ID
from nanosam_cli.core.messages import some

COUNTED = "the photos are numbered 1, 2, ... in their order: neither names nor a file of prompts number them all"


def counted_categories(classes: Mapping[int, str]) -> str:
    """Says which numbers stand for names that have none of their own."""
    numbers = some([f"{number} {name}" for number, name in sorted(classes.items())], 10)
    return f"category ids are counted, as the prompts have names alone: {numbers}"


def number_photos(photos: Sequence[Path], given: Mapping[Path, int]) -> tuple[dict[Path, int], bool]:
    """An id for each photo, and whether ids were counted because nothing gives them.

    `given` are kept where no two are the same; photos that they lack are counted beyond them. Without any, names that
    are all different numbers are the ids, as in COCO's own data sets.
    """
    known = {photo: given[photo] for photo in photos if photo in given}
    if known and len(set(known.values())) == len(known):
        left = [photo for photo in photos if photo not in known]
        known |= zip(left, count(max(known.values()) + 1))
        return {photo: known[photo] for photo in photos}, bool(left)
    stems = [photo.stem for photo in photos if photo.stem.isascii() and photo.stem.isdigit()]
    numbers = [number for number in map(int, stems) if number <= LARGEST_ID]
    if len(set(numbers)) == len(photos):
        return dict(zip(photos, numbers)), False
    return dict(zip(photos, range(1, len(photos) + 1))), True

"""Annotated clips: folders of frames with a label PNG each, as they lie in one folder or in DAVIS's own layout."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from nanosam_cli.core.errors import InputError, UsageError
from nanosam_cli.core.media.video import list_frames

Labels = NDArray[np.uint8]  # (H, W), 0 background, k object k, 255 void (see Truth)

_LAYOUT = "expected DIR/<clip>/00000.jpg with 00000.png beside it, or JPEGImages/ and Annotations/ as in DAVIS"
_LIST = "expected the names of clips, one a line"

VOID = 255  # label of pixels that do not count


@dataclass(frozen=True)
class Clip:
    """Frames in their order, and the label file of each that has one; the first always has."""

    name: str
    frames: Sequence[Path]
    truths: Sequence[Path | None]


class ClipLabels:
    """What is annotated in a clip: k object k, 255 void, as in DAVIS 2017.

    Where the first mask has no values but 0 and 255, as in DAVIS 2016, 255 is object 1 in all frames and nothing is
    void. InputError where the first mask cannot be read or is empty.
    """

    first: Labels
    numbers: Sequence[int]  # the objects of the first mask, in ascending order

    def __init__(self, clip: Clip) -> None:
        assert clip.truths[0] is not None
        first = read_labels(clip.truths[0])
        self._paths = clip.truths
        self._binary = set(np.unique(first).tolist()) - {0} == {VOID}
        self.first = self._named(first)
        self.numbers = [number for number in np.unique(self.first).tolist() if number not in (0, VOID)]
        if not self.numbers:
            raise InputError(
                f"clip {clip.name}: the first mask, {clip.truths[0]}, is empty", "give a clip with an object"
            )

    def at(self, index: int) -> Labels | None:
        """The labels of a frame, None where it has none. InputError where they cannot be read."""
        path = self._paths[index]
        return None if path is None else self._named(read_labels(path))

    def _named(self, labels: Labels) -> Labels:
        return np.where(labels == VOID, np.uint8(1), labels) if self._binary else labels


def find_clips(folder: Path, names: Sequence[str] = (), split: str | None = None) -> list[Clip]:
    """The clips of a folder, all or those asked for: by name, or by a list of DAVIS's `ImageSets/2017`, such as val.

    Raises:
        InputError: there are none, one has no frames or no first mask, or the list is empty or cannot be read.
        UsageError: a clip or a list is not there, or both names and a list are given.
    """
    if names and split is not None:
        raise UsageError("clips are chosen by their names or by a list, not by both", "leave out --clip or --split")
    if not folder.is_dir():
        raise InputError(f"no such folder: {folder}", _LAYOUT)
    images, masks = _roots(folder)
    there = sorted(path.name for path in masks.iterdir() if path.is_dir() and any(path.glob("*.png")))
    if not there:
        raise InputError(f"no annotated clips in {folder}", _LAYOUT)
    wanted = list(names) or (there if split is None else _split(folder, split))
    for name in wanted:
        if name not in there:
            near = get_close_matches(name, there, n=1)
            raise UsageError(f"no annotated clip {name} in {folder}", f"--clip {near[0] if near else there[0]}")
    return [_clip(name, images / name, masks / name) for name in wanted]


def read_labels(path: Path) -> Labels:
    """(H, W) object numbers of a label PNG, indexed or grey. InputError where it cannot be read or has colours."""
    try:
        with Image.open(path, formats=["PNG"]) as image:
            if image.mode not in ("1", "L", "P"):
                raise InputError(f"{path} is a colour picture, not labels", "save it as an indexed or greyscale PNG")
            return np.asarray(image).astype(np.uint8)
    except (OSError, SyntaxError, ValueError) as error:
        raise InputError(f"{path} is not a PNG that can be read: {error}", "get the data again") from error


def _roots(folder: Path) -> tuple[Path, Path]:
    """Where the clips' frames and masks lie."""
    images, masks = folder / "JPEGImages", folder / "Annotations"
    if not (images.is_dir() and masks.is_dir()):
        return folder, folder
    sizes = sorted(path.name for path in masks.iterdir() if (images / path.name).is_dir())
    size = "480p" if "480p" in sizes else sizes[0] if sizes else ""
    nested = bool(size) and any(path.is_dir() for path in (masks / size).iterdir())
    return (images / size, masks / size) if nested else (images, masks)


def _split(folder: Path, split: str) -> list[str]:
    path = folder / "ImageSets" / "2017" / f"{split}.txt"
    if not path.is_file():
        there = sorted(other.stem for other in path.parent.glob("*.txt"))
        raise UsageError(f"no list {split} in {path.parent}", f"there are {', '.join(there)}" if there else _LAYOUT)
    try:
        names = path.read_text(encoding="utf-8").split()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not a text file that can be read: {error}", _LIST) from error
    if not names:
        raise InputError(f"{path} is empty", _LIST)
    return names


def _clip(name: str, images: Path, masks: Path) -> Clip:
    if not images.is_dir():
        raise InputError(f"clip {name} has masks, but no frames in {images}", _LAYOUT)
    frames = list_frames(images)
    known = {path.stem: path for path in masks.glob("*.png")}
    truths = [known.get(frame.stem) for frame in frames]
    if truths[0] is None:
        raise InputError(f"clip {name} has no mask of its first frame, {frames[0].name}", _LAYOUT)
    if images == masks and frames[0] == truths[0]:
        raise InputError(f"clip {name} has masks, but no frames in {images}", _LAYOUT)
    return Clip(name, frames, truths)

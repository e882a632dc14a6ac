"""Which photos are meant: files, folders and patterns, in the order in which people count."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from nanosam_cli.core.media.image import list_images, unread_pictures
from nanosam_cli.core.messages import some

STDIN = Path("-")  # stands for a photo that comes through a pipe
_OUTPUT = re.compile(r"_(mask|overlay|cutout)(_\d+(-\d+)?)?$")  # how `outputs` names pictures


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


def left_out(arguments: Sequence[str]) -> list[str]:
    """What directories hold that looks like a picture and is of no kind that is read, in words."""
    notes = []
    for argument in arguments:
        found = [] if argument == str(STDIN) or not argument else unread_pictures(Path(argument))
        if found:
            what = "1 picture" if len(found) == 1 else f"{len(found)} pictures"
            names = some([path.name for path in found])
            notes.append(f"{what} in {argument} left out, of kinds that are not read: {names}")
    return notes

"""What a proof looks at: real photos with prompts, the example photos or the user's own."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nanosam_cli.core.errors import InputError
from nanosam_cli.core.media.image import list_images, read_image
from nanosam_cli.core.paths import resource
from nanosam_cli.core.types import Prompt

MOST = 16  # photos of a folder: each costs several runs of the model on each step of the ladder
_GRID = 3  # boxes a side where nobody has drawn any


@dataclass(frozen=True, eq=False)
class ProofPhoto:
    """One photo and what is asked of it."""

    name: str
    image: NDArray[np.uint8]  # (H, W, 3) RGB
    prompts: Prompt  # boxes


def example_proof_photos() -> list[ProofPhoto]:
    """The photos that come with the package, each with its objects' boxes and with a grid of boxes."""
    objects = json.loads(resource("examples", "prompts.json").read_text(encoding="utf-8"))
    return [_photo(resource("examples", name), entry["boxes"]) for name, entry in sorted(objects.items())]


def example_object_photos() -> list[ProofPhoto]:
    """The photos that come with the package, each with its objects' boxes alone."""
    objects = json.loads(resource("examples", "prompts.json").read_text(encoding="utf-8"))
    return [
        ProofPhoto(name, read_image(resource("examples", name)), Prompt.from_boxes(entry["boxes"]))
        for name, entry in sorted(objects.items())
    ]


def photos_of(folder: Path | None, most: int = MOST) -> list[ProofPhoto]:
    """At most so many photos of a folder, evenly chosen; the example photos without one.

    InputError where there are none, or one of them cannot be read.
    """
    if folder is None:
        return example_proof_photos()
    if not folder.is_dir():
        raise InputError(f"no such directory: {folder}", "give one with photos, or leave it out for the example photos")
    return [_photo(path, []) for path in spread(list_images(str(folder)), most)]


def spread(paths: Sequence[Path], most: int) -> list[Path]:
    """At most so many of them, from all parts of the list."""
    if len(paths) <= most:
        return list(paths)
    return [paths[index * len(paths) // most] for index in range(most)]


def _photo(path: Path, boxes: list[list[float]]) -> ProofPhoto:
    image = read_image(path)
    return ProofPhoto(path.name, image, Prompt.from_boxes([*boxes, *_grid(image.shape[0], image.shape[1])]))


def _grid(height: int, width: int) -> list[list[float]]:
    """Boxes x0 y0 x1 y1 side by side over the photo, a fifth apart."""
    rows, columns = np.divmod(np.arange(_GRID * _GRID), _GRID)
    places = np.stack([columns + 0.1, rows + 0.1, columns + 0.9, rows + 0.9], axis=1) / _GRID
    return [[float(side) for side in box] for box in places * (width, height, width, height)]

"""A picture of corrections: an object a row, a step a column, with the clicks so far."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from nanosam_cli.core.datasets.annotated_mask import AnnotatedMask
from nanosam_cli.core.datasets.coco import AnnotatedPhoto
from nanosam_cli.core.datasets.photo_files import PhotoFiles
from nanosam_cli.core.errors import OutputError, UsageError
from nanosam_cli.core.evaluation.clicks import Corrections, Said, whole_mask
from nanosam_cli.core.evaluation.contact_sheet import GAP, INK, PAPER, draw_tile, shown_window
from nanosam_cli.core.evaluation.loop import EvaluatedPhoto, evaluate
from nanosam_cli.core.evaluation.segmenters import Ready, Segmenter
from nanosam_cli.core.system.files import check_writable
from nanosam_cli.core.types import FOREGROUND

OBJECTS = 10
SIDE = 180  # pixels of a tile
CAPTION = 16


@dataclass
class _Talk:
    """Takes down what is said of the first objects."""

    corrections: Corrections
    rows: list[tuple[AnnotatedPhoto, AnnotatedMask, list[Said], int]] = field(default_factory=list)

    def __call__(self, photo: AnnotatedPhoto, truths: Sequence[AnnotatedMask], segment: Ready) -> EvaluatedPhoto:
        asked = [truth for truth in truths if truth.area][: OBJECTS - len(self.rows)]
        said = list(self.corrections.dialogue(photo, asked, segment)) if asked else []
        self.rows += [(photo, truth, said, row) for row, truth in enumerate(asked)]
        return EvaluatedPhoto(photo, [], [], 0)


def check_sheet(path: Path, corrections: Corrections | None, *, force: bool) -> None:
    """Before any work: UsageError where there are no clicks to draw, or `path` is no PNG; OutputError where it exists
    and `force` is false, or cannot be written."""
    if corrections is None:
        raise UsageError("--sheet shows clicks, and --prompt mask has none", "leave one of them out")
    if path.suffix.lower() != ".png":
        raise UsageError(f"the picture of --sheet is a PNG, not {path}", f"--sheet {path.with_suffix('.png')}")
    if path.exists() and not force:
        raise OutputError(f"{path} exists already", "add `--force` to overwrite it, or give another place")
    check_writable(path.parent)


def draw_clicks(
    corrections: Corrections, segmenter: Segmenter, photos: Sequence[AnnotatedPhoto], files: PhotoFiles
) -> NDArray[np.uint8]:
    """(H, W, 3) RGB: the first OBJECTS objects of some photos, corrected anew. Green outlines are annotated, pink ones
    what was answered. InputError where a photo cannot be read."""
    talk = _Talk(corrections)
    for photo in photos:
        if len(talk.rows) < OBJECTS:
            talked = evaluate(
                segmenter,
                [photo],
                prompting=corrections.prompting,
                examine=talk,
                read=files.read,
                orientation=files.orientation,
            )
            assert [one.photo.id for one in talked] == [photo.id]
    steps = corrections.steps
    width, height = len(steps) * (SIDE + GAP) + GAP, len(talk.rows) * (SIDE + CAPTION + GAP) + GAP
    sheet = Image.new("RGB", (width, height), PAPER)
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default()
    for number, (photo, truth, said, row) in enumerate(talk.rows):
        image, wanted = files.read(photo.path), whole_mask(truth, photo.original_hw)
        window = shown_window(truth.target.box, [wanted, *(one.masks[row].mask for one in said)])
        clicks: list[tuple[float, float, bool]] = []
        for column, (name, one) in enumerate(zip(steps, said)):
            if click := one.newest[row]:
                clicks.append((*click.xy, click.label == FOREGROUND))
            mask = one.masks[row].mask
            tile = draw_tile(image, truth.target.box, window, [wanted, mask], clicks, SIDE)
            x, y = GAP + column * (SIDE + GAP), GAP + number * (SIDE + CAPTION + GAP)
            draw.text((x, y), f"{name}  IoU {truth.iou(mask):.2f}", fill=INK, font=font)
            sheet.paste(tile, (x + (SIDE - tile.width) // 2, y + CAPTION + (SIDE - tile.height) // 2))
    return np.array(sheet, np.uint8)


def first_clicks(corrections: Corrections, most: int = 5) -> Corrections:
    """The same with no more clicks than a sheet has room for."""
    return replace(corrections, clicks=min(corrections.clicks, most))

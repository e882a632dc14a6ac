"""A picture of many objects: each cut out of its photo, with the annotated mask, the predicted one and the prompt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from nanosam_cli.core.datasets.coco import AnnotatedObject, AnnotatedPhoto, Annotations, read_annotations
from nanosam_cli.core.datasets.fit_annotations import fit_object
from nanosam_cli.core.datasets.photo_files import PhotoFiles, find_data, read_file
from nanosam_cli.core.errors import InputError, UsageError
from nanosam_cli.core.evaluation.results import ObjectResult, Results, check_annotations
from nanosam_cli.core.ids import whole_number
from nanosam_cli.core.masks import Mask, Window, mask_window
from nanosam_cli.core.media.declared_size import fit_size
from nanosam_cli.core.media.mask_codes import rle_to_mask
from nanosam_cli.core.system.documents import parse_json

TILE = 240  # pixels, without the caption
CAPTION = 30
GAP = 8
HEAD = 22
MARGIN = 0.25  # of the object's longer side, around what is shown
LEAST_CONTEXT = 24  # pixels of the photo around a small object
TRUTH, PREDICTION, BOX = (60, 210, 90), (255, 60, 150), (255, 255, 255)
LEGEND = ("annotated mask", "predicted mask", "annotated box")
ON_IT, BESIDE_IT, DOT = (40, 200, 80), (230, 50, 50), 5
PAPER, INK = (24, 24, 28), (235, 235, 235)


@dataclass(frozen=True)
class SheetEntry:
    """One object of the sheet."""

    result: ObjectResult
    category: str
    photo: AnnotatedPhoto
    target: AnnotatedObject
    predicted: Mapping[str, Any] | None  # run-length code, where masks were saved


def find_entries(
    results: Sequence[ObjectResult], annotations: Annotations, masks: Mapping[int, Mapping[str, Any]]
) -> list[SheetEntry]:
    """Look up the results' photos and masks. InputError where an object is not in the annotation file."""
    known = {target.id: (photo, target) for photo in annotations.photos for target in photo.objects}
    entries = []
    for result in results:
        if result.id not in known:
            raise InputError(
                f"object {result.id} is not in {annotations.path}", "--annotations FILE, the one that was evaluated"
            )
        photo, target = known[result.id]
        category = annotations.categories.get(result.category_id, str(result.category_id))
        entries.append(SheetEntry(result, category, photo, target, masks.get(result.id)))
    return entries


def open_data(results: Results, annotations: Path | None, images: Path | None) -> tuple[Annotations, PhotoFiles]:
    """The annotations and photos of results: as given, else where the evaluation had them. The photos are to be closed.

    Raises:
        UsageError: the annotation file is neither given nor recorded.
        InputError: something is not there any more, or has changed.
    """
    recorded = results.meta.get("data") or {}
    file = annotations or (Path(recorded["annotations"]) if recorded else None)
    if file is None:
        raise UsageError(f"{results.path} does not say what it was evaluated on", "--annotations FILE --images DIR")
    place = images or (Path(recorded["images"]) if recorded else find_data(None, file)[0])
    truth = read_annotations(file, place)
    check_annotations(results, truth)
    return truth, PhotoFiles(place)


def read_predicted_masks(path: Path) -> dict[int, dict[str, Any]]:
    """Saved masks by the id of their object: run-length codes. InputError where it is no such file."""
    try:
        return {
            whole_number(row["annotation_id"]): row["segmentation"] for row in parse_json(read_file(path, "masks file"))
        }
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{path} holds no saved masks: {error!r}", "expected what `nanosam eval coco --save-masks` writes"
        ) from error


def draw_sheet(
    entries: Sequence[SheetEntry], files: PhotoFiles, columns: int = 5, legend: tuple[str, str, str] = LEGEND
) -> NDArray[np.uint8]:
    """(H, W, 3) RGB: a tile an object, row by row; `legend` names the two outlines and the box.

    InputError where a photo or a mask cannot be read.
    """
    columns = max(1, min(columns, len(entries)))
    rows = -(-len(entries) // columns)
    width, height = columns * (TILE + GAP) + GAP, HEAD + rows * (TILE + CAPTION + GAP) + GAP
    sheet = Image.new("RGB", (width, height), PAPER)
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default()
    x = GAP
    for text, colour in zip(legend, (TRUTH, PREDICTION, BOX)):
        draw.text((x, GAP), text, fill=colour, font=font)
        x += round(draw.textlength(text, font)) + 2 * GAP
    for number, entry in enumerate(entries):
        x = GAP + number % columns * (TILE + GAP)
        y = HEAD + GAP + number // columns * (TILE + CAPTION + GAP)
        tile = _tile(entry, files)
        sheet.paste(tile, (x + (TILE - tile.width) // 2, y + CAPTION + (TILE - tile.height) // 2))
        for line, text in enumerate(_caption(entry)):
            draw.text((x, y + 14 * line), text, fill=INK, font=font)
    return np.array(sheet, np.uint8)


def _caption(entry: SheetEntry) -> tuple[str, str]:
    result = entry.result
    crowd = ", crowd" if result.iscrowd else ""
    lines = (f"IoU {result.iou:.3f}  {entry.category}{crowd}", f"object {result.id}  area {result.area:.0f}")
    first, second = (line.encode("latin-1", "replace").decode("latin-1") for line in lines)  # what every font has
    return first, second


def _tile(entry: SheetEntry, files: PhotoFiles) -> Image.Image:
    """The object's part of the photo, enlarged to fill TILE x TILE, with its masks' outlines and its box."""
    image = files.read(entry.photo.path)
    target = entry.target
    shown = (image.shape[0], image.shape[1])
    fit = fit_size(str(entry.photo.path), entry.photo.original_hw, shown, lambda: files.orientation(entry.photo.path))
    if fit is not None:
        target = fit_object(target, fit)
    truth = target.mask()
    predicted = None if entry.predicted is None else rle_to_mask(entry.predicted)
    masks = [truth] if predicted is None else [truth, predicted]
    if any(mask.shape != image.shape[:2] for mask in masks):
        raise InputError(f"the masks of object {entry.result.id} are not of the size of {entry.photo.path}")
    return draw_tile(image, target.box, shown_window(target.box, masks), masks)


def draw_tile(
    image: NDArray[np.uint8],
    box: Sequence[float],
    window: Window,
    masks: Sequence[Mask],
    clicks: Sequence[tuple[float, float, bool]] = (),
    side: int = TILE,
) -> Image.Image:
    """A window of a photo (H, W, 3), enlarged to fill `side`: outlines of the annotated mask (H, W) and of a predicted
    one, the box x0 y0 x1 y1, and clicks x y, green on the object and red beside it."""
    crop = Image.fromarray(image[window])
    scale = side / max(crop.size)
    size = max(1, round(crop.width * scale)), max(1, round(crop.height * scale))
    tile = crop.resize(size, Image.Resampling.BICUBIC)
    _draw_box(tile, box, window, scale)
    for mask, colour in zip(masks, (TRUTH, PREDICTION)):
        _draw_outline(tile, mask[window], colour)
    draw = ImageDraw.Draw(tile)
    for x, y, on_it in clicks:
        centre = (x - window[1].start) * scale, (y - window[0].start) * scale
        draw.circle(centre, DOT, fill=ON_IT if on_it else BESIDE_IT, outline=PAPER)
    return tile


def shown_window(box: Sequence[float], masks: Sequence[Mask]) -> Window:
    """Rows and columns that hold the box and all masks, with some of what is around them."""
    height, width = masks[0].shape
    x0, y0, x1, y1 = box
    windows = [(slice(int(y0), int(y1) + 1), slice(int(x0), int(x1) + 1))]
    windows += [window for mask in masks if (window := mask_window(mask)) is not None]
    top, left = (min(window[axis].start for window in windows) for axis in (0, 1))
    bottom, right = (max(window[axis].stop for window in windows) for axis in (0, 1))
    around = max(LEAST_CONTEXT, round(MARGIN * max(bottom - top, right - left)))
    # a box outside the photo still shows a corner of it
    top, left = min(max(0, top - around), height - 1), min(max(0, left - around), width - 1)
    bottom, right = min(max(top + 1, bottom + around), height), min(max(left + 1, right + around), width)
    return slice(top, bottom), slice(left, right)


def _draw_box(tile: Image.Image, box: Sequence[float], window: Window, scale: float) -> None:
    x0, y0, x1, y1 = box
    left, top = window[1].start, window[0].start
    corners = ((x0 - left) * scale, (y0 - top) * scale, (x1 - left) * scale, (y1 - top) * scale)
    if corners[0] <= corners[2] and corners[1] <= corners[3]:
        ImageDraw.Draw(tile).rectangle(corners, outline=BOX)


def _draw_outline(tile: Image.Image, mask: Mask, colour: tuple[int, int, int]) -> None:
    """A line of two pixels just inside the mask's border."""
    large = Image.fromarray(mask).resize(tile.size, Image.Resampling.NEAREST)
    inside = np.pad(np.asarray(large), 2)
    core = inside.copy()
    for axis in (0, 1):
        for shift in (-2, -1, 1, 2):
            core &= np.roll(inside, shift, axis)
    line = Image.fromarray((inside & ~core)[2:-2, 2:-2])
    tile.paste(colour, mask=line)

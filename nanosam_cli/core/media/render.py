"""Masks as pictures: label maps, overlays, cut-outs. Arrays in, arrays out; work is done within each mask's box."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from nanosam_cli.core.errors import UsageError
from nanosam_cli.core.masks import Mask, Window, mask_window
from nanosam_cli.core.types import BACKGROUND, FOREGROUND, no_boxes

MAX_LABELS = 65535  # of 16 bits
FILL = 0.45  # share of the object's colour inside its mask
WHITE, BLACK, GREEN, RED = (255, 255, 255), (0, 0, 0), (40, 200, 80), (230, 50, 50)


# Bjoern Ottosson, "A perceptual color space for image processing", 2020
_OKLAB_TO_CONE = np.array(
    [[1, 0.3963377774, 0.2158037573], [1, -0.1055613458, -0.0638541728], [1, -0.0894841775, -1.2914855480]]
)
_CONE_TO_RGB = np.array(
    [
        [4.0767416621, -3.3077115913, 0.2309699292],
        [-1.2684380046, 2.6097574011, -0.3413193965],
        [-0.0041960863, -0.7034186147, 1.7076147010],
    ]
)


def voc_palette() -> NDArray[np.uint8]:
    """(256, 3) uint8 RGB: the label colours of PASCAL VOC and DAVIS, 0 black, 1 dark red, 2 dark green, ...

    The label's bits 0, 1, 2 go to the top bits of red, green and blue, bits 3, 4, 5 to the next, and so on
    (`VOClabelcolormap.m` of the VOC development kit).
    """
    labels = np.arange(256)
    palette = np.zeros((256, 3), int)
    for bit in range(8):
        palette[:, bit % 3] |= (labels >> bit & 1) << (7 - bit // 3)
    return palette.astype(np.uint8)


PALETTE = voc_palette()


def check_label_count(objects: int) -> None:
    """UsageError where there are more objects than a PNG has values."""
    if objects > MAX_LABELS:
        raise UsageError(
            f"a label PNG holds at most {MAX_LABELS} objects, not {objects}",
            "--format rle, polygon, coco or coco-dataset hold any number, --separate writes a file each",
        )


def label_map(
    masks: Sequence[Mask] | NDArray[np.bool_], original_hw: tuple[int, int] | None = None
) -> NDArray[np.uint8] | NDArray[np.uint16]:
    """(P, H, W) masks -> (H, W) labels: the k-th mask has the value k + 1, background 0; uint8, or uint16 beyond 255.

    Where masks overlap the smaller one lies on top (a window stays visible on its house); of equal ones the later.
    `original_hw` is needed where a list may be empty.
    """
    height, width = _checked_hw(masks, original_hw)
    check_label_count(len(masks))
    labels = np.zeros((height, width), np.uint8 if len(masks) <= 255 else np.uint16)
    for index, window in _large_to_small(masks):
        labels[window][masks[index][window]] = index + 1
    return labels


def separate_masks(labels: NDArray[np.integer]) -> dict[int, Mask]:
    """The inverse of `label_map`: (H, W) labels -> {label: (H, W) mask} in ascending order, without background 0."""
    return {int(label): labels == label for label in np.unique(labels) if label}


def filled_corners(outlines: Sequence[NDArray[np.floating]], original_hw: tuple[int, int]) -> Mask:
    """(H, W) the union of closed outlines (N, 2) x y whose corners are pixels, and filled with them."""
    mask = np.zeros(original_hw, bool)
    for outline in outlines:
        picture = Image.new("1", original_hw[::-1])
        ImageDraw.Draw(picture).polygon([(float(x), float(y)) for x, y in outline], fill=1)
        mask |= np.asarray(picture)
    return mask


def overlap(masks: Sequence[Mask] | NDArray[np.bool_]) -> bool:
    """Whether any pixel belongs to two masks, so that one label map cannot hold them all whole."""
    if not len(masks):
        return False
    taken = np.zeros(_checked_hw(masks, None), bool)
    for mask in masks:
        window = mask_window(mask)
        if window is None:
            continue
        if (taken[window] & mask[window]).any():
            return True
        taken[window] |= mask[window]
    return False


def union(masks: Sequence[Mask] | NDArray[np.bool_], original_hw: tuple[int, int]) -> Mask:
    """(H, W) where any of the masks is, which may be none."""
    merged = np.zeros(_checked_hw(masks, original_hw), bool)
    for mask in masks:
        merged |= mask
    return merged


def object_colour(index: int) -> tuple[int, int, int]:
    """A bright RGB colour for the index-th object, easy to tell from those of the objects before it.

    Hues step by the golden ratio, which never repeats and fills the circle evenly (Martin Ankerl, "How to generate
    random colors programmatically", 2009), in Oklab, where equal steps look equal. The first is blue: green and red
    are the colours of points.
    """
    angle = 2 * np.pi * (0.72 + index * 0.618033988749895)
    lightness, chroma = (0.72, 0.85, 0.60)[index % 3], 0.20  # like hues, 5 and 8 steps apart, differ in lightness
    cone = _OKLAB_TO_CONE @ np.array([lightness, chroma * np.cos(angle), chroma * np.sin(angle)])
    linear = np.clip(_CONE_TO_RGB @ cone**3, 0, 1)
    red, green, blue = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)  # sRGB
    return round(red * 255), round(green * 255), round(blue * 255)


def overlay(
    image: NDArray[np.uint8],
    masks: Sequence[Mask] | NDArray[np.bool_],
    boxes: NDArray[np.floating] | None = None,
    points: NDArray[np.floating] | None = None,
    labels: NDArray[np.floating] | None = None,
    names: Sequence[str | None] = (),
) -> NDArray[np.uint8]:
    """(H, W, 3) RGB photo with each mask as a see-through fill and a crisp contour, and the prompt on top.

    Boxes (P, 4) x0 y0 x1 y1 have their object's colour. Points (P, N, 2) x y are dots, by `labels` (P, N) green for
    foreground (also where labels are missing) and red for background; padding is left out. Lines are 2 pixels on a
    photo of up to 1000 pixels and grow with it. Small objects lie on top, as in `label_map`. `names`, one a mask, are
    written at the mask's top left.
    """
    _checked_hw(masks, image.shape[:2])
    line = max(2, round(max(image.shape[:2]) / 500))
    canvas: NDArray[np.uint8] = image.copy()
    for index, window in _large_to_small(masks):
        mask = masks[index][window]
        rim = _contour(mask, line)
        for channel, value in enumerate(object_colour(index)):
            plane = canvas[..., channel][window]
            mixed = np.rint(np.arange(256) * (1 - FILL) + value * FILL).astype(np.uint8)
            plane[mask] = mixed[image[..., channel][window][mask]]  # of the photo: fills do not add up
            plane[rim] = value
    for index, box in enumerate([] if boxes is None else boxes):
        if not no_boxes(box):
            _draw_box(canvas, box, object_colour(index), line)
    if points is None and not any(names):
        return canvas
    picture = Image.fromarray(canvas)
    draw = ImageDraw.Draw(picture)
    if points is not None:
        marks = np.full(points.shape[:-1], FOREGROUND) if labels is None else labels
        for wanted, colour in ((BACKGROUND, RED), (FOREGROUND, GREEN)):  # what one object is may lie beside another
            for x, y in points[marks == wanted]:
                _draw_dot(draw, float(x), float(y), colour, line)
    for index, name in enumerate(names):
        place = mask_window(masks[index])
        if name and place is not None:
            _draw_name(draw, name, place[1].start, place[0].start, object_colour(index), line)
    return np.array(picture, np.uint8)


def cutout(image: NDArray[np.uint8], mask: Mask, crop: bool = False) -> NDArray[np.uint8]:
    """(H, W, 4) RGBA: the photo where the mask is, transparent (and black, which packs well) elsewhere.

    As large as the photo, so that it can be laid over it; with `crop` as large as the mask's box. An empty mask is not
    cropped, as no image has 0 x 0 pixels.
    """
    _checked_hw([mask], image.shape[:2])
    window = mask_window(mask) if crop else None
    if window is not None:
        image, mask = image[window], mask[window]
    rgba = np.zeros((*mask.shape, 4), np.uint8)
    np.multiply(image, mask[..., None], out=rgba[..., :3])
    rgba[..., 3][mask] = 255
    return rgba


def _checked_hw(masks: Sequence[Mask] | NDArray[np.bool_], original_hw: tuple[int, ...] | None) -> tuple[int, int]:
    """The one shape (H, W) of masks and photo."""
    kinds = {(mask.dtype.kind, mask.shape) for mask in masks}
    if any(kind != "b" for kind, _ in kinds):  # numbers would be taken for positions
        raise UsageError("masks must be arrays of bool")
    shapes = {shape for _, shape in kinds} | ({tuple(original_hw)} if original_hw is not None else set())
    if not len(masks) and isinstance(masks, np.ndarray):
        shapes.add(masks.shape[1:])
    if len(shapes) != 1 or len(shape := shapes.pop()) != 2:
        raise UsageError(f"masks and photo must have one shape (height, width), not {sorted(shapes) or 'none'}")
    return int(shape[0]), int(shape[1])


def _large_to_small(masks: Sequence[Mask] | NDArray[np.bool_]) -> list[tuple[int, Window]]:
    """Index and window of every mask that is not empty, by falling area; equal areas keep their order."""
    kept, areas = [], {}
    for index, mask in enumerate(masks):  # once: a mask may be decoded for it
        window = mask_window(mask)
        if window is not None:
            kept.append((index, window))
            areas[index] = int(np.count_nonzero(mask[window]))
    return sorted(kept, key=lambda item: -areas[item[0]])


def _contour(mask: Mask, width: int) -> Mask:
    """The outermost `width` pixels of a mask; what lies beyond the array counts as outside."""
    core = np.pad(mask, 1)
    for step in range(width):
        # a cross and a square by turns make an octagon: about the same width in all directions
        eroded = core.copy()
        _and_shifted(eroded, core, axis=0)
        source = core if step % 2 == 0 else eroded.copy()
        _and_shifted(eroded, source, axis=1)
        core = eroded
    return mask & ~core[1:-1, 1:-1]


def _and_shifted(target: Mask, source: Mask, axis: int) -> None:
    """Keep of `target` only what has `source` on both sides along the axis. The array's rim must be empty."""
    target, source = np.moveaxis(target, axis, 0), np.moveaxis(source, axis, 0)
    target[1:] &= source[:-1]
    target[:-1] &= source[1:]


def _draw_box(canvas: NDArray[np.uint8], box: NDArray[np.floating], colour: tuple[int, int, int], line: int) -> None:
    """The box's border on the pixels just inside it; where the box leaves the photo, along the photo's rim."""
    height, width = canvas.shape[:2]
    x0, x1 = np.clip(sorted((box[0], box[2])), 0, width).round().astype(int)
    y0, y1 = np.clip(sorted((box[1], box[3])), 0, height).round().astype(int)
    x0, y0 = min(x0, width - 1), min(y0, height - 1)
    inside = canvas[y0 : max(y1, y0 + 1), x0 : max(x1, x0 + 1)]
    inside[:line] = inside[-line:] = inside[:, :line] = inside[:, -line:] = colour


def _draw_dot(draw: ImageDraw.ImageDraw, x: float, y: float, colour: tuple[int, int, int], line: int) -> None:
    radius = 2.5 * line
    width, height = draw.im.size
    if -radius <= x <= width + radius and -radius <= y <= height + radius:
        disc = (x - radius, y - radius, x + radius, y + radius)
        draw.ellipse(disc, fill=colour, outline=WHITE, width=max(1, line // 2))


def _draw_name(
    draw: ImageDraw.ImageDraw, name: str, x: float, y: float, colour: tuple[int, int, int], line: int
) -> None:
    """Black on the object's colour, moved into the photo where it would leave it."""
    font = ImageFont.load_default(size=6 * line)
    name = _drawable(name)
    left, top, right, bottom = draw.textbbox((0, 0), name, font=font)
    width, height = draw.im.size
    x, y = max(0, min(x, width - right - line)), max(0, min(y, height - bottom - line))
    draw.rectangle((x + left, y + top, x + right + line, y + bottom + line), fill=colour)
    draw.text((x + line / 2, y + line / 2), name, fill=BLACK, font=font)


def _drawable(name: str) -> str:
    """Pillow's own font has ASCII alone: letters without their accents, and ? for what has no such letter."""
    plain = "".join(letter for letter in unicodedata.normalize("NFKD", name) if not unicodedata.combining(letter))
    return plain.encode("ascii", "replace").decode("ascii")

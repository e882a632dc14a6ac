"""COCO's ways to write a mask: run-length codes, polygons, annotations and results.

Counts and polygons follow the COCO API's `maskApi.c`. A polygon's coordinates are pixel borders: pixel (x, y) is the
square from (x, y) to (x + 1, y + 1).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from operator import index
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nanosam_cli.core.errors import InputError, OutputError, fault
from nanosam_cli.core.masks import Mask, mask_window
from nanosam_cli.core.media.image import MAX_PIXELS
from nanosam_cli.core.media.packed import PackedSegmentation
from nanosam_cli.core.types import Segmentation

_RLE_HINT = 'a mask is written {"size": [height, width], "counts": "..."}'
Ring = list[tuple[float, float]]  # x y of a closed outline's corners
# Of inclusive outlines: how far a corner moves to the middle of the pixel that it goes round, from that pixel's left or
# top side, and from its right or bottom side. A corner of pixel k is so between k and k + 0.5, with room for the
# rounding of what is written: k for those who cut the fraction off, and for those who round.
_FROM_LOW, _FROM_HIGH = 0.05, 0.55
_LOOKS = 200  # corners of a ring at which another one may hang
_RESULT_KEYS = ("image_id", "category_id", "segmentation", "score")


def mask_to_rle(mask: Mask) -> dict[str, Any]:
    """(H, W) mask -> COCO's compressed run-length code {"size": [H, W], "counts": str}, ready for JSON."""
    from pycocotools import mask as coco_mask

    rle = coco_mask.encode(np.asfortranarray(mask, np.uint8))
    return {"size": [int(side) for side in mask.shape], "counts": rle["counts"].decode("ascii")}


def rle_to_mask(rle: Mapping[str, Any]) -> Mask:
    """COCO's run-length code, counts compressed (str or bytes) or a plain list -> (H, W) mask.

    Decoded here because pycocotools' decoder trusts its input: broken counts end the process.

    Raises:
        InputError: it is no run-length code, or its runs do not fill its size.
    """
    try:
        if len(rle["size"]) != 2:
            raise ValueError(f"size has {len(rle['size'])} numbers, not 2")
        height, width = (index(side) for side in rle["size"])
        counts = rle["counts"]
        runs = [index(run) for run in (_runs(counts) if isinstance(counts, (str, bytes)) else counts)]
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"not a COCO run-length code: {fault(error)}", _RLE_HINT) from error
    if min(height, width) < 1 or height * width > MAX_PIXELS:
        raise InputError(f"a COCO run-length code cannot have the size {height} x {width}", _RLE_HINT)
    if min(runs, default=0) < 0 or sum(runs) != height * width:
        raise InputError(f"the runs of a COCO run-length code do not fill its {height} x {width} pixels", _RLE_HINT)
    values = np.arange(len(runs)) % 2 == 1  # runs of 0 and 1 by turns, down the columns
    return np.ascontiguousarray(np.repeat(values, runs).reshape(width, height).T)


def rle_box(rle: Mapping[str, Any]) -> tuple[float, float, float, float]:
    """x0 y0 x1 y1 around a mask, without area where it is empty. InputError as with `rle_to_mask`."""
    window = mask_window(rle_to_mask(rle))
    if window is None:
        return 0.0, 0.0, 0.0, 0.0
    rows, columns = window
    return float(columns.start), float(rows.start), float(columns.stop), float(rows.stop)


def rle_ious(rles: Sequence[Mapping[str, Any]]) -> NDArray[np.float64]:
    """(P, P) intersection over union of every two masks of one size, from compressed run-length codes."""
    from pycocotools import mask as coco_mask

    if not rles:
        return np.zeros((0, 0))
    codes = list(rles)
    return np.asarray(coco_mask.iou(codes, codes, [0] * len(codes)))


def mask_to_polygons(mask: Mask, simplify: float = 0.0, *, inclusive: bool = False) -> list[list[float]]:
    """(H, W) mask -> COCO polygons [x, y, x, y, ...], one for each 4-connected part, none for an empty mask.

    The outlines run exactly along the pixel borders, without collinear points; rasterised by pycocotools they give the
    very same mask. A COCO polygon cannot hold a hole, so each hole is joined to the outline above it by a line there
    and back, which has no area. Holes run the other way round, so the shoelace area is the mask's too.

    With `simplify`, corners are left out as long as the outline stays within so many pixels of the exact one. Every
    part and every hole stays, and no two of them cross.

    `inclusive` outlines are for tools that take corners for pixels and fill those too, as OpenCV's `fillPoly` and
    Pillow's `polygon` do: cut off or rounded to whole numbers, each corner is a pixel of the mask at its border, and
    the filled outline is the mask.
    """
    window = mask_window(mask)
    if window is None:
        return []
    corner = np.array([window[1].start, window[0].start])
    outlines = _outlines(mask[window], inclusive)
    rings = _simplified(outlines, simplify) if simplify else outlines
    return [(ring + corner).astype(float).ravel().tolist() for ring in rings]


def join_rings(rings: Sequence[Sequence[float]]) -> list[float]:
    """One closed outline x y x y ... round all rings, the next one always by the shortest way there and back.

    The ways have no area; where corners and lines are filled too, they are one pixel wide. Of long rings, every k-th
    corner alone is the end of a way.
    """
    left = [np.reshape(ring, (-1, 2)) for ring in rings]
    if not left:
        return []
    outline = left.pop(0)
    ways = [_way(outline, ring) for ring in left]
    while left:
        nearest = min(range(len(left)), key=lambda place: ways[place][0])
        (_, start, end), ring = ways.pop(nearest), left.pop(nearest)
        foot = int(np.flatnonzero((outline == start).all(axis=1))[0])
        top = int(np.flatnonzero((ring == end).all(axis=1))[0])
        outline = _spliced(outline, foot, ring, top)
        ways = [min(way, _way(ring, other), key=lambda one: one[0]) for way, other in zip(ways, left)]
    return [float(side) for side in outline.ravel()]


def coco_image(image_id: int, file_name: str, original_hw: tuple[int, int]) -> dict[str, Any]:
    """One entry of a COCO file's `images`."""
    return {"id": image_id, "file_name": file_name, "width": int(original_hw[1]), "height": int(original_hw[0])}


def coco_annotation(
    segmentation: Segmentation | PackedSegmentation,
    annotation_id: int,
    image_id: int,
    category_id: int = 1,
    polygon: bool = False,
    simplify: float = 0.0,
) -> dict[str, Any]:
    """One entry of a COCO file's `annotations`, with the predicted IoU as `score`; bbox is x y width height.

    For `simplify`, in pixels, see `mask_to_polygons`.
    """
    mask = segmentation.mask
    rle_or_polygons = mask_to_polygons(mask, simplify) if polygon else mask_to_rle(mask)
    return {
        "id": annotation_id,
        "image_id": image_id,
        "category_id": category_id,
        "segmentation": rle_or_polygons,
        "score": float(segmentation.predicted_iou),
        "bbox": [float(side) for side in segmentation.bbox or (0, 0, 0, 0)],
        "area": segmentation.area,
        "iscrowd": 0,
    }


def coco_results(annotations: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Annotations -> the list that `pycocotools.COCO.loadRes` reads: image_id, category_id, segmentation, score.

    No more than these keys: where `loadRes` finds a bbox it takes the box's area for the mask's, and objects change
    their size class.

    Raises:
        OutputError: the list is empty or holds polygons, which `loadRes` cannot read.
    """
    if not annotations:
        raise OutputError("no objects: a COCO results file cannot be empty", "give a prompt that finds something")
    if not all(isinstance(annotation["segmentation"], Mapping) for annotation in annotations):
        raise OutputError("a COCO results file holds run-length codes, not polygons", "write the masks as RLE")
    return [{key: annotation[key] for key in _RESULT_KEYS} for annotation in annotations]


def _runs(counts: str | bytes) -> Iterator[int]:
    """The run lengths of compressed counts: `rleFrString` of maskApi.c.

    A number is a chain of characters from 48 on, 5 bits each, lowest first; bit 5 says that more follow, bit 4 of the
    last is the sign. From the fourth number on they are differences to the number two before.
    """
    before, last = 0, 0
    number = shift = position = 0
    for character in counts.encode() if isinstance(counts, str) else counts:
        bits = character - 48
        if not 0 <= bits < 64 or shift > 30:
            raise ValueError("bad characters in counts")
        number |= (bits & 31) << shift
        shift += 5
        if bits & 32:
            continue
        if bits & 16:
            number -= 1 << shift
        before, last = last, number + (before if position > 2 else 0)
        yield last
        number = shift = 0
        position += 1
    if shift:
        raise ValueError("counts are cut off")


def _outlines(mask: Mask, inclusive: bool) -> list[NDArray[np.float64]]:
    """(N, 2) x y corners of the closed outline of every 4-connected part, clockwise on the screen, holes bridged in."""
    xs, ys, partner = _corners(mask)
    right, down = _inward(mask, xs, ys) if inclusive else (np.zeros(len(xs)), np.zeros(len(ys)))
    low, high = (_FROM_LOW, _FROM_HIGH) if inclusive else (0.0, 0.0)
    padded = np.pad(mask, 1)
    stride = mask.shape[1] + 1
    left_ends = ys[::2] * stride + xs[::2]  # of all horizontal edges, in ascending order
    x_list, y_list = (xs + right).tolist(), (ys + down).tolist()  # ten times as fast to index
    holes: dict[int, list[Ring]] = {}  # by the number of the edge that they hang on
    outlines = []
    for ring, is_hole in reversed(_rings(mask, xs, ys, partner)):  # a ring comes after the holes below its edges
        points = _with_holes(ring, x_list, y_list, holes)
        if not is_hole:
            outlines.append(_without_collinear(np.array(points)))
            continue
        x, y = int(xs[ring[0]]), int(ys[ring[0]])  # the topmost corner, of these the left: the pixel above it is mask
        edge_y = y - int(np.argmin(padded[y::-1, x + 1]))  # up along the column to the end of the part
        edge = int(np.searchsorted(left_ends, edge_y * stride + x, side="right")) - 1
        holes.setdefault(edge, []).append([(x + low, y - high), *points])
    return outlines[::-1]


def _simplified(outlines: Sequence[NDArray[np.float64]], pixels: float) -> Iterator[NDArray[Any]]:
    """The same outlines with fewer corners, by the Douglas-Peucker algorithm."""
    from shapely import MultiPolygon, Polygon, get_parts

    parts = MultiPolygon([Polygon(outline).buffer(0) for outline in outlines])  # which turns bridged holes into holes
    return map(_bridged, get_parts(parts.simplify(pixels)))


def _way(ring: NDArray[Any], other: NDArray[Any]) -> tuple[float, NDArray[Any], NDArray[Any]]:
    """The shortest way from a corner of one ring to one of another: its length squared, and the two."""
    some, others = (one[:: len(one) // _LOOKS + 1] for one in (ring, other))
    distances = np.square(some[:, None] - others).sum(axis=2)
    foot, top = np.unravel_index(distances.argmin(), distances.shape)
    return float(distances[foot, top]), some[foot], others[top]


def _spliced(ring: NDArray[Any], foot: int, other: NDArray[Any], top: int) -> NDArray[Any]:
    """One ring round both: to corner `foot`, over to `top` of the other, round it, and back."""
    other = np.roll(other, -top, axis=0)
    return np.concatenate([ring[: foot + 1], other, other[:1], ring[foot:]])


def _bridged(part: Any) -> NDArray[Any]:
    """(N, 2) x y corners of a shapely polygon as one ring, each hole at the end of a bridge from the nearest corner."""
    from shapely.geometry.polygon import orient

    part = orient(part)  # counter-clockwise where y points up: clockwise on the screen, and holes the other way
    ring = np.array(part.exterior.coords[:-1])
    for interior in part.interiors:
        hole = np.array(interior.coords[:-1])
        distances = np.linalg.norm(ring[:, None] - hole, axis=2)
        foot, top = np.unravel_index(distances.argmin(), distances.shape)
        ring = _spliced(ring, int(foot), hole, int(top))
    return ring


def _with_holes(ring: list[int], xs: list[float], ys: list[float], holes: dict[int, list[Ring]]) -> Ring:
    """The x y of a ring's corners, with the rings of the holes that hang on its edges, each at the end of a bridge."""
    points: Ring = []
    for corner, following in zip(ring, [*ring[1:], ring[0]]):
        points.append((xs[corner], ys[corner]))
        if corner % 2 == 0 and following == corner + 1:  # rightward: the mask is below, and maybe holes in it
            for hole in sorted(holes.get(corner // 2, []), key=lambda hole: hole[0]):
                foot = hole[0][0], ys[corner]
                points += [foot, *hole, hole[0], foot]
    return points


def _corners(mask: Mask) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """x, y of the outlines' corners in reading order, and each one's partner at the other end of its vertical edge.

    The partner on its horizontal edge is the neighbour in order: corners 2k and 2k + 1 bound edge k. Where two mask
    pixels touch only diagonally two corners lie on one point, first the one whose horizontal edge ends there.
    """
    padded = np.pad(mask, 1)
    top_left, top_right = padded[:-1, :-1], padded[:-1, 1:]
    bottom_left, bottom_right = padded[1:, :-1], padded[1:, 1:]
    diagonal = (top_left == bottom_right) & (top_right == bottom_left) & (top_left != top_right)
    ys, xs = np.nonzero(diagonal | (top_left ^ top_right ^ bottom_left ^ bottom_right))
    copies = 1 + diagonal[ys, xs]
    ys, xs = np.repeat(ys, copies), np.repeat(xs, copies)
    is_second = np.zeros(len(ys), bool)
    is_second[1:] = (ys[1:] == ys[:-1]) & (xs[1:] == xs[:-1])
    # each corner goes round one mask pixel: where that is the top right one, the second corner has the edge from above
    ends_edge_from_above = is_second ^ top_left[ys, xs]
    order = np.lexsort((~ends_edge_from_above, ys, xs))
    partner = np.empty(len(order), np.int64)
    partner[order[::2]], partner[order[1::2]] = order[1::2], order[::2]
    return xs, ys, partner


def _inward(
    mask: Mask, xs: NDArray[np.int64], ys: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """How far right and down each corner of `_corners` moves into the pixel of the mask that it goes round.

    Where three pixels of the mask meet, that is the middle one; where two touch diagonally, the first corner's is on
    the left and the second's on the right.
    """
    padded = np.pad(mask, 1).astype(np.int8)
    top_left, top_right, bottom_left, bottom_right = (
        padded[ys + down, xs + right] for down, right in ((0, 0), (0, 1), (1, 0), (1, 1))
    )
    to_right = top_right + bottom_right - top_left - bottom_left
    to_bottom = bottom_left + bottom_right - top_left - top_right
    diagonal = to_right == 0  # with no two of them side by side, so that both sums are 0
    is_second = np.zeros(len(xs), bool)
    is_second[1:] = diagonal[1:] & (ys[1:] == ys[:-1]) & (xs[1:] == xs[:-1])
    to_right = np.where(diagonal, np.where(is_second, 1, -1), to_right)
    to_bottom = np.where(diagonal, np.where(is_second == (top_left == 1), 1, -1), to_bottom)
    right, down = (np.where(side > 0, _FROM_LOW, -_FROM_HIGH) for side in (to_right, to_bottom))
    return right, down


def _rings(
    mask: Mask, xs: NDArray[np.int64], ys: NDArray[np.int64], vertical: NDArray[np.int64]
) -> list[tuple[list[int], bool]]:
    """Closed rings of corner indices, each from its topmost corner (of these the left), and whether it is a hole.

    Outlines run clockwise, holes counter-clockwise. In the order of their first corners.
    """
    partner = vertical.tolist()
    seen = [False] * len(partner)
    rings = []
    for start in range(len(partner)):
        if seen[start]:
            continue
        is_hole = not mask[ys[start], xs[start]]
        ring, corner, go_down = [], start, is_hole
        while not seen[corner]:
            seen[corner] = True
            ring.append(corner)
            corner = partner[corner] if go_down else corner ^ 1
            go_down = not go_down
        rings.append((ring, is_hole))
    return rings


def _without_collinear(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """A closed ring without repeated points and without points that lie on a straight way on."""
    kept = points[(points != np.roll(points, 1, axis=0)).any(axis=1)]
    heading = np.sign(np.roll(kept, -1, axis=0) - kept)
    corners: NDArray[np.float64] = kept[(heading != np.roll(heading, 1, axis=0)).any(axis=1)]
    return corners

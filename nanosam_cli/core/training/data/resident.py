"""All photos and masks on the training device, where crops are then made: for sets that fit into its memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from nanosam_cli.core.datasets.coco import AnnotatedObject, AnnotatedPhoto
from nanosam_cli.core.errors import BackendError, InputError
from nanosam_cli.core.system.machine import free_memory_bytes
from nanosam_cli.core.training.data.image_folder import PlainPhoto
from nanosam_cli.core.training.data.photos import Photo, PhotoShape, View, name_of, read_photo
from nanosam_cli.core.training.data.resize import AxisFilter, apply
from nanosam_cli.core.training.run_log import Report, RunNote

Key = Path | PlainPhoto

MOST_MEMORY = 0.8  # share of what is free; models and their activations need the rest


@dataclass(frozen=True)
class Stored:
    """A photo on the device."""

    original_hw: tuple[int, int]
    offset: int  # of its pixels among all


class ResidentPhotos:
    """`Photos` that were read once: photos as they are, of masks the rectangles that hold them, a byte a pixel.

    What a crop shows of each object is found on the host, which keeps the masks too; pixels never leave the device.
    Asking for a photo that could not be read raises what reading it did.
    """

    def __init__(self, photos: Sequence[Photo], device: torch.device, report: Report) -> None:
        """`report` is told how much memory is needed. BackendError where the device has not that much to spare."""
        self.device = device
        self._stored: dict[Key, Stored] = {}
        self._broken: dict[Key, InputError] = {}
        self._shapes: dict[Key, list[PhotoShape]] = {}
        photos = list({_key(photo): photo for photo in photos}.values())
        areas = [self._area(photo) for photo in photos]
        mask_bytes = 0
        for photo in photos:
            shapes = self._shapes[_key(photo)] = []
            for target in photo.objects if isinstance(photo, AnnotatedPhoto) else ():
                shapes.append(_shape(target, mask_bytes))
                mask_bytes += shapes[-1].pixels.size
        count = sum(len(shapes) for shapes in self._shapes.values())
        _check_room(f"{len(photos)} photos and {count} masks", 3 * sum(areas) + mask_bytes, device, report)
        self._pixels = torch.empty(3 * sum(areas), dtype=torch.uint8, device=device)
        self._masks = torch.empty(mask_bytes, dtype=torch.uint8, device=device)
        offset = 0
        for photo, area in zip(photos, areas):
            self._load(photo, offset, area)
            offset += 3 * area

    def _area(self, photo: Photo) -> int:
        """Pixels of a photo, known before it is read; 0 where it cannot be."""
        if isinstance(photo, AnnotatedPhoto):
            return photo.original_hw[0] * photo.original_hw[1]
        try:
            return photo.area()
        except InputError as error:
            self._broken[_key(photo)] = error
            return 0

    def _load(self, photo: Photo, offset: int, area: int) -> None:
        for shape in self._shapes[_key(photo)]:
            own = torch.from_numpy(shape.pixels.astype(np.uint8) * 255).flatten()
            self._masks[shape.offset : shape.offset + len(own)] = own.to(self.device)
        try:
            pixels = read_photo(photo)
            if pixels.size != 3 * area:
                raise InputError(f"{name_of(photo)} has not as many pixels as it says")
        except InputError as error:
            self._broken.setdefault(_key(photo), error)
            return
        flat = torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1))).flatten()
        self._pixels[offset : offset + len(flat)] = flat.to(self.device)
        self._stored[_key(photo)] = Stored((pixels.shape[0], pixels.shape[1]), offset)

    def original_hw(self, photo: Photo) -> tuple[int, int]:
        return photo.original_hw if isinstance(photo, AnnotatedPhoto) else self._find(photo).original_hw

    def shape(self, photo: AnnotatedPhoto, row: int) -> PhotoShape:
        return self._shapes[_key(photo)][row]

    def image(self, view: View, side: int, zoom: float = 1) -> Tensor:
        return self._image(view, side, *self._filters(view, side, zoom))

    def cut(self, view: View, shapes: Sequence[PhotoShape], side: int) -> tuple[Tensor, Tensor]:
        down, across = self._filters(view, side)
        size = (len(shapes), down.last - down.first, across.last - across.first)
        part = torch.zeros(size, dtype=torch.uint8, device=self.device)
        for square, shape in zip(part, shapes):
            height, width = shape.pixels.shape
            own = self._masks[shape.offset : shape.offset + height * width].view(height, width)
            top, bottom = max(down.first, shape.top), min(down.last, shape.top + height)
            left, right = max(across.first, shape.left), min(across.last, shape.left + width)
            square[top - down.first : bottom - down.first, left - across.first : right - across.first] = own[
                top - shape.top : bottom - shape.top, left - shape.left : right - shape.left
            ]
        return self._image(view, side, down, across), _squared(apply(part, down, across), view, side)

    def _image(self, view: View, side: int, down: AxisFilter, across: AxisFilter) -> Tensor:
        stored = self._find(view.photo)
        height, width = stored.original_hw
        whole = self._pixels[stored.offset : stored.offset + 3 * height * width].view(3, height, width)
        part = whole[:, down.first : down.last, across.first : across.last]
        return _squared(apply(part, down, across), view, side)

    def _find(self, photo: Photo) -> Stored:
        key = _key(photo)
        if key in self._broken:
            raise self._broken[key]
        return self._stored[key]

    def _filters(self, view: View, side: int, zoom: float = 1) -> tuple[AxisFilter, AxisFilter]:
        x0, y0, x1, y1 = view.window
        height, width = self._find(view.photo).original_hw
        out_height, out_width = view.valid_hw(side, zoom)
        down = AxisFilter(y0, y1, out_height, height, self.device)
        return down, AxisFilter(x0, x1, out_width, width, self.device)


def _squared(resized: Tensor, view: View, side: int) -> Tensor:
    """(n, h, w) -> (n, side, side), mirrored within what is photo, zero-padded."""
    out = torch.zeros(len(resized), side, side, dtype=torch.uint8, device=resized.device)
    out[:, : resized.shape[1], : resized.shape[2]] = resized.flip(2) if view.mirror else resized
    return out


def _shape(target: AnnotatedObject, offset: int) -> PhotoShape:
    mask = target.mask()
    columns, rows = np.flatnonzero(mask.any(axis=0)), np.flatnonzero(mask.any(axis=1))
    left, right = (int(columns[0]), int(columns[-1]) + 1) if len(columns) else (0, 0)
    top, bottom = (int(rows[0]), int(rows[-1]) + 1) if len(rows) else (0, 0)
    pixels = np.ascontiguousarray(mask[top:bottom, left:right])
    return PhotoShape(left, top, pixels, int(np.count_nonzero(pixels)), offset)


def _check_room(what: str, needed: int, device: torch.device, report: Report) -> None:
    """Say how much memory is needed, or BackendError."""
    free = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else free_memory_bytes()
    text = f"{what} need {needed / 1e9:.2f} GB on {device}"
    if free is not None and needed > MOST_MEMORY * free:
        raise BackendError(
            f"{text}, which has {free / 1e9:.2f} GB left; training needs a fifth of that itself",
            "--set data.resident=false, or name fewer data.sources",
        )
    report(RunNote(text))


def _key(photo: Photo) -> Key:
    return photo.path if isinstance(photo, AnnotatedPhoto) else photo

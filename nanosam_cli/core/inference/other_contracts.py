"""Files that other exporters write for the same models, as sessions of this project's contract.

- an image encoder whose sole input has another name;
- samexporter's image encoder: `input_image` (H, W, 3), RGB from 0 to 255, normalised and padded inside;
- segment-anything's mask decoder: a sixth input `orig_im_size`, and `masks` at that size, which are not used;
- labels and flags of another number type, such as int64.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nanosam_cli.core.errors import ModelError
from nanosam_cli.core.frame import COORDINATE_SIZE, Array
from nanosam_cli.core.inference.contract import INPUTS
from nanosam_cli.core.inference.session import Session, Tensor, TensorInfo, host
from nanosam_cli.core.types import DECODER

_IMAGE = "image"
_PHOTO_SIZE = "orig_im_size"
_SMALL_PHOTO = (64, 64)  # what `masks` are computed for; any size will do, as they are not used
_FLAGS = ("point_labels", "has_mask_input")  # whole numbers, whatever type they come in
_NUMBERS = ("bool", "uint8", "int8", "int16", "int32", "int64", "float64")
_PIXELS = ("float32", "uint8")


def as_contract(session: Session, mean: Sequence[float], std: Sequence[float]) -> Session:
    """The session as one of the contract, where its file is of a kind that is known here; else as it is.

    `mean` and `std` are those that images are normalised with. ModelError where the file was made for another tool.
    """
    if (contract := session.metadata.get("nanosam.contract")) == "anylabeling":
        raise ModelError(
            f"{session.path} was made for {contract}'s own pair of files, which hand on the photo's size between them",
            "nanosam export all MODEL --contract samexporter -o DIR, which other tools and nanosam read",
        )
    names = {info.name for info in session.inputs}
    if names - {_PHOTO_SIZE} == INPUTS[DECODER].keys():
        return _OtherDecoder(session) if _differs(session) else session
    if len(session.inputs) != 1:
        return session
    image = session.inputs[0]
    if len(image.shape) == 3 and image.shape[2] == 3 and image.dtype in _PIXELS:
        return _PixelEncoder(session, mean, std)
    if len(image.shape) == 4 and image.name != _IMAGE:
        return _RenamedEncoder(session)
    return session


def _differs(decoder: Session) -> bool:
    return any(_is_flag_of_another_type(info) or info.name == _PHOTO_SIZE for info in decoder.inputs)


def _is_flag_of_another_type(info: TensorInfo) -> bool:
    return info.name in _FLAGS and info.dtype in _NUMBERS


class _Other:
    """A session whose file is of another contract."""

    def __init__(self, session: Session, inputs: tuple[TensorInfo, ...]) -> None:
        self._session = session
        self.inputs = inputs

    @property
    def path(self) -> Path:
        return self._session.path

    @property
    def outputs(self) -> tuple[TensorInfo, ...]:
        return self._session.outputs

    @property
    def metadata(self) -> dict[str, str]:
        return self._session.metadata

    @property
    def backend(self) -> str:
        return self._session.backend

    @property
    def remarks(self) -> tuple[str, ...]:
        return self._session.remarks

    def close(self) -> None:
        self._session.close()


class _RenamedEncoder(_Other):
    """An image encoder whose only input has another name than `image`."""

    def __init__(self, session: Session) -> None:
        super().__init__(session, (replace(session.inputs[0], name=_IMAGE),))

    def run(self, feeds: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return self._session.run({self._session.inputs[0].name: feeds[_IMAGE]})


class _PixelEncoder(_Other):
    """An image encoder that takes a picture's own pixels (H, W, 3).

    Where the file fixes both sides, the picture fills a square of that side, and its padding is the mean colour, which
    the file's normalisation makes zeros of. Else the picture is the photo alone, its longest side 1,024 as samexporter
    has it, and the file pads.
    """

    def __init__(self, session: Session, mean: Sequence[float], std: Sequence[float]) -> None:
        height, width, _ = session.inputs[0].shape
        self._fixed = height is not None and width is not None
        shape = (1, 3, height or width or COORDINATE_SIZE, width or height or COORDINATE_SIZE)
        super().__init__(session, (TensorInfo(_IMAGE, shape, "float32"),))
        self._mean, self._std = np.array(mean, np.float32), np.array(std, np.float32)

    def run(self, feeds: Mapping[str, Tensor]) -> dict[str, Tensor]:
        image = self._session.inputs[0]
        normalised = host(feeds[_IMAGE])[0].transpose(1, 2, 0)
        pixels = normalised * self._std + self._mean
        height, width = _photo_hw(normalised)
        pixels[:height, :width] = np.rint(pixels[:height, :width])  # the very numbers that were normalised
        if not self._fixed:
            pixels = pixels[:height, :width]
        if image.dtype == "uint8":
            pixels = np.rint(pixels).clip(0, 255)
        return self._session.run({image.name: np.ascontiguousarray(pixels, image.dtype)})


def _photo_hw(normalised: Array) -> tuple[int, int]:
    """(S, S, 3) -> how much of it is not padding, which is exactly zero, as no photo's last row and column are."""
    rows, columns = (np.flatnonzero(np.abs(normalised).max(axis=axes)) for axes in ((1, 2), (0, 2)))
    return int(rows.max(initial=0)) + 1, int(columns.max(initial=0)) + 1


class _OtherDecoder(_Other):
    """A mask decoder with a sixth input, or with labels and flags of another type."""

    def __init__(self, session: Session) -> None:
        kept = [info for info in session.inputs if info.name != _PHOTO_SIZE]
        told = (replace(info, dtype="float32") if _is_flag_of_another_type(info) else info for info in kept)
        super().__init__(session, tuple(told))

    def run(self, feeds: Mapping[str, Tensor]) -> dict[str, Tensor]:
        given: dict[str, Tensor | NDArray[np.int64]] = dict(feeds)
        types = {info.name: info.dtype for info in self._session.inputs}
        if _PHOTO_SIZE in types:
            given[_PHOTO_SIZE] = np.array(_SMALL_PHOTO, types[_PHOTO_SIZE])
        for name in _FLAGS:
            given[name] = host(given[name]).astype(types[name])
        return self._session.run(given)

"""The model behind HTTP: photos to handles, handles and prompts to masks, over the one predictor."""

from __future__ import annotations

import asyncio
import math
import re
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from types import TracebackType
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from nanosam_cli.core.errors import UsageError
from nanosam_cli.core.frame import PixelBox
from nanosam_cli.core.inference.predictor import Predictor, PreparedImage
from nanosam_cli.core.masks import Mask
from nanosam_cli.core.media.image import image_area, read_image
from nanosam_cli.core.prompting.request import Point, Request, padded_points
from nanosam_cli.core.segmentation.everything import Everything, segment_everything
from nanosam_cli.core.segmentation.result import found_masks
from nanosam_cli.core.serving.answers import BusyError
from nanosam_cli.core.serving.embeddings import HeldEmbeddings
from nanosam_cli.core.serving.limits import RequestLimits
from nanosam_cli.core.system.files import read_input
from nanosam_cli.core.timing import Stopwatch
from nanosam_cli.core.types import ImageEmbedding, Segmentation

T = TypeVar("T")

_HELD_PIXELS = 64_000_000  # of masks at the photo's size that are held at once
_OBJECT = re.compile(r"^object (\d+)")


@dataclass(frozen=True, eq=False)
class ObjectPrompt:
    """What is known of one object, original pixels."""

    box: tuple[float, float, float, float] | None = None  # x0 y0 x1 y1
    points: Sequence[Point] = ()  # x y label
    mask: Mask | None = None  # (H, W)


@dataclass(frozen=True)
class Encoded:
    """A photo that was encoded."""

    handle: str
    original_hw: tuple[int, int]  # of the whole photo, whatever part of it was encoded
    watch: Stopwatch


@dataclass(frozen=True)
class ObjectMask(Generic[T]):
    """One mask of one object, as the caller wanted it."""

    object: int  # from 0
    segmentation: T


class SegmentService:
    """Encodes and segments for any number of clients at once.

    The model works in one thread, so that its own threads have the cores to themselves; photos are decoded in two
    others. BusyError where more requests wait than `limits` has room for. Closed at the end of a `with` block; the
    predictor stays the caller's.
    """

    def __init__(self, predictor: Predictor, limits: RequestLimits | None = None) -> None:
        self.predictor = predictor
        self.limits = limits or RequestLimits()
        self.cache = HeldEmbeddings(self.limits.cache_bytes)
        self._model = ThreadPoolExecutor(1, "model")
        self._decoding = ThreadPoolExecutor(2, "decode")
        self._encoding: dict[str, asyncio.Future[ImageEmbedding]] = {}  # what is on its way, by handle
        self._waiting = 0
        # the digest and the pixels of the photo whose windows are looked at: decoding it takes longer than encoding one
        self._last: tuple[bytes, NDArray[np.uint8]] | None = None

    def __enter__(self) -> SegmentService:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for pool in (self._decoding, self._model):
            pool.shutdown(cancel_futures=True)

    async def encode(self, source: bytes | Path, window: PixelBox | None = None) -> Encoded:
        """A photo's bytes or its file -> a handle, the same for the same bytes, and the same window of them.

        A window, x0 y0 x1 y1 in whole pixels, is encoded as large as the whole photo would be; prompts and masks stay
        in the photo's pixels. InputError where it is no photo, UsageError where it has no such window.
        """
        watch = Stopwatch()
        with watch("read"):
            data = await self._run(self._decoding, lambda: _bytes(source))
            handle = _handle(data, window)
        if handle in self.cache:
            return Encoded(handle, self.cache.get(handle).original_hw, watch)
        if handle not in self._encoding:  # else it is on its way already, as ahead of a person who goes on
            self._encoding[handle] = asyncio.ensure_future(self._encode(handle, data, window, watch))
            self._encoding[handle].add_done_callback(lambda _: self._encoding.pop(handle))
        embedding = await asyncio.shield(self._encoding[handle])
        return Encoded(handle, embedding.original_hw, watch)

    async def segment(
        self,
        handle: str,
        objects: Sequence[ObjectPrompt],
        convert: Callable[[Segmentation], T],
        *,
        multimask: bool = False,
        threshold: float = 0.0,
    ) -> list[ObjectMask[T]]:
        """The mask of each object, with `multimask` every candidate of it, in their order.

        `convert` makes of each what is kept, so that not all masks of a large photo are held at once.

        Raises:
            GoneError, NotFoundError: there is no such embedding, or not any longer.
            UsageError, InputError: a prompt cannot be used; the message has the object's number from 1.
        """
        embedding = self.cache.get(handle)
        return await self._run(
            self._model, lambda: self._segment(embedding, objects, convert, multimask=multimask, threshold=threshold)
        )

    async def everything(
        self, source: bytes | Path, settings: Everything, convert: Callable[[Segmentation], T], threshold: float = 0.0
    ) -> tuple[list[tuple[float, float]], list[T], tuple[int, int]]:
        """Everything in a photo -> the click of each mask (x y), the masks as `convert` makes them, the photo's size.

        InputError where it is no photo.
        """

        def decode() -> NDArray[np.uint8]:
            return self.read_photo(_bytes(source))

        def work() -> tuple[list[tuple[float, float]], list[T]]:
            request, masks = segment_everything(self.predictor, image, settings, threshold)
            clicks = [] if request.points is None else [(float(x), float(y)) for x, y in request.points[:, 0]]
            return clicks, [convert(one) for one in masks]

        image = await self._run(self._decoding, decode)
        clicks, found = await self._run(self._model, work)
        return clicks, found, (image.shape[0], image.shape[1])

    def _prepare(self, data: bytes, window: PixelBox | None) -> PreparedImage:
        if window is None:
            return self.predictor.prepare_image(self.read_photo(data))
        digest = sha256(data).digest()
        last = self._last
        if last is None or last[0] != digest:
            last = self._last = digest, self.read_photo(data)
        return self.predictor.prepare_image(last[1], window)

    def read_photo(self, data: bytes) -> NDArray[np.uint8]:
        """(H, W, 3) uint8 RGB. TooLargeError by the header alone; InputError where it is no photo."""
        self.limits.check_photo(image_area(data))
        return read_image(data)

    async def embedding(self, source: bytes | Path) -> ImageEmbedding:
        """A photo's bytes or its file -> its embedding. InputError where it is no photo."""
        return self.cache.get((await self.encode(source)).handle)

    async def run_model(self, work: Callable[[], T]) -> T:
        """Do something with the model, alone."""
        return await self._run(self._model, work)

    async def decode(self, work: Callable[[], T]) -> T:
        """Do something with pictures beside the event loop."""
        return await self._run(self._decoding, work)

    async def _encode(self, handle: str, data: bytes, window: PixelBox | None, watch: Stopwatch) -> ImageEmbedding:
        with watch("read"):
            prepared = await self._run(self._decoding, lambda: self._prepare(data, window))
        with watch("encode"):
            embedding = await self._run(self._model, lambda: self.predictor.encode_image(prepared))
        self.cache.put(handle, embedding)
        return embedding

    async def _run(self, pool: Executor, work: Callable[[], T]) -> T:
        if self._waiting >= self.limits.waiting:
            raise BusyError(f"{self._waiting} requests wait already", "try again in a moment")
        self._waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(pool, work)
        finally:
            self._waiting -= 1

    def _segment(
        self,
        embedding: ImageEmbedding,
        objects: Sequence[ObjectPrompt],
        convert: Callable[[Segmentation], T],
        *,
        multimask: bool,
        threshold: float,
    ) -> list[ObjectMask[T]]:
        found: list[ObjectMask[T]] = []
        for rows in _calls(objects, embedding.original_hw):
            predict = self.predictor.predict_multimask if multimask else self.predictor.predict
            try:
                prompt = _request([objects[row] for row in rows]).prompt(embedding.frame)
                masks = found_masks(predict(embedding, prompt, threshold=threshold))
            except UsageError as error:
                raise UsageError(_renumbered(str(error), rows), error.hint) from error
            for one in masks:
                assert isinstance(one.segmentation, Segmentation)  # as `found_masks` leaves them
                found.append(ObjectMask(rows[one.prompt], convert(one.segmentation)))
        return sorted(found, key=lambda one: one.object)


def _bytes(source: bytes | Path) -> bytes:
    return source if isinstance(source, bytes) else read_input(source, "photo")


def _handle(data: bytes, window: PixelBox | None) -> str:
    digest = sha256(data)
    if window is not None:
        digest = sha256(digest.digest() + repr(window).encode())
    return digest.hexdigest()[:32]


def _calls(objects: Sequence[ObjectPrompt], original_hw: tuple[int, int]) -> Iterator[list[int]]:
    """Rows that go through the predictor together: alike in having a mask, and few enough for the memory."""
    most = max(1, _HELD_PIXELS // math.prod(original_hw))
    for has_mask in (False, True):
        rows = [row for row, one in enumerate(objects) if (one.mask is not None) == has_mask]
        for start in range(0, len(rows), most):
            yield rows[start : start + most]


def _renumbered(message: str, rows: Sequence[int]) -> str:
    """A message about `object 1` of one call, with the number that it has among all."""
    return _OBJECT.sub(lambda found: f"object {rows[int(found[1]) - 1] + 1}", message)


def _request(objects: Sequence[ObjectPrompt]) -> Request:
    nowhere = (math.nan,) * 4
    boxes = None
    if any(one.box is not None for one in objects):
        boxes = np.array([one.box or nowhere for one in objects], np.float32)
    points, labels = padded_points([one.points for one in objects])
    masks = [one.mask for one in objects if one.mask is not None]
    pointless = points.shape[1] == 0 and (boxes is not None or masks)
    return Request(
        boxes, None if pointless else points, None if pointless else labels, np.stack(masks) if masks else None
    )

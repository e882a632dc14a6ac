"""The interface for programs: what runs here, encode, segment, everything."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response

from nanosam_cli.core.errors import UsageError
from nanosam_cli.core.media.image import png_bytes
from nanosam_cli.core.media.render import PALETTE, label_map
from nanosam_cli.core.segmentation.everything import Everything
from nanosam_cli.core.serving.photos import OpenedPhotos
from nanosam_cli.core.serving.schemas import (
    CacheState,
    EncodedPhoto,
    EverythingAnswer,
    FoundMask,
    MaskAnswer,
    ModelInformation,
    SegmentAnswer,
    SegmentBody,
    Trouble,
    encoder_of,
    parse_window,
)
from nanosam_cli.core.serving.service import SegmentService
from nanosam_cli.core.timing import Stopwatch
from nanosam_cli.version import __version__

_DEFAULT = Everything()
PhotoPath = Annotated[
    str | None, Query(max_length=4096, description="A photo below the opened folder, instead of a body.")
]
PhotoWindow = Annotated[
    str | None,
    Query(
        pattern=r"^\d{1,7}(,\d{1,7}){3}$",
        description="x0,y0,x1,y1: this part as large as a whole photo; prompts and masks stay in the photo's pixels.",
    ),
]
_PHOTO_BODY = {
    "requestBody": {
        "description": "The photo's bytes, of any format that `nanosam segment` reads.",
        "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
    }
}
_TROUBLE: dict[int | str, dict[str, Any]] = {
    status: {"model": Trouble, "description": words}
    for status, words in {
        404: "No such photo or handle.",
        410: "The embedding fell out of the cache: encode the photo again.",
        413: "The body, the photo or the answer is too large.",
        422: "The request makes no sense; the words say why.",
        503: "Too many requests wait already.",
    }.items()
}


def program_routes(service: SegmentService, photos: OpenedPhotos, name: str) -> APIRouter:
    """The routes below /api/v1 of one model, called `name`, and of the photos that were opened."""
    routes = APIRouter(prefix="/api/v1", tags=["segment"], responses=_TROUBLE)

    async def source(request: Request, path: str | None) -> bytes | Path:
        """The photo of a request. UsageError where there is none, or there are two."""
        data = await request.body()
        if bool(data) == (path is not None):
            raise UsageError("give a photo either as the body or by ?path=", "curl --data-binary @photo.jpg ADDRESS")
        return photos.find(path) if path is not None else data

    @routes.get("/model", summary="The model, its files, limits and the cache")
    def model() -> ModelInformation:
        about = service.predictor.describe()
        cache = service.cache
        return ModelInformation(
            name=name,
            **about,
            image_size=service.predictor.contract.image_size,
            version=__version__,
            cache=CacheState(embeddings=len(cache), bytes=cache.bytes, max_bytes=cache.max_bytes),
            limits=vars(service.limits),
        )

    @routes.get("/photos", summary="Names of the photos that were opened")
    def names() -> list[str]:
        return photos.names

    @routes.post("/encode", openapi_extra=_PHOTO_BODY, summary="A photo to a handle")
    async def encode(request: Request, path: PhotoPath = None, window: PhotoWindow = None) -> EncodedPhoto:
        """The same bytes give the same handle, and are encoded once as long as the cache holds them."""
        encoded = await service.encode(await source(request, path), parse_window(window))
        height, width = encoded.original_hw
        return EncodedPhoto(handle=encoded.handle, width=width, height=height, timings_ms=_rounded(encoded.watch))

    @routes.post(
        "/segment",
        response_model=SegmentAnswer,
        responses={200: {"content": {"image/png": {}}}},
        summary="Boxes, points and masks to masks",
    )
    async def segment(body: SegmentBody) -> SegmentAnswer | Response:
        """With `"format": "png"` the answer is the picture itself."""
        watch = Stopwatch()
        with watch("prompt"):
            prompts = await service.decode(lambda: [one.prompt() for one in body.objects])
        height, width = service.cache.get(body.handle).original_hw
        if body.format == "png":
            service.limits.check_answer(len(prompts), (height, width))
            found_pixels = await service.segment(
                body.handle, prompts, lambda one: one.mask, multimask=body.multimask, threshold=body.threshold
            )
            png = await service.decode(
                lambda: png_bytes(label_map([one.segmentation for one in found_pixels]), PALETTE)
            )
            return Response(png, media_type="image/png")
        with watch("segment"):
            convert = encoder_of(body.format, body.simplify)
            found = await service.segment(
                body.handle, prompts, convert, multimask=body.multimask, threshold=body.threshold
            )
        answers = [MaskAnswer(object=one.object, **one.segmentation) for one in found]
        return SegmentAnswer(width=width, height=height, masks=answers, timings_ms=_rounded(watch))

    @routes.post("/everything", openapi_extra=_PHOTO_BODY, summary="Everything in a photo")
    async def everything(
        request: Request,
        path: PhotoPath = None,
        grid: Annotated[int, Query(ge=1, le=64, description="Clicks along each side.")] = _DEFAULT.grid,
        min_iou: Annotated[float, Query(ge=0, le=1, description="Predicted.")] = _DEFAULT.min_iou,
        min_stability: Annotated[float, Query(ge=0, le=1)] = _DEFAULT.min_stability,
        min_area: Annotated[int, Query(ge=0, description="Pixels.")] = _DEFAULT.min_area,
    ) -> EverythingAnswer:
        """A grid of clicks, without doubles. Takes a second and more."""
        settings = Everything(grid=grid, min_iou=min_iou, min_stability=min_stability, min_area=min_area)
        clicks, found, (height, width) = await service.everything(
            await source(request, path), settings, encoder_of("rle", 0.0)
        )
        masks = [FoundMask(object=row, click=click, **one) for row, (click, one) in enumerate(zip(clicks, found))]
        return EverythingAnswer(width=width, height=height, masks=masks)

    return routes


def _rounded(watch: Stopwatch) -> dict[str, float]:
    return {stage: round(ms, 3) for stage, ms in watch.ms.items()}

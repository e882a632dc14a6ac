"""What programs send and get, as types: checked before any work, and the source of the OpenAPI page."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from nanosam_cli.core.frame import PixelBox
from nanosam_cli.core.media.mask_codes import mask_to_polygons, mask_to_rle, rle_to_mask
from nanosam_cli.core.serving.limits import MOST_OBJECTS, MOST_POINTS
from nanosam_cli.core.serving.service import ObjectPrompt
from nanosam_cli.core.types import Segmentation

Handle = Annotated[str, Field(min_length=1, max_length=64, description="What `encode` gave.")]
Corners = Annotated[tuple[float, float, float, float], Field(description="x0 y0 x1 y1 in pixels of the photo.")]
Click = Annotated[
    tuple[float, float, int], Field(description="x, y in pixels of the photo; 1 on the object, 0 beside it.")
]


class RequestBody(BaseModel):
    """Anything unknown is a spelling mistake, and NaN is no number."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class RunLengths(RequestBody):
    """COCO's run-length code of a mask."""

    size: Annotated[tuple[int, int], Field(description="Height and width.")]
    counts: str | list[int]


class ObjectBody(RequestBody):
    """One object: a box, clicks, a mask, or several of them."""

    box: Corners | None = None
    points: Annotated[list[Click], Field(max_length=MOST_POINTS)] = []
    mask: RunLengths | None = None

    @model_validator(mode="after")
    def _has_a_prompt(self) -> ObjectBody:
        if self.box is None and not self.points and self.mask is None:
            raise ValueError("an object needs a box, a point or a mask")
        return self

    def prompt(self) -> ObjectPrompt:
        """InputError where the mask is no run-length code."""
        mask = None if self.mask is None else rle_to_mask(self.mask.model_dump())
        return ObjectPrompt(self.box, self.points, mask)


class SegmentBody(RequestBody):
    """Which objects to segment, and how the masks are to come."""

    handle: Handle
    objects: Annotated[list[ObjectBody], Field(min_length=1, max_length=MOST_OBJECTS)]
    multimask: Annotated[bool, Field(description="Every candidate mask of an object, such as part and whole.")] = False
    threshold: Annotated[float, Field(description="Of the logits: above 0 masks shrink, below they grow.")] = 0.0
    format: Annotated[
        Literal["rle", "polygon", "png"],
        Field(description="png: indexed labels, object k has the value k; the smaller lies on top."),
    ] = "rle"
    simplify: Annotated[float, Field(ge=0, description="Pixels that a polygon may be off; 0 is exact.")] = 0.0


class EncodedPhoto(RequestBody):
    """A photo that prompts can be sent for."""

    handle: Handle
    width: int
    height: int
    timings_ms: dict[str, float]


class MaskAnswer(RequestBody):
    """One mask."""

    object: Annotated[int, Field(description="Which of the objects, from 0.")]
    segmentation: Annotated[Any, Field(description="COCO's run-length code, or polygons [x, y, x, y, ...].")]
    bbox: Annotated[tuple[int, int, int, int] | None, Field(description="x y width height; null: the mask is empty.")]
    area: Annotated[int, Field(description="Pixels.")]
    predicted_iou: float
    index: Annotated[int, Field(description="Which of the decoder's masks it is.")]


class SegmentAnswer(RequestBody):
    """The masks, in the order of the objects."""

    width: int
    height: int
    masks: list[MaskAnswer]
    timings_ms: dict[str, float]


class FoundMask(MaskAnswer):
    """One mask of everything."""

    click: Annotated[tuple[float, float], Field(description="x y of the click that found it.")]


class EverythingAnswer(RequestBody):
    """Everything that was found, the best first."""

    width: int
    height: int
    masks: list[FoundMask]


class CacheState(RequestBody):
    embeddings: int
    bytes: int
    max_bytes: int


class ModelInformation(RequestBody):
    """What runs here."""

    name: str
    encoder: dict[str, str]
    decoder: dict[str, str]
    backend: list[str]
    image_size: Annotated[int, Field(description="Side of the model's square input.")]
    version: Annotated[str, Field(description="Of nanosam.")]
    cache: CacheState
    limits: dict[str, float]


class Trouble(RequestBody):
    """Why a request was not answered."""

    error: str
    hint: str | None = None


def parse_window(text: str | None) -> PixelBox | None:
    """`x0,y0,x1,y1`, four whole numbers."""
    if text is None:
        return None
    x0, y0, x1, y1 = (int(number) for number in text.split(","))
    return x0, y0, x1, y1


def encoder_of(format: Literal["rle", "polygon"], simplify: float) -> Callable[[Segmentation], dict[str, Any]]:
    """From a mask to the fields of a `MaskAnswer`, but for its object."""

    def fields(one: Segmentation) -> dict[str, Any]:
        code = mask_to_rle(one.mask) if format == "rle" else mask_to_polygons(one.mask, simplify)
        return {
            "segmentation": code,
            "bbox": one.bbox,
            "area": one.area,
            "predicted_iou": one.predicted_iou,
            "index": one.index,
        }

    return fields

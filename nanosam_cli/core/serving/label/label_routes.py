"""The interface of the labelling page."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Response
from pydantic import Field

from nanosam_cli.core.errors import UsageError
from nanosam_cli.core.media.render import object_colour
from nanosam_cli.core.names import LONGEST_NAME
from nanosam_cli.core.serving.label.carry import CarryOn
from nanosam_cli.core.serving.label.export import export_annotations
from nanosam_cli.core.serving.label.label_file import LabelledObject
from nanosam_cli.core.serving.label.labelling import Labelling
from nanosam_cli.core.serving.schemas import RequestBody, RunLengths
from nanosam_cli.core.serving.service import SegmentService

MOST_LABELS = 10_000  # objects of one photo

ExportKind = Annotated[Literal["yolo", "labelme", "png"], Query(description="Which tool's files.")]
PhotoName = Annotated[str, Query(max_length=4096, description="A photo that was opened.")]


class LabelBody(RequestBody):
    """One object of a photo."""

    id: int | None = None
    category_id: int
    segmentation: RunLengths
    track_id: int | None = None


class PhotoBody(RequestBody):
    """The objects of a photo, and the revision that they come from."""

    revision: str
    objects: Annotated[list[LabelBody], Field(max_length=MOST_LABELS)]


class CategoryBody(RequestBody):
    name: Annotated[str, Field(max_length=LONGEST_NAME)]


def label_routes(service: SegmentService, labelling: Labelling, model: str) -> APIRouter:
    """The routes below /label."""
    routes = APIRouter(prefix="/label", tags=["label"])
    store = labelling.store
    carry_on = CarryOn(service.predictor)

    def categories() -> list[dict[str, Any]]:
        return [
            {"id": category, "name": name, "colour": "#{:02x}{:02x}{:02x}".format(*object_colour(place))}
            for place, (category, name) in enumerate(store.categories.items())
        ]

    @routes.get("/state", summary="Photos, classes, and where the annotations are")
    def state() -> dict[str, Any]:
        """`trouble` says why the file could not be written lately; the journal beside it has everything."""
        return {
            "file": str(store.path),
            "model": model,
            "trouble": store.trouble,
            "categories": categories(),
            "photos": [{"name": one.name, "objects": one.objects, "done": one.done} for one in store.photos()],
        }

    @routes.get("/file", summary="Where the annotations are, and why they could not be written lately")
    def file() -> dict[str, Any]:
        return {"file": str(store.path), "trouble": store.trouble}

    @routes.get("/photo", summary="A photo's size, objects, and what another model found in it")
    async def photo(name: PhotoName) -> dict[str, Any]:
        def work() -> dict[str, Any]:
            height, width = labelling.original_hw(name)
            held = store.photo(name, (height, width))
            found = labelling.found(name, (height, width))
            return {
                "name": name,
                "width": width,
                "height": height,
                "revision": held.revision,
                "objects": [_fields(one) for one in held.objects],
                "found": [
                    {"category_id": one.category_id, "prompt": {"box": one.prompt.box, "points": one.prompt.points}}
                    for one in found
                ],
            }

        return await service.decode(work)

    @routes.get("/pixels", summary="A photo's picture, upright", response_class=Response)
    async def pixels(name: PhotoName) -> Response:
        data, kind = await service.decode(lambda: labelling.pixels(name))
        return Response(data, media_type=kind)

    @routes.put("/photo", summary="Keep a photo's objects")
    async def save(name: PhotoName, body: PhotoBody) -> dict[str, Any]:
        """The answer has the objects' ids, in their order. Once it is there, a kill cannot undo it."""

        def work() -> dict[str, Any]:
            objects = [
                LabelledObject(one.category_id, one.segmentation.model_dump(), one.id, one.track_id)
                for one in body.objects
            ]
            held = store.save(name, labelling.original_hw(name), objects, body.revision)
            return {"revision": held.revision, "ids": [one.id for one in held.objects], "trouble": store.trouble}

        return await service.decode(work)

    @routes.post("/carry", summary="A frame's objects, where they are in another frame")
    async def carry(name: PhotoName, onto: PhotoName) -> dict[str, Any]:
        """The tracker takes them there. Tracks that the other frame has already are left out.

        The objects of the first get a `track_id` each, so its `revision` is another one.
        """
        frames = name, onto
        here, there = [await service.embedding(labelling.photos.find(one)) for one in frames]
        held = await service.decode(lambda: store.tracked(name, here.original_hw))
        if not held.objects:
            raise UsageError(f"nothing is accepted on {name} that could be carried on", "accept an object first")
        taken = {one.track_id for one in store.photo(onto, there.original_hw).objects}
        found = await service.run_model(lambda: carry_on.carry(frames, (here, there), held.objects))
        objects = [{**_fields(one.object), "score": one.score} for one in found if one.object.track_id not in taken]
        lost = len({one.track_id for one in held.objects} - {one.object.track_id for one in found})
        return {"revision": held.revision, "objects": objects, "lost": lost}

    @routes.post("/export", summary="Every photo that is done as files of other tools")
    async def export(kind: ExportKind) -> dict[str, Any]:
        """They are in a new folder beside the annotation file; `notes` say which photos were left out, and why."""
        made = await service.decode(lambda: export_annotations(labelling, kind))
        counts = {"photos": made.photos, "objects": made.objects, "notes": made.notes}
        return {"folder": str(store.path.with_name(made.folder.name)), **counts}

    @routes.post("/categories", summary="A new class")
    async def add_category(body: CategoryBody) -> list[dict[str, Any]]:
        """The answer has all classes."""
        await service.decode(lambda: store.add_category(body.name))
        return categories()

    return routes


def _fields(one: LabelledObject) -> dict[str, Any]:
    return {"id": one.id, "category_id": one.category_id, "segmentation": one.rle, "track_id": one.track_id}

"""Label Studio's ML backend interface: smart keypoints and rectangles in, brush regions out.

What it asks and how is that of `label_studio/ml/api_connector.py`, release 1.23. It says nothing to its user of why a
backend refused, so the reasons are said here too.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fastapi import APIRouter

from nanosam_cli.core.errors import NanosamError, UsageError
from nanosam_cli.core.messages import Note
from nanosam_cli.core.serving.label_studio.tasks import (
    PredictBody,
    SetupBody,
    SmartRegion,
    Task,
    brush_region,
    find_brush,
    smart_prompt,
    task_photo,
)
from nanosam_cli.core.serving.photos import OpenedPhotos
from nanosam_cli.core.serving.service import SegmentService
from nanosam_cli.version import __version__


def label_studio_routes(service: SegmentService, photos: OpenedPhotos, name: str, note: Note) -> APIRouter:
    """/setup and /predict of a model called `name`; /health is the server's own."""
    routes = APIRouter(tags=["label studio"])
    version = f"{name}-{__version__}"

    @routes.post("/setup", summary="Whether masks have a place in a labelling configuration")
    def setup(body: SetupBody) -> dict[str, str]:
        """Nothing is kept of it: every prediction brings the configuration again."""
        with _Telling(note):
            find_brush(body.label_config)
        return {"model_version": version}

    @routes.post("/predict", summary="Smart keypoints and rectangles to brush regions")
    async def predict(body: PredictBody) -> dict[str, Any]:
        """A task without smart regions has an empty prediction: there is nothing to segment in it yet."""
        regions = body.params.context.result if body.params.context else []
        with _Telling(note):
            if regions and len(body.tasks) != 1:
                raise UsageError(f"smart regions are of one task, not of {len(body.tasks)}")
            found = [await answer(task, regions, body.label_config) for task in body.tasks]
        return {"results": [{**one, "model_version": version} for one in found], "model_version": version}

    async def answer(task: Task, regions: Sequence[SmartRegion], config: str) -> dict[str, Any]:
        if not regions:
            return {"result": [], "score": 0.0}
        control = find_brush(config, regions[0].to_name)
        label = control.label_of(regions)
        encoded = await service.encode(task_photo(task.data.get(control.data_key), photos))
        prompt = smart_prompt(regions, encoded.original_hw)
        (found,) = await service.segment(
            encoded.handle, [prompt], lambda one: (brush_region(one, control, label), one.area)
        )
        region, area = found.segmentation
        return {"result": [region] if area else [], "score": region["score"]}

    return routes


class _Telling:
    """Says why a request is refused, and lets the refusal go on."""

    def __init__(self, note: Note) -> None:
        self._note = note

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if isinstance(error, NanosamError):
            self._note(f"Label Studio was refused: {error}{f' ({error.hint})' if error.hint else ''}")

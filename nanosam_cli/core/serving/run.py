"""From a model and photos to a server that runs until it is told to end."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field

from fastapi import APIRouter

from nanosam_cli.core.loading.choice import ModelChoice
from nanosam_cli.core.loading.load import open_predictor
from nanosam_cli.core.messages import Note
from nanosam_cli.core.serving.http import make_app
from nanosam_cli.core.serving.label.label_routes import label_routes
from nanosam_cli.core.serving.label.labelling import Labelling
from nanosam_cli.core.serving.label_studio.routes import label_studio_routes
from nanosam_cli.core.serving.limits import RequestLimits
from nanosam_cli.core.serving.photos import OpenedPhotos
from nanosam_cli.core.serving.program_routes import program_routes
from nanosam_cli.core.serving.server import listen, run_server
from nanosam_cli.core.serving.service import SegmentService

Routes = Callable[[SegmentService], Sequence[APIRouter]]


@dataclass(frozen=True)
class Serving:
    """What a server runs, and where. `ready` is told the address once it answers there."""

    choice: ModelChoice
    host: str
    port: int
    note: Note
    ready: Callable[[str], object]
    limits: RequestLimits = field(default_factory=RequestLimits)


def serve_programs(photos: OpenedPhotos, serving: Serving) -> None:
    """Answer programs; / shows the interface. UsageError, MachineError where the address cannot be had."""
    name = serving.choice.name

    def routes(service: SegmentService) -> Sequence[APIRouter]:
        studio = label_studio_routes(service, photos, name, serving.note)
        return program_routes(service, photos, name), studio

    _serve(routes, "interface.html", serving)


def serve_labels(labelling: Labelling, serving: Serving) -> None:
    """Answer the labelling page, and programs too."""
    name = serving.choice.name

    def routes(service: SegmentService) -> Sequence[APIRouter]:
        return program_routes(service, labelling.photos, name), label_routes(service, labelling, name)

    _serve(routes, "index.html", serving)


def _serve(routes: Routes, front: str, serving: Serving) -> None:
    listener = listen(serving.host, serving.port)  # before the model, which takes seconds
    with ExitStack() as opened:
        opened.enter_context(listener.socket)
        predictor = opened.enter_context(open_predictor(serving.choice, serving.note))
        service = opened.enter_context(SegmentService(predictor, serving.limits))
        app = make_app(routes(service), listener.access, serving.limits, front)
        run_server(app, listener, lambda: serving.ready(listener.address))

"""A server of the fake model over a folder of photos, asked without a network."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from fastapi import APIRouter
from PIL import Image
from starlette.testclient import TestClient

from nanosam_cli.core.inference.predictor import Predictor
from nanosam_cli.core.inference.session import open_session
from nanosam_cli.core.serving.guard import Access
from nanosam_cli.core.serving.http import make_app
from nanosam_cli.core.serving.limits import RequestLimits
from nanosam_cli.core.serving.photos import OpenedPhotos
from nanosam_cli.core.serving.program_routes import program_routes
from nanosam_cli.core.serving.service import SegmentService

WIDTH, HEIGHT = 100, 80


def save_photo(path: Path, width: int = WIDTH, height: int = HEIGHT, **how: Any) -> Path:
    noise = np.random.default_rng(width).integers(0, 256, (height, width, 3), np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(noise).save(path, **how)
    return path


@contextmanager
def service_of(files: tuple[Path, Path], limits: RequestLimits | None = None) -> Iterator[SegmentService]:
    with (
        Predictor(open_session(files[0]), open_session(files[1])) as predictor,
        SegmentService(predictor, limits) as service,
    ):
        yield service


def client_of(
    service: SegmentService,
    photos: OpenedPhotos,
    access: Access | None = None,
    more: Sequence[APIRouter] = (),
    host: str = "127.0.0.1:8765",
) -> TestClient:
    routes = [program_routes(service, photos, "fake"), *more]
    app = make_app(routes, access or Access(), service.limits, "index.html")
    return TestClient(app, base_url=f"http://{host}", raise_server_exceptions=False)


def run_together(*works: Any) -> list[Any]:
    """The results of coroutines that wait for each other's threads, exceptions among them."""

    async def gather() -> list[Any]:
        return await asyncio.gather(*works, return_exceptions=True)

    return asyncio.run(gather())

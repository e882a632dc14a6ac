"""The HTTP application: its routes, what guards them, and words in the place of tracebacks.

FastAPI, because the types of `schemas` check each request, with words, and are its documentation at the same time.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fastapi import APIRouter, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException

from nanosam_cli.core import paths
from nanosam_cli.core.errors import NanosamError, machine_error
from nanosam_cli.core.messages import some
from nanosam_cli.core.serving.answers import status_of, words_of
from nanosam_cli.core.serving.guard import Access, Guard
from nanosam_cli.core.serving.limits import RequestLimits
from nanosam_cli.version import __version__

_ABOUT = "Photos and prompts in, masks out. Encode a photo once, then send boxes, points and masks for its handle."


def make_app(routes: Sequence[APIRouter], access: Access, limits: RequestLimits, front: str) -> FastAPI:
    """The application with these routes; `front` is the page file that / shows."""
    app = FastAPI(title="nanosam", version=__version__, description=_ABOUT, docs_url=None, redoc_url=None)
    page = paths.resource("page")
    for one in routes:
        app.include_router(one)

    @app.get("/health", tags=["server"], summary="Whether it is up")
    def health() -> dict[str, str]:
        return {"status": "UP"}  # the word that Label Studio looks for

    @app.get("/", include_in_schema=False)
    def front_page() -> FileResponse:
        return FileResponse(page / front)

    @app.get("/docs", include_in_schema=False)
    def interface() -> FileResponse:
        return FileResponse(page / "interface.html")

    app.mount("/page", StaticFiles(directory=page), name="page")
    for kind in (NanosamError, OSError, MemoryError, RecursionError):
        app.add_exception_handler(kind, _known)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _refused)
    app.add_exception_handler(Exception, _bug)
    app.add_middleware(Guard, access=access, limits=limits)
    return app


async def _known(_: Request, error: Exception) -> JSONResponse:
    """What the user can mend, or the machine refuses."""
    known = error if isinstance(error, NanosamError) else machine_error(error)
    if known is None:
        raise error
    return JSONResponse(words_of(known), status_of(known))


async def _invalid(request: Request, error: Exception) -> JSONResponse:
    """What does not fit the types, with its place; the input itself is not sent back, it may be of any size."""
    assert isinstance(error, RequestValidationError)
    json = request.headers.get("content-type", "").partition(";")[0] == "application/json"
    if isinstance(error.body, bytes) and not json:
        hint = "send it with the header `Content-Type: application/json`"
        return JSONResponse({"error": "the request is not said to be JSON", "hint": hint}, 422)
    faults = [_fault(one) for one in error.errors()]
    return JSONResponse({"error": f"the request is wrong: {some(faults)}", "hint": "/docs shows what it takes"}, 422)


def _fault(one: Any) -> str:
    if one["type"] == "json_invalid":
        return f"its body is not JSON: {one['ctx']['error']}"
    place = ".".join(str(part) for part in one["loc"] if part not in ("body", "query"))
    words = str(one["msg"]).removeprefix("Value error, ")
    return f"{place}: {words}" if place else words


async def _refused(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    return JSONResponse({"error": str(error.detail), "hint": "/docs shows what there is"}, error.status_code)


async def _bug(_: Request, error: Exception) -> JSONResponse:
    """A fault of ours: its traceback goes to the server's own terminal."""
    return JSONResponse({"error": f"a fault of this program: {type(error).__name__}", "hint": "please report it"}, 500)

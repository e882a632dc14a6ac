"""Polygraphy prints to stdout, where results go. Here its log is kept, and its errors are raised as ours."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from polygraphy.exception import PolygraphyException
from polygraphy.logger import G_LOGGER

from nanosam_cli.core.errors import BackendError

_LOGGER = logging.getLogger("Polygraphy")


class _Kept(logging.Handler):
    """The messages of one call."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


@contextmanager
def polygraphy_errors() -> Iterator[list[str]]:
    """Yield the list that errors are logged to, TensorRT's among them.

    Raises BackendError, with all of them, where Polygraphy gives up.
    """
    kept = _Kept()
    G_LOGGER.use_python_logging_system = True
    G_LOGGER.letter = G_LOGGER.colors = False
    G_LOGGER.module_severity = {"": G_LOGGER.ERROR}
    _LOGGER.propagate = False
    _LOGGER.addHandler(kept)
    try:
        yield kept.lines
    except PolygraphyException as error:
        lines = dict.fromkeys([*kept.lines, str(error)])
        raise BackendError("; ".join(lines)) from error
    finally:
        _LOGGER.removeHandler(kept)

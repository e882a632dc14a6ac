"""What a request that cannot be answered gets: a status, and words."""

from __future__ import annotations

from typing import Any

from nanosam_cli.core.errors import BackendError, InputError, MachineError, NanosamError, OutputError, UsageError


class NotFoundError(InputError):
    """What the request names is not here."""


class GoneError(InputError):
    """A handle was good and is no longer."""


class ConflictError(InputError):
    """What the request would change was changed by somebody else."""


class TooLargeError(InputError):
    """A body, a photo or an answer is beyond the limits."""


class BusyError(MachineError):
    """Too many requests wait already."""


# the first that fits, so the narrower stand before the wider
_STATUS: tuple[tuple[type[NanosamError], int], ...] = (
    (NotFoundError, 404),
    (GoneError, 410),
    (ConflictError, 409),
    (TooLargeError, 413),
    (BusyError, 503),
    (InputError, 422),
    (UsageError, 422),
    (OutputError, 507),
    (BackendError, 503),
    (MachineError, 503),
)


def status_of(error: NanosamError) -> int:
    """The HTTP status that an error is answered with; 500 where the server itself is at fault."""
    return next((status for kind, status in _STATUS if isinstance(error, kind)), 500)


def words_of(error: NanosamError) -> dict[str, Any]:
    """The JSON body of an error: what is wrong, and what to do, if that is known."""
    return {"error": str(error), "hint": error.hint}

"""Errors a person can act on: what, where, and the next thing to type."""

from __future__ import annotations


def fault(error: Exception) -> str:
    """What the reader of a file stumbled over, in words: a key that is missing, or a value and what it is not."""
    return f"{error} is missing" if isinstance(error, KeyError) else str(error)


class NanosamError(Exception):
    """A failure with a known cause. `hint` is the next command or step; `exit_code` ends the process."""

    exit_code = 1

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint


class UsageError(NanosamError):
    """The command line (or an argument of the API) asks for something that makes no sense."""

    exit_code = 2


class InputError(NanosamError):
    """A file given by the user cannot be used."""


class OutputError(NanosamError):
    """A result cannot be written."""


class DownloadError(NanosamError):
    """A file cannot be had from where it is published, or is not what was published."""


class ModelError(NanosamError):
    """A model is unknown, broken, or not of the shape the file contract asks for."""


class BackendError(NanosamError):
    """A runtime, provider or device that was asked for is not there."""


class RecipeError(NanosamError):
    """A training recipe is wrong. The message lists every fault at once."""


class MissingExtraError(NanosamError):
    """A feature needs an optional package that is not installed."""

    def __init__(self, feature: str, extra: str, package: str) -> None:
        super().__init__(f"{feature} needs {package}, which is not installed", f"pip install 'nanosam-cli[{extra}]'")

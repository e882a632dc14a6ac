"""Where things are: environment variables, the cache directory, and the files that come with the package."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import platformdirs

from nanosam_cli.core.errors import UsageError

T = TypeVar("T")

_PACKAGE = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Variable(Generic[T]):
    """One environment variable. An option on the command line beats it."""

    name: str
    help: str
    parse: Callable[[str], T]

    def get(self) -> T | None:
        """The value, or None where the variable is unset or empty. UsageError where it cannot be read."""
        text = os.environ.get(self.name, "").strip()
        if not text:
            return None
        try:
            return self.parse(text)
        except ValueError as error:
            raise UsageError(f"environment variable {self.name}={text}: {error}", f"unset {self.name}") from None


def _directory(text: str) -> Path:
    try:
        return Path(text).expanduser()
    except RuntimeError as error:  # nobody of that name has a home
        raise ValueError(str(error)) from error


def _switch(text: str) -> bool:
    words = {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False}
    if text.lower() not in words:
        raise ValueError(f"expected one of {', '.join(words)}")
    return words[text.lower()]


HOME = Variable("NANOSAM_HOME", "Directory for downloads and built engines.", _directory)
DEVICE = Variable("NANOSAM_DEVICE", "Where models run: auto, cpu or cuda.", str)
BACKEND = Variable("NANOSAM_BACKEND", "Runtime to use, or auto to take the one that reads the model's file.", str)
OFFLINE = Variable("NANOSAM_OFFLINE", "1 to never open a network connection.", _switch)
MIRROR = Variable("NANOSAM_MIRROR", "Directory or URL that holds the downloads by their plain file names.", str)
TEST_DATA = Variable("NANOSAM_TEST_DATA", "Directory with the photos and masks of the tests marked `data`.", _directory)

VARIABLES: tuple[Variable[Any], ...] = (HOME, DEVICE, BACKEND, OFFLINE, MIRROR, TEST_DATA)


def home() -> Path:
    """The directory for downloads and built engines; it may not exist yet."""
    return HOME.get() or platformdirs.user_cache_path("nanosam", appauthor=False)


def resource(*parts: str) -> Path:
    """A file or directory that comes with the package, such as `resource("recipes", "x.toml")`; it may not exist.

    The wheel holds everything in `nanosam_cli/data`. In an editable checkout recipes and examples lie at the project's
    root instead; models lie in `nanosam_cli/data` in both.
    """
    packaged = _PACKAGE.joinpath("data", *parts)
    checkout = _PACKAGE.parent.joinpath(*parts)
    return checkout if checkout.exists() and not packaged.exists() and parts[:1] != ("models",) else packaged

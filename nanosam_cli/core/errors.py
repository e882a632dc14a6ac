"""Errors a person can act on: what, where, and the next thing to type."""

from __future__ import annotations

import errno
from collections.abc import Mapping


def fault(error: Exception) -> str:
    """What the reader of a file stumbled over, in words: a key that is missing, or a value and what it is not."""
    if isinstance(error, KeyError):
        return f"{error} is missing"
    if isinstance(error, (AttributeError, TypeError)):  # Python's words for it are of no use to the file's owner
        return "a value is of another kind than it should be, such as a number in the place of a list"
    return str(error)


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


class MachineError(NanosamError):
    """The machine refuses: a path that may not be entered, a full disk, too little memory."""


class RecipeError(NanosamError):
    """A training recipe is wrong. The message lists every fault at once."""


class MissingExtraError(NanosamError):
    """A feature needs an optional package that is not installed."""

    def __init__(self, feature: str, extra: str, package: str) -> None:
        super().__init__(f"{feature} needs {package}, which is not installed", f"pip install 'nanosam-cli[{extra}]'")


_PLACE = "check the path, or give another one"
_NEXT: Mapping[int, str] = {
    errno.EACCES: "give a place that you may read and enter, or run it as who owns it",
    errno.EPERM: "give a place that you may read and enter, or run it as who owns it",
    errno.EROFS: "give a place that can be written",
    errno.ENAMETOOLONG: "give a shorter name",
    errno.ENOTDIR: "a part of the path is a file: give another path",
    errno.EISDIR: "give a file inside it",
    errno.ELOOP: "links go round in a circle there: give the place itself",
    errno.ENOSPC: "free some space, or give a place on another disk",
    errno.EDQUOT: "free some space, or give a place on another disk",
    errno.EMFILE: "too many files are open: `ulimit -n 4096`, or fewer files at once",
    errno.ENOMEM: "close other programs, or give smaller files",
    errno.EIO: "the disk or the network drive failed: try again, or copy the files elsewhere first",
}
_WITHOUT_A_PATH = (errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EIO)


def machine_error(error: Exception) -> MachineError | None:
    """What the system said against a file, or the lack of memory, in words; None for any other error, which is a bug.

    An OSError counts where it names a path, or is of a kind that has none, such as a full disk.
    """
    if isinstance(error, MemoryError):
        return MachineError("there is not enough memory", "give smaller photos or files, or fewer at once")
    if isinstance(error, RecursionError):
        return MachineError("a file is nested too deeply to be read", "get it again, or write it with less nesting")
    if isinstance(error, RuntimeError) and str(error).startswith("Symlink loop"):  # before Python 3.13 no OSError
        return MachineError(str(error), _NEXT[errno.ELOOP])
    if not isinstance(error, OSError):
        return None
    reason = error.strerror or str(error)
    if error.filename is not None:
        return MachineError(f"{error.filename}: {reason}", _NEXT.get(error.errno or 0, _PLACE))
    if error.errno in _WITHOUT_A_PATH:
        return MachineError(reason, _NEXT.get(error.errno))
    if error.errno == errno.ENOENT:  # getcwd has no path to name
        return MachineError("the folder that this was started in is gone", "cd to one that exists")
    return None

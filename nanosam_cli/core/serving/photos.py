"""The photos that were opened, by name: nothing else on the disk can be asked for."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path, PurePosixPath

from nanosam_cli.core.errors import UsageError
from nanosam_cli.core.media.find_photos import STDIN, find_photos
from nanosam_cli.core.media.image import IMAGE_FORMATS
from nanosam_cli.core.serving.answers import NotFoundError
from nanosam_cli.core.system.files import read_input

_LISTED = "GET /api/v1/photos lists the names"


class OpenedPhotos:
    """Photos of files, folders and patterns; in folders those too that come later.

    A name is the path below `root`, with slashes. What a folder holds must lie in it: a link that leads out of it is
    refused. A file that was named outright may be a link, as it was when it was named.
    """

    def __init__(self, arguments: Sequence[str]) -> None:
        """InputError where there are no photos. No argument at all opens none."""
        if str(STDIN) in arguments:
            raise UsageError("a photo from a pipe cannot be opened here", "give files or folders instead of -")
        self.folders = [Path(one).absolute() for one in arguments if Path(one).is_dir()]
        self.paths = [path.absolute() for path in find_photos(arguments)]
        homes = [*self.folders, *(path.parent for path in self.paths)]
        self.root = Path(os.path.commonpath(homes)) if homes else Path.cwd()
        self.by_name: Mapping[str, Path] = {self._name(path): path for path in self.paths}

    @property
    def names(self) -> list[str]:
        """Of the photos that were there at the start, in their order."""
        return list(self.by_name)

    def find(self, name: str) -> Path:
        """The photo's real path. NotFoundError where no photo of that name was opened, or it is gone."""
        path = self.by_name.get(name) or self._later(name)
        if path is None:
            raise NotFoundError(f"no photo called {name!r} was opened", _LISTED)
        try:
            real = path.resolve(strict=True)
        except (OSError, RuntimeError) as error:  # before Python 3.13, a loop of links is a RuntimeError
            raise NotFoundError(f"{name} is no longer there", "put the photo back, or go on with another") from error
        if not (real in self._outright or any(real.is_relative_to(folder) for folder in self._real_folders)):
            raise NotFoundError(f"{name} leads out of the opened folder", "open the folder that it lies in")
        return real

    def read(self, name: str) -> bytes:
        """The photo's bytes. NotFoundError as `find`; InputError where they cannot be read."""
        return read_input(self.find(name), "photo")

    def _name(self, path: Path) -> str:
        return path.relative_to(self.root).as_posix()

    def _later(self, name: str) -> Path | None:
        """A photo in an opened folder that was not there at the start, or lies deeper."""
        parts = PurePosixPath(name).parts
        odd = "\0" in name or "\\" in name or ":" in name  # the last two mean places on Windows
        if odd or not parts or parts[0] == "/" or ".." in parts:
            return None
        path = self.root.joinpath(*parts)
        inside = any(path.is_relative_to(folder) for folder in self.folders)
        return path if inside and path.suffix.lower() in IMAGE_FORMATS and path.is_file() else None

    @cached_property
    def _real_folders(self) -> list[Path]:
        return [folder.resolve() for folder in self.folders]

    @cached_property
    def _outright(self) -> set[Path]:
        """Where the photos really lie that no folder gave."""
        return {path.resolve() for path in self.paths if path.parent not in self.folders}

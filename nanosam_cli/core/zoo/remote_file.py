"""One file that can be downloaded."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class RemoteFile:
    """A file by its plain name, where it comes from, and what it must be. A file of the package needs no url."""

    file: str  # plain name, in the cache and on mirrors
    url: str | None = None
    mirrors: tuple[str, ...] = ()  # tried in this order where the url fails
    size: int | None = None  # bytes; None where it is not published
    sha256: str | None = None  # hexadecimal; None where it is not published: the first download records one
    unpacks_to: str | None = None  # an archive: the plain name of the one folder in it that is of use

    @property
    def urls(self) -> tuple[str, ...]:
        return () if self.url is None else (self.url, *self.mirrors)

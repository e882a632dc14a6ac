"""Opening a file where it is published: over HTTP, on a mounted mirror, or behind Google Drive's confirm page."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from html.parser import HTMLParser
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlencode, urljoin, urlsplit
from urllib.request import url2pathname

from nanosam_cli.core.errors import DownloadError
from nanosam_cli.version import __version__

if TYPE_CHECKING:
    from requests import Response, Session

BLOCK = 1 << 16  # bytes: small enough that progress and a slow link look alive
TIMEOUT = (10.0, 30.0)  # seconds to connect, and without a single byte
MAX_PAGE = 1 << 20  # bytes of a page in place of the file that are read
_NETWORK = "check the network, or HTTPS_PROXY where a proxy is needed; --mirror DIR takes files from a directory"
_ELSEWHERE = "--mirror DIR takes the file from a directory"
_TRANSIENT = (408, 425, 429, 500, 502, 503, 504)


class TransientError(Exception):
    """It may go better next time. `retry_after`: seconds that the server asks for."""

    def __init__(self, message: str, hint: str | None = None, retry_after: float = 0.0) -> None:
        super().__init__(message)
        self.hint = hint
        self.retry_after = retry_after


class RangeError(Exception):
    """The server does not give the rest of this file: begin anew."""


@dataclass(frozen=True)
class Body:
    """A file that is being read. `blocks` raises TransientError where it breaks off."""

    start: int  # byte of the file that the first block begins with
    total: int | None  # bytes of the whole file, where the server tells
    validator: str | None  # what If-Range takes: a strong ETag, else a date
    framed: bool  # whether it is noticed where it is cut off
    blocks: Iterator[bytes]


@contextmanager
def open_body(url: str, start: int = 0, validator: str | None = None) -> Iterator[Body]:
    """Read `url` from byte `start`; the server may begin at 0 instead, and does where `validator` no longer holds.

    Raises:
        TransientError: no connection, or the server is busy.
        RangeError: the server has no such range.
        DownloadError: the file is not there, not given, or a web page came in its place.
    """
    if urlsplit(url).scheme in ("http", "https"):
        with _open_http(url, start, validator) as body:
            yield body
    else:
        with _open_local(local_path(url), start, validator) as body:
            yield body


def local_path(url: str) -> Path:
    """The path that `file://...` or a plain path means."""
    parts = urlsplit(url)
    return Path(url2pathname(parts.path) if parts.scheme == "file" else url).expanduser()


def is_remote(url: str) -> bool:
    return urlsplit(url).scheme in ("http", "https")


def shown(url: str) -> str:
    """A URL for people: without the password that a mirror's may hold."""
    return re.sub(r"//[^/@]*@", "//***@", url)


@contextmanager
def _open_local(path: Path, start: int, validator: str | None) -> Iterator[Body]:
    try:
        stat = path.stat()
        now = f"{stat.st_size}-{stat.st_mtime_ns}"
        start = start if validator in (None, now) else 0
        with path.open("rb") as file:
            file.seek(start)
            yield Body(start, stat.st_size, now, True, iter(lambda: file.read(BLOCK), b""))
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
        if error.filename != str(path):
            raise  # where it is written to
        raise DownloadError(f"the mirror has no {path}", "check --mirror and NANOSAM_MIRROR") from error
    except PermissionError as error:
        if error.filename != str(path):
            raise
        raise DownloadError(f"cannot read {path}: permission denied") from error


@contextmanager
def _open_http(url: str, start: int, validator: str | None) -> Iterator[Body]:
    import requests

    headers = {"User-Agent": f"nanosam/{__version__}", "Accept-Encoding": "identity"}
    if start:
        headers["Range"] = f"bytes={start}-"
        if validator:
            headers["If-Range"] = validator
    with requests.Session() as session:
        response = _get(session, url, headers)
        try:
            page = _read_page(response)
            if page and page.action and response.ok:
                response.close()
                response = _get(session, _confirmed(response.url, page), headers)
                page = _read_page(response)
            _check_status(url, response, page)
            begin, total = _extent(response, start)
            framed = "Content-Length" in response.headers or "Transfer-Encoding" in response.headers
            yield Body(begin, total, _validator(response), framed, _blocks(url, response))
        finally:
            response.close()


def _get(session: Session, url: str, headers: dict[str, str]) -> Response:
    import requests
    from urllib3.exceptions import NameResolutionError

    host = urlsplit(url).hostname
    try:
        return session.get(url, headers=headers, stream=True, timeout=TIMEOUT)
    except requests.exceptions.ProxyError as error:
        raise TransientError(f"the proxy to {host} cannot be reached: {_reason(error)}", "check HTTPS_PROXY") from error
    except requests.exceptions.SSLError as error:
        raise DownloadError(
            f"the certificate of {host} is not trusted: {_reason(error)}",
            "behind a company's proxy, set REQUESTS_CA_BUNDLE to its certificate",
        ) from error
    except requests.exceptions.Timeout as error:
        raise TransientError(f"{host} does not answer", _NETWORK) from error
    except requests.exceptions.ConnectionError as error:
        if isinstance(getattr(error.args[0] if error.args else None, "reason", None), NameResolutionError):
            raise TransientError(f"the host {host} cannot be found (DNS)", _NETWORK) from error
        raise TransientError(f"{host} cannot be reached: {_reason(error)}", _NETWORK) from error
    except requests.exceptions.RequestException as error:  # too many redirects, a broken URL
        raise DownloadError(f"cannot read {shown(url)}: {error}", _ELSEWHERE) from error


def _reason(error: Exception) -> str:
    """The innermost cause, such as `Connection refused`, without the library's own wrapping."""
    inner: BaseException = error
    while inner.__context__ is not None:
        inner = inner.__context__
    return getattr(inner, "strerror", None) or str(inner)


def _check_status(url: str, response: Response, page: _Page | None) -> None:
    status, title = response.status_code, f" {page.title!r}" if page and page.title else ""
    answer = f"{urlsplit(url).hostname} answers {status} {response.reason or ''}{title and f' with the page{title}'}"
    if status in _TRANSIENT:
        seconds = response.headers.get("Retry-After", "")
        raise TransientError(answer, "try again later", float(seconds) if seconds.isdigit() else 0.0)
    if status == 416:
        raise RangeError
    if status in (404, 410):
        raise DownloadError(f"no such file: {shown(url)} ({answer})", f"it may have moved; {_ELSEWHERE}")
    if status in (401, 403):
        raise DownloadError(f"access refused: {shown(url)} ({answer})", _ELSEWHERE)
    if status not in (200, 206):
        raise DownloadError(f"cannot read {shown(url)}: {answer}", _ELSEWHERE)
    if page:
        raise DownloadError(
            f"{shown(url)} gives a web page{title} in place of the file",
            f"it may need a log-in, or be gone; {_ELSEWHERE}",
        )


def _extent(response: Response, start: int) -> tuple[int, int | None]:
    """Where the body begins, and the size of the whole file."""
    if response.status_code == 206:
        matched = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+|\*)", response.headers.get("Content-Range", ""))
        if not matched or int(matched[1]) != start:
            raise RangeError
        return start, int(matched[3]) if matched[3] != "*" else int(matched[2]) + 1
    length = response.headers.get("Content-Length", "")
    encoded = response.headers.get("Content-Encoding", "identity") != "identity"
    return 0, int(length) if length.isdigit() and not encoded else None


def _validator(response: Response) -> str | None:
    """RFC 9110, 13.1.5: If-Range takes no weak ETag."""
    tag = response.headers.get("ETag")
    return tag if tag and not tag.startswith("W/") else response.headers.get("Last-Modified")


def _blocks(url: str, response: Response) -> Iterator[bytes]:
    from urllib3.exceptions import HTTPError

    try:
        yield from response.raw.stream(BLOCK, decode_content=True)
    except (HTTPError, OSError) as error:
        raise TransientError(f"{urlsplit(url).hostname} broke off: {_reason(error)}", _NETWORK) from error


# a page in place of a file


class _Page(HTMLParser):
    """The title, and the action and hidden fields of Google Drive's form for files too big for its virus scan."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self._words = ""
        self._in_title = False
        self.action: str | None = None
        self.fields: dict[str, str] = {}
        self.feed(text)

    @property
    def title(self) -> str:
        return " ".join(self._words.split())[:80]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {key: value or "" for key, value in attrs}
        self._in_title = tag == "title"
        if tag == "form" and given.get("id") == "download-form":
            self.action = given.get("action")
        elif tag == "input" and self.action is not None and given.get("type") == "hidden":
            self.fields[given.get("name", "")] = given.get("value", "")

    def handle_endtag(self, tag: str) -> None:
        self._in_title = False

    def handle_data(self, data: str) -> None:
        self._words += data if self._in_title else ""


def _read_page(response: Response) -> _Page | None:
    """The web page that came in place of a file, or None where a file came."""
    kind = response.headers.get("Content-Type", "").split(";")[0].strip().lower()
    if kind not in ("text/html", "application/xhtml+xml"):
        return None
    return _Page(b"".join(islice(_blocks(response.url, response), MAX_PAGE // BLOCK)).decode("utf-8", "replace"))


def _confirmed(url: str, page: _Page) -> str:
    """Where Google Drive's form leads. DownloadError where that is neither the same host nor Google's."""
    target = urljoin(url, page.action or "")
    host = urlsplit(target).hostname or ""
    if host != urlsplit(url).hostname and not host.endswith((".google.com", ".googleusercontent.com")):
        raise DownloadError(f"{shown(url)} leads to another host, {host}", _ELSEWHERE)
    return f"{target}{'&' if urlsplit(target).query else '?'}{urlencode(page.fields)}"

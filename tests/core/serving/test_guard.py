"""Who may ask: names, pages and tokens."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from nanosam_cli.core.errors import MachineError, UsageError
from nanosam_cli.core.serving.guard import Access, Guard, is_loopback
from nanosam_cli.core.serving.limits import RequestLimits
from nanosam_cli.core.serving.photos import OpenedPhotos
from nanosam_cli.core.serving.server import listen
from nanosam_cli.core.serving.service import SegmentService
from tests.serving_data import client_of, save_photo, service_of

TOKEN = "a-token"


@pytest.fixture
def service(own_files: tuple[Path, Path]) -> Iterator[SegmentService]:
    with service_of(own_files) as opened:
        yield opened


@pytest.fixture
def photos(tmp_path: Path) -> OpenedPhotos:
    return OpenedPhotos([str(save_photo(tmp_path / "a.png"))])


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"host": "localhost:8765"}, 200),
        ({"host": "[::1]:8765"}, 200),
        ({"host": "evil.example:8765"}, 421),  # whose name was rebound to 127.0.0.1
        ({"host": "127.0.0.1.evil.example"}, 421),
        ({"host": "192.168.0.7"}, 421),
        ({"host": "[::1"}, 421),
        ({"origin": "http://127.0.0.1:8765"}, 200),
        ({"origin": "http://127.0.0.1:9999"}, 403),  # another program's page on this machine
        ({"origin": "https://evil.example"}, 403),
        ({"origin": "null"}, 403),
        ({"sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors"}, 403),
        ({"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}, 200),  # a link that somebody clicked
        ({"sec-fetch-site": "same-origin", "sec-fetch-mode": "cors"}, 200),
    ],
)
def test_only_its_own_page_may_ask(
    service: SegmentService, photos: OpenedPhotos, headers: dict[str, str], status: int
) -> None:
    answer = client_of(service, photos).get("/api/v1/photos", headers=headers)
    assert answer.status_code == status
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]
    if status != 200:
        assert {"error", "hint"} == answer.json().keys()


@pytest.mark.parametrize(
    ("headers", "query", "status"),
    [
        ({}, "", 401),
        ({}, "?token=wrong", 401),
        ({}, "?token=%C3%A4", 401),
        ({}, f"?token={TOKEN}", 200),
        ({"authorization": f"Bearer {TOKEN}"}, "", 200),
        ({"authorization": "Bearer"}, "", 401),
        ({"cookie": f"nanosam_token={TOKEN}"}, "", 200),
        ({"cookie": "nanosam_token=other; =;"}, "", 401),
        ({"host": "evil.example"}, f"?token={TOKEN}", 421),
    ],
)
def test_others_need_the_token(
    service: SegmentService, photos: OpenedPhotos, headers: dict[str, str], query: str, status: int
) -> None:
    client = client_of(service, photos, Access("0.0.0.0", TOKEN), host="192.168.0.7:8765")
    assert client.get(f"/api/v1/photos{query}", headers=headers).status_code == status


def test_the_page_moves_the_token_from_the_address_into_a_cookie(service: SegmentService, photos: OpenedPhotos) -> None:
    client = client_of(service, photos, Access("0.0.0.0", TOKEN), host="192.168.0.7:8765")
    answer = client.get(f"/?token={TOKEN}", follow_redirects=False)
    assert (answer.status_code, answer.headers["location"]) == (303, "/")
    assert {"httponly", "samesite=strict"} <= {part.strip().lower() for part in answer.headers["set-cookie"].split(";")}
    assert client.get("/api/v1/photos").status_code == 200


def test_a_body_that_does_not_come_is_not_waited_for_for_ever() -> None:
    sent: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()

    async def silence() -> Any:
        await asyncio.sleep(60)

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "method": "POST",
        "path": "/x",
        "query_string": b"",
        "headers": [(b"host", b"localhost"), (b"content-length", b"10")],
    }
    asyncio.run(Guard(app, Access(), RequestLimits(body_seconds=0.05))(scope, silence, send))
    assert sent[0]["status"] == 408


def test_a_token_is_made_for_addresses_that_others_reach() -> None:
    for host, is_open in (("127.0.0.1", False), ("localhost", False), ("0.0.0.0", True)):
        listener = listen(host, 0)
        with listener.socket:
            assert (listener.access.token is not None) == is_open
            assert ("token=" in listener.address) == is_open
    assert not is_loopback("example.org")


def test_a_port_that_is_taken_and_an_address_that_is_none_get_words() -> None:
    first = listen("127.0.0.1", 0)
    with first.socket, pytest.raises(MachineError, match="is taken by another program"):
        listen("127.0.0.1", first.socket.getsockname()[1])
    with pytest.raises(UsageError, match="no address"):
        listen("no such host", 0)

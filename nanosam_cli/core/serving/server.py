"""Listening: a socket that is free, a token where others can reach it, and a server until Ctrl-C."""

from __future__ import annotations

import errno
import secrets
import socket
from collections.abc import Callable
from dataclasses import dataclass

import uvicorn
from starlette.types import ASGIApp

from nanosam_cli.core.errors import MachineError, UsageError
from nanosam_cli.core.serving.guard import Access, is_loopback

_ANY = ("0.0.0.0", "::")


@dataclass(frozen=True)
class Listener:
    """A socket that is listened on, and who may ask there."""

    socket: socket.socket
    access: Access

    @property
    def address(self) -> str:
        """What to open in a browser, with the token if there is one."""
        host, port = self.socket.getsockname()[:2]
        if host in _ANY:
            host = socket.gethostname()
        query = f"/?token={self.access.token}" if self.access.token else "/"
        return f"http://{f'[{host}]' if ':' in host else host}:{port}{query}"


def listen(host: str, port: int) -> Listener:
    """Take the address; port 0 is any that is free. A token is made where more than this machine can reach it.

    UsageError where there is no such address, MachineError where the port is taken or not for us.
    """
    try:
        family, kind, _, _, place = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except (socket.gaierror, UnicodeError) as error:
        raise UsageError(f"there is no address {host!r}: {error}", "--host 127.0.0.1") from error
    opened = socket.socket(family, kind)
    try:
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # after a kill, at once again
        opened.bind(place)
        opened.listen(128)
    except OSError as error:
        opened.close()
        taken = error.errno == errno.EADDRINUSE
        reason = "is taken by another program" if taken else f"cannot be listened on: {error.strerror or error}"
        raise MachineError(f"port {port} of {host} {reason}", "--port 0 takes any that is free") from error
    names = {_ANY[0]: socket.gethostname(), _ANY[1]: socket.gethostname()}
    token = None if is_loopback(host) else secrets.token_urlsafe(24)
    return Listener(opened, Access(names.get(host, host), token))


def run_server(app: ASGIApp, listener: Listener, ready: Callable[[], object]) -> None:
    """Serve until a signal ends it, which then goes on to who was there before. `ready` is called once it answers."""
    config = uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,
        timeout_keep_alive=30,
        timeout_graceful_shutdown=3,
        server_header=False,
    )
    _Server(config, ready).run(sockets=[listener.socket])


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, ready: Callable[[], object]) -> None:
        super().__init__(config)
        self._ready = ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._ready()

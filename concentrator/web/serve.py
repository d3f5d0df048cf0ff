"""The page's process: opens the port, serves until it is told to stop, and stops at once."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
from collections.abc import Generator

import structlog
import uvicorn

from concentrator.config import Config
from concentrator.errors import LocalError
from concentrator.logs import set_up_logging
from concentrator.web.application import make_page
from concentrator.web.parent import follow_parent
from concentrator.web.security import is_loopback

log: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(__name__)

_MOST_CONNECTIONS = 128
_BACKLOG = 64
_KEEP_ALIVE_S = 15
# Streams end by themselves; a client that does not take its bytes is cut off after this.
_STOP_TIMEOUT_S = 1


class PageError(LocalError):
    """The page cannot listen where it is told to."""


class _Server(uvicorn.Server):
    """Leaves the signals to us."""

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None]:
        yield


def serve_page(config: Config) -> None:
    """Serve the page until SIGTERM or SIGINT.

    Raises:
        PageError: the address cannot be listened on.
    """
    follow_parent()
    set_up_logging(config.concentrator.log_level)
    listening = _listen(config.web.host, config.web.port)
    with listening:
        asyncio.run(_serve(config, listening))


def _listen(host: str, port: int) -> socket.socket:
    try:
        family, kind, protocol, _name, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listening = socket.socket(family, kind, protocol)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
    except OSError as error:
        raise PageError(
            f"web.port: got {port} on {host}: {error.strerror}; "
            "allowed: a port that is free and that this user may open"
        ) from error
    return listening


async def _serve(config: Config, listening: socket.socket) -> None:
    page = make_page(config)
    server = _Server(
        uvicorn.Config(
            page.application,
            loop="none",
            http="h11",
            ws="none",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            limit_concurrency=_MOST_CONNECTIONS,
            backlog=_BACKLOG,
            timeout_keep_alive=_KEEP_ALIVE_S,
            timeout_graceful_shutdown=_STOP_TIMEOUT_S,
        )
    )

    def stop() -> None:
        page.streams.stop()
        server.should_exit = True

    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop)
    if not is_loopback(config.web.host):
        log.warning("the page is reachable from the network and has no login", host=config.web.host)
    log.info("page", address=f"http://{config.web.host}:{config.web.port}/")
    await server.serve(sockets=[listening])

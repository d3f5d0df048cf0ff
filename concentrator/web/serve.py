"""The page's process: opens the port, serves until it is told to stop, and stops at once."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import ssl
import sys
from collections.abc import Callable, Generator
from pathlib import Path

import structlog
import uvicorn

from concentrator.access.page_certificate import page_certificate
from concentrator.config import Config, ConfigError, load_config, parse_config
from concentrator.errors import LocalError
from concentrator.logs import set_up_logging
from concentrator.tasks import cancel_and_wait
from concentrator.web.application import make_page
from concentrator.web.connections import Connection
from concentrator.web.parent import DIES_WITH_PARENT, follow_parent

log: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(__name__)

_MOST_CONNECTIONS = 128
_BACKLOG = 64
_KEEP_ALIVE_S = 15
# Streams end by themselves; a client that does not take its bytes is cut off after this.
_STOP_TIMEOUT_S = 1
_LOOK_INTERVAL_S = 2.0


class PageError(LocalError):
    """The page cannot listen where it is told to."""


class _Server(uvicorn.Server):
    """Leaves the signals to us."""

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None]:
        yield


def serve_page(config_file: Path) -> None:
    """Serve the page until SIGTERM or SIGINT; a page that nobody's service started follows changes of its file.

    Raises:
        ConfigError: the configuration is wrong.
        PageError: the address cannot be listened on, or the certificate cannot be used.
    """
    follow_parent()
    config = load_config(config_file, ports_exist=False)
    set_up_logging(config.concentrator.log_level)
    watched = None if DIES_WITH_PARENT in os.environ else config_file
    listening = _listen(config.web.host, config.web.port)
    with listening:
        changed = asyncio.run(_serve(config, listening, watched))
    if changed:
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])  # noqa: S606 - our own command line


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


async def _serve(config: Config, listening: socket.socket, watched: Path | None) -> bool:
    """Serve; gives whether it ended because the configuration is another one."""
    page = make_page(config)
    files = page_certificate(config)
    server = _Server(
        uvicorn.Config(
            page.application,
            loop="none",
            http=Connection,
            ws="none",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            limit_concurrency=_MOST_CONNECTIONS,
            backlog=_BACKLOG,
            timeout_keep_alive=_KEEP_ALIVE_S,
            timeout_graceful_shutdown=_STOP_TIMEOUT_S,
            ssl_certfile=files[0] if files else None,
            ssl_keyfile=files[1] if files else None,
        )
    )
    try:
        server.config.load()
    except (OSError, ssl.SSLError) as error:
        raise PageError(
            f"web.tls: got {config.web.tls}: {files}: {error}; allowed: a certificate and its private key in PEM form "
            "that this user may read; the service makes the page's own one when it starts"
        ) from None

    def stop() -> None:
        page.streams.stop()
        server.should_exit = True

    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop)
    scheme = "https" if files else "http"
    log.info("page", address=f"{scheme}://{config.web.host}:{config.web.port}/")
    changes = asyncio.Event()
    watch = asyncio.create_task(_watch(watched, changes, stop)) if watched is not None else None
    await server.serve(sockets=[listening])
    if watch is not None:
        await cancel_and_wait(watch)
    return changes.is_set()


async def _watch(file: Path, changes: asyncio.Event, stop: Callable[[], None]) -> None:
    """Stop the page once its configuration is another one that can be used."""
    known = _text(file)
    while not changes.is_set():
        await asyncio.sleep(_LOOK_INTERVAL_S)
        text = _text(file)
        if text in ("", known):
            continue
        known = text
        try:
            parse_config(text, str(file), ports_exist=False)
        except ConfigError as error:
            log.warning("changed configuration not taken", reason=str(error))
        else:
            changes.set()
            stop()


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return ""

"""Connections that do not get to the point: nobody keeps the page from others by opening many and saying nothing."""

from __future__ import annotations

import asyncio
from typing import Any

from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

# From the begin of a connection, or the end of an answer, to the end of a request's head.
_HEAD_S = 15.0
# All of a form, and between two pieces of an upload, over a poor link.
_BODY_S = 60.0
_PIECE_S = 30.0
# Of those that have not said what they want the oldest goes when there is one more: half of what the page serves.
_MOST_WAITING = 64


class Connection(H11Protocol):
    """One connection, which ends when a request's head does not come in time."""

    # In the order in which they began to wait; of the one server of the process.
    _waiting: dict[Connection, asyncio.TimerHandle] = {}  # noqa: RUF012 - shared on purpose

    def connection_made(self, transport: asyncio.Transport) -> None:  # pyright: ignore[reportIncompatibleMethodOverride] - as in uvicorn
        """Wait for the first request."""
        super().connection_made(transport)
        self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget it."""
        self._wait_no_more()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take some octets of a request."""
        if self._is_idle:
            self._wait()
        super().data_received(data)
        if not self._is_idle:
            self._wait_no_more()

    def on_response_complete(self) -> None:
        """Wait for the next request."""
        super().on_response_complete()
        if self._is_idle and not self.transport.is_closing():
            self._wait()

    @property
    def _is_idle(self) -> bool:
        """Whether no request is being answered."""
        cycle: Any = self.cycle
        return cycle is None or bool(cycle.response_complete)

    def _wait(self) -> None:
        if self in self._waiting:
            return
        self._waiting[self] = self.loop.call_later(_HEAD_S, self._end)
        if len(self._waiting) > _MOST_WAITING:
            next(iter(self._waiting))._end()  # noqa: SLF001 - of this class

    def _wait_no_more(self) -> None:
        timer = self._waiting.pop(self, None)
        if timer is not None:
            timer.cancel()

    def _end(self) -> None:
        self._wait_no_more()
        # Not closed but aborted: who does not read would hold up the end too.
        self.transport.abort()


class PatienceMiddleware:
    """Bounds the time in which a request's body has to come; who is slower gets 408."""

    def __init__(self, app: ASGIApp, uploads: tuple[str, ...]) -> None:
        self._app = app
        self._uploads = uploads

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        length = Headers(scope=scope).get("content-length", "0") if scope["type"] == "http" else "0"
        chunked = scope["type"] == "http" and "transfer-encoding" in Headers(scope=scope)
        if length == "0" and not chunked:
            await self._app(scope, receive, send)
            return
        by_piece = scope["path"] in self._uploads
        clock = asyncio.get_running_loop().time
        ends_at, is_whole, is_answered = clock() + _BODY_S, False, False

        async def receive_in_time() -> Message:
            nonlocal is_whole
            if is_whole:
                return await receive()
            async with asyncio.timeout_at(clock() + _PIECE_S if by_piece else ends_at):
                message = await receive()
            is_whole = message["type"] != "http.request" or not message.get("more_body")
            return message

        async def send_noting(message: Message) -> None:
            nonlocal is_answered
            is_answered = True
            await send(message)

        try:
            await self._app(scope, receive_in_time, send_noting)
        except ClientDisconnect:
            # Gone in the middle of a form: there is nobody to answer.
            return
        except TimeoutError:
            if is_whole or is_answered:
                raise
            answer = PlainTextResponse("The request did not come in time.\n", 408, {"Connection": "close"})
            await answer(scope, receive, send)

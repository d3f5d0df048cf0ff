"""The control socket: how the page and commands on the box speak to the running service.

A Unix socket, JSON lines. Each request is one line and gets one line back: {"op": "status"}, {"op": "order", "order":
{...}}, or {"op": "ask", "order": {...}} for an order that only asks and leaves no trace; {"op": "topology"}, {"op":
"firmware"} and {"op": "dialogue", "target": METER} leave none either. {"op": "update"} tells of an update that a
command installs, and is heard from root and the service's own user only. {"op": "subscribe"} gets a status line now
and after each change, at most two a second; {"op": "traffic"} gets what passes on the lines from now on
(`traffic.py`), several passages a line. Whoever may open the socket (its mode is 0660) may ask for the status, which
tells what the store does. All else is for root and the service's own user, which the page's user is not; for others,
and with the token of a session, it is by what the session's user may.
"""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import socket
import struct
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import structlog

from concentrator.errors import ConcentratorError, LocalError, RemoteError, TransientError
from concentrator.orders import LOCAL, PAGE, Order, OrderHandler
from concentrator.traffic import TrafficHub

log: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(__name__)

_LARGEST_LINE_OCTETS = 16 * 1024 * 1024
# A list of keys, as a JSON string, is the largest.
_LARGEST_REQUEST_OCTETS = 512 * 1024
_MOST_CONNECTIONS = 32
_STATUS_INTERVAL_S = 0.5
# A line without passages: so a watcher that went away is noticed on a silent line too.
_TRAFFIC_BEAT_S = 2.0

# What is answered at once and changes nothing, by its `op`; the argument is the `target`.
Questions = Mapping[str, Callable[[str], dict[str, Any]]]
# What commands of root and the service's own user tell the service, by its `op`.
News = Mapping[str, Callable[[Mapping[str, Any]], Awaitable[dict[str, Any]]]]

_CREDENTIALS = struct.Struct("3i")


class ControlError(LocalError):
    """The service cannot be reached, or refused a request."""


class ServiceAbsentError(ControlError, TransientError):
    """Nobody listens on the control socket: the service is not running."""


class OrderFailedError(ControlError, RemoteError):
    """The service took an order, and it failed: the meter refused, or is away."""


class Access(Protocol):
    """Who is logged in on the page, and what they may: `access.desk`."""

    @property
    def operations(self) -> tuple[str, ...]:
        """The requests that are answered there."""
        ...

    async def answer(self, request: Mapping[str, Any], origin: str) -> dict[str, Any]:
        """Answer one of them. Raises ConcentratorError."""
        ...

    async def carry_out(self, order: Order, session: str, address: str) -> dict[str, Any]:
        """Carry out an order of a session's user. Raises ConcentratorError."""
        ...

    async def allow(
        self, operation: str, request: Mapping[str, Any], origin: str, *, use: bool = True
    ) -> str:
        """Who asks for something, when they may have it. Raises ConcentratorError."""
        ...


class ControlServer:
    """The service's side. Without `access` orders are taken from everybody who may open the socket."""

    def __init__(
        self,
        path: Path,
        status: Callable[[], Awaitable[dict[str, Any]]],
        handle_order: OrderHandler,
        answer_question: OrderHandler | None = None,
        access: Access | None = None,
        *,
        questions: Questions | None = None,
        news: News | None = None,
        traffic: TrafficHub | None = None,
    ) -> None:
        self._access = access
        self._path = path
        self._questions = questions or {}
        self._news = news or {}
        self._traffic = traffic
        self._status = status
        self._handlers = {"order": handle_order, "ask": answer_question or handle_order}
        self._connections = 0

    async def run(self) -> None:
        """Serve until cancelled."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._path.unlink(missing_ok=True)
        server = await asyncio.start_unix_server(
            self._serve, path=str(self._path), limit=_LARGEST_REQUEST_OCTETS
        )
        self._path.chmod(0o660)
        try:
            async with server:
                await server.serve_forever()
        finally:
            self._path.unlink(missing_ok=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._connections >= _MOST_CONNECTIONS:
            writer.close()
            return
        self._connections += 1
        try:
            while line := await reader.readline():
                await self._answer(line, writer)
        except (ConnectionError, ValueError):
            # The other side went away, or sent a line that is too long.
            pass
        except asyncio.CancelledError:
            # The service stops: the event loop ends its connections, and there is nobody to pass this on to.
            return
        finally:
            self._connections -= 1
            writer.close()

    async def _answer(self, line: bytes, writer: asyncio.StreamWriter) -> None:
        try:
            request = json.loads(line)
            operation = request["op"]
            # No halves of surrogates, which neither the store nor a log could write.
            json.dumps(request, ensure_ascii=False).encode()
            if not isinstance(operation, str):
                raise TypeError  # noqa: TRY301 - answered as what else makes no sense
        except (ValueError, KeyError, TypeError, RecursionError):
            await _send(writer, {"error": 'not understood; send {"op": "status"} as one line of JSON'})
            return
        if operation == "status":
            await _send(writer, await self._status())
        elif operation == "subscribe":
            await self._stream(writer)
        elif operation == "traffic" and self._traffic is not None:
            await self._stream_traffic(self._traffic, request, writer)
        elif operation in self._questions:
            try:
                await self._allow(operation, request, _origin(writer))
            except ConcentratorError as error:
                await _send(writer, {"state": "failed", "error": str(error)})
            else:
                await _send(writer, self._questions[operation](str(request.get("target", ""))))
        elif operation in self._handlers or (operation in self._news and _origin(writer) == LOCAL):
            try:
                if operation in self._news:
                    result = await self._news[operation](request)
                else:
                    result = await self._carry_out(operation, request, _origin(writer))
            except ConcentratorError as error:
                await _send(writer, {"state": "failed", "error": str(error)})
            else:
                await _send(writer, {"state": "done", "result": result})
        elif self._access is not None and operation in self._access.operations:
            try:
                answer = await self._access.answer(request, _origin(writer))
            except ConcentratorError as error:
                answer = {"state": "failed", "error": str(error)}
            await _send(writer, answer)
        else:
            known = ", ".join(
                (
                    *("status", "subscribe", "order", "ask", "traffic"),
                    *self._questions,
                    *(self._access.operations if self._access else ()),
                )
            )
            await _send(writer, {"error": f"unknown op {operation!r}; known: {known}"})

    async def _carry_out(self, operation: str, request: Mapping[str, Any], origin: str) -> dict[str, Any]:
        order = Order.from_payload(request.get("order"), origin)
        if operation == "ask":
            asker = await self._allow(order.operation, request, origin)
            if asker not in (LOCAL, PAGE):
                order = replace(order, origin=PAGE, given_by=asker.removeprefix(f"{PAGE}, "))
            return await self._handlers["ask"](order)
        if self._access is None or (origin == LOCAL and "session" not in request):
            return await self._handlers[operation](order)
        session, address = (str(request.get(name, "")) for name in ("session", "address"))
        return await self._access.carry_out(order, session, address)

    async def _stream(self, writer: asyncio.StreamWriter) -> None:
        last = b""
        while not writer.is_closing():
            line = _line(await self._status())
            if line != last:
                writer.write(line)
                await writer.drain()
                last = line
            await asyncio.sleep(_STATUS_INTERVAL_S)

    async def _allow(
        self, operation: str, request: Mapping[str, Any], origin: str, *, use: bool = False
    ) -> str:
        """Who asks. A question is what an open page asks by itself: no use of a session. Raises ConcentratorError."""
        if self._access is None:
            return origin
        return await self._access.allow(operation, request, origin, use=use)

    async def _stream_traffic(
        self, hub: TrafficHub, request: Mapping[str, Any], writer: asyncio.StreamWriter
    ) -> None:
        origin = _origin(writer)
        with hub.watch() as watcher:
            begun = False
            while not writer.is_closing():
                try:
                    # Again before each line: the stream ends with the session.
                    await self._allow("traffic", request, origin)
                except ConcentratorError as error:
                    await _send(writer, {"state": "failed", "error": str(error)})
                    return
                if not begun:
                    await _send(writer, {"passages": [], "dropped": 0})
                    begun = True
                passages = await watcher.take(_TRAFFIC_BEAT_S)
                line = {"passages": [one.as_json() for one in passages], "dropped": watcher.dropped}
                # A watcher that does not read holds up this task alone; what it misses is dropped and counted.
                await _send(writer, line)


def _line(payload: dict[str, Any]) -> bytes:
    return json.dumps(payload, separators=(",", ":")).encode() + b"\n"


def _origin(writer: asyncio.StreamWriter) -> str:
    """Who is at the other end: the kernel tells the user that opened the connection."""
    connection: socket.socket = writer.get_extra_info("socket")
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    _, user, _ = _CREDENTIALS.unpack(credentials)
    return LOCAL if user in (0, os.getuid()) else PAGE


async def _send(writer: asyncio.StreamWriter, payload: dict[str, Any]) -> None:
    writer.write(_line(payload))
    await writer.drain()


@asynccontextmanager
async def _connected(path: Path) -> AsyncGenerator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    try:
        reader, writer = await asyncio.open_unix_connection(str(path), limit=_LARGEST_LINE_OCTETS)
    except OSError as error:
        raise ServiceAbsentError(
            f"control socket {path}: {error.strerror or error}; is the concentrator running?"
        ) from error
    try:
        yield reader, writer
    finally:
        writer.close()


async def request(path: Path, payload: dict[str, Any]) -> dict[str, Any]:
    """Ask the running service once.

    Raises:
        ServiceAbsentError: it is not running.
        OrderFailedError: it took an order that failed.
        ControlError: it refused.
    """
    async with _connected(path) as (reader, writer):
        writer.write(_line(payload))
        line = await reader.readline()
    if not line:
        raise ServiceAbsentError(
            f"control socket {path}: closed without an answer; is the concentrator stopping?"
        )
    answer: dict[str, Any] = json.loads(line)
    if "error" in answer:
        failed = OrderFailedError if answer.get("state") == "failed" else ControlError
        raise failed(str(answer["error"]))
    return answer


async def give_order(
    path: Path, operation: str, target: str = "", arguments: object = None, **fields: object
) -> Any:  # noqa: ANN401 - decoded JSON
    """Give the running service an order; returns its result. `fields` are the order's others, such as `priority`.

    Raises:
        ControlError: nobody listens there, or the order was not done; the text says why.
    """
    order: dict[str, object] = {
        "id": f"cli-{secrets.token_hex(6)}",
        "op": operation,
        "target": target,
        "args": {} if arguments is None else arguments,
        **{name: value for name, value in fields.items() if value is not None},
    }
    answer = await request(path, {"op": "order", "order": order})
    if answer.get("state") != "done":
        raise ControlError(f"{operation}: {answer}")
    return answer["result"]


async def subscribe(path: Path, operation: str = "subscribe", **more: str) -> AsyncIterator[dict[str, Any]]:
    """The status of the running service, now and after each change; ends when the service does.

    With the operation "traffic" what passes on the lines: {"passages": [...], "dropped": how many were lost so far}.
    `more` goes with the request: the page's session and address.

    Raises:
        ServiceAbsentError: it is not running.
        ControlError: it refused, or the session has ended.
    """
    async with _connected(path) as (reader, writer):
        writer.write(_line({"op": operation, **more}))
        while line := await reader.readline():
            answer: dict[str, Any] = json.loads(line)
            if "error" in answer:
                raise ControlError(str(answer["error"]))
            yield answer

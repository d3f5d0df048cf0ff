"""Connections that say nothing, or say it slowly, end; those that ask get their answer meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import socket

import pytest
import pytest_asyncio
import uvicorn
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.testclient import TestClient

from concentrator.clock import SystemClock
from concentrator.web import connections
from concentrator.web.application import make_page
from concentrator.web.connections import Connection, PatienceMiddleware

import web_bench

MOST = 20
HEAD = b"Host: 127.0.0.1\r\n"


async def say(scope, receive, send):
    body = await Request(scope, receive).body()
    await PlainTextResponse(f"{len(body)} octets")(scope, receive, send)


@pytest_asyncio.fixture
async def port(monkeypatch):
    monkeypatch.setattr(connections, "_HEAD_S", 0.5)
    monkeypatch.setattr(connections, "_BODY_S", 0.5)
    monkeypatch.setattr(connections, "_PIECE_S", 1.0)
    monkeypatch.setattr(connections, "_MOST_WAITING", MOST // 2)
    application = PatienceMiddleware(say, uploads=("/upload",))
    server = uvicorn.Server(
        uvicorn.Config(application, http=Connection, limit_concurrency=MOST, log_config=None, lifespan="off")
    )
    with socket.create_server(("127.0.0.1", 0)) as listening:
        task = asyncio.create_task(server.serve(sockets=[listening]))
        yield listening.getsockname()[1]
        server.should_exit = True
        await task


async def open_to(port: int, octets: bytes):
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(octets)
    return reader, writer


async def rest_of(reader) -> bytes:
    with contextlib.suppress(ConnectionError):
        return await asyncio.wait_for(reader.read(), 5)
    return b""


@pytest.mark.parametrize("said", [b"", b"GET / HTTP/1.1\r\nHo"])
async def test_many_that_say_nothing_keep_nobody_out(port, said):
    silent = [await open_to(port, said) for _ in range(2 * MOST)]
    reader, _ = await open_to(port, b"GET / HTTP/1.1\r\n" + HEAD + b"Connection: close\r\n\r\n")
    assert (await rest_of(reader)).startswith(b"HTTP/1.1 200")
    for reader, _ in silent:
        assert await rest_of(reader) == b""


async def test_a_connection_that_was_used_once_does_not_wait_for_ever_for_half_a_request(port):
    reader, writer = await open_to(port, b"GET / HTTP/1.1\r\n" + HEAD + b"\r\n")
    assert (await reader.readuntil(b"0 octets")).startswith(b"HTTP/1.1 200")
    writer.write(b"GET / HTT")
    assert await rest_of(reader) == b""


async def test_a_form_has_to_come_in_time_and_an_upload_piece_by_piece(port):
    for path, expected in ((b"/login", b"HTTP/1.1 408"), (b"/upload", b"HTTP/1.1 200")):
        reader, writer = await open_to(
            port,
            b"POST " + path + b" HTTP/1.1\r\n" + HEAD + b"Connection: close\r\nContent-Length: 10\r\n\r\n",
        )
        answer = asyncio.create_task(reader.readexactly(len(expected)))
        for _ in range(10):
            await asyncio.sleep(0.1)
            if not answer.done():
                writer.write(b"x")
        assert await asyncio.wait_for(answer, 5) == expected


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/static/nothing.js", 404),
        ("/static/%2e%2e/application.py", 404),
        ("/static/%00", 404),
        ("/login?next=//[", 200),
        ("/language/de?back=//[", 303),
    ],
)
def test_addresses_that_make_no_sense_are_answered(tmp_path, path, expected):
    page = make_page(web_bench.config(tmp_path), SystemClock())
    with TestClient(page.application, base_url="http://127.0.0.1:8080", follow_redirects=False) as client:
        answer = client.get(path)
        assert (answer.status_code, answer.headers["X-Frame-Options"]) == (expected, "DENY")
        assert client.post("/login", content="&".join(["a=1"] * 30)).status_code == 403

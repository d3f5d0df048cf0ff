"""The live stream on a poor link: compressed, and each event can be read when it comes."""

from __future__ import annotations

import asyncio
import zlib

import pytest
from starlette.requests import Request

from concentrator.web.streams import event, event_stream


def asked(encoding: str) -> Request:
    headers = [(b"accept-encoding", encoding.encode())] if encoding else []
    return Request({"type": "http", "method": "GET", "path": "/", "headers": headers})


ROWS = {f"meter-{n}": f"<tr><th>ODC{n:010d}</th><td>Active</td></tr>" for n in range(50)}


async def events(closed: list[bool]):
    try:
        for _ in range(3):
            yield event("parts", ROWS)
    finally:
        closed.append(True)


@pytest.mark.parametrize("encoding", ["gzip, deflate, br", "identity", ""])
def test_each_event_arrives_whole_and_is_small_where_the_browser_takes_it(encoding):
    async def run():
        closed: list[bool] = []
        answer = event_stream(asked(encoding), events(closed))
        unpacker = zlib.decompressobj(wbits=31)
        packed = answer.headers.get("content-encoding") == "gzip"
        octets = 0
        found = []
        async for piece in answer.body_iterator:
            octets += len(piece)
            text = unpacker.decompress(piece) if packed else piece
            if text:
                found.append(text)
        return answer, found, octets, closed, packed

    answer, found, octets, closed, packed = asyncio.run(run())
    assert answer.media_type == "text/event-stream"
    assert packed == ("gzip" in encoding)
    assert found == [event("parts", ROWS)] * 3
    assert closed == [True]
    whole = 3 * len(event("parts", ROWS))
    assert octets < whole / 10 if packed else octets == whole


def test_a_reader_who_leaves_ends_the_events():
    async def run():
        closed: list[bool] = []
        body = event_stream(asked("gzip"), events(closed)).body_iterator
        await anext(body)
        await body.aclose()
        return closed

    assert asyncio.run(run()) == [True]

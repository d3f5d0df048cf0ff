"""Several head-ends that want to speak with meters: who waits, who is refused, and that the places come back."""

import asyncio
from types import SimpleNamespace

import pytest

from concentrator.clock import SystemClock
from concentrator.collection.gateway_desk import AwayError, GatewayDesk
from concentrator.dlms.gateway import DeviceBusyError, GatewayAddress, GatewayRequest, UnknownDeviceError


class Channel:
    def __init__(self, link):
        self.link, self.queue = link, asyncio.Queue()

    async def send(self, apdu):
        self.link.sent.append(apdu)
        if not self.link.mute:
            self.queue.put_nowait(b"answer to " + apdu)

    async def receive(self, timeout_s):
        try:
            async with asyncio.timeout(timeout_s):
                return await self.queue.get()
        except TimeoutError:
            raise AwayError("silent") from None

    def __enter__(self):
        self.link.open += 1
        self.link.most_open = max(self.link.most_open, self.link.open)
        return self

    def __exit__(self, *_):
        self.link.open -= 1


class Link:
    network = SimpleNamespace(capabilities=SimpleNamespace(largest_apdu=1000))
    shell = SimpleNamespace(is_open=True)

    def __init__(self):
        self.sent, self.open, self.most_open, self.mute = [], 0, 0, False

    def open_channel(self, *_):
        return Channel(self)


class Lender:
    def __init__(self):
        self.lent = set()

    async def borrow(self, meter):
        assert meter.identity not in self.lent
        self.lent.add(meter.identity)

    def give_back(self, meter):
        self.lent.discard(meter.identity)


def meter(number):
    name = f"M{number}"
    record = SimpleNamespace(identity=name, serial=name, logical_device_name="", link_address=name, reason="")
    return SimpleNamespace(record=record, identity=name, address=number, activity="")


def request(number, apdu=b"ask", sap=1):
    return GatewayRequest(GatewayAddress(0, b"M%d" % number), sap, 1, apdu)


async def test_a_flood_at_one_meter_keeps_nobody_from_another_and_places_are_taken_in_turn():
    link, lender = Link(), Lender()
    desk = GatewayDesk([meter(n) for n in range(9)], lender, link, SystemClock(), 0, 1.0, 0.5, most_meters=2)
    ways = [lambda _apdu, n=number: n for number in range(9)]
    flood = [asyncio.create_task(desk.route(request(0, b"%d" % n), ways[0])) for n in range(50)]
    assert await desk.route(request(1), ways[1]) == [b"answer to ask"]
    assert [await one for one in flood] == [[b"answer to %d" % n] for n in range(50)]
    # Both places are taken: a third waits, and is told when it waits too long.
    with pytest.raises(DeviceBusyError, match="no turn"):
        await desk.route(request(2), ways[2])
    waiting = asyncio.create_task(desk.route(request(2), ways[2]))
    await asyncio.sleep(0)
    await desk.close(ways[0])
    assert await waiting == [b"answer to ask"]
    assert link.most_open == 2
    # Another head-end does not get the meter of the first.
    with pytest.raises(DeviceBusyError, match="another client"):
        await desk.route(request(1, sap=2), ways[3])
    with pytest.raises(UnknownDeviceError):
        await desk.route(request(77), ways[3])
    await desk.close()
    assert (link.open, lender.lent) == (0, set())
    # Whoever gave up waiting has taken no place with it.
    for number in (4, 5):
        assert await desk.route(request(number), ways[number]) == [b"answer to ask"]
    await desk.close()


async def test_a_meter_that_is_silent_is_told_and_given_back():
    link, lender = Link(), Lender()
    link.mute = True
    desk = GatewayDesk([meter(0)], lender, link, SystemClock(), 0, 0.1, 0.5, most_meters=1)
    with pytest.raises(AwayError, match="no answer"):
        await desk.route(request(0), lambda _apdu: None)
    await desk.close()
    assert lender.lent == set()

"""sd_notify messages over real sockets, and a watchdog that is fed only while every loop works."""

import asyncio
import os
import secrets
import socket

import pytest

from concentrator.notify import Notifier, NotifyError, Watchdog, watchdog_limit_s


class Clock:
    def __init__(self):
        self.seconds = 0.0

    def monotonic(self):
        return self.seconds

    def now(self):
        raise AssertionError("the wall clock is not for this")


@pytest.fixture(params=["path", "abstract"])
def manager(request, tmp_path):
    address = str(tmp_path / "notify") if request.param == "path" else f"@concentrator-{secrets.token_hex(8)}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind("\0" + address[1:] if address.startswith("@") else address)
        receiver.settimeout(5)
        yield address, receiver


def test_each_state_is_one_message(manager):
    address, receiver = manager
    notifier = Notifier.from_environment({"NOTIFY_SOCKET": address})
    notifier.ready("forming the network")
    assert receiver.recv(1000) == b"READY=1\nSTATUS=forming the network"
    notifier.status("two\nlines")
    assert receiver.recv(1000) == b"STATUS=two lines"
    notifier.watchdog()
    assert receiver.recv(1000) == b"WATCHDOG=1"
    notifier.stopping()
    assert receiver.recv(1000) == b"STOPPING=1\nSTATUS=stopping"


def test_no_manager_and_a_manager_that_went_away_are_no_trouble(tmp_path):
    Notifier.from_environment({}).ready()
    Notifier(str(tmp_path / "gone")).ready()
    with pytest.raises(NotifyError, match="NOTIFY_SOCKET"):
        Notifier("tcp:elsewhere")


def test_the_watchdog_is_fed_only_while_every_loop_makes_progress(manager):
    address, receiver = manager
    clock = Clock()
    told = []
    watchdog = Watchdog(Notifier(address), clock, on_overdue=told.append)
    watchdog.register("polling", 60)
    watchdog.register("uplink", 20)
    assert watchdog.check()
    assert receiver.recv(1000) == b"WATCHDOG=1"
    clock.seconds = 21
    watchdog.beat("polling")
    assert not watchdog.check()
    assert not watchdog.check()
    assert receiver.recv(1000) == b"STATUS=no progress: uplink"
    receiver.setblocking(False)
    with pytest.raises(BlockingIOError):
        receiver.recv(1000)
    assert told == [("uplink",)]
    watchdog.beat("uplink")
    assert watchdog.check()
    assert receiver.recv(1000) == b"WATCHDOG=1"
    clock.seconds = 90
    watchdog.unregister("uplink")
    assert watchdog.overdue() == ("polling",)


def test_an_unknown_loop_is_an_error():
    with pytest.raises(NotifyError, match="none is"):
        Watchdog(Notifier(), Clock()).beat("polling")


async def test_the_task_feeds_several_times_within_the_limit(manager):
    address, receiver = manager
    receiver.setblocking(False)
    watchdog = Watchdog(Notifier(address), Clock(), limit_s=0.06)
    task = asyncio.create_task(watchdog.run())
    loop = asyncio.get_running_loop()
    for _ in range(3):
        assert await asyncio.wait_for(loop.sock_recv(receiver, 1000), 5) == b"WATCHDOG=1"
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


def test_the_limit_comes_from_the_environment_and_is_for_this_process_only():
    assert watchdog_limit_s({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getpid())}) == 30.0
    assert watchdog_limit_s({"WATCHDOG_USEC": "30000000"}) == 30.0
    assert watchdog_limit_s({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}) is None
    assert watchdog_limit_s({"WATCHDOG_USEC": "0"}) is None
    assert watchdog_limit_s({}) is None

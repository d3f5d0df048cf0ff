"""A whole substation in virtual time: the product's collector, driver and store with simulated PRIME meters."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from datetime import UTC, datetime

from concentrator.collection.collector import Collector
from concentrator.collection.keyring import Keyring, MeterKeys
from concentrator.collection.meter_tasks import tasks_of
from concentrator.config import CollectionSection
from concentrator.links.plc_link import PlcLink
from concentrator.simulator.feeder import PRIME_PHY, Feeder
from concentrator.simulator.prime_modem import PrimeModem
from concentrator.simulator.scheduler import AsyncioScheduler
from concentrator.simulator.substation import Substation
from concentrator.simulator.virtual_loop import DirectPort, VirtualClock, VirtualEventLoop
from concentrator.store.store import Store
from concentrator.time_source import TimeWatch
from plc.prime.base_node import BaseNode

START = datetime(2026, 11, 17, 12, tzinfo=UTC)


async def synchronised():
    return True


class VirtualSubstation:
    """`steady` meters never drop out. What a test wants otherwise it sets before `running()`."""

    def __init__(
        self,
        directory,
        count=2,
        tasks=(),
        start=START,
        steady=True,
        ask=synchronised,
        meters=(),
        firmware=None,
        **settings,
    ):
        loop = asyncio.get_running_loop()
        self.clock = VirtualClock(loop, start)
        self.meters = list(meters)
        for number in range(len(self.meters) + 1, count + 1):
            self.meters.append(Substation._meter(number, 1, self.clock.now))
            self.meters[-1].clock_offset_s = 0.0
        for meter in self.meters:
            meter._clock = self.clock.now
        self.feeder = Feeder(count, 1, PRIME_PHY, steady=steady)
        self.modem = PrimeModem(self.meters, AsyncioScheduler(), self.feeder, 1, join_spread_s=60.0)
        self.settings = CollectionSection(**{"history_days": 1, "answer_delay_s": 10, **settings})
        keys = {m.serial: MeterKeys(m.keys.encryption, m.keys.authentication) for m in self.meters}
        self.path = directory / "store.db"
        self.store = Store(self.path, self.clock)
        self.watch = TimeWatch(self.clock, ask)
        self.collector = Collector(
            self.settings,
            self.store,
            self.clock,
            Keyring(keys, {}),
            tasks=tasks_of(tasks, self.settings),
            time_watch=self.watch,
            firmware=firmware,
        )
        self.link = PlcLink(
            BaseNode(),
            "virtual",
            115200,
            self.collector.handle_event,
            make_port=lambda _port, _baud, on_data, on_lost: DirectPort(self.modem, on_data, on_lost),
        )

    @contextlib.asynccontextmanager
    async def running(self):
        await self.watch.look()
        await self.collector.load()
        self.modem.start()
        tasks = [asyncio.ensure_future(one) for one in (self.link.run(), self.collector.run(self.link))]
        try:
            yield self
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self.store.close()

    async def until(self, condition, limit_s=4 * 3600.0):
        """Let virtual time pass until the condition holds."""
        async with asyncio.timeout(limit_s):
            while not condition():  # noqa: ASYNC110 - time is virtual
                await asyncio.sleep(1.0)

    def query(self, sql, *values):
        with contextlib.closing(sqlite3.connect(self.path)) as connection:
            return connection.execute(sql, values).fetchall()

    def record(self, number=0):
        serial = self.meters[number].serial
        return next((meter for meter in self.collector.registry if meter.identity == serial), None)


def in_virtual_time(test):
    """Run a coroutine function as a test on a virtual loop."""

    def run(tmp_path, *arguments, **named):
        loop = VirtualEventLoop()
        try:
            return loop.run_until_complete(test(tmp_path, *arguments, **named))
        finally:
            loop.close()

    run.__name__, run.__doc__ = test.__name__, test.__doc__
    return run

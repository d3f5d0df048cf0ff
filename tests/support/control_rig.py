"""One simulated meter and the collecting side of the product, without a modem between: for control orders.

What goes over the wire, into the audit trail and into the file of changed keys passes `Steps`: there a test can have
the concentrator die, and start it again on what is on the disk. Time stands still unless a test moves it.
"""

from __future__ import annotations

import asyncio
import itertools
import json
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

from concentrator.collection import changed_keys
from concentrator.collection.collector import Collector
from concentrator.collection.control.errors import NotAuthorisedError
from concentrator.collection.control.rules import OrderRules
from concentrator.collection.keyring import Keyring
from concentrator.collection.meter_orders import check_order
from concentrator.collection.registry import CollectedMeter, PendingOrder
from concentrator.collection.visit import Visit
from concentrator.config import CollectionSection, OrdersSection
from concentrator.links.errors import AnswerTimeoutError, LinkLostError
from concentrator.model import MeterRecord, MeterState
from concentrator.orders import LOCAL, Order
from concentrator.simulator.meter import SimulatedMeter
from concentrator.store.store import Store

SERIAL = "ODC0010000001"
# A calendar as an order has it.
CALENDAR = {
    "name": "WINTER26",
    "seasons": [{"name": "S1", "start": "*-01-01 00:00", "week": "W1"}],
    "weeks": [
        {
            "name": "W1",
            "monday": 1,
            "tuesday": 1,
            "wednesday": 1,
            "thursday": 1,
            "friday": 1,
            "saturday": 2,
            "sunday": 2,
        }
    ],
    "days": [
        {"id": 1, "actions": [{"at": "00:00", "selector": 3}, {"at": "06:30", "selector": 1}]},
        {"id": 2, "actions": [{"at": "00:00", "selector": 3}]},
    ],
}
START = datetime(2026, 11, 17, 10, 7, tzinfo=UTC)


class CrashError(BaseException):
    """The concentrator is killed here: nothing of it runs any further."""


class Steps:
    """Counts what the concentrator does to the world; at step `fatal` it dies, before the step is done."""

    def __init__(self) -> None:
        self.fatal = 0
        self.count = 0
        self.dead = False
        self.names = []

    def take(self, name: str) -> None:
        if self.dead:
            raise CrashError
        self.count += 1
        self.names.append(name)
        if self.count == self.fatal:
            self.dead = True
            raise CrashError


class DirectChannel:
    """APDUs to the meter and back, at once. What the meter does not answer is a time-out, at once too."""

    def __init__(self, link, saps) -> None:
        self._link = link
        self._saps = saps
        self.client_sap = saps[0]
        self._received = []

    async def send(self, apdu: bytes) -> None:
        link = self._link
        link.steps.take("send")
        link.sent.append(apdu)
        answers = []
        link.meter.receive_apdu(*self._saps, apdu, answers.append)
        if link.lose_answers > 0 and answers:
            link.lose_answers -= 1
            answers = []
        self._received += answers
        link.steps.take("receive")

    async def receive(self, timeout_s: float) -> bytes:
        if self._link.cut:
            raise LinkLostError("the node left the network")
        if not self._received:
            raise AnswerTimeoutError("no answer")
        return self._received.pop(0)

    def __enter__(self):
        return self

    def __exit__(self, *_exception: object) -> None:
        return None


class DirectLink:
    """Stands where the PLC link stands. `lose_answers`: so many are lost; `cut`: the link is lost when next used."""

    network = SimpleNamespace(capabilities=SimpleNamespace(largest_apdu=1024))
    is_running = True

    def __init__(self, meter, steps) -> None:
        self.meter, self.steps = meter, steps
        self.sent = []
        self.lose_answers = 0
        self.cut = False

    def open_channel(self, _address, client_sap, server_sap, *, urgent=False) -> DirectChannel:
        if self.cut:
            raise LinkLostError("the node is not on the network")
        assert urgent
        return DirectChannel(self, (client_sap, server_sap))


class RigClock:
    """Stands still."""

    def __init__(self) -> None:
        self.moment = START

    def now(self) -> datetime:
        return self.moment

    def monotonic(self) -> float:
        return self.moment.timestamp()

    def advance(self, **span) -> None:
        self.moment += timedelta(**span)


class ControlRig:
    """A concentrator with one meter. `restart()` starts it again after it has died, or so."""

    def __init__(self, directory, monkeypatch, *, suite: int = 0, **orders) -> None:
        self.directory = directory
        self.clock = RigClock()
        self.meter = SimulatedMeter(SERIAL, 1, self.clock.now, clock_offset_s=0, security_suite=suite)
        self.steps = Steps()
        self.orders = OrdersSection(**orders)
        self._numbers = itertools.count(1)
        key_file = directory / "keys.json"
        key_file.write_text(json.dumps({"meters": {SERIAL: self.meter.key_file_entry()}}))
        key_file.chmod(0o600)
        self._write = changed_keys.write_private
        monkeypatch.setattr(changed_keys, "write_private", self._write_private)
        self.store = None
        self.restart()

    @property
    def changed_keys_file(self):
        return self.directory / "meter_keys.json"

    def _write_private(self, path, text) -> None:
        self.steps.take("keys on flash")
        self._write(path, text)
        self.steps.take("keys kept")

    def restart(self) -> None:
        """A new process on the same disk."""
        if self.store is not None:
            self.store.close()
        self.steps = Steps()
        self.meter.link_lost()
        self.store = Store(self.directory / "store.db", self.clock)
        for name in ("add_audit_entry", "complete_audit_entry"):
            setattr(self.store, name, self._stepping(name, getattr(self.store, name)))
        keyring = Keyring.load(self.directory / "keys.json", self.changed_keys_file)
        settings = CollectionSection(system_title="4F44430000000001")
        rules = OrderRules.from_settings(self.orders)
        self.settings, self.keyring = settings, keyring
        self.collector = Collector(settings, self.store, self.clock, keyring, rules=rules)
        self.link = DirectLink(self.meter, self.steps)
        record = MeterRecord(
            SERIAL, "electricity", MeterState.ACTIVE, link="plc", link_address="020dc0000001"
        )
        record.serial, record.firmware = SERIAL, "known"
        self.collected = CollectedMeter(record, address=1, identified=True)
        self.collector.registry.add(self.collected)

    def _stepping(self, name, write):
        async def stepping(*arguments):
            self.steps.take(name)
            result = await write(*arguments)
            self.steps.take(name + " done")
            return result

        return stepping

    async def load(self) -> None:
        """What the service does before anything runs."""
        await self.collector.control.load()

    async def order(
        self,
        operation,
        *,
        origin=LOCAL,
        order_id=None,
        confirm=True,
        not_after=None,
        deferred=False,
        **arguments,
    ):
        """Give an order, hold the visit that it leads to, and return its result (or raise)."""
        if confirm is True:
            arguments["confirm"] = SERIAL
        elif confirm:
            arguments["confirm"] = confirm
        payload = {
            "id": order_id or f"t{next(self._numbers)}",
            "op": operation,
            "target": SERIAL,
            "args": arguments,
        }
        given = Order.from_payload({**payload, "not_after": not_after, "deferred": deferred}, origin)
        try:
            check_order(given, rules=self.collector.control.rules)
        except NotAuthorisedError as error:
            await self.collector.control.refuse(given, error)
            raise
        pending = PendingOrder(given, asyncio.get_running_loop().create_future())
        self.collected.orders.append(pending)
        try:
            await self.visit()
        except Exception as error:
            if not pending.result.done():
                raise
            pending.result.exception()
            raise (pending.result.exception() or error) from None
        assert pending.result.done()
        return pending.result.result()

    async def visit(self) -> None:
        """One visit, for orders only."""
        visit = Visit(
            self.collector, self.link, self.collected, self.settings, self.store, self.clock, self.keyring,
            orders_only=True,
        )  # fmt: skip
        await visit.hold()

    async def trail(self):
        """The audit trail, newest first."""
        return await self.store.audit_entries(100)

    def close(self) -> None:
        self.store.close()

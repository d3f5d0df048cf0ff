"""The slaves of a wired M-Bus: found, read in turn, registered and stored like any other meter."""

from __future__ import annotations

import asyncio

import structlog

from concentrator.clock import Clock, is_plausible
from concentrator.collection.local_meters import LocalMeters
from concentrator.collection.telegram_answer import telegram_answer
from concentrator.config import MbusSection
from concentrator.links.backoff import Backoff
from concentrator.links.errors import PortError
from concentrator.links.mbus_line import MbusLine
from concentrator.model import Answer, MeterState
from concentrator.store.store import Store
from concentrator.wmbus.errors import TelegramError
from concentrator.wmbus.security import KeyRing, SecurityState
from concentrator.wmbus.telegram import Telegram
from concentrator.wmbus.wired_master import SecondaryAddress, WiredMaster

log: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(__name__)

LINK = "mbus"


class MbusCollector:
    """Reads every slave of a bus once an interval. `state` and `reason` say how the line is."""

    def __init__(
        self, settings: MbusSection, store: Store, clock: Clock, keys: dict[str, bytes] | None = None
    ) -> None:
        self.state, self.reason = "starting", ""
        self.meters = LocalMeters(LINK, store, clock)
        self.counters = {"searches": 0, "readouts": 0, "unanswered": 0, "collisions": 0}
        self._settings = settings
        self._clock = clock
        self._keys = KeyRing(keys)
        self._backoff = Backoff()
        # Where a meter was found, by its identity.
        self._slaves: dict[str, SecondaryAddress | int] = {}

    def use_keys(self, keys: dict[str, bytes]) -> None:
        """Have these keys from now on, instead of those of before."""
        self._keys = KeyRing(keys)

    async def load(self) -> None:
        """Take the known meters from the store."""
        await self.meters.load()

    async def run(self) -> None:
        """Search and read, until cancelled; a lost line is opened again."""
        while True:
            try:
                async with MbusLine(self._settings.port, self._settings.baud_rate) as line:
                    self.state, self.reason = "open", ""
                    self._backoff.succeeded()
                    while True:
                        await self._round(line)
                        await asyncio.sleep(self._settings.read_interval_s)
            except PortError as error:
                self.state, self.reason = "not open", str(error)
                log.warning("M-Bus not open", reason=str(error))
                await asyncio.sleep(self._backoff.next_delay_s())

    async def _round(self, line: MbusLine) -> None:
        master = WiredMaster(self._keys)
        addresses = self._configured()
        if self._settings.search:
            addresses += [one for one in await self._search(line, master) if one not in addresses]
        for address in addresses:
            if self.meters.left_alone(str(address)):
                continue
            await self._read(line, master, address)

    def _configured(self) -> list[SecondaryAddress | int]:
        words = self._settings.addresses.replace(",", " ").split()
        return [
            int(word) if word.isdecimal() and len(word) <= 3 else SecondaryAddress.from_text(word)  # noqa: PLR2004 - 0 to 250
            for word in words
        ]

    async def _search(self, line: MbusLine, master: WiredMaster) -> list[SecondaryAddress | int]:
        """The slaves on the bus: searched once, then only again while none is known."""
        if self._slaves:
            return list(self._slaves.values())
        self.counters["searches"] += 1
        found = await line.run(master.search_secondary())
        self.counters["collisions"] += len(found.collisions)
        for collision in found.collisions:
            log.warning("M-Bus slaves with one address", address=collision)
        self._slaves = {str(slave.meter): slave.address for slave in found.slaves}
        return [slave.address for slave in found.slaves]

    async def _read(self, line: MbusLine, master: WiredMaster, address: SecondaryAddress | int) -> None:
        try:
            telegrams = await line.run(master.read(address))
        except TelegramError as error:
            self.counters["unanswered"] += 1
            log.info("M-Bus slave not read", address=str(address), reason=str(error))
            await self.meters.note_silence(
                lambda record: record.link_address == str(address), MeterState.UNREACHABLE, str(error)
            )
            return
        self.counters["readouts"] += 1
        meter = next((one.meter for one in telegrams if one.meter is not None), None)
        identity = str(meter) if meter is not None else f"mbus-{address}"
        now = self._clock.now()
        record = self.meters.record(
            identity,
            medium=telegrams[0].medium,
            link_address=str(address),
            serial=meter.identification if meter is not None else "",
            manufacturer=meter.manufacturer if meter is not None else "",
            model=f"version {meter.version}" if meter is not None else "",
        )
        self.meters.set_state(record, *_state(telegrams[-1]))
        await self.meters.keep(record, self._answer(telegrams, identity) if is_plausible(now) else None)

    def _answer(self, telegrams: tuple[Telegram, ...], identity: str) -> Answer | None:
        """The readings of all telegrams of one readout."""
        answers = [telegram_answer(one, self._clock.now(), meter=identity) for one in telegrams]
        readings = {
            (one.channel.obis, one.captured_at): one
            for answer in reversed(answers)
            for one in answer.readings
        }
        return Answer(identity, answers[0].profile, tuple(readings.values()), answers[0].received_at)


def _state(telegram: Telegram) -> tuple[MeterState, str]:
    """What a readout says of its slave."""
    security = telegram.security
    if security.readable:
        return MeterState.ACTIVE, telegram.fault
    missing = security.state is SecurityState.KEY_MISSING
    return MeterState.KEY_MISSING if missing else MeterState.KEY_WRONG, security.reason

"""Everything that a simulated meter can be told to do, with the behaviour that follows from it.

Its state stands in a memory that outlives a power failure; `advance` is called before each request, and does what has
fallen due since: the meter's time is that of its clock.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Protocol

from concentrator.dlms import axdr
from concentrator.dlms.cosem.objects import CosemObject, data
from concentrator.dlms.cosem_time import CosemDateTime
from concentrator.obis import Obis
from concentrator.simulator.load_model import LoadModel
from concentrator.simulator.meter_billing import BILLING_PROFILE, Billing
from concentrator.simulator.meter_memory import MeterMemory, kept_object
from concentrator.simulator.meter_prepayment import Prepayment
from concentrator.simulator.meter_scripts import Schedule, ScriptAction, ScriptTables, SingleActionSchedule
from concentrator.simulator.meter_switch import Limiter, Switch
from concentrator.simulator.meter_tariff import Calendar

DISCONNECTOR = Obis(0, 0, 96, 3, 10, 255)
LOAD_RELAY = Obis(0, 1, 96, 3, 10, 255)
LIMITER = Obis(0, 0, 17, 0, 0, 255)
CALENDAR = Obis(0, 0, 13, 0, 0, 255)
SPECIAL_DAYS = Obis(0, 0, 11, 0, 0, 255)
ACTIVE_TARIFF = Obis(0, 0, 96, 14, 0, 255)
END_OF_BILLING_SCRIPTS = Obis(0, 0, 10, 0, 1, 255)
TARIFF_SCRIPTS = Obis(0, 0, 10, 0, 100, 255)
LOAD_SCRIPTS = Obis(0, 0, 10, 0, 103, 255)
DISCONNECT_SCRIPTS = Obis(0, 0, 10, 0, 106, 255)
DISCONNECT_SCHEDULE = Obis(0, 0, 15, 0, 1, 255)
RELAY_SCHEDULE = Obis(0, 0, 12, 0, 0, 255)
CUSTOMER_MESSAGE = Obis(0, 0, 96, 13, 0, 255)
POWER = Obis(1, 0, 1, 7, 0, 255)
CONTRACTED_POWERS = tuple(
    Obis(0, 1, 94, 34, base + period, 255) for base in (0, 10) for period in range(1, 7)
)
_CONTRACTED_POWER_W = 5750
_WATT = axdr.structure(axdr.integer(0), axdr.enumeration(27))


class Host(Protocol):
    """The meter around it."""

    load: LoadModel

    def now(self) -> datetime:
        """The meter's clock, in UTC."""
        ...

    def local(self, moment: datetime) -> datetime:
        """A moment as the meter's local time, without zone."""
        ...

    def to_utc(self, local: datetime) -> datetime:
        """A local time as a moment."""
        ...

    def shown(self, moment: datetime) -> CosemDateTime:
        """A moment as the meter writes it."""
        ...


class MeterControls:
    """The control functions of one meter."""

    def __init__(self, host: Host, energy: Sequence[Obis], default_deviation: int) -> None:
        self.memory = MeterMemory()
        self._host = host
        self._default_deviation = default_deviation
        self.switch = Switch(self.memory, DISCONNECTOR)
        self.relay = Switch(self.memory, LOAD_RELAY)
        self.scripts = ScriptTables()
        self.limiter = Limiter(
            self.memory,
            LIMITER,
            (3, POWER, 2),
            self._power,
            self._execute_here,
            (DISCONNECT_SCRIPTS, 1),
        )
        self.calendar = Calendar(self.memory, CALENDAR, SPECIAL_DAYS, TARIFF_SCRIPTS)
        self.billing = Billing(
            self.memory,
            energy,
            lambda moment: host.load.at(moment),
            host.now,
            host.to_utc,
            lambda moment: host.shown(moment).to_bytes(),
        )
        self.prepayment = Prepayment(
            self.memory,
            lambda moment: host.load.at(moment)[0],
            lambda moment: host.shown(moment).to_bytes(),
            self.switch.local_disconnect,
        )
        self.disconnect_schedule = SingleActionSchedule(
            self.memory, DISCONNECT_SCHEDULE, DISCONNECT_SCRIPTS, 1
        )
        self.relay_schedule = Schedule(self.memory, RELAY_SCHEDULE)
        # When a tariff script was executed by hand, and which: the calendar's next switching time ends it.
        self._by_hand: tuple[datetime, int] | None = None
        self._advanced_at: datetime | None = None
        self._add_scripts()

    def _add_scripts(self) -> None:
        def moves(switch: Switch) -> dict[int, ScriptAction]:
            def disconnect(local: bool) -> None:  # noqa: FBT001 - who asks
                (switch.local_disconnect if local else switch.remote_disconnect)()

            def reconnect(local: bool) -> None:  # noqa: FBT001 - who asks
                (switch.local_reconnect if local else switch.remote_reconnect)()

            return {
                1: ScriptAction(70, switch.obis, 1, disconnect),
                2: ScriptAction(70, switch.obis, 2, reconnect),
            }

        def tariff(selector: int) -> ScriptAction:
            def run(_local: bool) -> None:  # noqa: FBT001 - who asks
                self._by_hand = (self._host.now(), selector)

            return ScriptAction(1, ACTIVE_TARIFF, 2, run)

        def reset(_local: bool) -> None:  # noqa: FBT001 - who asks
            self.billing.reset()

        self.scripts.add(
            END_OF_BILLING_SCRIPTS,
            {1: ScriptAction(7, BILLING_PROFILE, 2, reset)},
        )
        self.scripts.add(TARIFF_SCRIPTS, {selector: tariff(selector) for selector in (1, 2, 3)})
        # Load management is of the utility, whoever starts it.
        relay = {
            selector: action._replace(run=_remote(action.run))
            for selector, action in moves(self.relay).items()
        }
        self.scripts.add(LOAD_SCRIPTS, relay)
        self.scripts.add(DISCONNECT_SCRIPTS, moves(self.switch))

    def _power(self, moment: datetime) -> int:
        return self._host.load.power(moment) if self.switch.connected else 0

    def _execute_here(self, table: Obis, selector: int) -> None:
        self.scripts.execute(table, selector, local=True)

    def tariff(self) -> int:
        """The tariff that is in force."""
        return (
            self.calendar.tariff(self._host.local(self._host.now()))
            if self._by_hand is None
            else self._by_hand[1]
        )

    def advance(self) -> None:
        """Do what has fallen due."""
        now = self._host.now()
        since = self._advanced_at
        if since is not None and 0 <= (now - since).total_seconds() < 1:
            return
        self._advanced_at = now
        local = self._host.local(now)
        self.calendar.advance(now, local)
        self.prepayment.advance(now, local)
        if since is not None and since < now:
            before = self._host.local(since)
            due = self.disconnect_schedule.due(before, local)
            for table, selector in ([due] if due else []) + self.relay_schedule.due(before, local):
                self.scripts.execute(table, selector, local=False)
            if self._by_hand is not None and self.calendar.tariff(local) != self.calendar.tariff(before):
                self._by_hand = None
        self.limiter.advance(now, local)

    def power_failed(self) -> None:
        """What no memory keeps is gone."""
        self.limiter.power_failed()
        self._by_hand = None

    def cosem_objects(self) -> list[CosemObject]:
        """All objects, over the memory as it is."""
        host = self._host
        return [
            self.switch.cosem_object(),
            self.relay.cosem_object(),
            self.limiter.cosem_object(host.now, lambda: host.local(host.now())),
            *self.calendar.cosem_objects(),
            data(ACTIVE_TARIFF, lambda: axdr.unsigned(self.tariff())),
            *self.scripts.cosem_objects(),
            self.disconnect_schedule.cosem_object(),
            self.relay_schedule.cosem_object(),
            *self.billing.cosem_objects(self._default_deviation),
            *self.prepayment.cosem_objects(),
            *(
                kept_object(
                    self.memory,
                    3,
                    obis,
                    {"value": axdr.double_long_unsigned(_CONTRACTED_POWER_W), "scaler_unit": _WATT},
                    settable=("value",),
                )
                for obis in CONTRACTED_POWERS
            ),
            kept_object(
                self.memory, 1, CUSTOMER_MESSAGE, {"value": axdr.octet_string(b"")}, settable=("value",)
            ),
        ]


def _remote(run: Callable[[bool], None]) -> Callable[[bool], None]:
    return lambda _local: run(False)

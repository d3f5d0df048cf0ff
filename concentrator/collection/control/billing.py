"""Billing reset and billing reads: end of a billing period by script (class 9), and the profile of past periods.

Logical names as Blue Book part 1 has them: 0-0:10.0.1 is the script table for the end of a billing period, 1-0:0.1.0
counts the periods, 1-0:0.1.2 is the time of the last reset, 0-0:98.1.0 holds the registers at each end.
"""

from __future__ import annotations

from concentrator.collection.control import times
from concentrator.collection.control.arguments import Arguments
from concentrator.collection.control.command import (
    Command,
    Outcome,
    State,
    Verdict,
    as_number,
    as_plain,
    attribute,
    readable,
)
from concentrator.collection.meter_reader import LocalTime, read_clock_and_shape, read_time_zone
from concentrator.dlms import axdr
from concentrator.dlms.attributes import EntryDescriptor, MethodDescriptor
from concentrator.dlms.axdr import Data
from concentrator.dlms.client import Client, Conversation
from concentrator.dlms.profile import ProfileDecoder
from concentrator.obis import Obis

SCRIPT_TABLE, PROFILE_GENERIC, DATA = 9, 7, 1
END_OF_BILLING_SCRIPTS = "0-0:10.0.1*255"
BILLING_PROFILE = "0-0:98.1.0*255"
PERIOD_COUNTER = Obis(1, 0, 0, 1, 0, 255)
LAST_RESET = Obis(1, 0, 0, 1, 2, 255)
_EXECUTE = 1
_MOST_ROWS = 120


def _as_moment(value: Data) -> object:
    if isinstance(value.value, bytes):
        return times.show_date_time(value.value)
    return as_plain(value)


class _ResetBilling(Command):
    """Execute the script that ends the billing period; seen by the counter, the time, or a new row."""

    def __init__(self, table: Obis, selector: int, profile: Obis) -> None:
        super().__init__({"script_table": str(table), "selector": selector, "profile": str(profile)})
        self._table = table
        self._selector = selector
        self._profile = profile

    def observe(self, client: Client) -> Conversation[State]:
        """The number of periods, when the last one ended, and how many rows the profile has."""
        counter, reset, rows = yield from client.get_many(
            [
                attribute(DATA, PERIOD_COUNTER, 2),
                attribute(DATA, LAST_RESET, 2),
                attribute(PROFILE_GENERIC, self._profile, 7),
            ]
        )
        return {
            "billing_periods": readable(counter, as_number),
            "last_reset": readable(reset, _as_moment),
            "entries_in_use": readable(rows, as_number),
        }

    def send(self, client: Client) -> Conversation[State]:
        """Execute the script."""
        method = MethodDescriptor(SCRIPT_TABLE, self._table, _EXECUTE)
        yield from client.action(method, axdr.long_unsigned(self._selector))
        return {}

    def judge(self, before: State, after: State) -> Verdict:
        """The counter tells best; a profile that is full has no more rows than before."""
        counters = before["billing_periods"], after["billing_periods"]
        if all(isinstance(one, int) for one in counters):
            if counters[0] == counters[1]:
                return Verdict(Outcome.NOT_DONE, f"the number of billing periods is {counters[1]} as before")
            return Verdict(Outcome.DONE)
        resets = before["last_reset"], after["last_reset"]
        if all(isinstance(one, str) for one in resets):
            if resets[0] == resets[1]:
                return Verdict(Outcome.NOT_DONE, f"the last billing reset is {resets[1]} as before")
            return Verdict(Outcome.DONE)
        rows = before["entries_in_use"], after["entries_in_use"]
        if all(isinstance(one, int) for one in rows) and rows[0] != rows[1]:
            return Verdict(Outcome.DONE)
        return Verdict(Outcome.UNKNOWN, "the meter tells neither its billing periods nor its last reset")

    def judge_later(self, before: State, after: State) -> Verdict:
        """A period may have ended by itself since."""
        verdict = self.judge(before, after)
        if verdict.outcome is Outcome.DONE:
            return Verdict(Outcome.DONE, "a billing period has ended since the order was begun")
        return verdict


def make_reset_billing(arguments: Arguments) -> Command:
    """{"script_table", "selector": 1, "profile": the billing profile}."""
    table = arguments.obis("script_table", END_OF_BILLING_SCRIPTS)
    selector = arguments.number("selector", 0, 0xFFFF, 1)
    profile = arguments.obis("profile", BILLING_PROFILE)
    arguments.finish()
    return _ResetBilling(table, selector, profile)


def read_billing(client: Client, arguments: Arguments) -> Conversation[State]:
    """{"last": how many periods, "profile"}: the newest rows of the billing profile, each value with its unit."""
    profile = arguments.obis("profile", BILLING_PROFILE)
    last = arguments.number("last", 1, _MOST_ROWS, 1)
    arguments.finish()
    clock, shape = yield from read_clock_and_shape(client, profile)
    zone: int | None = None
    if clock is not None and clock.utc_offset is None:
        zone = yield from read_time_zone(client)
    local_time = None if clock is None else LocalTime.of(clock, zone)
    used, order = yield from client.get_many(
        [attribute(PROFILE_GENERIC, profile, 7), attribute(PROFILE_GENERIC, profile, 5)]
    )
    in_use = used.integer() if isinstance(used, Data) else last
    # sort_method: 2 is last in, first out.
    newest_first = isinstance(order, Data) and order.value == 2  # noqa: PLR2004 - named above
    first = 1 if newest_first else max(1, in_use - last + 1)
    decoder = ProfileDecoder(
        shape.columns,
        0,
        default_deviation=None if local_time is None else local_time.normal_deviation,
        descending=newest_first,
    )
    if in_use:
        selection = EntryDescriptor(first, first + min(last, in_use) - 1)
        buffer = attribute(PROFILE_GENERIC, profile, 2)
        yield from client.get_encoded(buffer, selection, sink=decoder.receive_data)
    rows: list[dict[str, object]] = [
        {
            "captured_at": None if row.captured_at is None else row.captured_at.isoformat(),
            "status": row.status,
            "values": [value.hex() if isinstance(value, bytes) else value for value in row.values],
        }
        for row in decoder.rows()
    ]
    if in_use:
        decoder.finish()
    channels = [
        {"obis": str(one.obis), "unit": one.unit, "scaler": one.scaler, "attribute": one.attribute}
        for one in shape.channels
    ]
    return {"profile": str(profile), "periods_held": in_use, "channels": channels, "rows": rows}

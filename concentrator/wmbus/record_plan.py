"""Reading a chain of records by a plan that an earlier telegram of the same layout left.

A meter sends the same headers for years, only the values change. The first telegram of a layout is read
header by header and leaves a plan: where the header octets stand, and where the values between them. A later
telegram whose octets equal the plan's in all these places is the same layout, and its values are taken out in
one pass. `PlanMemory` is bounded in both directions, so that no sender can make it grow or slow.
"""

from __future__ import annotations

import struct
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, NamedTuple, cast

from concentrator.wmbus.record import Record, RecordHeader, RecordList
from concentrator.wmbus.values import (
    BCD_CODINGS,
    CODING_REAL,
    CODING_VARIABLE,
    Value,
    decode_time,
    decode_value,
)
from concentrator.wmbus.vif import Kind

_MOST_LAYOUTS_ALIKE = 8
_MOST_GROUPS = 128
_SIGNED, _UNSIGNED = {1: "b", 2: "h", 4: "i", 8: "q"}, {1: "B", 2: "H", 4: "I", 8: "Q"}
_make_record = cast("Callable[[Iterable[Any]], Record]", partial(cast("Any", tuple).__new__, Record))


class Place(NamedTuple):
    """A record in the data of a telegram: its header, and where its value stands."""

    header: RecordHeader
    at: int
    octets: int


def _is_number(place: Place) -> bool:
    kind = place.header.kind
    structured = kind in (Kind.OCTETS, Kind.DATE_TIME) and place.header.coding not in BCD_CODINGS
    return place.octets > 0 and not structured


def read_record(header: RecordHeader, raw: bytes) -> Record:
    """The record of one header and the octets of its value."""
    if not header.has_value:
        return Record(header, None, header.exponent, valid=False, raw=raw)
    decoded = decode_value(header.coding, raw, header.kind)
    number = isinstance(decoded.value, int) or not decoded.valid
    return Record(
        header, decoded.value, header.exponent + decoded.exponent if number else 0, decoded.valid, raw
    )


class RecordPlan:
    """One layout of a telegram's data, `octets` long."""

    __slots__ = (
        "_digits",
        "_headers",
        "_mask",
        "_more_follows",
        "_others",
        "_pattern",
        "_raws",
        "_record_headers",
        "_reserved",
        "_scalers",
        "_tail_at",
        "_three_or_six",
        "_times",
        "_valid",
        "_values",
    )

    def __init__(
        self, data: bytes, places: Sequence[Place], tail_at: int | None, headers: bytes, *, more_follows: bool
    ) -> None:
        """`tail_at` is where manufacturer data begin; all octets that are no values make up the layout."""
        mask = bytearray(b"\xff" * len(data))
        values, raws = "<", "<"
        at = 0
        digits: list[tuple[int, int, int]] = []
        times: list[int] = []
        others: list[tuple[int, int, Kind]] = []
        three_or_six: list[tuple[int, bool]] = []
        reserved: set[int] = set()
        for number, (header, start, octets) in enumerate(places):
            coding, kind = header.coding, header.kind
            values += f"{start - at}x"
            raws += f"{start - at}x{octets}s"
            at = start + octets
            # The length octet of a variable value belongs to the layout, its content does not.
            free = start + 1 if coding == CODING_VARIABLE else start
            mask[free:at] = bytes(at - free)
            code = f"{octets}s"
            if not header.has_value:
                others.append((number, coding, kind))
            elif coding in BCD_CODINGS and kind is not Kind.IDENTIFIER:
                digits.append((number, 2 * (len(data) - at), 2 * (len(data) - start)))
            elif coding in (CODING_REAL, CODING_VARIABLE) or coding in BCD_CODINGS or octets == 0:
                others.append((number, coding, kind))
            elif kind is Kind.DATE_TIME:
                times.append(number)
            elif kind is Kind.IDENTIFIER:
                others.append((number, coding, kind))
            elif kind is not Kind.OCTETS:
                signed = kind is not Kind.UNSIGNED
                if signed:
                    reserved.add(-(1 << (8 * octets - 1)))
                if octets in _SIGNED:
                    code = (_SIGNED if signed else _UNSIGNED)[octets]
                else:
                    three_or_six.append((number, signed))
            values += code
        if tail_at is not None:
            mask[tail_at:] = bytes(len(data) - tail_at)
        end = f"{len(data) - at}x"
        self._mask = int.from_bytes(mask, "little")
        self._pattern = int.from_bytes(data, "little") & self._mask
        self._values = struct.Struct(values + end).unpack
        self._raws = struct.Struct(raws + end).unpack
        self._record_headers = tuple(place.header for place in places)
        self._scalers = tuple(place.header.exponent if _is_number(place) else 0 for place in places)
        self._valid = (True,) * len(places)
        self._digits = tuple(digits)
        self._times = tuple(times)
        self._others = tuple(others)
        self._three_or_six = tuple(three_or_six)
        self._reserved = frozenset(reserved)
        self._tail_at = tail_at
        self._more_follows = more_follows
        self._headers = headers

    def fits(self, number: int) -> bool:
        """Whether data of this length, as one number with the first octet lowest, have this layout."""
        return number & self._mask == self._pattern

    def read(self, data: bytes) -> RecordList:
        """The records of data that fit."""
        raws = cast("tuple[bytes, ...]", self._raws(data))
        values = cast("list[Value]", list(self._values(data)))
        for number, signed in self._three_or_six:
            values[number] = int.from_bytes(raws[number], "little", signed=signed)
        if self._reserved.isdisjoint(values):
            try:
                records = self._read_usual(data, values, raws)
            except ValueError:  # a digit above nine: a sign, or no number
                records = tuple(map(read_record, self._record_headers, raws))
        else:
            records = tuple(map(read_record, self._record_headers, raws))
        tail = b"" if self._tail_at is None else data[self._tail_at :]
        return RecordList(records, tail, self._more_follows, "", self._headers)

    def _read_usual(self, data: bytes, values: list[Value], raws: tuple[bytes, ...]) -> tuple[Record, ...]:
        if self._digits:
            text = data[::-1].hex()
            for number, start, end in self._digits:
                values[number] = int(text[start:end])
        scalers: Sequence[int] = self._scalers
        valid: Sequence[bool] = self._valid
        for number in self._times:
            moment = decode_time(raws[number])
            values[number] = moment.value
            if not moment.valid:
                valid = [*valid[:number], False, *valid[number + 1 :]]
                scalers = [*scalers[:number], self._record_headers[number].exponent, *scalers[number + 1 :]]
        if self._others:
            scalers, valid = list(scalers), list(valid)
            for number, _coding, _kind in self._others:
                record = read_record(self._record_headers[number], raws[number])
                values[number], scalers[number], valid[number] = record.value, record.scaler, record.valid
        return tuple(map(_make_record, zip(self._record_headers, values, scalers, valid, raws, strict=True)))


class PlanMemory:
    """The plans of the layouts that were read last."""

    def __init__(self) -> None:
        self._groups: OrderedDict[tuple[int, bytes], list[RecordPlan]] = OrderedDict()

    def find(self, data: bytes) -> RecordPlan | None:
        """The plan for `data`, or None."""
        plans = self._groups.get(_group_of(data))
        if plans is None:
            return None
        number = int.from_bytes(data, "little")
        for plan in plans:
            if plan.fits(number):
                return plan
        return None

    def keep(self, data: bytes, plan: RecordPlan) -> None:
        """Remember the plan that was made from `data`; the oldest gives way."""
        plans = self._groups.setdefault(_group_of(data), [])
        plans.insert(0, plan)
        del plans[_MOST_LAYOUTS_ALIKE:]
        if len(self._groups) > _MOST_GROUPS:
            self._groups.popitem(last=False)


def _group_of(data: bytes) -> tuple[int, bytes]:
    """Length and first header: what follows two fillers, if the data begin with them."""
    return len(data), data[2:4] if data[:1] == b"\x2f" else data[:2]

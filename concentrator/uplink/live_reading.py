"""Live readings: a value of this moment, read by the meter through its own association, at a head-end's request.

Each meter's logical device has a Profile generic `0-0:128.4.0.255`. A head-end writes what is to be read into its
capture_objects, invokes capture, which is answered at once, and finds the row when the meter has answered: when it was
read, what came of it in words ("" for all well), the quality, and a value for each column, null-data where none came.
`0-0:128.4.1.255` tells how many readings are under way. They are orders like any other: counted, in turn, in the log.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from concentrator.dlms import axdr
from concentrator.dlms.attributes import CLOCK_COLUMN, CaptureObject
from concentrator.dlms.axdr import Data
from concentrator.dlms.codes import ActionResult, DataAccessResult
from concentrator.dlms.cosem.objects import CosemObject, capture_objects, data, refused
from concentrator.dlms.cosem.profiles import profile_object
from concentrator.dlms.errors import DlmsError
from concentrator.errors import ConcentratorError
from concentrator.model import Quality
from concentrator.obis import Obis
from concentrator.orders import Order
from concentrator.uplink.roles import LIVE_PROFILE
from concentrator.uplink.stored_meters import QUALITY, StoredMeter, moment_octets, text

LIVE_UNDER_WAY = Obis(0, 0, 128, 4, 1, 255)
LIVE_RESULT = Obis(0, 0, 128, 4, 2, 255)
_FIXED = (CLOCK_COLUMN, CaptureObject(1, LIVE_RESULT, 2), CaptureObject(1, QUALITY, 2))
_MOST_COLUMNS = 16
_ROWS_KEPT = 32
_CAPTURE, _CAPTURE_OBJECTS = 2, 3
_NULL = b"\x00"


@dataclass(slots=True)
class _Row:
    read_at: int
    result: str
    columns: tuple[CaptureObject, ...]
    values: tuple[bytes, ...]


@dataclass(slots=True)
class _Live:
    """The live readings of one meter. Rows are those of the columns as they are now."""

    identity: str
    columns: tuple[CaptureObject, ...]
    rows: tuple[_Row, ...] = ()
    under_way: int = 0


class LiveReadings:
    """The live profiles of all meters. `carry_out` is the way of orders; `submit` takes a coroutine to the event loop.

    At most `most` readings are under way for all meters, one for a meter; each ends after `timeout_s`.
    """

    def __init__(
        self,
        carry_out: Callable[[Order], Awaitable[dict[str, Any]]],
        submit: Callable[[Awaitable[None]], Future[None]],
        now: Callable[[], datetime],
        timeout_s: float = 60.0,
        most: int = 8,
    ) -> None:
        self.client: Callable[[], int] = lambda: 0
        self._carry_out = carry_out
        self._submit = submit
        self._now = now
        self._timeout_s = timeout_s
        self._most = most
        self._meters: dict[int, _Live] = {}

    def objects(self, meter: StoredMeter, served: Sequence[CosemObject]) -> list[CosemObject]:
        """The objects of a meter's logical device; by default its first register is what is read."""
        live = self._meters.get(meter.device)
        if live is None:
            first = next((one for one in served if one.class_id == 4), None)  # noqa: PLR2004 - Extended register
            columns = (CaptureObject(3, first.obis, 2),) if first is not None else ()
            live = self._meters[meter.device] = _Live(meter.identity, columns)
        live.identity = meter.identity
        rows = _LiveRows(live)
        profile = profile_object(LIVE_PROFILE, rows, capacity=_ROWS_KEPT)
        profile.attributes[_CAPTURE_OBJECTS] = lambda: capture_objects(rows.columns)
        profile.setters[_CAPTURE_OBJECTS] = rows.set_columns
        profile.methods[_CAPTURE] = lambda _parameters: self._capture(live)
        return [
            profile,
            data(LIVE_UNDER_WAY, lambda: axdr.unsigned(live.under_way)),
            data(LIVE_RESULT, lambda: text(live.rows[-1].result if live.rows else "")),
        ]

    def _capture(self, live: _Live) -> Data | None:
        if not live.columns:
            raise refused(ActionResult.OBJECT_UNAVAILABLE)
        if live.under_way or sum(one.under_way for one in self._meters.values()) >= self._most:
            raise refused(ActionResult.TEMPORARY_FAILURE)
        live.under_way = 1
        self._submit(self._read(live, live.columns, self.client()))
        return None

    async def _read(self, live: _Live, columns: tuple[CaptureObject, ...], client: int) -> None:
        result, values = "", [_NULL] * len(columns)
        try:
            async with asyncio.timeout(self._timeout_s):
                for number, column in enumerate(columns):
                    answer = await self._carry_out(
                        Order(
                            f"live-{secrets.token_hex(8)}",
                            "read",
                            live.identity,
                            {
                                "obis": str(column.obis),
                                "class_id": column.class_id,
                                "attribute": column.attribute,
                            },
                            not_after=self._now() + timedelta(seconds=self._timeout_s),
                            origin=f"head-end, client {client}",
                            priority=1,
                        )
                    )
                    values[number] = axdr.decode(bytes.fromhex(str(answer["axdr"]))).to_bytes()
        except TimeoutError:
            result = f"not read within {self._timeout_s:g} s"
        except (ConcentratorError, KeyError, ValueError) as error:
            result = str(error) or type(error).__name__
        finally:
            row = _Row(int(self._now().timestamp()), result, columns, tuple(values))
            live.rows = (*live.rows, row)[-_ROWS_KEPT:]
            live.under_way = 0


class _LiveRows:
    """The rows of a live profile, oldest first."""

    period_s = 0

    def __init__(self, live: _Live) -> None:
        self._live = live
        self.columns: Sequence[CaptureObject] = (*_FIXED, *live.columns)
        self._found: tuple[_Row, ...] = ()

    def set_columns(self, value: Data) -> None:
        """Take what is to be read from now on: the rows of other columns go."""
        try:
            columns = tuple([CaptureObject.from_data(element) for element in value.items()])
        except (DlmsError, ValueError):
            raise refused(DataAccessResult.TYPE_UNMATCHED) from None
        # What is told with each row stands before what was asked for, and may be written back.
        if columns[: len(_FIXED)] == _FIXED:
            columns = columns[len(_FIXED) :]
        if len(columns) > _MOST_COLUMNS or any(column.data_index for column in columns):
            raise refused(DataAccessResult.SCOPE_OF_ACCESS_VIOLATED)
        live = self._live
        if columns != live.columns:
            live.columns, live.rows = columns, ()
        self.columns = (*_FIXED, *columns)

    def entries(self) -> Sequence[int]:
        return self.between(None, None)

    def between(self, start: datetime | None, end: datetime | None) -> Sequence[int]:
        first = -1 if start is None else int(start.timestamp())
        last = 1 << 60 if end is None else int(end.timestamp())
        live = self._live
        self._found = tuple(
            [row for row in live.rows if row.columns == live.columns and first <= row.read_at <= last]
        )
        return range(len(self._found))

    def cells(self, entry: int) -> Sequence[bytes]:
        row = self._found[entry]
        quality = axdr.long_unsigned(int(Quality.NOT_VALIDATED)).to_bytes()
        moment = axdr.octet_string(moment_octets(row.read_at)).to_bytes()
        return [moment, text(row.result).to_bytes(), quality, *row.values]

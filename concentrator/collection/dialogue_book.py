"""The last dialogue with each meter, APDU by APDU: what an engineer looks at when a meter is not read.

In memory only, and bounded: of a long dialogue its begin and its end, of many meters the last ones. What is shown has
no passwords. A ciphered APDU is kept as it was on the line, and beside it what was in it, unless a secret could be
(`concentrator.dlms.redaction`).
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from concentrator.clock import Clock
from concentrator.collection.conversation import ApduChannel
from concentrator.dlms.redaction import may_be_shown, without_passwords
from concentrator.traffic import Source, TrafficHub

TO_METER, FROM_METER = "to the meter", "from the meter"
# The association, and what came last.
_FIRST_APDUS = 8
_LAST_APDUS = 24
# All dialogues together; the oldest go. Two thousand meters of one request and one answer each are all there.
_LARGEST_BOOK_OCTETS = 4 * 1024 * 1024
# What keeping one APDU costs besides its octets, about.
_APDU_OVERHEAD_OCTETS = 200


@dataclass(slots=True)
class KeptApdu:
    """One APDU of a dialogue, and what was being done then; `opened` is what was in a ciphered one."""

    at: datetime
    direction: str
    client_sap: int
    apdu: bytes
    doing: str
    opened: bytes = b""


@dataclass(slots=True)
class DialogueRecord:
    """One dialogue. `outcome` is why it failed; "" while it lasts and when it did not."""

    began_at: datetime
    ended_at: datetime | None = None
    outcome: str = ""
    left_out: int = 0
    first: list[KeptApdu] = field(default_factory=list[KeptApdu])
    last: deque[KeptApdu] = field(default_factory=deque[KeptApdu])
    announce: Callable[[KeptApdu], None] = field(default=lambda _apdu: None, repr=False)
    _to_come: bytes = field(default=b"", init=False)
    _hidden: bool = field(default=False, init=False)

    def opened(self, sent: bool, plain: bytes) -> None:
        """Take note of what is in the ciphered APDU that is sent next, or in the one that came last."""
        shown = may_be_shown(plain)
        if sent:
            self._hidden = not shown
            self._to_come = plain if shown else b""
            return
        latest = self.last[-1] if self.last else self.first[-1] if self.first else None
        if latest is not None and latest.direction == FROM_METER and shown and not self._hidden:
            latest.opened = plain
            self.announce(latest)

    def add(self, apdu: KeptApdu) -> None:
        """Keep one more; of a long dialogue the middle goes."""
        if apdu.direction == TO_METER:
            apdu.opened, self._to_come = self._to_come, b""
        if len(self.first) < _FIRST_APDUS:
            self.first.append(apdu)
            return
        self.last.append(apdu)
        if len(self.last) > _LAST_APDUS:
            self.last.popleft()
            self.left_out += 1

    @property
    def octets(self) -> int:
        """About what it takes."""
        kept = (*self.first, *self.last)
        return sum(len(one.apdu) + len(one.opened) for one in kept) + _APDU_OVERHEAD_OCTETS * len(kept)


class RecordedChannel:
    """An APDU channel whose APDUs are kept, and published while somebody watches."""

    def __init__(  # noqa: PLR0913 - a channel, and what is noted with each APDU
        self,
        channel: ApduChannel,
        record: DialogueRecord,
        book: DialogueBook,
        meter: str,
        client_sap: int,
        doing: str,
    ) -> None:
        self._channel = channel
        self._record = record
        self._book = book
        self._meter = meter
        self._client_sap = client_sap
        self._doing = doing
        record.announce = self._announce

    async def send(self, apdu: bytes) -> None:
        """Send one APDU."""
        self._note(TO_METER, apdu)
        await self._channel.send(apdu)

    async def receive(self, timeout_s: float) -> bytes:
        """The next APDU that came."""
        apdu = await self._channel.receive(timeout_s)
        self._note(FROM_METER, apdu)
        return apdu

    def _note(self, direction: str, apdu: bytes) -> None:
        kept = KeptApdu(self._book.clock.now(), direction, self._client_sap, apdu, self._doing)
        self._record.add(kept)
        self._publish(direction, apdu)
        if kept.opened:
            self._announce(kept)

    def _announce(self, kept: KeptApdu) -> None:
        self._publish(kept.direction, kept.opened, "deciphered")

    def _publish(self, direction: str, apdu: bytes, *words: str) -> None:
        hub = self._book.hub
        if hub.watched:
            doing = ", ".join(word for word in (f"client {self._client_sap}", self._doing, *words) if word)
            hub.publish(Source.DIALOGUE, direction, without_passwords(apdu), self._meter, doing)


class DialogueBook:
    """The last dialogues, by meter."""

    def __init__(self, clock: Clock, hub: TrafficHub, largest_octets: int = _LARGEST_BOOK_OCTETS) -> None:
        self.clock = clock
        self.hub = hub
        self._largest_octets = largest_octets
        self._records: OrderedDict[str, tuple[DialogueRecord, int]] = OrderedDict()
        self._octets = 0

    def begin(self) -> DialogueRecord:
        """The record of a dialogue that begins now."""
        return DialogueRecord(self.clock.now())

    def keep(self, record: DialogueRecord, meter: str) -> None:
        """Enter a dialogue that has ended under the identity that the meter has by now."""
        record.ended_at = self.clock.now()
        _record, before = self._records.pop(meter, (None, 0))
        octets = record.octets
        self._records[meter] = record, octets
        self._octets += octets - before
        while self._octets > self._largest_octets and len(self._records) > 1:
            _meter, (_record, gone) = self._records.popitem(last=False)
            self._octets -= gone

    def view(self, meter: str) -> dict[str, Any]:
        """The last dialogue with a meter as JSON values; `known` is false where none is kept."""
        found = self._records.get(meter)
        if found is None:
            return {"meter": meter, "known": False}
        record = found[0]
        return {
            "meter": meter,
            "known": True,
            "began_at": _iso(record.began_at),
            "ended_at": _iso(record.ended_at),
            "outcome": record.outcome,
            "left_out": record.left_out,
            "left_out_after": len(record.first),
            "apdus": [
                {
                    "at": _iso(one.at),
                    "direction": one.direction,
                    "client_sap": one.client_sap,
                    "octets": without_passwords(one.apdu).hex(),
                    "opened": one.opened.hex(),
                    "doing": one.doing,
                }
                for one in (*record.first, *record.last)
            ],
        }


def _iso(moment: datetime | None) -> str | None:
    return moment.isoformat(timespec="milliseconds") if moment else None

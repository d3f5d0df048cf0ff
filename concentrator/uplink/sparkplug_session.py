"""What one Sparkplug session says: births with names, aliases and data types; then data by alias, each numbered.

Sans-IO: it makes payloads and keeps count; who sends them is not its business.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from importlib.metadata import version

from concentrator.clock import Clock
from concentrator.model import Channel, MeterEvent, Quality, Reading
from concentrator.obis import Obis
from concentrator.store.latest import LatestValue
from concentrator.store.outbox import OutgoingBatch
from concentrator.units import unit_symbol
from concentrator.uplink.messages import quality_names
from concentrator.uplink.sparkplug_payload import (
    BAD,
    BOOLEAN,
    GOOD,
    INT64,
    STALE,
    STRING,
    Metric,
    Payload,
    encode_payload,
)

REBIRTH = "Node Control/Rebirth"
BD_SEQ = "bdSeq"
BD_SEQ_MODULUS = 256
_SEQ_MODULUS = 256
_METRICS_PER_MESSAGE = 500
_INT64 = range(-(2**63), 2**63)
_Key = tuple[str, Obis, Channel]
_UNUSABLE = Quality.SUSPECT | Quality.WRONG_DIGITS


@dataclass(frozen=True, slots=True)
class Outgoing:
    """One message: NBIRTH, DBIRTH, DDATA or DDEATH, of which device, with its payload."""

    kind: str
    device: str
    payload: bytes


@dataclass(slots=True)
class _Named:
    """A metric as its birth announced it."""

    alias: int
    datatype: int
    newest: datetime | None


class EdgeSession:
    """From one CONNECT to the next."""

    def __init__(self, clock: Clock, bd_seq: int) -> None:
        self._clock = clock
        self._bd_seq = bd_seq
        self._seq = 0
        self._metrics: dict[_Key, _Named] = {}
        self._aliases = 0
        self._living: set[str] = set()

    def begin_again(self) -> None:
        """A host has asked for births: everything that was announced is announced anew."""
        self._metrics.clear()
        self._living.clear()
        self._aliases = 0

    def lives(self, meter: str) -> bool:
        """Whether a meter is announced."""
        return meter in self._living

    def death(self) -> bytes:
        """The payload of NDEATH: of this session, by its number."""
        return encode_payload(Payload(self._now(), (self._bd_seq_metric(),)))

    def node_birth(self, meters: int) -> Outgoing:
        """NBIRTH: always number 0."""
        self._seq = 0
        now = self._now()
        metrics = (
            self._bd_seq_metric(),
            Metric(value=False, datatype=BOOLEAN, timestamp=now, name=REBIRTH),
            Metric(version("open-data-concentrator"), STRING, now, "Properties/Software"),
            Metric(meters, INT64, now, "Meters"),
        )
        return self._outgoing("NBIRTH", "", metrics)

    def device_birth(
        self, meter: str, values: Sequence[LatestValue], batch: OutgoingBatch | None = None
    ) -> Outgoing:
        """DBIRTH with every channel of a meter, its newest value, and those channels that come with `batch`."""
        metrics = [self._announce((meter, one.profile, one.reading.channel), one.reading) for one in values]
        if batch is not None:
            announced = {(value.profile, value.reading.channel) for value in values}
            for reading in batch.readings:
                if (batch.profile, reading.channel) not in announced:
                    announced.add((batch.profile, reading.channel))
                    metrics.append(self._announce((meter, batch.profile, reading.channel), None, reading))
        self._living.add(meter)
        return self._outgoing("DBIRTH", meter, tuple(metrics))

    def device_death(self, meter: str) -> Outgoing:
        """DDEATH: the meter does not answer, or was removed."""
        self._living.discard(meter)
        for key in [key for key in self._metrics if key[0] == meter]:
            del self._metrics[key]
        return self._outgoing("DDEATH", meter, ())

    def knows(self, batch: OutgoingBatch) -> bool:
        """Whether the meter and all channels of a batch are announced."""
        return batch.meter in self._living and all(
            (batch.meter, batch.profile, reading.channel) in self._metrics for reading in batch.readings
        )

    def data(self, batch: OutgoingBatch) -> list[Outgoing]:
        """DDATA of a batch: in order of time, the past marked as such."""
        last: dict[Channel, datetime] = {}
        for reading in batch.readings:
            last[reading.channel] = max(reading.captured_at, last.get(reading.channel, reading.captured_at))
        metrics: list[Metric] = []
        for reading in sorted(batch.readings, key=lambda one: one.captured_at):
            named = self._metrics[batch.meter, batch.profile, reading.channel]
            newest = named.newest
            is_past = reading.captured_at < last[reading.channel] or (
                newest is not None and reading.captured_at <= newest
            )
            if not is_past:
                named.newest = reading.captured_at
            metrics.append(_metric(reading, named, is_past=is_past))
        metrics += [_event_metric(event) for event in batch.events]
        return [
            self._outgoing("DDATA", batch.meter, tuple(metrics[start : start + _METRICS_PER_MESSAGE]))
            for start in range(0, len(metrics), _METRICS_PER_MESSAGE)
        ]

    def _announce(self, key: _Key, latest: Reading | None, example: Reading | None = None) -> Metric:
        shown = latest or example
        datatype = STRING if shown is not None and isinstance(shown.value, str) else INT64
        named = self._metrics.get(key)
        if named is None:
            self._aliases += 1
            named = self._metrics[key] = _Named(self._aliases, datatype, None)
        named.datatype = datatype
        _meter, profile, channel = key
        name = f"{profile}/{channel.obis}/{channel.attribute}"
        if channel.period_s == 0:
            name += f"/{channel.unit}/{channel.scaler}"
        if latest is None:
            return Metric(
                None, datatype, self._now(), name, named.alias, properties=_properties(channel, STALE, "")
            )
        # What comes later and is not newer than this is the past.
        named.newest = latest.captured_at
        made = _metric(latest, named, is_past=False)
        return Metric(made.value, datatype, made.timestamp, name, named.alias, properties=made.properties)

    def _bd_seq_metric(self) -> Metric:
        return Metric(self._bd_seq, INT64, self._now(), BD_SEQ)

    def _outgoing(self, kind: str, device: str, metrics: tuple[Metric, ...]) -> Outgoing:
        payload = encode_payload(Payload(self._now(), metrics, self._seq))
        self._seq = (self._seq + 1) % _SEQ_MODULUS
        return Outgoing(kind, device, payload)

    def _now(self) -> int:
        return _milliseconds(self._clock.now())


def _milliseconds(moment: datetime) -> int:
    return round(moment.timestamp() * 1000)


def _properties(channel: Channel, quality: int, flags: str) -> dict[str, int | str]:
    found: dict[str, int | str] = {
        "Quality": quality,
        "engUnit": unit_symbol(channel.unit),
        "scaler": channel.scaler,
    }
    return found | ({"flags": flags} if flags else {})


def _metric(reading: Reading, named: _Named, *, is_past: bool) -> Metric:
    """A value as it is: an integer with its scaler as a property, never a float."""
    value: int | str | None = reading.value
    fits = isinstance(value, str) if named.datatype == STRING else isinstance(value, int) and value in _INT64
    flags = ",".join(quality_names(reading.quality))
    if not fits:
        # A meter that says text where it said numbers: the words go with the flags.
        flags = ",".join(part for part in (flags, str(value)[:100]) if part)
    return Metric(
        value if fits else None,
        0,
        _milliseconds(reading.captured_at),
        alias=named.alias,
        is_historical=is_past,
        properties=_properties(
            reading.channel, GOOD if fits and not reading.quality & _UNUSABLE else BAD, flags
        ),
    )


def _event_metric(event: MeterEvent) -> Metric:
    """An entry of a meter's log: by name, as no birth can foretell it."""
    return Metric(
        event.code,
        INT64,
        _milliseconds(event.happened_at),
        f"Event/{event.log}",
        is_historical=True,
        is_transient=True,
        properties={
            "severity": event.severity.value,
            "group": event.group,
            "kind": event.kind,
            "detail": event.detail,
            "ordinal": event.ordinal,
        },
    )

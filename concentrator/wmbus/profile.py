"""Meter models that send more than the standard says: each one a TOML file in `profiles/`.

A profile names its meters by manufacturer, version and device type. Its `records` give a meaning to the
manufacturer's VIFs, its `layouts` to octets that are no records: the whole content of a telegram with a
manufacturer CI-field, what follows DIF 0F, or the octets of one record. What a layout finds are records like
those of the standard, so that they flow on to the same OBIS codes. `profiles/README.md` describes the files.
The files are read when the first telegram of a manufacturer that has one comes.
"""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache, lru_cache
from importlib import resources
from typing import Any, NamedTuple

from concentrator.obis import Obis
from concentrator.wmbus.address import Address
from concentrator.wmbus.profile_derived import DateSeries, Sum, series_from_table, sum_from_table
from concentrator.wmbus.profile_fields import Layout, Origin, layout_from_table
from concentrator.wmbus.record import Function, Record, RecordHeader
from concentrator.wmbus.record_plan import read_record
from concentrator.wmbus.vif import Kind

PAYLOAD = "payload"
MANUFACTURER_DATA = "manufacturer_data"


@dataclass(frozen=True, slots=True)
class MeterMatch:
    """Which meters are meant; an empty set means any."""

    manufacturer: str
    versions: frozenset[int]
    device_types: frozenset[int]

    def fits(self, meter: Address) -> bool:
        """Whether `meter` is one of them."""
        return (
            meter.manufacturer == self.manufacturer
            and (not self.versions or meter.version in self.versions)
            and (not self.device_types or meter.device_type in self.device_types)
        )


@dataclass(frozen=True, slots=True)
class RecordRule:
    """What a record means whose header ends with `vib` (VIF and VIFEs): it replaces the standard's reading."""

    vib: bytes
    quantity: str
    unit: str
    exponent: int
    kind: Kind
    qualifiers: tuple[str, ...]

    def apply(self, header: RecordHeader) -> RecordHeader:
        """The header with this meaning."""
        return replace(
            header,
            quantity=self.quantity,
            unit=self.unit,
            exponent=self.exponent,
            kind=self.kind,
            qualifiers=self.qualifiers,
        )


class PushRegister(NamedTuple):
    """What a register is in that a meter pushes by DLMS without saying it: the Blue Book's unit, and the scaler."""

    unit: int
    scaler: int


@dataclass(frozen=True, slots=True, eq=False)
class Profile:
    """One meter model.

    `plain_modes` are security modes that its configuration field names although the content is plain.
    """

    name: str
    meters: tuple[MeterMatch, ...]
    rules: tuple[RecordRule, ...]
    layouts: tuple[Layout, ...]
    sums: tuple[Sum, ...]
    series: tuple[DateSeries, ...]
    plain_modes: frozenset[int]
    push_registers: dict[Obis, PushRegister]

    def read_records(
        self, origin: Origin, records: Sequence[Record], manufacturer_data: bytes
    ) -> tuple[Record, ...]:
        """The records with the profile's meanings, what its layouts find in their octets, and what follows."""
        given: list[Record] = []
        for record in records:
            header, where = _known_header(self, record.header)
            given.append(record if header is record.header else read_record(header, record.raw))
            if where:
                octets = record.value if isinstance(record.value, bytes) else record.raw
                given += self._read(origin, where, octets)
        given += self._read(origin, MANUFACTURER_DATA, manufacturer_data)
        for derived in (*self.sums, *self.series):
            given += derived.derive(given)
        return tuple(given)

    def read_payload(self, origin: Origin, payload: bytes) -> tuple[Record, ...]:
        """What the profile finds in a content that is no records; nothing where it has no layout for it."""
        return self._read(origin, PAYLOAD, payload)

    def _read(self, origin: Origin, where: str, octets: bytes) -> tuple[Record, ...]:
        for layout in self.layouts:
            if layout.where == where and layout.fits(origin.ci, octets):
                return layout.read(octets, origin)
        return ()


@lru_cache(maxsize=4096)
def _known_header(profile: Profile, header: RecordHeader) -> tuple[RecordHeader, str]:
    """The header as a profile reads it, and the place's name if one of its layouts opens the value."""
    rule = next((one for one in profile.rules if header.octets.endswith(one.vib)), None)
    place = header.octets.hex().upper()
    opened = any(layout.where == place for layout in profile.layouts)
    return header if rule is None else rule.apply(header), place if opened else ""


@lru_cache(maxsize=4096)
def profile_for(meter: Address) -> Profile | None:
    """The profile of a meter, or None: then the standard says all that is known of it."""
    for profile in _profiles_by_manufacturer().get(meter.manufacturer, ()):
        if any(match.fits(meter) for match in profile.meters):
            return profile
    return None


@cache
def all_profiles() -> tuple[Profile, ...]:
    """Every profile, by file name."""
    folder = resources.files("concentrator.wmbus") / "profiles"
    files = sorted((one for one in folder.iterdir() if one.name.endswith(".toml")), key=lambda one: one.name)
    return tuple(profile_from_table(tomllib.loads(one.read_text("utf-8"))) for one in files)


@cache
def _profiles_by_manufacturer() -> dict[str, tuple[Profile, ...]]:
    found: dict[str, tuple[Profile, ...]] = {}
    for profile in all_profiles():
        for manufacturer in {match.manufacturer for match in profile.meters}:
            found[manufacturer] = (*found.get(manufacturer, ()), profile)
    return found


def profile_from_table(table: dict[str, Any]) -> Profile:
    """The profile that a TOML file of `profiles/README.md`'s form says, as `tomllib` gives it."""
    return Profile(
        name=table["name"],
        meters=tuple(
            MeterMatch(
                one["manufacturer"],
                frozenset(one.get("versions", ())),
                frozenset(one.get("device_types", ())),
            )
            for one in table["meters"]
        ),
        rules=tuple(
            RecordRule(
                vib=bytes.fromhex(one["vib"]),
                quantity=one["quantity"],
                unit=one.get("unit", ""),
                exponent=one.get("exponent", 0),
                kind=Kind(one.get("kind", "number")),
                qualifiers=tuple(one.get("qualifiers", ())),
            )
            for one in table.get("records", ())
        ),
        layouts=tuple(layout_from_table(one) for one in table.get("layouts", ())),
        sums=tuple(sum_from_table(one) for one in table.get("sums", ())),
        plain_modes=frozenset(table.get("plain_modes", ())),
        series=tuple(series_from_table(one) for one in table.get("series", ())),
        push_registers={
            Obis.parse(one["obis"]): PushRegister(one["unit"], one.get("scaler", 0))
            for one in table.get("push_registers", ())
        },
    )


def describe(record: Record) -> str:
    """A name for a record among those of its telegram: quantity, function, storage, tariff, qualifiers."""
    parts = [record.quantity, *record.qualifiers]
    if record.function is not Function.INSTANTANEOUS:
        parts.append(record.function.value)
    parts += [
        f"{name}_{value}" for name, value in (("storage", record.storage), ("tariff", record.tariff)) if value
    ]
    return "_".join(parts)

"""A meter's consumer port P1 on a serial port or behind TCP: `concentrator read --p1 PORT`."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from datetime import datetime
from decimal import Decimal
from typing import Any

import click

from concentrator.iec62056_21.errors import TelegramError
from concentrator.iec62056_21.p1 import P1Reader, P1Telegram, decode_p1
from concentrator.iec62056_21.p1_cipher import ENVELOPE_START, open_envelope
from concentrator.iec62056_21.p1_values import P1Reading, interpret_p1
from concentrator.links.byte_source import read_octets

# DSMR 4 and later; 2 and 3 have 9600 baud with seven bits and even parity.
DEFAULT_BAUD_RATE, OLD_BAUD_RATE = 115_200, 9600
# Version 4 sends every ten seconds, the others every second; a wrong rate shows in this time.
_PATIENCE_S = 15.0


def read_p1_octets(octets: bytes, key: bytes = b"", authentication_key: bytes = b"") -> P1Telegram:
    """The telegram in octets as the port sent them, opened if they are encrypted.

    Raises:
        TelegramError: none, or not to be opened.
    """
    plain = open_envelope(octets, key, authentication_key) if octets.startswith(ENVELOPE_START) else octets
    return decode_p1(plain)


def run_read_p1(
    where: str,
    baud_rate: int | None,
    key: bytes,
    authentication_key: bytes,
    *,
    as_json: bool,
    echo: Callable[[str], None] = click.echo,
) -> None:
    """Wait for one telegram and print what it says. Without a baud rate 115200 is tried, then 9600.

    Raises:
        PortError: the port cannot be opened, or goes away.
        TelegramError: no telegram came, or one that is wrong.
    """
    rates = (baud_rate,) if baud_rate else (DEFAULT_BAUD_RATE, OLD_BAUD_RATE)
    for rate in rates:
        octets = _first_telegram(where, rate)
        if octets is not None:
            telegram = read_p1_octets(octets, key, authentication_key)
            if telegram.crc_ok is False:
                raise TelegramError("the CRC of the P1 telegram misses")
            echo(_as_json(interpret_p1(telegram)) if as_json else _as_text(interpret_p1(telegram)))
            return
    tried = " or ".join(map(str, rates))
    raise TelegramError(
        f"no P1 telegram within {_PATIENCE_S:g} s at {tried} baud; is the data request line set?"
    )


def _first_telegram(where: str, baud_rate: int) -> bytes | None:
    reader = P1Reader()
    for data in read_octets(where, baud_rate, _PATIENCE_S):
        # Seven bits with even parity read as eight bits: the parity goes, which no newer telegram has.
        seven_bits = baud_rate == OLD_BAUD_RATE
        reader.receive_data(bytes(one & 0x7F for one in data) if seven_bits else data)
        if (octets := reader.next_telegram()) is not None:
            return octets
    return None


def _plain(value: object) -> object:
    if isinstance(value, Decimal):
        return float(value)
    return value.isoformat() if isinstance(value, datetime) else str(value)


def _as_json(reading: P1Reading) -> str:
    return json.dumps(asdict(reading), default=_plain, ensure_ascii=False)


def _as_text(reading: P1Reading) -> str:
    tree: dict[str, Any] = asdict(reading)
    lines = [f"{reading.identification} {reading.equipment_identifier} {tree['captured_at'] or ''}".rstrip()]
    lines += [f"{one.obis:24} {one.value} {one.unit} {one.captured_at or ''}" for one in reading.registers]
    for meter in reading.channel_meters:
        value = "-" if meter.value is None else f"{meter.value} {meter.unit}"
        lines.append(
            f"M-Bus channel {meter.channel}: {meter.equipment_identifier} {value} {meter.captured_at or ''}"
        )
    lines += [f"power failure until {one.ended_at}: {one.duration_s} s" for one in reading.power_failures]
    lines += [
        f"peak of the month until {one.month_ended_at}: {one.value} {one.unit} at {one.reached_at}"
        for one in reading.monthly_peaks
    ]
    return "\n".join(line.rstrip() for line in lines)

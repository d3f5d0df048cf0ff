"""Octets of a port that only talks, as consumer ports do: a serial port, or a bridge behind TCP."""

from __future__ import annotations

import time
from collections.abc import Iterator

import serial

from concentrator.links.byte_line import is_tcp
from concentrator.links.errors import PortError

_SLICE_S = 0.1


def read_octets(where: str, baud_rate: int, patience_s: float, parity: str = "N") -> Iterator[bytes]:
    """What a port sends, piece by piece as it arrives, b"" while it is silent; ends when the patience does.

    Raises:
        PortError: the port cannot be opened, or goes away.
    """
    url = f"socket://{where}" if is_tcp(where) else where
    deadline = time.monotonic() + patience_s
    try:
        with serial.serial_for_url(url, baud_rate, parity=parity, timeout=_SLICE_S) as line:
            while time.monotonic() < deadline:
                yield line.read(max(1, line.in_waiting))
    except (serial.SerialException, OSError, ValueError) as error:
        raise PortError(f"port {where}: {error}") from error


def read_bursts(where: str, baud_rate: int, patience_s: float, silence_s: float = 0.5) -> Iterator[bytes]:
    """What a port sends between two silences.

    Raises:
        PortError: the port cannot be opened, or goes away.
    """
    burst = bytearray()
    ended_at = 0.0
    for data in read_octets(where, baud_rate, patience_s):
        if data:
            burst += data
            ended_at = time.monotonic()
        elif burst and time.monotonic() - ended_at >= silence_s:
            yield bytes(burst)
            burst.clear()

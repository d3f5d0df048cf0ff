"""A meter's optical head on a serial port: `concentrator read --optical PORT`."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable
from typing import NamedTuple

import click
import serial

from concentrator.iec62056_21.errors import TelegramError
from concentrator.iec62056_21.messages import DataSet, Identification
from concentrator.iec62056_21.reader import (
    BaudRateChanged,
    DataReceived,
    Identified,
    OpticalReader,
    ReaderEvent,
    ReadingFailed,
    ReadingFinished,
    RegisterWritten,
)
from concentrator.links.errors import PortError

# Longest wait for bytes at once, and for a meter that sends by itself (mode D).
_SLICE_S = 0.1
_PUSHED_TIMEOUT_S = 120.0
# A meter leaves programming mode after a minute or two of silence.
_ALGORITHM_TIMEOUT_S = 30.0
_LONGEST_RESULT = 1024


class OpticalReading(NamedTuple):
    """What one dialogue brought: who answered, its data sets, and the registers whose writing it acknowledged."""

    identification: Identification
    data_sets: tuple[DataSet, ...]
    written: tuple[str, ...]


def read_meter(port: str, reader: OpticalReader) -> OpticalReading:
    """Hold the dialogue on a port, 8N1 with the parity made by the protocol.

    Raises:
        PortError: the port cannot be opened, or goes away.
        TelegramError: the meter does not answer, or not as the standard says.
    """
    try:
        with serial.Serial(port, reader.start_baud_rate, timeout=_SLICE_S, exclusive=True) as line:
            return _Dialogue(line, reader).hold()
    except (serial.SerialException, OSError, ValueError) as error:
        raise PortError(f"serial port {port}: {error}") from error


def program_as_algorithm(program: str) -> Callable[[str], str]:
    """A maker's secure algorithm as a program: it gets the meter's operand as a line and prints the result as one.

    What it prints never reaches an error message: it opens the meter.
    """

    def secure_algorithm(operand: str) -> str:
        try:
            answer = subprocess.run(
                [program],
                input=operand + "\n",
                capture_output=True,
                text=True,
                timeout=_ALGORITHM_TIMEOUT_S,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "no answer in time, or none in text"
            raise TelegramError(f"secure algorithm {program}: {reason}") from None
        if answer.returncode != 0:
            raise TelegramError(f"secure algorithm {program}: ended with status {answer.returncode}")
        result = answer.stdout.strip()
        sendable = 0 < len(result) <= _LONGEST_RESULT and result.isascii() and result.isprintable()
        if not sendable or any(one in result for one in "()/!"):
            raise TelegramError(f"secure algorithm {program}: printed no line that could be sent")
        return result

    return secure_algorithm


class _Dialogue:
    def __init__(self, line: serial.Serial, reader: OpticalReader) -> None:
        self._line = line
        self._reader = reader
        self._identification: Identification | None = None
        self._data_sets: list[DataSet] = []
        self._written: list[str] = []
        self._ended = False

    def hold(self) -> OpticalReading:
        self._reader.start(time.monotonic())
        given_up = time.monotonic() + _PUSHED_TIMEOUT_S
        while not self._ended:
            self._act()
            if self._ended:
                break
            data = self._line.read(max(1, self._line.in_waiting))
            now = time.monotonic()
            if data:
                self._reader.receive_data(data, now)
            self._reader.handle_timeout(now)
            if self._reader.next_timeout() is None and now > given_up:
                raise TelegramError(f"nothing was sent within {_PUSHED_TIMEOUT_S:g} s")
        if self._identification is None:
            raise TelegramError("the meter did not say who it is")
        return OpticalReading(self._identification, tuple(self._data_sets), tuple(self._written))

    def _act(self) -> None:
        """Send what is to be sent, wholly, before the baud rate changes."""
        if data := self._reader.data_to_send():
            self._line.write(data)
            self._line.flush()
        while (event := self._reader.next_event()) is not None:
            self._handle(event)

    def _handle(self, event: ReaderEvent) -> None:
        match event:
            case Identified():
                self._identification = event.identification
            case BaudRateChanged():
                self._line.baudrate = event.baud_rate
            case DataReceived():
                self._data_sets += event.data_sets
            case RegisterWritten():
                self._written.append(event.register)
            case ReadingFailed():
                raise TelegramError(f"optical head: {event.reason}")
            case ReadingFinished():
                self._ended = True


def run_read(
    port: str, reader: OpticalReader, *, as_json: bool, echo: Callable[[str], None] = click.echo
) -> None:
    """Read a meter and print what it sent.

    Raises:
        PortError, TelegramError: see `read_meter`.
    """
    identification, data_sets, written = read_meter(port, reader)
    if as_json:
        objects = [{"address": one.address, "values": list(one.values)} for one in data_sets]
        tree = {
            "manufacturer": identification.manufacturer,
            "identification": identification.text,
            "mode": identification.mode,
            "hdlc": identification.hdlc,
            "objects": objects,
            "written": list(written),
        }
        echo(json.dumps(tree))
        return
    also = ", also HDLC: --hdlc" if identification.hdlc else ""
    echo(f"{identification.manufacturer} {identification.text} (mode {identification.mode}{also})")
    for register in written:
        echo(f"{register:24} written")
    for one in data_sets:
        echo(f"{one.address:24} {' '.join(one.values)}")

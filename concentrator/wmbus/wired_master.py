"""The master of a wired M-Bus (EN 13757-2 and -3): resetting, selecting, reading, searching slaves.

Conversations are generators: each yields a `Request` and is sent what came on the line until its answer was
complete or the line fell silent (b"" when nothing came). The driver knows ports and time, this module neither.
"""

from __future__ import annotations

import re
from collections.abc import Generator
from dataclasses import dataclass, replace
from typing import NamedTuple, TypeVar

from concentrator.wmbus.address import Address, manufacturer_code
from concentrator.wmbus.errors import TelegramError, WmbusUsageError
from concentrator.wmbus.security import KeyRing
from concentrator.wmbus.telegram import Telegram, decode_telegram
from concentrator.wmbus.wired import (
    ADDRESS_ALL,
    ADDRESS_ALL_WITH_ANSWER,
    ADDRESS_SELECTED,
    C_REQ_UD2,
    C_SND_NKE,
    C_SND_UD,
    FRAME_COUNT_BIT,
    HIGHEST_PRIMARY_ADDRESS,
    Acknowledgement,
    LongFrame,
    ShortFrame,
    WiredFrame,
    WiredReader,
)

ATTEMPTS = 3
# A slave that announces one telegram more for ever is cut off here.
MOST_TELEGRAMS = 32
BAUD_RATE_CIS = {
    300: 0xB8,
    600: 0xB9,
    1200: 0xBA,
    2400: 0xBB,
    4800: 0xBC,
    9600: 0xBD,
    19200: 0xBE,
    38400: 0xBF,
}
_CI_SELECT, _CI_APPLICATION_RESET, _CI_SEND = 0x52, 0x50, 0x51
_BUS_ADDRESS_RECORD = b"\x01\x7a"
# F is the wildcard. The standard has digits only, but makers count their numbers in hexadecimal too.
_DIGITS = "0123456789ABCDE"
_WILD_OCTET = 0xFF
# A manufacturer is no octet that could be counted through: those whose wired slaves are common are asked for.
_USUAL_MANUFACTURERS = (
    "ABB ACW AMT APA ARF AXI BMT DME EFE EFO ELR ELS ELV EMH ESY FIN GAV GWF HYD INV ISK ITR ITW JAN KAM KRO LGB "
    "LSE LUG MAD NZR PAD QDS RAM REL SAP SCN SEN SIE SLB SON SPX SVM TCH TIP WEP ZEN ZRI ZRM"
)
_SEVERAL = 2
_HEADER_CI_LONG = (0x72, 0x73, 0x6B, 0x75, 0x6F)


class Request(NamedTuple):
    """Octets for the line. `expects_answer` False: a broadcast, which nobody answers.

    `baud_rate` is what the line has to have from the next request on, once an answer came.
    """

    octets: bytes
    expects_answer: bool = True
    baud_rate: int | None = None


T = TypeVar("T")
Conversation = Generator[Request, bytes, T]


class NoAnswerError(TelegramError):
    """A slave does not answer, or with noise only: absent, wrong baud rate, or several at one address."""


@dataclass(frozen=True, slots=True)
class SecondaryAddress:
    """Eight digits, manufacturer, version, device type; `F` digits, "" and 0xFF are wildcards."""

    identification: str = "FFFFFFFF"
    manufacturer: str = ""
    version: int = 0xFF
    device_type: int = 0xFF

    @classmethod
    def from_text(cls, text: str) -> SecondaryAddress:
        """Read 8 digits (F stands for any), or the 16 hex digits of a whole address as it is sent.

        Raises:
            WmbusUsageError: it is neither.
        """
        if re.fullmatch(r"[0-9A-Fa-f]{8}", text):
            return cls(text.upper())
        if re.fullmatch(r"[0-9A-Fa-f]{16}", text):
            maker = int(text[10:12] + text[8:10], 16)
            letters = (
                ""
                if maker == 0xFFFF
                else "".join(  # noqa: PLR2004 - any manufacturer
                    chr((maker >> shift & 0x1F) + 64) for shift in (10, 5, 0)
                )
            )
            return cls(text[:8].upper(), letters, int(text[12:14], 16), int(text[14:16], 16))
        raise WmbusUsageError(f"a secondary address is 8 or 16 digits, F for any, got {text!r}")

    @classmethod
    def of(cls, meter: Address) -> SecondaryAddress:
        """The address of one meter, without wildcards."""
        return cls(meter.identification, meter.manufacturer, meter.version, meter.device_type)

    def to_bytes(self) -> bytes:
        """The eight octets of a selection."""
        maker = manufacturer_code(self.manufacturer) if self.manufacturer else 0xFFFF
        number = bytes.fromhex(self.identification)[::-1]
        return number + maker.to_bytes(2, "little") + bytes((self.version, self.device_type))

    def __str__(self) -> str:
        return f"{self.manufacturer or '*'}-{self.identification}"


class Slave(NamedTuple):
    """A slave that was found: how to reach it, and who it says it is."""

    address: SecondaryAddress | int
    meter: Address | None


class Search(NamedTuple):
    """What a search found. `collisions` are addresses under which several slaves answer alike."""

    slaves: tuple[Slave, ...]
    collisions: tuple[str, ...]


class _Heard(NamedTuple):
    frames: tuple[WiredFrame, ...]
    noise: bool

    @property
    def clean_frame(self) -> WiredFrame | None:
        return self.frames[0] if len(self.frames) == 1 and not self.noise else None


class _Told(NamedTuple):
    """What stays the same when a slave answers twice."""

    meter: Address
    primary_address: int
    payload_octets: int


class WiredMaster:
    """Keeps the frame count bits of the slaves; each method is a conversation.

    `keys` open the content of slaves that encrypt it.
    """

    def __init__(self, keys: KeyRing | None = None) -> None:
        self._keys = keys
        self._frame_count: dict[int, bool] = {}

    def reset(self, address: int) -> Conversation[bool]:
        """SND_NKE: the slave's link layer begins anew. True when it acknowledged (all: nobody does)."""
        self._frame_count[address] = True
        broadcast = address == ADDRESS_ALL
        heard = yield from _ask(ShortFrame(C_SND_NKE, address), expects_answer=not broadcast)
        return any(isinstance(one, Acknowledgement) for one in heard.frames)

    def select(self, address: SecondaryAddress, attempts: int = ATTEMPTS) -> Conversation[bool | None]:
        """Select by secondary address: True: one answered; False: nobody; None: several at once."""
        self._frame_count[ADDRESS_SELECTED] = True
        payload = bytes((_CI_SELECT,)) + address.to_bytes()
        heard = yield from _ask(LongFrame(C_SND_UD, ADDRESS_SELECTED, payload), attempts=attempts)
        if not heard.frames and not heard.noise:
            return False
        return True if isinstance(heard.clean_frame, Acknowledgement) else None

    def read(self, address: int | SecondaryAddress) -> Conversation[tuple[Telegram, ...]]:
        """Read a slave: all telegrams of its readout, until one says that none follows.

        Raises:
            NoAnswerError: nobody or nobody alone is there.
            WmbusUsageError: no primary address.
        """
        primary = ADDRESS_SELECTED
        if isinstance(address, SecondaryAddress):
            yield from self._select_surely(address)
        else:
            if not 0 <= address <= HIGHEST_PRIMARY_ADDRESS and address != ADDRESS_ALL_WITH_ANSWER:
                raise WmbusUsageError(
                    f"a primary address is 0 to 250, or 254 for the only slave, got {address}"
                )
            primary = address
            yield from self.reset(primary)
        telegrams: list[Telegram] = []
        while len(telegrams) < MOST_TELEGRAMS:
            frame = yield from self._request_data(primary, str(address))
            telegrams.append(decode_telegram(frame.to_bytes(), keys=self._keys))
            if not telegrams[-1].more_follows:
                break
        return tuple(telegrams)

    def reset_application(
        self, address: int | SecondaryAddress, subcode: int | None = None
    ) -> Conversation[None]:
        """Application reset, with the code of a readout (00: all) where one is wanted.

        Raises:
            NoAnswerError: it was not acknowledged.
        """
        payload = bytes((_CI_APPLICATION_RESET,)) + (b"" if subcode is None else bytes((subcode,)))
        yield from self._send(address, payload)

    def send(self, address: int | SecondaryAddress, records: bytes) -> Conversation[None]:
        """Send data records (selection for readout, a clock, ...) to a slave.

        Raises:
            NoAnswerError: they were not acknowledged.
        """
        yield from self._send(address, bytes((_CI_SEND,)) + records)

    def set_primary_address(self, address: int | SecondaryAddress, new_address: int) -> Conversation[None]:
        """Give a slave another primary address.

        Raises:
            NoAnswerError: it was not acknowledged.
            WmbusUsageError: the new one is not 0 to 250.
        """
        if not 0 <= new_address <= HIGHEST_PRIMARY_ADDRESS:
            raise WmbusUsageError(f"a primary address is 0 to 250, got {new_address}")
        yield from self.send(address, _BUS_ADDRESS_RECORD + bytes((new_address,)))

    def set_baud_rate(self, address: int, baud_rate: int) -> Conversation[None]:
        """Tell a slave another baud rate; the line has it from the next request on. 255 tells all of them.

        Raises:
            NoAnswerError: it was not acknowledged.
            WmbusUsageError: no baud rate of M-Bus.
        """
        if baud_rate not in BAUD_RATE_CIS:
            raise WmbusUsageError(f"a baud rate of M-Bus is one of {', '.join(map(str, BAUD_RATE_CIS))}")
        frame = LongFrame(C_SND_UD, address, bytes((BAUD_RATE_CIS[baud_rate],)))
        broadcast = address == ADDRESS_ALL
        heard = yield from _ask(frame, expects_answer=not broadcast, baud_rate=baud_rate)
        if not broadcast and not any(isinstance(one, Acknowledgement) for one in heard.frames):
            raise NoAnswerError(f"M-Bus address {address} did not acknowledge {baud_rate} baud")

    def search_primary(self, first: int = 0, last: int = HIGHEST_PRIMARY_ADDRESS) -> Conversation[Search]:
        """Ask every primary address; two slaves at one address are a collision."""
        slaves: list[Slave] = []
        collisions: list[str] = []
        for address in range(first, last + 1):
            heard = yield from _ask(ShortFrame(C_SND_NKE, address), attempts=1)
            if not heard.frames and not heard.noise:
                continue
            self._frame_count[address] = True
            try:
                frame = yield from self._request_data(address, str(address))
                slaves.append(Slave(address, decode_telegram(frame.to_bytes()).meter))
            except TelegramError:
                collisions.append(str(address))
        return Search(tuple(slaves), tuple(collisions))

    def search_secondary(self, mask: SecondaryAddress = SecondaryAddress()) -> Conversation[Search]:  # noqa: B008 - frozen
        """Find every slave by wildcards: where several answer, one digit more is given, 0 to E.

        Slaves that share a number are told apart by device type, version, and the usual manufacturers.
        What answers to wildcards is asked again by its whole address: answers at once can overlap to a right frame.
        """
        slaves: list[Slave] = []
        collisions: list[str] = []
        yield from self.reset(ADDRESS_ALL)
        open_masks = [mask]
        while open_masks:
            tried = open_masks.pop()
            alone = yield from self.select(tried, attempts=1)
            if alone is False:
                continue
            told = (yield from self._selected_slave()) if alone else None
            if told is not None and (yield from self._is_one(tried, told)):
                slaves.append(Slave(SecondaryAddress.of(told.meter), told.meter))
                continue
            if narrower := _narrower(tried):
                open_masks += reversed(narrower)
                continue
            named = yield from self._search_manufacturers(tried, slaves)
            slaves += named
            if len(named) < _SEVERAL:
                collisions.append(str(tried))
        return Search(tuple(slaves), tuple(collisions))

    def _search_manufacturers(self, mask: SecondaryAddress, found: list[Slave]) -> Conversation[list[Slave]]:
        """Slaves alike but for their manufacturer: those of the usual ones, and of what else is on this bus."""
        if mask.manufacturer:
            return []
        there = [one.meter.manufacturer for one in found if one.meter is not None]
        named: list[Slave] = []
        for manufacturer in dict.fromkeys([*there, *_USUAL_MANUFACTURERS.split()]):
            alone = yield from self.select(replace(mask, manufacturer=manufacturer), attempts=1)
            told = (yield from self._selected_slave()) if alone else None
            if told is not None:
                named.append(Slave(SecondaryAddress.of(told.meter), told.meter))
        return named

    def _is_one(self, mask: SecondaryAddress, told: _Told) -> Conversation[bool]:
        """Whether an answer to wildcards was one slave's: its whole address has to bring the same again.

        Answers of several at once can overlap to a frame whose check sum is right.
        """
        try:
            whole = SecondaryAddress.of(told.meter)
            if whole == mask:
                return True
            if not (yield from self.select(whole, attempts=1)):
                return False
        except WmbusUsageError:
            return False
        return (yield from self._selected_slave()) == told

    def _selected_slave(self) -> Conversation[_Told | None]:
        """Who was selected; None when several were: acknowledgements at once look like one, answers do not."""
        heard = yield from _ask(ShortFrame(self._counted(ADDRESS_SELECTED), ADDRESS_SELECTED), attempts=1)
        frame = heard.clean_frame
        if not isinstance(frame, LongFrame) or frame.payload[0] not in _HEADER_CI_LONG:
            return None
        try:
            meter = decode_telegram(frame.to_bytes()).meter
        except TelegramError:
            return None
        return None if meter is None else _Told(meter, frame.address, len(frame.payload))

    def _select_surely(self, address: SecondaryAddress) -> Conversation[None]:
        alone: bool | None = False
        for _ in range(ATTEMPTS):
            alone = yield from self.select(address)
            if alone:
                return
            if alone is None:
                break
        several = "several slaves answer to" if alone is None else "no slave answers to"
        raise NoAnswerError(f"{several} the secondary address {address}")

    def _request_data(self, address: int, name: str) -> Conversation[LongFrame]:
        """REQ_UD2: the same frame count bit until an answer came, then the other one."""
        frame = ShortFrame(self._counted(address), address)
        heard = yield from _ask(frame, wants=LongFrame)
        for one in heard.frames:
            if isinstance(one, LongFrame):
                self._frame_count[address] = not self._frame_count.get(address, True)
                return one
        came = "only noise came: wrong baud rate, or several slaves" if heard.noise else "nothing came"
        raise NoAnswerError(f"no answer from M-Bus address {name}: {came}")

    def _send(self, address: int | SecondaryAddress, payload: bytes) -> Conversation[None]:
        primary = ADDRESS_SELECTED if isinstance(address, SecondaryAddress) else address
        if isinstance(address, SecondaryAddress):
            yield from self._select_surely(address)
        count = FRAME_COUNT_BIT if self._frame_count.get(primary, True) else 0
        heard = yield from _ask(LongFrame(C_SND_UD & ~FRAME_COUNT_BIT | count, primary, payload))
        if not any(isinstance(one, Acknowledgement) for one in heard.frames):
            raise NoAnswerError(f"M-Bus address {address} did not acknowledge")
        self._frame_count[primary] = not self._frame_count.get(primary, True)

    def _counted(self, address: int) -> int:
        return C_REQ_UD2 | (FRAME_COUNT_BIT if self._frame_count.get(address, True) else 0)


def _narrower(mask: SecondaryAddress) -> list[SecondaryAddress]:
    """The masks below one that several slaves answer to; none when only the manufacturer is left open."""
    wildcard = mask.identification.find("F")
    if wildcard >= 0:
        start, end = mask.identification[:wildcard], mask.identification[wildcard + 1 :]
        return [replace(mask, identification=start + digit + end) for digit in _DIGITS]
    if mask.device_type == _WILD_OCTET:
        return [replace(mask, device_type=one) for one in range(_WILD_OCTET)]
    if mask.version == _WILD_OCTET:
        return [replace(mask, version=one) for one in range(_WILD_OCTET)]
    return []


def is_complete(request: Request, received: bytes) -> bool:
    """Whether what came holds an answer to a request: nothing more need be waited for."""
    heard = _read(request.octets, received)
    return bool(heard.frames) and not heard.noise


def _ask(
    frame: ShortFrame | LongFrame,
    *,
    expects_answer: bool = True,
    baud_rate: int | None = None,
    attempts: int = ATTEMPTS,
    wants: type[Acknowledgement | LongFrame] | None = None,
) -> Conversation[_Heard]:
    """Send a frame until an answer comes; what several slaves say at once is not asked for again."""
    request = Request(frame.to_bytes(), expects_answer, baud_rate)
    heard = _Heard((), noise=False)
    for _ in range(attempts if expects_answer else 1):
        received = yield request
        heard = _read(request.octets, received)
        if heard.frames and (wants is None or any(isinstance(one, wants) for one in heard.frames)):
            break
        if heard.noise and wants is None:
            break
    return heard


def _read(sent: bytes, received: bytes) -> _Heard:
    """The frames in what came; level converters may give the master's own octets back first."""
    received = received.removeprefix(sent)
    reader = WiredReader()
    reader.receive_data(received)
    frames: list[WiredFrame] = []
    while True:
        frame = reader.next_frame()
        if frame is not None:
            frames.append(frame)
        elif reader.partial:
            reader.give_up_partial()
        else:
            return _Heard(tuple(frames), noise=reader.octets_skipped > 0)

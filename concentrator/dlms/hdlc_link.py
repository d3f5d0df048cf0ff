"""The HDLC connection of IEC 62056-46: set-up with parameters, windows, segments, repetition, and its end.

Sans-IO, both ends: `HdlcClientLink` calls a meter, `HdlcServerLink` answers. Octets in by `receive_data`,
events out by `next_event`, octets to send by `data_to_send`; time is with the caller, who asks by `handle_timeout` for
a repetition when an answer is overdue. Modulo 8; UI frames come out as events too, those to all stations with them.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

from concentrator.dlms.errors import DecodeError, EncodeError, LinkLostError
from concentrator.dlms.hdlc import (
    LLC_COMMAND,
    LLC_RESPONSE,
    FrameType,
    HdlcAddress,
    HdlcDecoder,
    HdlcFrame,
    Reassembler,
)

DEFAULT_INFORMATION_LENGTH = 128
DEFAULT_WINDOW = 1
_MODULUS = 8
# Header, check sequences and two addresses of four octets around an information field of 2030 at most.
_LONGEST_INFORMATION = 2030


@dataclass(frozen=True, slots=True)
class LinkConnected:
    """The connection stands."""


@dataclass(frozen=True, slots=True)
class LinkDisconnected:
    """The connection ended: the peer said so, or does not know it."""

    reason: str


@dataclass(frozen=True, slots=True)
class ApduReceived:
    """A whole APDU came; `unsolicited` where it was in UI frames."""

    apdu: bytes
    unsolicited: bool = False


LinkEvent: TypeAlias = LinkConnected | LinkDisconnected | ApduReceived


class HdlcParameters(NamedTuple):
    """What SNRM proposes and UA grants, each from its sender's point of view."""

    information_transmit: int = DEFAULT_INFORMATION_LENGTH
    information_receive: int = DEFAULT_INFORMATION_LENGTH
    window_transmit: int = DEFAULT_WINDOW
    window_receive: int = DEFAULT_WINDOW

    def to_bytes(self) -> bytes:
        """The information field: format 81, group 80, parameters 05 to 08."""
        items = b""
        for identifier, value in ((5, self.information_transmit), (6, self.information_receive)):
            octets = 1 if value <= 0xFF else 2
            items += bytes((identifier, octets)) + value.to_bytes(octets, "big")
        for identifier, value in ((7, self.window_transmit), (8, self.window_receive)):
            items += bytes((identifier, 4)) + value.to_bytes(4, "big")
        return bytes((0x81, 0x80, len(items))) + items

    @classmethod
    def from_bytes(cls, data: bytes) -> HdlcParameters:
        """Decode an information field; without one the defaults hold.

        Raises:
            DecodeError: it is malformed.
        """
        if not data:
            return cls()
        if len(data) < 3 or data[:2] != b"\x81\x80" or len(data) < 3 + data[2]:
            raise DecodeError(f"HDLC parameters {data.hex()} are malformed")
        found = {
            5: DEFAULT_INFORMATION_LENGTH,
            6: DEFAULT_INFORMATION_LENGTH,
            7: DEFAULT_WINDOW,
            8: DEFAULT_WINDOW,
        }
        offset, end = 3, 3 + data[2]
        while offset + 2 <= end:
            identifier, octets = data[offset], data[offset + 1]
            value = data[offset + 2 : offset + 2 + octets]
            if len(value) != octets or not 1 <= octets <= 4:
                raise DecodeError(f"HDLC parameters {data.hex()} are malformed")
            found[identifier] = int.from_bytes(value, "big")
            offset += 2 + octets
        return cls(
            max(1, min(found[5], _LONGEST_INFORMATION)),
            max(1, min(found[6], _LONGEST_INFORMATION)),
            max(1, min(found[7], _MODULUS - 1)),
            max(1, min(found[8], _MODULUS - 1)),
        )


# What makes a frame-reject, by the bits of its last octet.
_FRMR_TOO_LONG = 0x04
_FRMR_REASONS = {
    0x01: "its control field is not known",
    0x02: "an information field had no place in it",
    _FRMR_TOO_LONG: "its information field is too long",
    0x08: "it acknowledges what was not sent",
}


def _frmr_words(information: bytes) -> str:
    reasons = [words for bit, words in _FRMR_REASONS.items() if len(information) > 2 and information[2] & bit]
    return ", ".join(reasons) or "no reason given"


class _Link:
    """What both ends share: numbered frames, windows, acknowledgement and repetition."""

    _llc = LLC_COMMAND

    def __init__(self, own: HdlcAddress, peer: HdlcAddress, parameters: HdlcParameters) -> None:
        self.own = own
        self.peer = peer
        self.parameters = parameters
        self.connected = False
        self.repetitions = 0
        self._decoder = HdlcDecoder()
        self._outgoing = bytearray()
        self._events: deque[LinkEvent] = deque()
        self._segments = Reassembler()
        self._unnumbered = Reassembler()
        self._size = DEFAULT_INFORMATION_LENGTH
        self._window = DEFAULT_WINDOW
        self._receive_window = DEFAULT_WINDOW
        self._longest_received = _LONGEST_INFORMATION
        self._reset()

    def _reset(self) -> None:
        self._send_state = 0
        self._receive_state = 0
        self._unacknowledged: deque[HdlcFrame] = deque()
        self._waiting: deque[tuple[bytes, bool]] = deque()
        self._peer_busy = False
        self._unanswered = 0
        self._segments.reset()

    # Octets and events

    def receive_data(self, data: bytes) -> None:
        """Take what came from the line."""
        self._decoder.receive_data(data)
        while frame := self._decoder.next_event():
            if frame.destination == self.own or self._listens_to(frame):
                self._receive(frame)

    def _listens_to(self, frame: HdlcFrame) -> bool:
        """Whether a frame to another address is for us too."""
        raise NotImplementedError

    def next_event(self) -> LinkEvent | None:
        """What happened, or None."""
        return self._events.popleft() if self._events else None

    def data_to_send(self) -> bytes:
        """What must go on the line now; each octet is given once."""
        data = bytes(self._outgoing)
        self._outgoing.clear()
        return data

    @property
    def bad_frames(self) -> int:
        """Frames whose check failed."""
        return self._decoder.bad_frames

    def send_apdu(self, apdu: bytes) -> None:
        """Send an APDU, in as many segments as it takes.

        Raises:
            EncodeError: the link is not connected.
        """
        if not self.connected:
            raise EncodeError("the HDLC link is not connected")
        octets = self._llc + apdu
        for start in range(0, len(octets), self._size):
            self._waiting.append((octets[start : start + self._size], start + self._size < len(octets)))
        self._fill_window()

    def _fill_window(self) -> None:
        while self._waiting and len(self._unacknowledged) < self._window and not self._peer_busy:
            information, segmented = self._waiting.popleft()
            last = not self._waiting or len(self._unacknowledged) + 1 == self._window
            frame = HdlcFrame(
                self.peer,
                self.own,
                FrameType.I,
                last,
                self._send_state,
                self._receive_state,
                segmented,
                information,
            )
            self._send_state = (self._send_state + 1) % _MODULUS
            self._unacknowledged.append(frame)
            self._put(frame)

    def _put(self, frame: HdlcFrame) -> None:
        self._unanswered = 0
        self._outgoing += frame.to_bytes()

    def _send_unnumbered(self, apdu: bytes, to: HdlcAddress, *, poll_final: bool) -> None:
        octets = self._llc + apdu
        for start in range(0, len(octets), self._size):
            more = start + self._size < len(octets)
            information = octets[start : start + self._size]
            self._put(
                HdlcFrame(to, self.own, FrameType.UI, poll_final, segmented=more, information=information)
            )

    def _supervise(self, kind: FrameType) -> None:
        self._put(HdlcFrame(self.peer, self.own, kind, True, 0, self._receive_state))

    def _repeat(self) -> None:
        """Send what is not acknowledged once more: the same frames, with the same N(S)."""
        self.repetitions += 1
        for number, frame in enumerate(self._unacknowledged, 1):
            last = number == len(self._unacknowledged)
            self._put(
                HdlcFrame(
                    frame.destination,
                    frame.source,
                    frame.type,
                    last,
                    frame.send,
                    self._receive_state,
                    frame.segmented,
                    frame.information,
                )
            )

    # Frames

    def _receive(self, frame: HdlcFrame) -> None:
        kind = frame.type
        if kind == FrameType.UI:
            apdu = self._unnumbered.receive_frame(frame)
            if apdu:
                self._events.append(ApduReceived(apdu, unsolicited=True))
        elif not self.connected:
            self._receive_unconnected(frame)
        elif kind == FrameType.I:
            self._acknowledged(frame.receive)
            self._receive_information(frame)
        elif kind in (FrameType.RR, FrameType.RNR):
            self._peer_busy = kind == FrameType.RNR
            self._acknowledged(frame.receive)
            if self._unacknowledged and frame.poll_final and not self._peer_busy:
                self._repeat()
            else:
                self._fill_window()
        elif kind == FrameType.REJ:
            self._peer_busy = False
            self._acknowledged(frame.receive)
            self._repeat()
        else:
            self._receive_unnumbered(frame)

    def _receive_unconnected(self, frame: HdlcFrame) -> None:
        raise NotImplementedError

    def _receive_unnumbered(self, frame: HdlcFrame) -> None:
        raise NotImplementedError

    def _acknowledged(self, receive: int) -> None:
        """Drop what the peer has: all frames before N(R)."""
        while self._unacknowledged:
            first = self._unacknowledged[0].send
            if (receive - first - 1) % _MODULUS >= len(self._unacknowledged):
                return
            self._unacknowledged.popleft()

    def _receive_information(self, frame: HdlcFrame) -> None:
        if frame.send != self._receive_state:
            # Seen before, or one is missing: say which is wanted.
            behind = (self._receive_state - frame.send) % _MODULUS <= self._receive_window
            if frame.poll_final:
                self._supervise(FrameType.RR if behind else FrameType.REJ)
            return
        self._receive_state = (self._receive_state + 1) % _MODULUS
        self._unanswered += 1
        apdu = self._segments.receive_frame(frame)
        if apdu is not None:
            self._events.append(ApduReceived(apdu))
        # There are meters that forget the final bit at the end of a window.
        if frame.segmented and (frame.poll_final or self._unanswered >= self._receive_window):
            self._supervise(FrameType.RR)
        elif not frame.segmented:
            self._fill_window()

    def _connect(self, own: HdlcParameters, peer: HdlcParameters) -> None:
        self._size = min(own.information_transmit, peer.information_receive)
        self._window = min(own.window_transmit, peer.window_receive)
        self._receive_window = min(own.window_receive, peer.window_transmit)
        self._longest_received = max(own.information_receive, self.parameters.information_receive)
        self._reset()
        self.connected = True
        self._events.append(LinkConnected())

    def _disconnected(self, reason: str) -> None:
        was = self.connected
        self.connected = False
        self._reset()
        if was:
            self._events.append(LinkDisconnected(reason))


class HdlcClientLink(_Link):
    """The calling end. After `handle_timeout` gave up, the link is lost."""

    _llc = LLC_COMMAND

    def __init__(
        self,
        client: HdlcAddress,
        server: HdlcAddress,
        parameters: HdlcParameters = HdlcParameters(),  # noqa: B008 - an immutable value
        *,
        attempts: int = 3,
    ) -> None:
        super().__init__(client, server, parameters)
        self._attempts = attempts
        self._tries = 0
        self._pending: HdlcFrame | None = None

    def connect(self) -> None:
        """Call the meter: SNRM."""
        information = b"" if self.parameters == HdlcParameters() else self.parameters.to_bytes()
        self._pending = HdlcFrame(self.peer, self.own, FrameType.SNRM, information=information)
        self._tries = 0
        self._put(self._pending)

    def disconnect(self) -> None:
        """End the connection: DISC. Right too before `connect`, where a meter may still hold an old one."""
        self._pending = HdlcFrame(self.peer, self.own, FrameType.DISC)
        self._tries = 0
        self._put(self._pending)

    def poll(self) -> None:
        """Let the meter go on sending: it has told something unasked in an I frame, and we have nothing to send."""
        self._supervise(FrameType.RR)

    def receive_data(self, data: bytes) -> None:
        """Take what came from the line."""
        super().receive_data(data)
        if data:
            self._tries = 0

    def handle_timeout(self) -> None:
        """An answer is overdue: repeat the same frames.

        Raises:
            LinkLostError: that was done often enough.
        """
        self._tries += 1
        if self._tries >= self._attempts:
            self._disconnected("no answer")
            raise LinkLostError(f"no answer to {self._attempts} HDLC frames")
        if self._pending is not None:
            self.repetitions += 1
            self._put(self._pending)
        elif self._unacknowledged and not self._peer_busy:
            self._repeat()
        else:
            # Nothing is out, or the meter was not ready for it: ask how it stands.
            self._supervise(FrameType.RR)

    def broadcast(self, apdu: bytes, address: HdlcAddress | None = None) -> None:
        """Send an APDU to all stations, in UI frames that nobody answers; with or without a connection."""
        self._send_unnumbered(apdu, address or HdlcAddress.all_stations(self.peer.size), poll_final=False)

    def _listens_to(self, frame: HdlcFrame) -> bool:
        # Meters push to addresses that they were set up with, not to that of whoever listens.
        return frame.type == FrameType.UI

    def _receive_unconnected(self, frame: HdlcFrame) -> None:
        pending = self._pending
        if pending is None:
            return
        refused = frame.type in (FrameType.DM, FrameType.FRMR)
        if pending.type == FrameType.SNRM and refused and pending.information:
            # Some meters refuse a proposal of parameters where they could have answered with their own.
            self.parameters = HdlcParameters()
            self.connect()
            return
        if pending.type == FrameType.SNRM and frame.type == FrameType.UA:
            self._pending = None
            # Without parameters in the UA the defaults hold.
            try:
                granted = HdlcParameters.from_bytes(frame.information)
            except DecodeError:
                granted = HdlcParameters()
            self._connect(self.parameters, granted)
        elif frame.type == FrameType.UA or refused:
            self._pending = None
            self._events.append(LinkDisconnected("refused" if pending.type == FrameType.SNRM else "ended"))

    def _receive_unnumbered(self, frame: HdlcFrame) -> None:
        if frame.type in (FrameType.UA, FrameType.DM, FrameType.DISC):
            self._pending = None
            self._disconnected("ended" if frame.type == FrameType.UA else "the meter ended the connection")
        elif frame.type == FrameType.FRMR:
            self._disconnected(f"the meter rejected a frame: {_frmr_words(frame.information)}")


class HdlcServerLink(_Link):
    """The answering end, for one client."""

    _llc = LLC_RESPONSE

    def __init__(
        self,
        client: HdlcAddress,
        server: HdlcAddress,
        parameters: HdlcParameters = HdlcParameters(),  # noqa: B008 - an immutable value
    ) -> None:
        super().__init__(server, client, parameters)

    def _accept(self, frame: HdlcFrame) -> None:
        try:
            proposed = HdlcParameters.from_bytes(frame.information)
        except DecodeError:
            proposed = HdlcParameters()
        own = self.parameters
        granted = HdlcParameters(
            min(own.information_transmit, proposed.information_receive),
            min(own.information_receive, proposed.information_transmit),
            min(own.window_transmit, proposed.window_receive),
            min(own.window_receive, proposed.window_transmit),
        )
        self._put(HdlcFrame(self.peer, self.own, FrameType.UA, information=granted.to_bytes()))
        self._connect(granted, proposed)

    def _receive_unconnected(self, frame: HdlcFrame) -> None:
        if frame.type == FrameType.SNRM:
            self._accept(frame)
        elif frame.poll_final:
            self._put(HdlcFrame(self.peer, self.own, FrameType.DM))

    def _listens_to(self, frame: HdlcFrame) -> bool:
        if frame.type != FrameType.UI:
            return False
        reached = frame.destination.is_broadcast
        same_device = frame.destination.size > 1 and frame.destination.lower == self.own.lower
        return reached or (same_device and frame.destination.upper in (0x7F, 0x3FFF))

    def _receive(self, frame: HdlcFrame) -> None:
        too_long = len(frame.information) > self._longest_received and frame.type == FrameType.I
        if not (self.connected and too_long):
            super()._receive(frame)
            return
        # Rejected control field, our state variables, and Y: the information field is too long (6.4.3.12).
        states = self._receive_state << 5 | self._send_state << 1
        information = bytes((frame.control, states, _FRMR_TOO_LONG))
        self._put(HdlcFrame(self.peer, self.own, FrameType.FRMR, information=information))
        self._disconnected("the client sent a frame that is too long")

    def _receive_unnumbered(self, frame: HdlcFrame) -> None:
        if frame.type == FrameType.SNRM:
            self._disconnected("the client called anew")
            self._accept(frame)
        elif frame.type == FrameType.DISC:
            self._put(HdlcFrame(self.peer, self.own, FrameType.UA))
            self._disconnected("the client ended the connection")

    def send_unsolicited(self, apdu: bytes) -> None:
        """Push an APDU in UI frames, with or without a connection."""
        self._send_unnumbered(apdu, self.peer, poll_final=True)

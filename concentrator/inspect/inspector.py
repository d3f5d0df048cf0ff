"""What is this hex? Any frame or APDU of metering, recognised by its own marks and explained.

Known: HDLC, the TCP WRAPPER, bare APDUs and A-XDR data, USI frames with PRIME_API and G3 messages, local frames of
S-FSK modems, and the APDUs in them, wireless and wired M-Bus telegrams, DLMS pushed in M-Bus frames, P1 telegrams.
A tree always comes back; what is wrong stands in its `error`, beside whatever could still be decoded. State that
spans frames (segments, block transfers, M-Bus format signatures, fragments and message counters) carries over
from one call to the next.
"""

from __future__ import annotations

from collections.abc import Callable

from concentrator.dlms import axdr, hdlc, mbus_carrier
from concentrator.dlms.errors import DlmsError
from concentrator.dlms.explain import Explainer, Tree, explain_data
from concentrator.dlms.security import SecurityKeys
from concentrator.iec62056_21.errors import TelegramError as AsciiTelegramError
from concentrator.iec62056_21.p1 import decode_p1
from concentrator.inspect.mbus import explain_telegram, plausible_wireless
from concentrator.inspect.modem import explain_local_frame, explain_usi
from concentrator.wmbus.compact import FormatMemory
from concentrator.wmbus.errors import TelegramError, WmbusUsageError
from concentrator.wmbus.fragments import FragmentMemory
from concentrator.wmbus.frame import FrameFormat
from concentrator.wmbus.security import (
    DERIVED_KEY_MODES,
    DES_KEY_OCTETS,
    KeyRing,
    MessageCounters,
    SecurityState,
)
from concentrator.wmbus.telegram import decode_telegram
from plc.sfsk.framing import LocalFrameDecoder
from plc.usi.framing import FrameDecoder

_HDLC_FORMAT_TYPE_3 = 0xA0
_WRAPPER_HEADER_OCTETS = 8
_MBUS_START, _MBUS_SHORT, _MBUS_ACK = 0x68, 0x10, 0xE5


class Inspector:
    """Explains octets one after the other.

    `key` is the DLMS encryption key or the M-Bus meter key, `authentication_key` and `system_title` are for DLMS.
    """

    def __init__(self, key: bytes = b"", authentication_key: bytes = b"", system_title: bytes = b"") -> None:
        self._formats = FormatMemory()
        self._fragments = FragmentMemory()
        self._counters = MessageCounters()
        self._segments = mbus_carrier.SegmentAssembler()
        self._dlms = Explainer()
        self._key = b""
        self.use_keys(key, authentication_key, system_title)

    def use_keys(self, key: bytes = b"", authentication_key: bytes = b"", system_title: bytes = b"") -> None:
        """Take other keys for the frames that follow; what was remembered of earlier frames stays."""
        self._key = key
        # A key of 8 octets is the DES key of an old M-Bus meter.
        self._dlms.keys = (
            SecurityKeys(key, authentication_key) if key and len(key) != DES_KEY_OCTETS else None
        )
        self._dlms.system_title = system_title

    def inspect(self, octets: bytes) -> Tree:
        """The tree of whatever these octets are."""
        if not octets:
            return {"error": "no octets"}
        for recognise in self._recognisers():
            tree = recognise(octets)
            if tree is not None:
                return tree
        return {"error": "not recognised", "octets": octets.hex()}

    def _recognisers(self) -> tuple[Callable[[bytes], Tree | None], ...]:
        return (
            self._between_flags,
            self._wired_mbus,
            self._wireless_mbus,
            self._flagged,
            self._p1,
            self._wrapper,
            self._local_frame,
            self._bare,
            self._damaged_wireless_mbus,
            self._damaged_apdu,
        )

    def _between_flags(self, octets: bytes) -> Tree | None:
        """A radio telegram may begin with 7E, its length; it hardly ends with one too."""
        return self._flagged(octets) if octets[-1] == hdlc.FLAG else None

    def _flagged(self, octets: bytes) -> Tree | None:
        """HDLC and USI share their flag; what decodes decides, then the HDLC format type."""
        if octets[0] != hdlc.FLAG:
            return None
        looks_like_hdlc = len(octets) > 1 and octets[1] & 0xF0 == _HDLC_FORMAT_TYPE_3
        if looks_like_hdlc:
            tree = self._dlms.explain(octets)
            if "error" not in tree:
                return tree
        usi = FrameDecoder()
        usi.receive_data(octets)
        frame = usi.next_frame()
        if frame is not None:
            return explain_usi(frame[0], frame[1], self._dlms)
        if looks_like_hdlc:
            return self._dlms.explain(octets)
        dropped = ", ".join(f"{name} {count}" for name, count in sorted(usi.counters.items()) if count)
        return {"frame": "usi", "error": f"no whole frame with a right CRC: {dropped or 'it is cut off'}"}

    def _wired_mbus(self, octets: bytes) -> Tree | None:
        if octets[0] == _MBUS_ACK and len(octets) == 1:
            return {"frame": "mbus", "type": "acknowledgement"}
        if octets[0] == _MBUS_SHORT and octets[-1] == mbus_carrier.STOP and len(octets) == 5:  # noqa: PLR2004
            fits = sum(octets[1:3]) & 0xFF == octets[3]
            tree: Tree = {"frame": "mbus", "type": "short", "c": f"{octets[1]:02x}", "address": octets[2]}
            return tree if fits else {**tree, "error": "check sum misses"}
        if octets[0] != _MBUS_START or len(octets) < 4 or octets[3] != _MBUS_START:  # noqa: PLR2004
            return None
        try:
            segments = mbus_carrier.decode_segments(octets)
        except DlmsError as error:
            return {"frame": "mbus", "error": str(error)}
        if all(segment.carries_dlms for segment in segments):
            return self._dlms_over_mbus(segments)
        return self._telegram(octets, FrameFormat.WIRED)

    def _dlms_over_mbus(self, segments: list[mbus_carrier.MbusSegment]) -> Tree:
        tree: Tree = {
            "frame": "mbus",
            "segments": [
                {
                    "ci": f"{segment.ci:02x}",
                    "len": segment.length,
                    "cs_ok": segment.checksum_ok,
                    "stop_ok": segment.stop_ok,
                }
                for segment in segments
            ],
        }
        if not all(segment.checksum_ok and segment.stop_ok for segment in segments):
            tree["error"] = "a check sum or stop octet misses"
        for segment in segments:
            whole = self._segments.receive(segment)
            if whole is not None:
                tree["decoded"] = self._dlms.apdu(whole)
        return tree

    def _p1(self, octets: bytes) -> Tree | None:
        if octets[:1] != b"/" or b"\n" not in octets:
            return None
        try:
            telegram = decode_p1(octets)
        except AsciiTelegramError as error:
            return {"frame": "p1", "error": str(error)}
        tree: Tree = {
            "frame": "p1",
            "identification": telegram.identification,
            "crc": None if telegram.crc is None else f"{telegram.crc:04X}",
            "crc_ok": telegram.crc_ok,
            "objects": [{"obis": one.obis, "values": list(one.values)} for one in telegram.objects],
        }
        if telegram.not_understood:
            tree["not_understood"] = list(telegram.not_understood)
        if telegram.crc_ok is False:
            tree["error"] = "CRC misses"
        return tree

    def _wrapper(self, octets: bytes) -> Tree | None:
        if octets[:2] != b"\x00\x01" or len(octets) <= _WRAPPER_HEADER_OCTETS:
            return None
        return self._dlms.explain(octets)

    def _wireless_mbus(self, octets: bytes) -> Tree | None:
        return self._telegram(octets, None) if plausible_wireless(octets, exactly=True) else None

    def _damaged_wireless_mbus(self, octets: bytes) -> Tree | None:
        return self._telegram(octets, None) if plausible_wireless(octets, exactly=False) else None

    def _telegram(self, octets: bytes, frame_format: FrameFormat | None) -> Tree:
        try:
            # Whose telegram it is shows only when it is decoded: the key given here is for this one.
            keys = KeyRing(everyone=self._key or None)
            telegram = decode_telegram(
                octets,
                keys=keys,
                formats=self._formats,
                fragments=self._fragments,
                frame_format=frame_format,
            )
        except (TelegramError, WmbusUsageError) as error:
            return {"frame": "mbus" if frame_format else "wmbus", "error": str(error)}
        tree = explain_telegram(telegram, self._dlms)
        security = telegram.security
        # A replay proved to be the meter's own, long ago: who looks at frames wants its content all the same.
        if (
            security.mode in DERIVED_KEY_MODES
            and security.state is SecurityState.DECODED
            and telegram.meter is not None
            and security.counter is not None
            and not self._counters.accept(telegram.meter, security.counter)
        ):
            tree["note"] = f"replay: message counter {security.counter} of {telegram.meter} did not rise"
        return tree

    def _local_frame(self, octets: bytes) -> Tree | None:
        """Length and check sum have to fit exactly: 02 opens other things too."""
        decoder = LocalFrameDecoder()
        if octets[0] != _STX or len(octets) < _SMALLEST_LOCAL_FRAME or len(octets) != 2 + octets[1]:
            return None
        decoder.receive_data(octets)
        frame = decoder.next_frame()
        return (
            explain_local_frame(frame[1], self._dlms) if decoder.counters["frames"] == 1 and frame else None
        )

    def _bare(self, octets: bytes) -> Tree | None:
        """An APDU that decodes whole is one; so is what opens as only an APDU can. 01 and 02 may also open data."""
        tree = self._dlms.explain(octets)
        if "error" not in tree or octets[0] in _APDU_FIRST:
            return tree
        return self._data(octets)

    def _damaged_apdu(self, octets: bytes) -> Tree | None:
        return self._dlms.explain(octets) if octets[0] in _APDU_PERHAPS else None

    @staticmethod
    def _data(octets: bytes) -> Tree | None:
        try:
            return {"data": explain_data(axdr.decode(octets))}
        except DlmsError:
            return None


_STX = 0x02
_SMALLEST_LOCAL_FRAME = 5
# First octets that can only be those of an APDU: what is wrong in it is then the APDU's error.
_APDU_FIRST = frozenset((0x0E, 0x21, 0x28, *range(0x60, 0x64), *range(0xC0, 0xE8)))
# First octets of APDUs that something else may have too.
_APDU_PERHAPS = frozenset((0x01, 0x08, 0x0F, 0x10))

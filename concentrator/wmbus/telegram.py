"""From the octets of one telegram to its records: the one call that receivers need.

`decode_telegram` walks the layers from the outside in, decrypts with the meter's key, expands compact
frames and reads the records. It keeps nothing itself: keys, formats, message counters and begun
fragments are the caller's objects, to be stored and restored by the caller.
"""

from __future__ import annotations

from typing import NamedTuple

from concentrator.model import Medium
from concentrator.wmbus import diehl
from concentrator.wmbus.address import ADDRESS_OCTETS, Address, medium_of
from concentrator.wmbus.compact import FormatMemory
from concentrator.wmbus.compact_profile import may_hold_compact_profiles, open_compact_profiles
from concentrator.wmbus.errors import TelegramError
from concentrator.wmbus.fragments import FragmentMemory
from concentrator.wmbus.frame import FrameFormat, LinkFrame, decode_frame
from concentrator.wmbus.layers import (
    CI_AUTHENTICATION,
    CI_ELL_VARIABLE,
    CI_NETWORK_LAYER,
    LOWER_LAYER_CIS,
    AuthenticationLayer,
    Content,
    Cursor,
    ExtendedLinkLayer,
    TransportLayer,
    is_ell,
    read_afl,
    read_ell,
    read_tpl,
)
from concentrator.wmbus.profile import profile_for
from concentrator.wmbus.profile_fields import Origin
from concentrator.wmbus.protection import Protected, open_protection
from concentrator.wmbus.record import NO_RECORDS, Record, RecordList
from concentrator.wmbus.records import decode_records
from concentrator.wmbus.report import read_report
from concentrator.wmbus.security import (
    DECRYPTION_CHECK,
    MODE_NONE,
    PLAIN,
    KeyRing,
    MessageCounters,
    Security,
    SecurityState,
    decrypt_ell,
    ell_crc_fits,
)

_NO_KEYS = KeyRing()
# Radio and bus converters: a meter stands behind them.
_CONVERTERS = (0x36, 0x37, 0x38)
_MOST_SURPLUS_OCTETS = 8


class Telegram(NamedTuple):
    """A decoded telegram.

    `meter` is the meter's own address (the transport layer's, where that has one; None only for a wired
    frame without header). `payload` are the application's octets, plain where `security.readable`;
    an APDU begins at the first of them, and 2F that filled the last encrypted block may follow it.
    `profile` names the meter profile that added to the records or gave them another meaning; "" for none.
    `fault` is empty, or says why records are missing: a chain that breaks off, an unknown format.
    """

    frame: LinkFrame
    meter: Address | None
    security: Security
    content: Content
    records: tuple[Record, ...] = ()
    manufacturer_data: bytes = b""
    more_follows: bool = False
    payload: bytes = b""
    fault: str = ""
    ell: ExtendedLinkLayer | None = None
    afl: AuthenticationLayer | None = None
    tpl: TransportLayer | None = None
    profile: str = ""

    @property
    def sender(self) -> Address | None:
        """Who sent it on the air: the meter, or the radio module that speaks for it."""
        return self.frame.address

    @property
    def access_number(self) -> int | None:
        """The access number of the transport layer, or else of the extended link layer."""
        if self.tpl is not None and self.tpl.access_number is not None:
            return self.tpl.access_number
        return None if self.ell is None else self.ell.access_number

    @property
    def status(self) -> int | None:
        """The status octet of the transport header, if there is one."""
        return None if self.tpl is None else self.tpl.status

    @property
    def device_type(self) -> int:
        """The device type of the meter, or of the one behind a converter, if the converter tells it."""
        if self.meter is None:
            return 0
        if self.meter.device_type in _CONVERTERS:
            for record in self.records:
                if record.quantity == "enhanced_identification" and len(record.raw) == ADDRESS_OCTETS:
                    return record.raw[-1]
        return self.meter.device_type

    @property
    def medium(self) -> Medium:
        """What the meter measures, by its device type."""
        return medium_of(self.device_type)


def decode_telegram(
    data: bytes,
    *,
    keys: KeyRing | None = None,
    formats: FormatMemory | None = None,
    counters: MessageCounters | None = None,
    fragments: FragmentMemory | None = None,
    frame_format: FrameFormat | None = None,
) -> Telegram:
    """Decode one telegram, from its L-field (wired: from the first 68).

    Args:
        data: the octets as the receiver gave them.
        keys: keys of the meters; none, and encrypted telegrams come out as `KEY_MISSING`.
        formats: learns from full frames, expands compact ones.
        counters: remembers the message counters of modes 7 to 10 and finds replays.
        fragments: collects the fragments of long messages; none, and each stays `INCOMPLETE`.
        frame_format: what the receiver left in; None finds out.

    Raises:
        TelegramError: these octets are no telegram. That a telegram cannot be *read* is no error, but
            told by `security.state` and `fault`.
    """
    frame = decode_frame(data, frame_format)
    return _Decoder(frame, _NO_KEYS if keys is None else keys, formats, counters, fragments).decode()


class _Decoder:
    """One walk through the layers of one telegram."""

    __slots__ = (
        "_afl",
        "_counters",
        "_ell",
        "_ell_state",
        "_formats",
        "_fragments",
        "_frame",
        "_keys",
        "_meter",
        "_sent_address",
        "_tpl",
    )

    def __init__(
        self,
        frame: LinkFrame,
        keys: KeyRing,
        formats: FormatMemory | None,
        counters: MessageCounters | None,
        fragments: FragmentMemory | None,
    ) -> None:
        self._sent_address = b""
        if frame.address is not None and frame.address.manufacturer in diehl.MANUFACTURERS:
            self._sent_address = frame.address.to_link_layer()
            frame = diehl.with_standard_address(frame)
        self._frame = frame
        self._keys = keys
        self._formats = formats
        self._counters = counters
        self._fragments = fragments
        self._meter = frame.address
        self._ell: ExtendedLinkLayer | None = None
        self._afl: AuthenticationLayer | None = None
        self._tpl: TransportLayer | None = None
        self._ell_state = SecurityState.PLAIN

    def decode(self) -> Telegram:
        cursor = Cursor(self._frame.payload)
        if not cursor.data:
            return self._result(PLAIN, Content.NOTHING, b"")
        if cursor.data[0] in LOWER_LAYER_CIS:
            ended, cursor = self._walk_lower_layers(cursor)
            if ended is not None:
                return ended
        protected_at = cursor.at
        tpl = self._tpl = read_tpl(cursor)
        if tpl.address is not None:
            self._meter = tpl.address
        if tpl.mode == MODE_NONE and self._afl is None and self._ell is None:
            return self._read_content(tpl, PLAIN, cursor.rest)
        security, payload, tail = self._unprotect(tpl, cursor.data[protected_at:], cursor.rest)
        if not security.readable:
            # What follows the encrypted blocks was sent in the clear.
            in_the_clear = tail if security.state is SecurityState.KEY_MISSING else b""
            found = decode_records(in_the_clear) if tpl.content is Content.RECORDS else RecordList()
            return self._result(security, tpl.content, payload, found)
        return self._read_content(tpl, security, payload)

    def _walk_lower_layers(self, cursor: Cursor) -> tuple[Telegram | None, Cursor]:
        """Take ELL and AFL off: the telegram if it ends here, and what is left to read."""
        if is_ell(cursor.data[0]):
            self._ell = read_ell(cursor)
            if self._ell.session_number is not None:
                refused, opened = self._open_ell(self._ell, cursor.rest)
                if refused is not None:
                    return self._result(refused, Content.UNKNOWN, cursor.rest), cursor
                cursor = Cursor(opened)
        rest = cursor.rest
        if rest[:1] == bytes((CI_NETWORK_LAYER,)) or rest[:1] == bytes((CI_ELL_VARIABLE,)):
            reason = f"the layer of CI {rest[0]:02X} is not opened"
            security = self._security(SecurityState.NOT_SUPPORTED, reason)
            return self._result(security, Content.UNKNOWN, rest), cursor
        if rest[:1] == bytes((CI_AUTHENTICATION,)):
            self._afl = read_afl(cursor)
            if self._afl.fragmented:
                message = self._join(self._afl, cursor.rest)
                if message is None:
                    reason = f"fragment {self._afl.fragment} of a message; the others are still to come"
                    waiting = self._security(SecurityState.INCOMPLETE, reason)
                    return self._result(waiting, Content.UNKNOWN, cursor.rest), cursor
                cursor = Cursor(message)
            rest = cursor.rest
        if not rest:
            return self._result(self._security(self._ell_state), Content.NOTHING, b""), cursor
        return None, cursor

    def _join(self, afl: AuthenticationLayer, octets: bytes) -> bytes | None:
        """Add a fragment; the message and the AFL of its whole once it is complete."""
        if self._fragments is None or self._frame.address is None:
            return None
        joined = self._fragments.take(self._frame.address, afl, octets)
        if joined is None:
            return None
        self._afl, message = joined
        return message

    def _open_ell(self, ell: ExtendedLinkLayer, octets: bytes) -> tuple[Security | None, bytes]:
        """Check and decrypt what follows an ELL; gives a refusal, or the plain octets after the CRC."""
        if not ell.security_known:
            reason = f"ELL security {(ell.session_number or 0) >> 29} is reserved"
            return Security(SecurityState.NOT_SUPPORTED, reason=reason, ell_encrypted=True), b""
        if not ell.encrypted:
            if not ell_crc_fits(octets):
                raise TelegramError(f"the CRC of the ELL payload misses: {octets.hex()}")
            return None, octets[2:]
        address = self._frame.address
        key = self._keys.key_for(address) if address is not None else None
        if key is not None and address is not None and not key.is_des:
            plain = decrypt_ell(key, address, ell.communication_control, ell.session_number or 0, octets)
            if plain is not None:
                self._ell_state = SecurityState.DECODED
                return None, plain
        looks_plain = ell_crc_fits(octets)
        if key is None:
            if looks_plain:
                self._ell_state = SecurityState.ALREADY_PLAIN
                return None, octets[2:]
            reason = f"no key is set up for {address}"
            return Security(SecurityState.KEY_MISSING, reason=reason, ell_encrypted=True), b""
        reason = f"the key of {address} gives noise (CRC of the ELL payload)"
        if looks_plain:
            reason = f"the content is plain, but {address} has a key: a forgery, or remove the key"
        return Security(SecurityState.KEY_WRONG, reason=reason, ell_encrypted=True), b""

    def _security(self, state: SecurityState, reason: str = "") -> Security:
        if (
            state is SecurityState.PLAIN
            and self._afl is None
            and self._tpl is not None
            and not self._tpl.mode
        ):
            return PLAIN
        return Security(
            state=state,
            mode=MODE_NONE if self._tpl is None else self._tpl.mode,
            reason=reason,
            counter=None if self._afl is None else self._afl.counter,
            ell_encrypted=self._ell is not None and self._ell.encrypted,
        )

    def _unprotect(self, tpl: TransportLayer, protected: bytes, body: bytes) -> tuple[Security, bytes, bytes]:
        """Undo the transport layer's security; gives its outcome, the payload, and the part in the clear."""
        opened = open_protection(
            Protected(tpl, self._afl, self._meter, self._sent_address, protected, body),
            self._keys,
            self._counters,
        )
        state = self._ell_state if opened.state is SecurityState.PLAIN else opened.state
        return self._security(state, opened.reason), opened.payload, opened.tail

    def _read_content(self, tpl: TransportLayer, security: Security, payload: bytes) -> Telegram:
        found, fault = NO_RECORDS, ""
        try:
            if tpl.content is Content.RECORDS or tpl.content is Content.COMMAND:
                found = decode_records(payload)
                if found.fault and self._frame.surplus_octets and security.mode == MODE_NONE:
                    found = self._read_surplus(payload, found)
                if self._formats is not None and found.headers:
                    self._formats.learn_headers(found.headers)
            elif tpl.content is Content.COMPACT:
                found = self._expand(payload)
            elif tpl.content is Content.FORMAT and self._formats is not None:
                self._formats.learn_format_frame(payload.removeprefix(DECRYPTION_CHECK))
            elif tpl.content is Content.ALARM or tpl.content is Content.ERROR:
                found = read_report(tpl.content, payload)
            elif tpl.content is Content.DLMS:
                payload = payload.removeprefix(DECRYPTION_CHECK)
        except TelegramError as error:
            fault = str(error)
        if may_hold_compact_profiles(found.headers):
            found = found._replace(records=found.records + open_compact_profiles(found.records))
        meter = self._meter
        profile = profile_for(meter) if meter is not None else None
        if meter is None or profile is None:
            return self._result(security, tpl.content, payload, found, fault)
        origin = Origin(meter, self._sent_address, tpl.ci)
        proprietary = profile.read_payload(origin, payload)
        if proprietary:
            return self._result(security, tpl.content, payload, RecordList(proprietary), "", profile.name)
        records = profile.read_records(origin, found.records, found.manufacturer_data)
        if records == found.records:
            return self._result(security, tpl.content, payload, found, fault)
        return self._result(
            security, tpl.content, payload, found._replace(records=records), fault, profile.name
        )

    def _read_surplus(self, payload: bytes, broken: RecordList) -> RecordList:
        """An L-field that is too small cuts the last record: the octets behind it may complete the chain."""
        surplus = self._frame.surplus_octets
        for octets in range(1, min(len(surplus), _MOST_SURPLUS_OCTETS) + 1):
            found = decode_records(payload + surplus[:octets])
            if not found.fault:
                return found
        return broken

    def _expand(self, payload: bytes) -> RecordList:
        formats = self._formats if self._formats is not None else FormatMemory()
        return decode_records(formats.expand(payload.removeprefix(DECRYPTION_CHECK)))

    def _result(
        self,
        security: Security,
        content: Content,
        payload: bytes,
        found: RecordList = NO_RECORDS,
        fault: str = "",
        profile: str = "",
    ) -> Telegram:
        return Telegram(
            self._frame,
            self._meter,
            security,
            content,
            found.records,
            found.manufacturer_data,
            found.more_follows,
            payload,
            fault
            or found.fault
            or (f"{self._frame.missing} octets are missing" if self._frame.missing else ""),
            self._ell,
            self._afl,
            self._tpl,
            profile,
        )

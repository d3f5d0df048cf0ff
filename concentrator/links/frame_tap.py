"""Frames of a PLC modem's line, picked from the octets of each direction as they pass, without the keys in them."""

from __future__ import annotations

from collections.abc import Iterator

from concentrator.dlms.redaction import without_passwords
from plc.g3 import coordinator_commands
from plc.g3 import messages as g3_messages
from plc.prime import messages as prime_messages
from plc.prime import mngp
from plc.sfsk.framing import LOCAL_FRAME, LocalFrameDecoder, encode_local_frame
from plc.usi.framing import (
    PROTOCOL_ADP_G3,
    PROTOCOL_COORDINATOR_G3,
    PROTOCOL_PRIME_API,
    FrameDecoder,
    encode_frame,
)

FROM_HOST = "host to modem"
FROM_MODEM = "modem to host"
HEARD = "heard"

_UNKNOWN, _USI, _LOCAL = "unknown", "usi", "local frames"


class FrameTap:
    """Takes octets of each direction, gives whole frames. Keys of the network and passwords are zeros in them."""

    def __init__(self) -> None:
        # Which envelope it is shows with the first whole frame; from then on only that one is looked for.
        self._decoders: dict[str, FrameDecoder] = {}
        self._local_decoders: dict[str, LocalFrameDecoder] = {}
        self._family = _UNKNOWN

    def receive_data(self, direction: str, data: bytes) -> Iterator[bytes]:
        """Take octets that passed; every whole frame in them comes out, as it was on the line but for its secrets."""
        if self._family != _LOCAL:
            decoder = self._decoders.setdefault(direction, FrameDecoder())
            decoder.receive_data(data)
            while (frame := decoder.next_frame()) is not None:
                self._family = _USI
                protocol, payload = frame
                yield encode_frame(protocol, without_passwords(_masked(protocol, payload)))
        if self._family != _USI:
            local = self._local_decoders.setdefault(direction, LocalFrameDecoder())
            local.receive_data(data)
            while (frame := local.next_frame()) is not None:
                kind, payload = frame
                if kind == LOCAL_FRAME:
                    self._family = _LOCAL
                    yield encode_local_frame(without_passwords(payload))

    def counters(self) -> dict[str, int]:
        """How many frames passed, and what was dropped, by reason."""
        total: dict[str, int] = {}
        decoders = self._local_decoders if self._family == _LOCAL else self._decoders
        for decoder in decoders.values():
            for name, count in decoder.counters.items():
                total[name] = total.get(name, 0) + count
        return total


def _masked(protocol: int, payload: bytes) -> bytes:
    if protocol == PROTOCOL_ADP_G3:
        return g3_messages.mask_keys(payload)
    if protocol == PROTOCOL_COORDINATOR_G3:
        return coordinator_commands.mask_keys(payload)
    if protocol in mngp.PROTOCOLS:
        return mngp.mask_keys(protocol, payload)
    return prime_messages.mask_keys(payload) if protocol == PROTOCOL_PRIME_API else payload

"""DLMS: profile decoding, protection, frames and a dialogue, as ratios against peers in the same run."""

from __future__ import annotations

import struct
import sys
import time
import timeit
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import TypeVar

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from concentrator.dlms import axdr, security
from concentrator.dlms.attributes import CLOCK_COLUMN, AttributeDescriptor, CaptureObject, RangeDescriptor
from concentrator.dlms.client import Client, ClientSettings, Conversation
from concentrator.dlms.codes import AuthenticationMechanism
from concentrator.dlms.cosem_time import CosemDateTime
from concentrator.dlms.hdlc import FrameType, HdlcAddress, HdlcDecoder, HdlcFrame
from concentrator.dlms.profile import decode_profile, decode_raw_rows
from concentrator.obis import Obis
from concentrator.simulator.meter import LOAD_PROFILE, SimulatedMeter

T = TypeVar("T")
ROWS = 1000
START = datetime(2026, 1, 1, tzinfo=UTC)


def best(task: Callable[[], object], count: int = 1) -> float:
    """Seconds of one run, the best of five."""
    number = 1
    while timeit.timeit(task, number=number) < 0.02:
        number *= 4
    return min(timeit.repeat(task, number=number, repeat=5)) / number / count


def report(name: str, seconds: float, others: dict[str, float]) -> None:
    """One line: our rate, and how many times faster than each other."""
    ratios = ", ".join(f"{other} {1 / s:,.0f}/s (x{s / seconds:.2f})" for other, s in others.items())
    sys.stdout.write(f"{name}: {1 / seconds:,.0f}/s; {ratios}\n")


def profiles() -> None:
    """1000 rows of clock, status and four registers."""
    rows = []
    for step in range(ROWS):
        clock = CosemDateTime.from_datetime(START + timedelta(minutes=15 * step), -60).to_bytes()
        values = b"".join(b"\x06" + (100000 + step * n).to_bytes(4, "big") for n in range(1, 5))
        rows.append(b"\x02\x06\x09\x0c" + clock + b"\x11\x00" + values)
    body = b"".join(rows)
    encoded = b"\x01\x82" + ROWS.to_bytes(2, "big") + body
    columns = [CLOCK_COLUMN, CaptureObject(1, Obis(0, 0, 96, 10, 1, 255), 2)]
    columns += [CaptureObject(3, Obis(1, 0, n, 8, 0, 255), 2) for n in range(1, 5)]
    bare = struct.Struct(">4x12sxBxIxIxIxI")
    from dlms_cosem.utils import parse_as_dlms_data
    from gurux_dlms import GXByteBuffer
    from gurux_dlms.internal._GXCommon import _GXCommon
    from gurux_dlms.internal._GXDataInfo import _GXDataInfo
    from pydlms.cosem.data import decode_data

    report(
        "profile rows with UTC",
        best(lambda: decode_profile(encoded, columns, 900), ROWS),
        {
            "dlms-cosem": best(lambda: parse_as_dlms_data(encoded), ROWS),
            "gurux": best(lambda: _GXCommon.getData(None, GXByteBuffer(encoded), _GXDataInfo()), ROWS),
            "pydlms": best(lambda: decode_data(encoded), ROWS),
            "our generic values": best(lambda: axdr.decode(encoded), ROWS),
            "our raw rows": best(lambda: decode_raw_rows(encoded, columns), ROWS),
            "bare struct": best(lambda: list(bare.iter_unpack(body)), ROWS),
        },
    )


def protection() -> None:
    """Unprotecting an APDU of 1 KiB."""
    key, title = bytes(16), b"ODCTEST1"
    content = security.protect(key, key, title, 0x30, 1, bytes(1024))

    def bare() -> bytes:
        decryptor = Cipher(algorithms.AES(key), modes.GCM(content_vector, content[-12:], 12)).decryptor()
        decryptor.authenticate_additional_data(additional)
        return decryptor.update(content[5:-12]) + decryptor.finalize()

    content_vector, additional = title + content[1:5], content[:1] + key
    from pydlms.security.ciphering import SecurityControl
    from pydlms.security.gcm import decrypt

    control = SecurityControl.from_byte(0x30)
    report(
        "unprotect 1 KiB",
        best(lambda: security.unprotect(key, key, title, content)),
        {
            "pydlms": best(lambda: decrypt(control, key, key, title, 1, content[5:])),
            "bare library": best(bare),
        },
    )


def frames() -> None:
    """Decoding frames with 128 octets of information."""
    count = 200
    frame = HdlcFrame(
        HdlcAddress.client(16), HdlcAddress.server(1), FrameType.I, receive=1, information=bytes(128)
    )
    stream = frame.to_bytes() * count

    def ours() -> int:
        decoder = HdlcDecoder()
        decoder.receive_data(stream)
        found = 0
        while decoder.next_event():
            found += 1
        return found

    from dlms_cosem.hdlc.frames import InformationFrame

    single = frame.to_bytes()

    def gurux() -> None:
        client.settings.resetFrameSequence()
        GXDLMS.getHdlcData(False, client.settings, GXByteBuffer(single), GXReplyData(), None)

    def pydlms() -> int:
        return len(FrameReader().feed(stream))

    from gurux_dlms import GXByteBuffer, GXDLMSClient, GXReplyData
    from gurux_dlms.ConnectionState import ConnectionState
    from gurux_dlms.enums import Authentication, InterfaceType
    from gurux_dlms.GXDLMS import GXDLMS
    from pydlms.hdlc.framing import FrameReader

    client = GXDLMSClient(True, 16, 1, Authentication.NONE, None, InterfaceType.HDLC)
    client.settings.connected = ConnectionState.HDLC
    report(
        "HDLC frames",
        best(ours, count),
        {
            "dlms-cosem": best(lambda: InformationFrame.from_bytes(single)),
            "gurux": best(gurux),
            "pydlms": best(pydlms, count),
        },
    )


class _Meter:
    """The simulated meter, and the CPU time that it takes itself."""

    def __init__(self, now: datetime) -> None:
        self.device = SimulatedMeter("10000001", 1, lambda: now)
        self.seconds = 0.0
        self.replies: list[bytes] = []

    def send(self, apdu: bytes) -> None:
        before = time.process_time()
        self.device.receive_apdu(1, 1, apdu, self.replies.append)
        self.seconds += time.process_time() - before

    def client_seconds(self, dialogue: Callable[[], object], count: int = 30) -> float:
        """CPU time that the client takes for one dialogue, the best of five."""
        found: list[float] = []
        for _ in range(5):
            self.seconds, before = 0.0, time.process_time()
            for _ in range(count):
                dialogue()
            found.append((time.process_time() - before - self.seconds) / count)
        return min(found)


def dialogue() -> None:
    """AARQ to RLRE with HLS GMAC against the simulated meter, a day of load profile read: the client's CPU."""
    now = START + timedelta(days=30)
    meter = _Meter(now)
    counter = security.MemoryCounter(1)
    keys = meter.device.keys

    def ours() -> None:
        settings = ClientSettings(
            client_sap=1, mechanism=AuthenticationMechanism.HLS_GMAC, keys=keys, system_title=b"ODCTEST1"
        )
        client = Client(settings, counter)
        attribute = AttributeDescriptor(7, LOAD_PROFILE, 2)
        encoded = run(client.associate())
        encoded = run(client.get_encoded(attribute, RangeDescriptor(now - timedelta(days=1), now)))
        assert len(decode_profile(encoded, columns, 900)) == 97
        run(client.release())

    def run(conversation: Conversation[T]) -> T:
        try:
            requests = next(conversation)
            while True:
                for request in requests:
                    meter.send(request)
                requests = conversation.send(meter.replies.pop(0))
        except StopIteration as stop:
            return stop.value

    from pydlms.apdu.xdlms import range_descriptor
    from pydlms.client import DlmsClient
    from pydlms.cosem.data import DlmsData
    from pydlms.link import ApduLink
    from pydlms.security.context import SecurityContext
    from pydlms.security.hls import Mechanism

    class Link(ApduLink):
        def connect(self) -> None: ...
        def disconnect(self) -> None: ...
        def send_apdu(self, apdu: bytes) -> None:
            meter.send(apdu)

        def receive_apdu(self, timeout: float | None = None) -> bytes:
            del timeout
            return meter.replies.pop(0)

    columns = [CLOCK_COLUMN, CaptureObject(1, Obis(0, 0, 96, 10, 1, 255), 2)]
    columns += [CaptureObject(3, Obis(1, 0, n, 8, 0, 255), 2) for n in range(1, 5)]
    next_counter = iter(range(1, 1 << 30, 100))

    def pydlms() -> None:
        context = SecurityContext(
            keys.encryption, keys.authentication, b"PYDLMS01", invocation_counter=next(next_counter)
        )
        client = DlmsClient._build(Link(), {"mechanism": Mechanism.HLS_GMAC, "security": context})  # noqa: SLF001
        with client:
            bounds = [
                DlmsData.octet_string(CosemDateTime.from_datetime(moment).to_bytes())
                for moment in (now - timedelta(days=1), now)
            ]
            access = range_descriptor(*bounds)
            assert len(client.get("1.0.99.1.0.255", 7, 2, access).value) == 97

    report("dialogues, client only", meter.client_seconds(ours), {"pydlms": meter.client_seconds(pydlms)})


if __name__ == "__main__":
    profiles()
    protection()
    frames()
    dialogue()

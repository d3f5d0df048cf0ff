"""DLMS: profile decoding, protection, frames and a dialogue, as ratios against peers in the same run."""

from __future__ import annotations

import struct
import sys
import timeit
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from concentrator.dlms import axdr, security
from concentrator.dlms.attributes import CLOCK_COLUMN, AttributeDescriptor, CaptureObject, RangeDescriptor
from concentrator.dlms.client import Client, ClientSettings
from concentrator.dlms.codes import AuthenticationMechanism
from concentrator.dlms.cosem_time import CosemDateTime
from concentrator.dlms.hdlc import FrameType, HdlcAddress, HdlcDecoder, HdlcFrame
from concentrator.dlms.profile import decode_profile, decode_raw_rows
from concentrator.obis import Obis
from concentrator.simulator.meter import LOAD_PROFILE, SimulatedMeter

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

    report(
        "profile rows with UTC",
        best(lambda: decode_profile(encoded, columns, 900), ROWS),
        {
            "dlms-cosem": best(lambda: parse_as_dlms_data(encoded), ROWS),
            "gurux": best(lambda: _GXCommon.getData(None, GXByteBuffer(encoded), _GXDataInfo()), ROWS),
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
    ours = best(lambda: security.unprotect(key, key, title, content))
    report("unprotect 1 KiB", ours, {"bare library": best(bare)})


def frames() -> None:
    """Decoding frames with 128 octets of information."""
    count = 200
    frame = HdlcFrame(HdlcAddress.client(16), HdlcAddress.server(1), FrameType.I, information=bytes(128))
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
    report(
        "HDLC frames", best(ours, count), {"dlms-cosem": best(lambda: InformationFrame.from_bytes(single))}
    )


def dialogue() -> None:
    """AARQ to RLRE with HLS GMAC against the simulated meter, a day of load profile read: both ends' CPU."""
    now = START + timedelta(days=30)
    meter = SimulatedMeter("10000001", 1, lambda: now)
    counter = security.MemoryCounter(1)

    def run() -> None:
        settings = ClientSettings(
            client_sap=1,
            mechanism=AuthenticationMechanism.HLS_GMAC,
            keys=meter.keys,
            system_title=b"ODCTEST1",
        )
        client = Client(settings, counter)
        wanted = RangeDescriptor(now - timedelta(days=1), now)
        attribute = AttributeDescriptor(7, LOAD_PROFILE, 2)
        for conversation in (client.associate(), client.get_encoded(attribute, wanted), client.release()):
            replies: list[bytes] = []
            try:
                request = next(conversation)
                while True:
                    if request:
                        meter.receive_apdu(1, 1, request, replies.append)
                    request = conversation.send(replies.pop(0))
            except StopIteration:
                continue

    report("dialogues", best(run), {})


if __name__ == "__main__":
    profiles()
    protection()
    frames()
    dialogue()

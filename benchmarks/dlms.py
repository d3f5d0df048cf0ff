"""DLMS: profile decoding, protection and frames, as ratios against peers in the same run.

The aims: profile rows 25 times the fastest peer, raw rows within 3 times of a bare `struct` pass, unprotecting
within 1.25 times of the bare library call, frames 20 times the fastest peer.
"""

from __future__ import annotations

import contextlib
import io
import struct
import sys
import timeit
import tracemalloc
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from concentrator.dlms import axdr, profile_shape, security
from concentrator.dlms.attributes import CLOCK_COLUMN, CaptureObject
from concentrator.dlms.cosem_time import CosemDateTime
from concentrator.dlms.hdlc import FrameType, HdlcAddress, HdlcDecoder, HdlcFrame
from concentrator.dlms.profile import ProfileDecoder, decode_profile, decode_raw_rows
from concentrator.dlms.reader import encode_length
from concentrator.obis import Obis

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
        },
    )

    def first_meter() -> None:
        profile_shape.times_of_day.cache_clear()
        decode_profile(encoded, columns, 900)

    sys.stdout.write(f"  of the first meter that stamps these days: {ROWS / best(first_meter):,.0f}/s\n")
    # As meters compress: a row in full each day or hour, then rows without a clock, or also without status and a
    # register that stands still.
    for times, left_out in (
        (96, "clock"),
        (96, "clock, status, a register"),
        (4, "clock, status, a register"),
    ):
        compressed = b"\x01\x82" + ROWS.to_bytes(2, "big")
        for step, row in enumerate(rows):
            if step % times == 0:
                compressed += row
            elif left_out == "clock":
                compressed += b"\x02\x06\x00" + row[16:]
            else:
                compressed += b"\x02\x06\x00\x00" + row[18:28] + b"\x00" + row[33:]
        report(
            f"profile rows with UTC and restored nulls ({left_out} left out but for each {times}th row)",
            best(lambda octets=compressed: decode_profile(octets, columns, 900), ROWS),
            {
                "dlms-cosem": best(lambda octets=compressed: parse_as_dlms_data(octets), ROWS),
                "gurux": best(
                    lambda octets=compressed: _GXCommon.getData(None, GXByteBuffer(octets), _GXDataInfo()),
                    ROWS,
                ),
                "pydlms": best(lambda octets=compressed: decode_data(octets), ROWS),
            },
        )
    report(
        "profile rows raw",
        best(lambda: decode_raw_rows(encoded, columns), ROWS),
        {"bare struct": best(lambda: list(bare.iter_unpack(body)), ROWS)},
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
    from dlms_cosem.security import SecurityControlField
    from dlms_cosem.security import decrypt as dlms_cosem_decrypt
    from gurux_dlms import GXByteBuffer
    from gurux_dlms.AesGcmParameter import AesGcmParameter
    from gurux_dlms.GXDLMSChippering import GXDLMSChippering
    from pydlms.security.ciphering import SecurityControl
    from pydlms.security.gcm import decrypt

    field = SecurityControlField(0, authenticated=True, encrypted=True)
    apdu = b"\xcc" + encode_length(len(content)) + content

    def gurux() -> None:
        parameter = AesGcmParameter(0, bytearray(title), bytearray(key), bytearray(key))
        with contextlib.redirect_stdout(io.StringIO()):
            GXDLMSChippering.decryptAesGcm(None, parameter, GXByteBuffer(apdu))

    control = SecurityControl.from_byte(0x30)
    report(
        "unprotect 1 KiB",
        best(lambda: security.unprotect(key, key, title, content)),
        {
            "pydlms": best(lambda: decrypt(control, key, key, title, 1, content[5:])),
            "dlms-cosem": best(lambda: dlms_cosem_decrypt(field, title, 1, key, content[5:], key)),
            "gurux": best(gurux),
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


def memory() -> None:
    """Memory that a decoder holds while buffers of growing length stream through it."""
    columns = [CLOCK_COLUMN, CaptureObject(3, Obis(1, 0, 1, 8, 0, 255), 2)]
    clock = CosemDateTime.from_datetime(START, -60).to_bytes()
    row = b"\x02\x02\x09\x0c" + clock + b"\x06\0\0\0\1"
    held: list[str] = []
    for count in (10_000, 100_000):
        decoder = ProfileDecoder(columns, 900)
        decoder.receive_data(b"\x01\x83" + count.to_bytes(3, "big"))
        tracemalloc.start()
        for _ in range(count // 50):
            decoder.receive_data(row * 50)
            for _ in decoder.rows():
                pass
        held.append(f"{count} rows {tracemalloc.get_traced_memory()[1] / 1024:.0f} KiB")
        tracemalloc.stop()
    sys.stdout.write(f"profile streamed, most memory held: {', '.join(held)}\n")


if __name__ == "__main__":
    profiles()
    protection()
    frames()
    memory()

"""Decoding M-Bus telegrams, beside pyMeterBus and beside a bare AES-CBC and CRC pass over the same octets.

Wireless telegrams (mode 5, format A) are decoded with keys of 1 and of 270 meters set up, in a telegram-by-telegram
change of meter; wired ones by both decoders, down to every value: in process, and as whole processes that read a
file of hexadecimal lines and print JSON. Prints telegrams a second and ratios. The aim is 20 times pyMeterBus in
process; fails below 15 (a busy machine), and when 270 meters set up cost more than noise against one.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from concentrator.wmbus.address import Address
from concentrator.wmbus.crc import crc_en13757
from concentrator.wmbus.frame import FrameFormat, LinkFrame, encode_frame
from concentrator.wmbus.security import KeyRing
from concentrator.wmbus.telegram import decode_telegram

KEY = bytes(range(16))
RECORDS = bytes.fromhex(
    "0C1378563412046D0D0B2F2B4C1300210000426C1F2C8C0413785634128204 6C1F2C025A D700 3B3B 3200 0002FD170000"
)
LEAST_RATIO_TO_PEER = 15.0
LARGEST_SLOWDOWN = 1.25
ROUNDS = 5


def wireless(number: int) -> bytes:
    address = Address("ELS", f"{number:08}", 0x33, 0x07)
    plain = b"\x2f\x2f" + RECORDS
    plain += b"\x2f" * (-len(plain) % 16)
    vector = address.to_link_layer() + bytes((number & 0xFF,)) * 8
    encryptor = Cipher(algorithms.AES(KEY), modes.CBC(vector)).encryptor()
    header = bytes((0x7A, number & 0xFF, 0)) + (0x0500 | len(plain) // 16 << 4).to_bytes(2, "little")
    payload = header + encryptor.update(plain) + encryptor.finalize()
    return encode_frame(LinkFrame(0x44, address, payload, FrameFormat.A))


def wired(number: int) -> bytes:
    address = Address("ELS", f"{number:08}", 0x33, 0x07)
    payload = b"\x72" + address.to_transport_layer() + bytes((number & 0xFF, 0, 0, 0)) + RECORDS
    return encode_frame(LinkFrame(0x08, None, payload, FrameFormat.WIRED, primary_address=1))


def rate(work: list[bytes], decode: Callable[[bytes], object]) -> float:
    """Telegrams a second, the best of some rounds."""
    best = 0.0
    for _ in range(ROUNDS):
        began = time.perf_counter()
        for octets in work:
            decode(octets)
        best = max(best, len(work) / (time.perf_counter() - began))
    return best


def bare(octets: bytes) -> None:
    """What cannot be left out: every CRC, and AES-CBC over the encrypted blocks."""
    for start in (0, *range(12, len(octets), 18)):
        crc_en13757(octets[start : start + (10 if start == 0 else 16)])
    decryptor = Cipher(algorithms.AES(KEY), modes.CBC(KEY)).decryptor()
    decryptor.update(octets[-64:]) + decryptor.finalize()


def peer() -> Callable[[bytes], object] | None:
    try:
        import meterbus
    except ImportError:
        return None

    def decode(octets: bytes) -> object:
        telegram = meterbus.load(octets)
        return [(record.value, record.unit, record.function) for record in telegram.body.bodyPayload.records]

    return decode


# The peer's whole process: every line of a file to JSON, as `concentrator decode --json` does.
PEER_PROCESS = """
import json, sys, meterbus
for line in open(sys.argv[1]):
    telegram = meterbus.load(bytes.fromhex(line))
    print(json.dumps([[str(r.value), r.unit, str(r.function)] for r in telegram.body.bodyPayload.records]))
"""


def process_rate(command: list[str], telegrams: int) -> float:
    """Telegrams a second of a whole process, its start included."""
    began = time.perf_counter()
    subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
    return telegrams / (time.perf_counter() - began)


def whole_processes(telegrams: int, *, with_peer: bool) -> dict[str, float]:
    with tempfile.NamedTemporaryFile("w", suffix=".hex") as file:
        file.write("\n".join(wired(number % 270).hex() for number in range(telegrams)))
        file.flush()
        command = [sys.executable, "-m", "concentrator", "decode", "--json", file.name]
        rates = {"process_telegrams_per_s": round(process_rate(command, telegrams))}
        if with_peer:
            peer_rate = process_rate([sys.executable, "-c", PEER_PROCESS, file.name], telegrams)
            rates["process_ratio_to_pymeterbus"] = round(rates["process_telegrams_per_s"] / peer_rate, 1)
    return rates


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--telegrams", type=int, default=1000)
    parser.add_argument("--json", action="store_true")
    options, _ = parser.parse_known_args()
    keys_270 = KeyRing({f"{number:08}": KEY for number in range(270)})
    keys_1 = KeyRing({f"{0:08}": KEY})
    many = [wireless(number % 270) for number in range(options.telegrams)]
    one = [wireless(0)] * options.telegrams
    if len(decode_telegram(many[1], keys=keys_270).records) < len(decode_telegram(wired(1)).records):
        print("the telegrams do not decode alike", file=sys.stderr)
        return 1
    with_1 = rate(one, lambda octets: decode_telegram(octets, keys=keys_1))
    with_270 = rate(many, lambda octets: decode_telegram(octets, keys=keys_270))
    result: dict[str, float] = {
        "telegrams_per_s_1_meter": round(with_1),
        "telegrams_per_s_270_meters": round(with_270),
        "ratio_to_bare_aes_and_crc": round(with_1 / rate(one, bare), 3),
    }
    good = with_270 * LARGEST_SLOWDOWN >= with_1
    decode_as_peer = peer()
    if decode_as_peer is not None:
        work = [wired(number) for number in range(200)]
        ratio = rate(work, decode_telegram) / rate(work, decode_as_peer)
        result["ratio_to_pymeterbus"] = round(ratio, 1)
        good = good and ratio >= LEAST_RATIO_TO_PEER
    result |= whole_processes(20 * options.telegrams, with_peer=decode_as_peer is not None)
    if options.json:
        print(json.dumps(result))
    else:
        print("wmbus: " + ", ".join(f"{name} {value}" for name, value in result.items()))
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())

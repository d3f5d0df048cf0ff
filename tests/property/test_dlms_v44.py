"""V.44: what is compressed comes back, also in a foreign decoder; what comes in decodes in bounded memory."""

import contextlib
import random
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from concentrator.dlms import v44
from concentrator.dlms.errors import DecodeError

words = st.sampled_from(
    [b"\x06\0\0\x01", b"\x02\x04", b"\x09\x0c\x07\xea\x07\x03", b"\0", b"\xff", b"ab", b"abc"]
)
repetitive = st.lists(words, max_size=300).map(b"".join)
octets = st.one_of(st.binary(max_size=400), repetitive, st.binary(max_size=3).map(lambda part: part * 300))


@settings(max_examples=300, deadline=None)
@given(octets)
def test_round_trip_and_foreign_decoder(plain):
    from pydlms.security.v44 import V44Decoder

    packet = v44.compress(plain)
    assert len(packet) <= len(plain) + 1
    assert v44.decompress(packet) == plain
    assert V44Decoder().decompress(packet, max_output=1 << 20) == plain


@pytest.mark.parametrize("size", [2000, 60_000])
@pytest.mark.parametrize("kind", ["zeros", "text", "noise", "profile"])
def test_long_input_with_a_full_dictionary(kind, size):
    from pydlms.security.v44 import V44Decoder

    chance = random.Random(7)
    row = b"\x02\x03\x09\x0c\x07\xea\x07\x03\x05%c%c\x00\x00\x80\x00\x00\x11\x00\x06\x00%c%c%c"
    made = {
        "zeros": lambda: bytes(size),
        "text": lambda: b" ".join(chance.choice([b"meter", b"energy", b"V.44", b"of"]) for _ in range(size)),
        "noise": lambda: chance.randbytes(size),
        "profile": lambda: b"".join(
            row % (n // 4 % 24, n % 4 * 15, n >> 6 & 255, chance.randrange(4), chance.randrange(256))
            for n in range(size // 20)
        ),
    }[kind]()[:size]
    began = time.process_time()
    packet = v44.compress(made)
    assert v44.decompress(packet) == made
    assert time.process_time() - began < 10
    assert V44Decoder().decompress(packet, max_output=1 << 20) == made
    worst = {"zeros": 0.02, "text": 0.4, "noise": 1.01, "profile": 0.4}[kind]
    assert len(packet) < worst * len(made)


@settings(max_examples=400, deadline=None)
@given(st.binary(max_size=200) | octets.map(v44.compress), st.integers(0, 10_000), st.integers(0, 255))
def test_any_packet_decodes_or_is_refused(packet, position, octet):
    if packet:
        changed = bytearray(packet)
        changed[position % len(changed)] = octet
        packet = bytes(changed)
    for limit in (0, 50, 100_000):
        with contextlib.suppress(DecodeError):
            assert len(v44.decompress(packet, limit)) <= limit


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=120))
def test_a_foreign_decoder_reads_any_packet_as_we_do(packet):
    from pydlms.exceptions import DecodeError as TheirError
    from pydlms.security.v44 import V44Decoder

    try:
        theirs = V44Decoder().decompress(packet, max_output=5000)
    except TheirError:
        return
    assert v44.decompress(packet, 5000) == theirs


def test_what_a_packet_looks_like():
    # Ordinals of seven bits behind a 0 each, FLUSH in six bits behind a 1.
    assert v44.compress(b"") == b"\x01"
    assert v44.decompress(b"\x03") == b""
    assert v44.decompress(bytes((ord("a") << 1, 0x03))) == b"a"
    # aaaa: an ordinal, the codeword that is only just made of it and itself, and two more by extension.
    bits = "0" + "1000011" + "1" + "001000" + "01" + "010" + "1" + "100000"
    packet = bytes(int(bits[n : n + 8].ljust(8, "0")[::-1], 2) for n in range(0, len(bits), 8))
    assert v44.decompress(packet) == b"aaaaa"


def test_a_bomb_is_stopped_at_the_limit():
    packet = v44.compress(bytes(900_000))
    assert len(packet) < 12_000
    with pytest.raises(DecodeError, match="more than 65535"):
        v44.decompress(packet, 0xFFFF)
    with pytest.raises(DecodeError, match="more than 10"):
        v44.decompress(b"\x01" + bytes(11), 10)
    with pytest.raises(DecodeError, match="FLUSH"):
        v44.decompress(packet[:-1])
    with pytest.raises(DecodeError, match="follow"):
        v44.decompress(packet + b"\0")

"""USI framing under any chunking, loss and noise."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from plc.usi.crc import crc_16
from plc.usi.framing import EXTENDED_LENGTH_2021, EXTENDED_LENGTH_HARMONY, FrameDecoder, encode_frame

PROFILES = st.sampled_from([EXTENDED_LENGTH_HARMONY, EXTENDED_LENGTH_2021])


@st.composite
def frames(draw):
    protocol = draw(st.sampled_from([0x00, 0x02, 0x07, 0x13, 0x24, 0x25, 0x26, 0x30, 0x31, 0x3F]))
    # Flags and escapes far more often than chance has them.
    octet = st.sampled_from([0x7E, 0x7D, 0x5E, 0x5D, 0x00, 0x20, 0xFF]) | st.integers(0, 255)
    payload = bytes(draw(st.lists(octet, min_size=1, max_size=60)))
    return protocol, bytes([payload[0] & 0x7F]) + payload[1:]


def decode(chunks, profile=EXTENDED_LENGTH_HARMONY):
    decoder = FrameDecoder(profile)
    found = []
    for chunk in chunks:
        decoder.receive_data(chunk)
        while (frame := decoder.next_frame()) is not None:
            found.append(frame)
    return found, decoder.counters


def split(data, cuts):
    edges = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    return [data[start:end] for start, end in itertools.pairwise(edges)]


@given(st.lists(frames(), max_size=5), PROFILES)
def test_what_is_encoded_is_decoded(sent, profile):
    wire = b"".join(encode_frame(protocol, payload, profile) for protocol, payload in sent)
    found, counters = decode([wire], profile)
    assert found == sent
    assert sum(counters.values()) == len(sent)


@given(st.lists(frames() | st.binary(max_size=20), max_size=6), st.lists(st.integers(0, 10_000), max_size=12))
def test_any_chunking_gives_the_same_frames_and_counters(parts, cuts):
    wire = b"".join(part if isinstance(part, bytes) else encode_frame(*part) for part in parts)
    whole = decode([wire])
    assert decode(split(wire, cuts)) == whole
    assert decode([bytes([octet]) for octet in wire]) == whole


@given(frames(), st.binary(max_size=80), frames())
def test_a_frame_after_noise_is_found(first, noise, second):
    # One flag ends whatever the noise began; the frame has its own.
    found, _ = decode([encode_frame(*first) + noise + b"\x7e" + encode_frame(*second)])
    assert found[0] == first
    assert found[-1] == second


@given(st.binary(max_size=300), PROFILES)
def test_octets_of_any_kind_do_no_harm(data, profile):
    found, counters = decode([data], profile)
    assert counters["frames"] == len(found)


@given(frames(), st.data())
def test_one_spoilt_octet_is_never_taken_for_the_frame(frame, data):
    wire = bytearray(encode_frame(*frame))
    position = data.draw(st.integers(0, len(wire) - 1))
    wire[position] ^= data.draw(st.integers(1, 255))
    found, _ = decode([bytes(wire)])
    assert frame not in found or position in (0, len(wire) - 1)


@given(st.binary(max_size=200))
def test_crc_16_is_the_bitwise_remainder(data):
    remainder = 0
    for octet in data:
        for bit in range(7, -1, -1):
            remainder = remainder << 1 | (octet >> bit) & 1
            if remainder & 0x10000:
                remainder ^= 0x11021
    # Non-augmented: the message itself modulo the polynomial.
    assert crc_16(data) == remainder

"""Telegrams among the bits of the air: coded here, apart from the decoder."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from concentrator.wmbus.address import Address
from concentrator.wmbus.frame import FrameFormat, LinkFrame, encode_frame
from concentrator.wmbus.raw_bits import THREE_OUT_OF_SIX, RawMode, find_telegrams, to_bits

METER = Address("ELS", "12345678", 0x33, 0x03)


def three_out_of_six(octets):
    return "".join(THREE_OUT_OF_SIX[octet >> 4] + THREE_OUT_OF_SIX[octet & 15] for octet in octets)


def manchester(octets, chips):
    return "".join(chips[int(bit)] for octet in octets for bit in f"{octet:08b}")


CODINGS = {
    "T": (RawMode.T, FrameFormat.A, "01" * 12 + "0000111101", three_out_of_six),
    "C-A": (RawMode.C, FrameFormat.A, "01" * 16 + f"{0x543D54CD:032b}", to_bits),
    "C-B": (RawMode.C, FrameFormat.B, "01" * 16 + f"{0x543D543D:032b}", to_bits),
    "S": (RawMode.S, FrameFormat.A, "01" * 15 + "000111011010010110", lambda o: manchester(o, ("10", "01"))),
    "S inverted": (RawMode.S, FrameFormat.A, f"{0x547696:024b}", lambda o: manchester(o, ("01", "10"))),
    "R": (RawMode.R, FrameFormat.A, f"{0x547696:024b}", lambda o: manchester(o, ("10", "01"))),
    "N-A": (RawMode.N, FrameFormat.A, "01" * 8 + f"{0xF68D:016b}", to_bits),
    "N-B": (RawMode.N, FrameFormat.B, "01" * 8 + f"{0xF672:016b}", to_bits),
}


def telegram(frame_format, payload=bytes(range(60))):
    return encode_frame(LinkFrame(0x44, METER, b"\x78" + payload, frame_format))


def noise(seed, bits=97):
    source = random.Random(seed)
    return "".join(source.choice("01") for _ in range(bits))


@pytest.mark.parametrize("name", CODINGS)
def test_a_telegram_is_found_among_noise(name):
    mode, frame_format, preamble, code = CODINGS[name]
    octets = telegram(frame_format)
    bits = noise(1) + preamble + code(octets)
    modes = (mode,) if mode is RawMode.R else tuple(RawMode)
    (found,) = find_telegrams(bits + noise(2), modes)
    assert (found.mode, found.frame_format, found.octets) == (mode, frame_format, octets)
    assert found.end == len(bits)


def test_telegrams_of_all_modes_come_in_their_order():
    names = [name for name in CODINGS if name != "R"]
    bits = "".join(
        noise(seed) + preamble + code(telegram(frame_format, bytes((seed,))))
        for seed, (_, frame_format, preamble, code) in enumerate(CODINGS[name] for name in names)
    )
    assert [found.mode for found in find_telegrams(bits)] == [CODINGS[name][0] for name in names]


@pytest.mark.parametrize("name", CODINGS)
def test_a_wrong_bit_costs_only_its_own_telegram(name):
    mode, frame_format, preamble, code = CODINGS[name]
    good = preamble + code(telegram(frame_format))
    for position in range(len(preamble) + 20, len(good), 37):
        flipped = "10"[int(good[position])]
        damaged = good[:position] + flipped + good[position + 1 :]
        found = list(find_telegrams(damaged + noise(3, 8) + good, (mode,)))
        assert [one.octets for one in found] == [telegram(frame_format)]


def test_a_cut_off_telegram_is_not_given():
    _, frame_format, preamble, code = CODINGS["T"]
    bits = preamble + code(telegram(frame_format))
    assert list(find_telegrams(bits[:-1])) == []


def test_every_code_of_three_out_of_six_has_three_ones_and_is_used_once():
    assert len(set(THREE_OUT_OF_SIX)) == 16
    assert {code.count("1") for code in THREE_OUT_OF_SIX} == {3}


@given(st.text("01", max_size=2000))
def test_any_bits_give_telegrams_or_nothing(bits):
    for found in find_telegrams("0101010000111101" + bits):
        assert found.octets

"""LLC of IEC 61334-4-32, and the opening of optical ports in mode E."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from concentrator.dlms.errors import DecodeError, EncodeError, LinkLostError
from concentrator.dlms.llc import LlcFrame
from concentrator.dlms.optical import SIGN_ON, HandedOver, LineSettings, ModeEOpening

octet = st.integers(0, 255)


def test_llc_carries_an_apdu_between_lsaps():
    frame = LlcFrame(1, 16, b"\xc0\x01")
    assert frame.to_bytes().hex() == "900110c001"
    assert frame.reply(b"\xc4").to_bytes().hex() == "901001c4"
    with pytest.raises(EncodeError):
        LlcFrame(256, 1, b"").to_bytes()


@given(octet, octet, st.binary())
def test_llc_round_trip(destination, source, apdu):
    frame = LlcFrame(destination, source, apdu)
    assert LlcFrame.from_bytes(frame.to_bytes()) == frame


@given(st.binary(max_size=20))
def test_llc_takes_data_frames_only(octets):
    try:
        frame = LlcFrame.from_bytes(octets)
    except DecodeError:
        assert len(octets) < 3 or octets[0] != 0x90
    else:
        assert frame.to_bytes() == octets


def events(opening):
    found = []
    while event := opening.next_event():
        found.append(event)
    return found


def with_parity(text):
    """Characters as a port set to 8 bits would see them: even parity in the top bit."""
    return bytes(c | (c.bit_count() & 1) << 7 for c in text)


@pytest.mark.parametrize("echo", [False, True])
@pytest.mark.parametrize("size", [1, 3, 100])
@pytest.mark.parametrize("coded", [bytes, with_parity])
def test_mode_e_hands_over_to_hdlc(echo, size, coded):
    opening = ModeEOpening()
    opening.start()
    assert events(opening) == [SIGN_ON]

    def exchange(expected, answer):
        sent = opening.data_to_send()
        assert sent == expected
        line = coded((sent if echo else b"") + answer)
        for start in range(0, len(line), size):
            opening.receive_data(line[start : start + size])

    exchange(b"/?!\r\n", b"/ODC5\\2Meter 1.0\r\n")
    assert events(opening) == []
    exchange(b"\x06252\r\n", b"\x06252\r\n")
    assert events(opening) == [LineSettings(9600, 8, "N"), HandedOver("ODC", "Meter 1.0")]
    opening.receive_data(b"\x7e\xa0")
    assert opening.data_to_send() == b""


def test_mode_e_with_an_address_and_a_slow_line():
    opening = ModeEOpening("12345678", fastest=2400)
    opening.start()
    assert opening.data_to_send() == b"/?12345678!\r\n"
    opening.receive_data(b"\x00\xff/ODC6\\@\\2Meter\r\n")
    assert opening.data_to_send() == b"\x06232\r\n"
    events(opening)
    # A meter that switches without confirming.
    opening.handle_timeout()
    assert events(opening) == [LineSettings(2400, 8, "N"), HandedOver("ODC", "Meter")]


def test_a_silent_meter_is_asked_three_times():
    opening = ModeEOpening()
    opening.start()
    for _ in range(2):
        assert opening.data_to_send() == b"/?!\r\n"
        opening.handle_timeout()
    assert opening.data_to_send() == b"/?!\r\n"
    with pytest.raises(LinkLostError, match="3 sign-ons"):
        opening.handle_timeout()


@pytest.mark.parametrize("identification", [b"/ODC5Meter\r\n", b"/ODC9\\2Meter\r\n", b"/ODC5\\@Meter\r\n"])
def test_a_meter_without_hdlc_is_told(identification):
    opening = ModeEOpening()
    opening.start()
    with pytest.raises(LinkLostError, match="no HDLC"):
        opening.receive_data(identification)


@pytest.mark.parametrize("address", ["a b", "x" * 33, "ü", "!"])
def test_addresses_that_cannot_be_are_refused(address):
    with pytest.raises(EncodeError):
        ModeEOpening(address)


@given(st.lists(st.binary(max_size=40), max_size=20))
def test_noise_does_no_harm(pieces):
    opening = ModeEOpening()
    opening.start()
    try:
        for piece in pieces:
            opening.receive_data(piece + b"\r\n")
    except LinkLostError:
        return
    assert SIGN_ON in events(opening)

"""P1 telegrams: streams of them, encrypted ones, and what their objects mean in each country."""

import os
import threading
import tty
from datetime import UTC, datetime
from decimal import Decimal

import pytest
from chunking import read_chunks
from click.testing import CliRunner
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given
from hypothesis import strategies as st

from concentrator.cli import main
from concentrator.iec62056_21.errors import TelegramError
from concentrator.iec62056_21.p1 import P1Reader, crc16, decode_p1
from concentrator.iec62056_21.p1_cipher import open_envelope
from concentrator.iec62056_21.p1_values import interpret_p1


def telegram(*lines, crc=True):
    body = "\r\n".join(["/ABC5\\253833635_A", "", *lines, "!"]).encode()
    return body + (f"{crc16(body):04X}".encode() if crc else b"") + b"\r\n"


DSMR_5 = telegram(
    "1-3:0.2.8(50)",
    "0-0:1.0.0(101209113020W)",
    "0-0:96.1.1(4B384547303034303436333935353037)",
    "1-0:1.8.1(123456.789*kWh)",
    "1-0:1.7.0(01.193*kW)",
    "0-0:96.14.0(0002)",
    "1-0:99.97.0(2)(0-0:96.7.19)(101208152415W)(0000000240*s)(101208151004S)(0000000301*s)",
    "0-0:96.13.0(303132333435363738)",
    "0-1:24.1.0(003)",
    "0-1:96.1.0(3232323241424344313233343536373839)",
    "0-1:24.2.1(101209112500W)(12785.123*m3)",
    "0-2:24.1.0(007)",
    "0-2:24.2.1(700101010000W)(00000000)",
)
DSMR_2 = telegram(
    "0-0:96.1.1(4B384547303034303436333935353037)",
    "1-0:1.8.1(12345.678*kWh)",
    "0-1:24.1.0(3)",
    "0-1:96.1.0(3232323241424344313233343536373839)",
    "0-1:24.3.0(090212160000)(00)(60)(1)(0-1:24.2.1)(m3)",
    "(00012.345)",
    "0-1:24.4.0(1)",
    crc=False,
)
BELGIUM = telegram(
    "0-0:96.1.4(50213)",
    "0-0:96.1.1(3153414733313031303231363035)",
    "0-0:1.0.0(200512135409S)",
    "1-0:1.8.1(000000.034*kWh)",
    "1-0:1.6.0(200509134558S)(02.589*kW)",
    "0-0:98.1.0(3)(1-0:1.6.0)(1-0:1.6.0)(200501000000S)(200423192538S)(03.695*kW)(200401000000S)(200305122139S)"
    "(05.980*kW)(200301000000S)(200210035421W)(04.318*kW)",
    "1-0:32.7.0(234.7*V)",
    "0-0:96.3.10(1)",
    "0-1:24.1.0(003)",
    "0-1:96.1.1(37464C4F32313139303333373333)",
    "0-1:24.4.0(1)",
    "0-1:24.2.3(200512134558S)(00112.384*m3)",
)
SWEDEN = telegram("0-0:1.0.0(210217184019W)", "1-0:1.8.0(00006678.394*kWh)", "1-0:31.7.0(003.9*A)")


def reading(octets):
    decoded = decode_p1(octets)
    assert decoded.crc_ok is not False
    return interpret_p1(decoded)


def test_dsmr_5_with_gas_meter_and_power_failures():
    found = reading(DSMR_5)
    assert (found.version, found.equipment_identifier) == ("50", "K8EG004046395507")
    assert found.captured_at == datetime(2010, 12, 9, 10, 30, 20, tzinfo=UTC)
    registers = {one.obis: (one.value, one.unit) for one in found.registers}
    assert registers["1-0:1.8.1"] == (Decimal("123456.789"), "kWh")
    assert registers["0-0:96.14.0"] == (Decimal(2), "")
    gas, water = found.channel_meters
    assert (gas.device_type, gas.equipment_identifier) == (3, "2222ABCD123456789")
    assert (gas.value, gas.unit) == (Decimal("12785.123"), "m3")
    assert gas.captured_at == datetime(2010, 12, 9, 10, 25, tzinfo=UTC)
    assert (water.channel, water.value) == (2, Decimal(0))
    assert [one.duration_s for one in found.power_failures] == [240, 301]
    assert found.power_failures[1].ended_at == datetime(2010, 12, 8, 13, 10, 4, tzinfo=UTC)


def test_the_two_lines_of_an_old_gas_reading():
    (gas,) = reading(DSMR_2).channel_meters
    assert (gas.value, gas.unit, gas.valve_open) == (Decimal("12.345"), "m3", True)
    assert gas.captured_at == datetime(2009, 2, 12, 15, tzinfo=UTC)


def test_belgium_and_sweden():
    belgium = reading(BELGIUM)
    (gas,) = belgium.channel_meters
    assert (belgium.version, gas.equipment_identifier, gas.value) == (
        "50213",
        "7FLO2119033733",
        Decimal("112.384"),
    )
    assert belgium.captured_at == datetime(2020, 5, 12, 11, 54, 9, tzinfo=UTC)
    sweden = reading(SWEDEN)
    assert [(one.obis, one.unit) for one in sweden.registers] == [("1-0:1.8.0", "kWh"), ("1-0:31.7.0", "A")]


def test_the_peaks_of_belgian_months_keep_their_times():
    found = reading(BELGIUM)
    registers = {one.obis: one for one in found.registers}
    assert set(registers) == {"1-0:1.8.1", "1-0:1.6.0", "1-0:32.7.0", "0-0:96.3.10"}
    peak = registers["1-0:1.6.0"]
    assert (peak.value, peak.unit) == (Decimal("2.589"), "kW")
    assert peak.captured_at == datetime(2020, 5, 9, 11, 45, 58, tzinfo=UTC)
    assert [(one.value, one.unit) for one in found.monthly_peaks] == [
        (Decimal("3.695"), "kW"),
        (Decimal("5.980"), "kW"),
        (Decimal("4.318"), "kW"),
    ]
    assert {one.obis for one in found.monthly_peaks} == {"1-0:1.6.0"}
    newest, _, oldest = found.monthly_peaks
    assert newest.month_ended_at == datetime(2020, 4, 30, 22, tzinfo=UTC)
    assert newest.reached_at == datetime(2020, 4, 23, 17, 25, 38, tzinfo=UTC)
    assert oldest.reached_at == datetime(2020, 2, 10, 2, 54, 21, tzinfo=UTC)


@pytest.mark.parametrize("history", ["(0)", "(0)()", "(1)(1-0:1.6.0)(1-0:1.6.0)()()()", "(1)(1-0:1.6.0)"])
def test_a_peak_history_without_months_is_empty(history):
    found = reading(telegram("0-0:98.1.0" + history))
    assert (found.monthly_peaks, found.registers, found.texts) == ((), (), ())


KEY = bytes(range(16))


def envelope(plain, key=KEY):
    title, counter = b"SAGgp\0\0\x01", (77).to_bytes(4, "big")
    authentication_key = bytes.fromhex("00112233445566778899AABBCCDDEEFF")
    sealed = AESGCM(key).encrypt(title + counter, plain, b"\x30" + authentication_key)
    content = b"\x30" + counter + sealed[:-16] + sealed[-16:-4]
    return b"\xdb\x08" + title + b"\x82" + len(content).to_bytes(2, "big") + content


def test_an_encrypted_port_opens_with_its_key_only():
    octets = envelope(DSMR_5)
    assert open_envelope(octets, KEY) == DSMR_5
    for wrong in (bytes(16), b"short"):
        with pytest.raises(TelegramError):
            open_envelope(octets, wrong)
    with pytest.raises(TelegramError, match="cut off"):
        open_envelope(octets[:-1], KEY)
    damaged = bytearray(octets)
    damaged[40] ^= 1
    with pytest.raises(TelegramError, match="tag"):
        open_envelope(bytes(damaged), KEY)


@given(
    st.lists(st.sampled_from([DSMR_5, DSMR_2, SWEDEN, envelope(BELGIUM)]), max_size=4),
    st.lists(st.integers(1, 200), min_size=1, max_size=20),
    st.binary(max_size=5).filter(lambda noise: b"/" not in noise and b"\xdb" not in noise),
)
def test_telegrams_survive_any_chunking(telegrams, sizes, noise):
    stream = noise.join([b"", *telegrams])
    reader = P1Reader()
    got = read_chunks(stream, sizes, reader.receive_data, reader.next_telegram)
    assert got == telegrams


@given(st.binary(max_size=300), st.text(alphabet="()*:-.0123456789mkWh/!\r\n", max_size=200))
def test_anything_is_a_telegram_or_the_one_error(noise, text):
    reader = P1Reader()
    reader.receive_data(noise + b"/" + text.encode() + b"\r\n!\r\n")
    while (octets := reader.next_telegram()) is not None:
        try:
            interpret_p1(decode_p1(octets if octets[:1] == b"/" else open_envelope(octets, KEY)))
        except TelegramError:
            continue


def test_an_endless_stream_without_telegrams_does_not_grow():
    reader = P1Reader()
    for _ in range(200):
        reader.receive_data(b"/ABC5" + bytes(500))
        assert reader.next_telegram() is None
    assert reader.octets_skipped > 50_000


def test_the_command_reads_a_port():
    master, slave = os.openpty()
    tty.setraw(slave)
    stop = threading.Event()

    def push():
        while not stop.wait(0.05):
            os.write(master, envelope(DSMR_5))

    thread = threading.Thread(target=push)
    thread.start()
    try:
        arguments = ["read", "--p1", os.ttyname(slave), "--key", KEY.hex(), "--json"]
        answer = CliRunner().invoke(main, arguments)
    finally:
        stop.set()
        thread.join()
        os.close(master)
        os.close(slave)
    assert answer.exit_code == 0, answer.output
    assert '"equipment_identifier": "K8EG004046395507"' in answer.stdout

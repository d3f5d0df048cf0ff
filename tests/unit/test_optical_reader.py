"""Read-out through an optical head, against a simulated meter that speaks the bytes, also on a pseudo-terminal."""

import contextlib
import json
import os
import threading
import tty
from functools import reduce
from operator import xor

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from concentrator.cli import main
from concentrator.iec62056_21.errors import DialogueUsageError
from concentrator.iec62056_21.reader import (
    BaudRateChanged,
    DataReceived,
    Identified,
    OpticalReader,
    ReadingFailed,
    ReadingFinished,
    RegisterWritten,
)

REGISTERS = {"0.0.0": "12345678", "1.8.0": "000123.4*kWh", "2.8.0": "000000.0*kWh"}


def even(text):
    return bytes(one | (one.bit_count() % 2) << 7 for one in text)


def block(start, body, end=b"\x03"):
    return start + body + end + bytes((reduce(xor, body + end),))


class SimulatedMeter:
    """A meter of mode A, B or C, and of programming mode; answers whole messages, with parity.

    It says its last message again when asked to; `disturb` has what the line makes of its next messages.
    """

    def __init__(self, character="5", password="", echo=False):  # noqa: S107
        self.identification = f"/ELS{character}\\@V1.0\r\n".replace("\\@", "")
        self.password = password
        self.operand = b"\x02(00000000)"
        self.echo = echo
        self.heard, self.last, self.repeated = b"", b"", 0
        self.disturb, self.following = [], []
        self.writable, self.written, self.broken_off = {"0.9.1", "0.9.2"}, {}, threading.Event()
        data = "".join(f"{address}({value})\r\n" for address, value in REGISTERS.items())
        self.message = block(b"\x02", data.encode() + b"!\r\n")

    def answer(self, octets):
        assert octets == even(bytes(one & 0x7F for one in octets))
        self.heard += bytes(one & 0x7F for one in octets)
        request = self.heard.lstrip(b"\0")
        if request in (b"\x15", b"\x06"):
            self.heard = b""
            if request == b"\x15":
                self.repeated += 1
            else:
                self.last = self.following.pop(0)
            return even(self.on_the_line(self.last))
        if not (request.endswith(b"\r\n") or (request[:1] == b"\x01" and request[-2:-1] == b"\x03")):
            return b""
        self.heard = b""
        said = self.react(request)
        # What is repeated is the block, not the identification that modes A and B put before it.
        self.last = said[said.find(b"\x02") :] if said.startswith(b"/") else said
        return even((request if self.echo else b"") + self.on_the_line(said))

    def on_the_line(self, said):
        spoilt = self.disturb and b"\x03" in said
        return self.disturb.pop(0)(said) if spoilt else said

    def react(self, request):
        if request.startswith(b"/?"):
            pushes = self.identification[4] not in "0123456"
            return self.identification.encode() + (self.message if pushes else b"")
        if request.startswith(b"\x060") and request[3:4] == b"0":
            return self.message
        if request.startswith(b"\x060"):
            return block(b"\x01", b"P0" + self.operand)
        if request.startswith(b"\x01P1"):
            right = f"({self.password})".encode() in request
            return b"\x06" if right else block(b"\x02", b"(ER01)")
        if request.startswith(b"\x01P2"):
            return b"\x06" if b"(00000042)" in request else block(b"\x02", b"(ER01)")
        if request.startswith(b"\x01W1"):
            address, value = request[4 : request.index(b")")].decode().split("(")
            if address not in self.writable:
                return block(b"\x02", b"(ER23)")
            self.written[address] = value
            return b"\x06"
        if request == block(b"\x01", b"B0"):
            self.broken_off.set()
        if request.startswith(b"\x01R1"):
            address = request[4 : request.index(b"(")].decode()
            return block(b"\x02", f"({REGISTERS[address]})".encode())
        return b""


def dialogue(reader, meter, chunk=1000):
    now, found = 0.0, []
    reader.start(now)
    while not found or not isinstance(found[-1], ReadingFinished | ReadingFailed):
        while data := reader.data_to_send():
            answer = meter.answer(data)
            for at in range(0, len(answer), chunk):
                reader.receive_data(answer[at : at + chunk], now)
        found += iter(reader.next_event, None)
        if reader.next_timeout() is not None:
            now = reader.next_timeout()
            reader.handle_timeout(now)
    return found


def values(found):
    return {
        one.address: one.values[0]
        for event in found
        if isinstance(event, DataReceived)
        for one in event.data_sets
    }


@pytest.mark.parametrize("chunk", [1, 5, 1000])
@pytest.mark.parametrize("echo", [False, True])
@pytest.mark.parametrize(
    ("character", "mode", "baud_rate"),
    [("5", "C", 9600), ("0", "C", 300), ("E", "B", 9600), ("Z", "A", None)],
)
def test_the_read_out_of_modes_a_b_and_c(character, mode, baud_rate, echo, chunk):
    found = dialogue(OpticalReader(), SimulatedMeter(character, echo=echo), chunk)
    assert isinstance(found[0], Identified)
    assert (found[0].identification.manufacturer, found[0].identification.mode) == ("ELS", mode)
    assert [one.baud_rate for one in found if isinstance(one, BaudRateChanged)] == (
        [baud_rate] if baud_rate else []
    )
    assert values(found) == REGISTERS
    assert found[-1] == ReadingFinished()


def test_a_rate_above_what_the_head_can_do_is_not_chosen():
    found = dialogue(OpticalReader(highest_baud_rate=2400), SimulatedMeter("5"))
    assert BaudRateChanged(300) in found
    assert values(found) == REGISTERS


def test_mode_d_is_listened_to():
    reader = OpticalReader(pushed=True)
    reader.start(0.0)
    assert (reader.start_baud_rate, reader.data_to_send()) == (2400, b"")
    reader.receive_data(even(b"7)\r\n!\r\n/ELS3V1\r\n\r\n1.8.0(000123.4*kWh)\r\n!\r\n"), 0.0)
    found = list(iter(reader.next_event, None))
    assert found[1].data_sets[0].values == ("000123.4*kWh",)
    assert not found[1].checked


def test_programming_mode_reads_single_registers_with_the_password():
    reader = OpticalReader(registers=("1.8.0", "0.0.0"), password="0815")  # noqa: S106
    found = dialogue(reader, SimulatedMeter(password="0815"))  # noqa: S106
    assert values(found) == {"1.8.0": "000123.4*kWh", "0.0.0": "12345678"}
    assert reader.data_to_send() == b""


def test_programming_mode_writes_registers_and_then_reads():
    meter = SimulatedMeter(password="0815")  # noqa: S106
    reader = OpticalReader(writes=(("0.9.1", "120000"),), registers=("1.8.0",), password="0815")  # noqa: S106
    found = dialogue(reader, meter)
    assert RegisterWritten("0.9.1") in found
    assert meter.written == {"0.9.1": "120000"}
    assert values(found) == {"1.8.0": "000123.4*kWh"}
    refused = dialogue(OpticalReader(writes=(("1.8.0", "0"),)), SimulatedMeter())
    assert refused[-1] == ReadingFailed("the meter refused to write register 1.8.0 ((ER23))")


def test_a_wrong_password_is_told_without_repeating_it():
    found = dialogue(OpticalReader(registers=("1.8.0",), password="4711"), SimulatedMeter(password="0815"))  # noqa: S106
    assert found[-1] == ReadingFailed("the meter refused the password")


def test_the_secure_algorithm_answers_the_operand_by_command_p2():
    asked = []

    def secret(operand):
        asked.append(operand)
        return f"{int(operand) * 2:08}"

    meter = SimulatedMeter()
    meter.operand = b"\x02(00000021)"
    found = dialogue(OpticalReader(registers=("1.8.0",), secure_algorithm=secret), meter)
    assert values(found) == {"1.8.0": "000123.4*kWh"}
    assert asked == ["00000021"]


def test_a_refused_result_is_told_without_it_and_broken_off():
    meter = SimulatedMeter()
    found = dialogue(OpticalReader(registers=("1.8.0",), secure_algorithm=lambda _: "0000BEEF"), meter)
    assert found[-1] == ReadingFailed("the meter refused the result of the secure algorithm")
    assert meter.broken_off.is_set()


def test_a_meter_without_operand_has_no_secure_algorithm():
    meter = SimulatedMeter()
    meter.operand = b""
    found = dialogue(OpticalReader(registers=("1.8.0",), secure_algorithm=lambda _: "1"), meter)
    assert isinstance(found[-1], ReadingFailed)
    assert "no operand" in found[-1].reason


@pytest.mark.parametrize(
    "options",
    [
        {"device_address": "é"},
        {"registers": ("1.8.0)(",)},
        {"writes": (("0.9.1", "SECRET\r\n"),)},
        {"password": "SECRET(é"},
    ],
)
def test_what_no_message_can_carry_is_refused_before_anything_is_sent(options):
    with pytest.raises(DialogueUsageError, match="printable ASCII") as caught:
        OpticalReader(**options)
    assert "SECRET" not in str(caught.value)


def flipped(said):
    return said.replace(b"123.4", b"123.5")


def without_end(said):
    return said.replace(b"\x03", b"")


@pytest.mark.parametrize("chunk", [1, 1000])
@pytest.mark.parametrize("disturb", [[flipped], [flipped, flipped], [without_end], [without_end, flipped]])
@pytest.mark.parametrize("character", ["5", "E", "Z"])
def test_a_block_that_came_wrong_is_asked_for_again(character, disturb, chunk):
    meter = SimulatedMeter(character)
    meter.disturb = list(disturb)
    found = dialogue(OpticalReader(), meter, chunk)
    assert values(found) == REGISTERS
    assert found[-1] == ReadingFinished()
    assert meter.repeated == len(disturb)


def test_a_register_that_came_wrong_is_asked_for_again():
    meter = SimulatedMeter()
    meter.disturb = [lambda said: said, flipped]
    assert values(dialogue(OpticalReader(registers=("1.8.0",)), meter)) == {"1.8.0": "000123.4*kWh"}
    assert meter.repeated == 1


def test_a_block_that_comes_wrong_for_ever_is_told():
    meter = SimulatedMeter()
    meter.disturb = [flipped] * 10
    found = dialogue(OpticalReader(), meter)
    assert isinstance(found[-1], ReadingFailed)
    assert "block check character" in found[-1].reason
    assert values(found) == {}
    assert meter.repeated == 2


@pytest.mark.parametrize("chunk", [1, 1000])
def test_partial_blocks_are_acknowledged_and_put_together(chunk):
    meter = SimulatedMeter()
    meter.message = block(b"\x02", b"0.0.0(12345678)\r\n1.8.0(0001", end=b"\x04")
    meter.following = [
        block(b"\x02", b"23.4*kWh)\r\n", end=b"\x04"),
        block(b"\x02", b"2.8.0(000000.0*kWh)\r\n!\r\n"),
    ]
    found = dialogue(OpticalReader(), meter, chunk)
    assert values(found) == REGISTERS
    assert found[-1] == ReadingFinished()
    assert meter.following == []


@pytest.mark.parametrize("character", list(" #*-:<@[_az~9Z"))
def test_mode_a_has_any_printable_character(character):
    found = dialogue(OpticalReader(), SimulatedMeter(character))
    assert found[0].identification.mode == "A"
    assert values(found) == REGISTERS


def test_a_meter_with_battery_is_woken_up():
    reader = OpticalReader(wake_up=True)
    assert values(dialogue(reader, SimulatedMeter())) == REGISTERS


def test_silence_is_told_after_the_request_was_repeated():
    class Silent:
        requests = 0

        def answer(self, octets):
            self.requests += 1
            return octets[:0]

    silent = Silent()
    found = dialogue(OpticalReader(), silent)
    assert silent.requests == 2
    assert "is the head on the meter" in found[-1].reason


@given(st.lists(st.binary(max_size=40), max_size=10))
def test_any_octets_end_in_events(chunks):
    reader = OpticalReader(registers=("1.8.0",))
    reader.start(0.0)
    reader.receive_data(b"/ELS5V1\r\n", 0.0)
    for chunk in chunks:
        reader.receive_data(chunk, 0.0)
    assert isinstance(reader.next_event(), Identified)


@contextlib.contextmanager
def meter_on_a_port(meter):
    ours, theirs = os.openpty()
    tty.setraw(ours)
    tty.setraw(theirs)

    def serve():
        with contextlib.suppress(OSError):
            while octets := os.read(ours, 1000):
                os.write(ours, meter.answer(octets))

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    yield os.ttyname(theirs)
    os.close(theirs)
    thread.join(5)
    os.close(ours)


def test_the_command_reads_a_meter_on_a_port():
    with meter_on_a_port(SimulatedMeter()) as port:
        result = CliRunner().invoke(main, ["read", "--optical", port, "--json"])
    assert result.exit_code == 0, result.output
    tree = json.loads(result.output)
    assert (tree["manufacturer"], tree["mode"]) == ("ELS", "C")
    assert {one["address"]: one["values"][0] for one in tree["objects"]} == REGISTERS


def write_by_command(meter, *options, tmp_path):
    password = tmp_path / "password"
    password.write_text("0815\n")
    with meter_on_a_port(meter) as port:
        command = ["read", "--optical", port, "--password-file", str(password), "--json", *options]
        result = CliRunner().invoke(main, command)
        assert meter.broken_off.wait(5)
    return result


def by_program(text, meter, tmp_path):
    program = tmp_path / "algorithm"
    program.write_text("#!/bin/sh\n" + text)
    program.chmod(0o700)
    with meter_on_a_port(meter) as port:
        command = ["read", "--optical", port, "--register", "1.8.0", "--secure-algorithm", str(program)]
        return CliRunner().invoke(main, command)


def test_the_command_lets_a_program_answer_the_operand(tmp_path):
    meter = SimulatedMeter()
    meter.operand = b"\x02(00000021)"
    result = by_program('read operand; test "$operand" = 00000021 && echo 00000042', meter, tmp_path)
    assert result.exit_code == 0, result.output
    assert "000123.4*kWh" in result.output


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("exit 3", "status 3"),
        ("true", "no line that could be sent"),
        ("echo 'BEEF)(BEEF'", "no line that could be sent"),
        ("echo BEEF", "refused the result"),
    ],
)
def test_a_program_that_fails_is_told_without_what_it_printed(text, words, tmp_path):
    result = by_program(text, SimulatedMeter(), tmp_path)
    assert result.exit_code == 1
    assert words in result.output
    assert "BEEF" not in result.output


def test_the_command_writes_every_register_then_reads_and_breaks_off(tmp_path):
    meter = SimulatedMeter(password="0815")  # noqa: S106
    options = ["--write", "0.9.1=120000", "--write", "0.9.2=010124", "--register", "1.8.0"]
    result = write_by_command(meter, *options, tmp_path=tmp_path)
    assert result.exit_code == 0, result.output
    assert meter.written == {"0.9.1": "120000", "0.9.2": "010124"}
    tree = json.loads(result.output)
    assert tree["written"] == ["0.9.1", "0.9.2"]
    assert tree["objects"] == [{"address": "1.8.0", "values": ["000123.4*kWh"]}]


def test_the_command_tells_a_refused_write_and_breaks_off(tmp_path):
    meter = SimulatedMeter(password="0815")  # noqa: S106
    options = ["--write", "0.9.1=120000", "--write", "1.8.0=0"]
    result = write_by_command(meter, *options, tmp_path=tmp_path)
    assert result.exit_code == 1
    assert "refused to write register 1.8.0" in result.output


def test_the_command_tells_a_missing_port():
    result = CliRunner().invoke(main, ["read", "--optical", "/dev/not-there"])
    assert result.exit_code == 1
    assert "/dev/not-there" in result.output

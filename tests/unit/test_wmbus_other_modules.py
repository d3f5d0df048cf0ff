"""The drivers of CUL, rtl_wmbus and Amber modules against counterparts that speak their bytes, in virtual time."""

from functools import reduce
from operator import xor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from concentrator.config import RadioSection
from concentrator.links.radio_modules import make_radio_module
from concentrator.wmbus.address import Address
from concentrator.wmbus.errors import WmbusUsageError
from concentrator.wmbus.frame import FrameFormat, LinkFrame, encode_frame
from concentrator.wmbus.modules.amber import AmberModule
from concentrator.wmbus.modules.asking import ATTEMPTS
from concentrator.wmbus.modules.face import ModuleLost, ModuleReady, TelegramHeard
from concentrator.wmbus.modules.lines import CulModule, RtlWmbusLines
from concentrator.wmbus.telegram import decode_telegram

METER = Address("ELS", "12345678", 0x33, 0x03)
RECORDS = bytes.fromhex("780C1427048502046D32371F1502FD170000")


def air(frame_format):
    return encode_frame(LinkFrame(0x44, METER, RECORDS, frame_format))


class SimulatedCul:
    """culfw's side: answers V and br?, reports telegrams with CRCs, link quality and RSSI."""

    def __init__(self):
        self.mode = b""

    def answer(self, data):
        out = b""
        for line in data.split(b"\r\n"):
            if line == b"V":
                out += b"V 1.67 nanoCUL868\r\n"
            elif line in (b"brt", b"brc", b"brs"):
                self.mode = line
                out += line[2:].upper() + b"MODE\r\n"
        return out

    def report(self, frame_format=FrameFormat.A):
        mark = b"bY" if frame_format is FrameFormat.B else b"b"
        return mark + (air(frame_format) + b"\x80\xf0").hex().upper().encode() + b"\r\n"


class SimulatedAmber:
    """The module's side of the command interface; as delivered it sends telegrams unframed, without RSSI."""

    def __init__(self):
        self.parameters = bytearray(0x80)
        self.mode = None
        self.resets = 0

    @staticmethod
    def message(command, data):
        octets = bytes((0xFF, command, len(data))) + data
        return octets + bytes((reduce(xor, octets),))

    def answer(self, data):
        out = b""
        while data:
            length = data[2]
            command, body = data[1], data[3 : 3 + length]
            assert reduce(xor, data[: 4 + length]) == 0
            data = data[4 + length :]
            if command == 0x0A:
                out += self.message(0x8A, body + bytes(self.parameters))
            elif command == 0x09:
                self.parameters[body[0]] = body[2]
                out += self.message(0x89, b"\x00")
            elif command == 0x05:
                self.resets += 1
                out += self.message(0x85, b"\x00")
            elif command == 0x04:
                self.mode = body[0]
                out += self.message(0x84, b"\x00")
        return out

    def report(self):
        return self.message(0x03, air(FrameFormat.WITHOUT_CRC)[1:] + b"\xf0")


def events(module):
    return list(iter(module.next_event, None))


def run(module, simulated, until_s=10.0):
    """Start-up in virtual time: answers come at once, silence until the next timeout."""
    now, found = 0.0, []
    module.start(now)
    while now < until_s and not found:
        while data := module.data_to_send():
            module.receive_data(simulated.answer(data), now)
        found = events(module)
        if not found:
            now = module.next_timeout()
            module.handle_timeout(now)
    return found, now


class Silence:
    def answer(self, data):
        del data
        return b""


@pytest.mark.parametrize("chunk", [1, 7, 1000])
def test_a_cul_starts_up_and_reports_telegrams_in_any_chunking(chunk):
    module, cul = CulModule("C1-A"), SimulatedCul()
    found, now = run(module, cul)
    assert found == [ModuleReady("1.67 nanoCUL868")]
    assert cul.mode == b"brc"
    octets = cul.report() + b"LOVF\r\n" + cul.report(FrameFormat.B) + b"b1\r\n"
    for at in range(0, len(octets), chunk):
        module.receive_data(octets[at : at + chunk], now)
    heard = events(module)
    assert [one.frame_format for one in heard] == [FrameFormat.A, FrameFormat.B]
    for one in heard:
        assert one.rssi_dbm == -82
        assert len(decode_telegram(one.octets, frame_format=one.frame_format).records) == 3
    assert module.counters == {"telegrams_heard": 2, "telegrams_malformed": 1, "lines_unknown": 1}


def test_an_amber_module_is_set_up_once_and_reports_telegrams():
    module, amber = AmberModule("C/T"), SimulatedAmber()
    found, now = run(module, amber)
    assert found == [ModuleReady("AMB8465")]
    assert (amber.mode, amber.resets) == (0x09, 1)
    again, _ = run(AmberModule("C/T"), amber)
    assert (again, amber.resets) == ([ModuleReady("AMB8465")], 1)
    module.receive_data(b"\xff\x01\x00" + amber.report() + amber.report()[:5], now)
    (heard,) = events(module)
    assert (heard.octets, heard.rssi_dbm) == (air(FrameFormat.WITHOUT_CRC), -82)


@pytest.mark.parametrize("make", [CulModule, AmberModule])
def test_a_silent_module_is_lost_and_asked_again(make):
    module = make("T1")
    found, now = run(module, Silence(), 60.0)
    assert isinstance(found[0], ModuleLost)
    assert f"asked {ATTEMPTS} times" in found[0].reason
    module.data_to_send()
    now = module.next_timeout()
    module.handle_timeout(now)
    assert module.data_to_send()


@pytest.mark.parametrize(("make", "simulated"), [(CulModule, SimulatedCul), (AmberModule, SimulatedAmber)])
def test_a_listening_module_proves_that_it_lives(make, simulated):
    module, other = make("T1"), simulated()
    run(module, other)
    for _ in range(3):
        now = module.next_timeout()
        module.handle_timeout(now)
        module.receive_data(other.answer(module.data_to_send()), now)
        assert events(module) == []
    while not (lost := events(module)):
        module.handle_timeout(module.next_timeout())
    assert isinstance(lost[0], ModuleLost)


def test_rtl_wmbus_lines():
    module = RtlWmbusLines()
    module.start(0.0)
    assert events(module) == [ModuleReady("rtl_wmbus")]
    octets = air(FrameFormat.WITHOUT_CRC)
    line = "T1;1;1;2019-04-03 19:00:42.000;97;148;12345678;0x" + octets.hex()
    text = line + "\n" + line.replace("T1;1;1", "C1;0;1") + "\nrtl_wmbus: nothing\n" + line
    module.receive_data(text.encode(), 0.0)
    assert events(module) == [TelegramHeard(octets, None)]
    assert module.counters == {"telegrams_heard": 1, "telegrams_malformed": 1, "lines_unknown": 1}


@pytest.mark.parametrize(
    ("name", "driver"), [("cul", CulModule), ("amb8465", AmberModule), ("rtl-wmbus", RtlWmbusLines)]
)
def test_the_configured_module_has_its_driver(name, driver):
    assert isinstance(make_radio_module(RadioSection(module=name, mode="T1")), driver)


def test_a_link_mode_that_the_module_lacks_is_named():
    with pytest.raises(WmbusUsageError, match="C/T"):
        CulModule("C/T")
    with pytest.raises(WmbusUsageError, match="S2"):
        AmberModule("S2")


@given(st.lists(st.binary(max_size=60), max_size=8), st.sampled_from([CulModule, AmberModule]))
def test_noise_is_survived(chunks, make):
    module = make("T1")
    module.start(0.0)
    for number, chunk in enumerate(chunks):
        module.receive_data(chunk + b"\n", float(number))
        module.handle_timeout(float(number))
    events(module)

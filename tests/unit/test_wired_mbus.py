"""Wired M-Bus: frames, the master's conversations, and a bus whose slaves talk at the same time."""

import pytest
from chunking import read_chunks
from hypothesis import given
from hypothesis import strategies as st

from concentrator.simulator.wired_mbus import SimulatedBus, SimulatedSlave, overlapped
from concentrator.wmbus.address import Address
from concentrator.wmbus.errors import TelegramError, WmbusUsageError
from concentrator.wmbus.wired import Acknowledgement, LongFrame, ShortFrame, WiredReader
from concentrator.wmbus.wired_master import NoAnswerError, SecondaryAddress, WiredMaster, is_complete

WATER = bytes.fromhex("0C1315000000")
MORE = bytes.fromhex("0C0678563412")


def slave(identification, primary=1, *, manufacturer="ELS", readout=(WATER,), **options):
    meter = Address(manufacturer, identification, 0x33, 0x07)
    return SimulatedSlave(meter, primary, lambda: readout, **options)


def talk(conversation, bus, lose=()):
    """Run a conversation against a bus; the answers whose number is in `lose` do not arrive."""
    heard = bytearray()
    bus.output = heard.extend
    number = 0
    try:
        request = next(conversation)
        while True:
            heard.clear()
            bus.receive_data(request.octets)
            answer = b"" if number in lose else bytes(heard)
            number += 1
            request = conversation.send(answer)
    except StopIteration as end:
        return end.value


FRAMES = st.one_of(
    st.just(Acknowledgement()),
    st.builds(ShortFrame, st.integers(0, 255), st.integers(0, 255)),
    st.builds(LongFrame, st.integers(0, 255), st.integers(0, 255), st.binary(min_size=1, max_size=253)),
)


@given(st.lists(FRAMES, max_size=6), st.lists(st.integers(1, 30), min_size=1, max_size=10))
def test_frames_survive_any_chunking(frames, sizes):
    stream = b"".join(frame.to_bytes() for frame in frames)
    reader = WiredReader()
    got = read_chunks(stream, sizes, reader.receive_data, reader.next_frame)
    assert got == frames
    assert reader.octets_skipped == 0


@given(st.binary(max_size=300))
def test_any_octets_are_frames_or_skipped(data):
    reader, octets = WiredReader(), 0
    reader.receive_data(data)
    while True:
        frame = reader.next_frame()
        if frame is not None:
            octets += len(frame.to_bytes())
        elif reader.partial:
            reader.give_up_partial()
        else:
            break
    assert octets + reader.octets_skipped == len(data)


def test_a_slave_is_read_by_its_primary_address():
    bus = SimulatedBus([slave("12345678", 5), slave("87654321", 6)])
    (telegram,) = talk(WiredMaster().read(6), bus)
    assert telegram.meter.identification == "87654321"
    assert str(telegram.records[0].decimal) == "0.015"


def test_a_readout_of_several_telegrams_is_read_to_its_end():
    bus = SimulatedBus([slave("12345678", 5, readout=(WATER, MORE, WATER))])
    telegrams = talk(WiredMaster().read(5), bus)
    assert [one.records[0].quantity for one in telegrams] == ["volume", "energy", "volume"]
    assert [one.more_follows for one in telegrams] == [True, True, False]


def test_a_lost_answer_is_asked_for_again_with_the_same_frame_count_bit():
    bus = SimulatedBus([slave("12345678", 5, readout=(WATER, MORE))])
    telegrams = talk(WiredMaster().read(5), bus, lose={1, 3})
    assert [one.records[0].quantity for one in telegrams] == ["volume", "energy"]


def test_a_slave_is_read_by_its_secondary_address_also_with_wildcards():
    bus = SimulatedBus([slave("12345678"), slave("87654321")])
    (telegram,) = talk(WiredMaster().read(SecondaryAddress("87654321")), bus)
    assert telegram.meter.identification == "87654321"
    (telegram,) = talk(WiredMaster().read(SecondaryAddress.from_text("1FFFFFFF")), bus)
    assert telegram.meter.identification == "12345678"
    with pytest.raises(NoAnswerError, match="no slave"):
        talk(WiredMaster().read(SecondaryAddress("99999999")), bus)


def test_an_absent_slave_and_two_at_one_address_are_told_apart():
    bus = SimulatedBus([slave("12345678", 5), slave("87654321", 5), slave("11111111", 9, silent=True)])
    with pytest.raises(NoAnswerError, match="nothing came"):
        talk(WiredMaster().read(9), bus)
    with pytest.raises(NoAnswerError, match="noise"):
        talk(WiredMaster().read(5), bus)


def test_a_search_by_wildcards_finds_every_slave():
    numbers = ["12345678", "12345679", "12999999", "55555555", "00000001", "90000000", "90000001"]
    bus = SimulatedBus([slave(number, index % 3) for index, number in enumerate(numbers)], echo=True)
    found = talk(WiredMaster().search_secondary(), bus)
    assert sorted(one.meter.identification for one in found.slaves) == sorted(numbers)
    assert found.collisions == ()
    assert bus.collisions > 0
    only = talk(WiredMaster().search_secondary(SecondaryAddress("9FFFFFFF")), bus)
    assert [one.meter.identification for one in only.slaves] == ["90000000", "90000001"]


def test_a_search_finds_numbers_with_hexadecimal_digits():
    numbers = ["12345678", "1234567A", "1234567E", "ABCDE000", "A0000000"]
    bus = SimulatedBus([slave(number) for number in numbers])
    found = talk(WiredMaster().search_secondary(), bus)
    assert sorted(one.meter.identification for one in found.slaves) == sorted(numbers)
    assert found.collisions == ()


def test_answers_that_overlap_to_a_right_frame_are_still_told_apart():
    meters = [Address("ABC", "1234567A", 1, 4), Address("ABC", "1234567B", 1, 4)]
    records = (bytes.fromhex("0C0678563412"),)
    slaves = [SimulatedSlave(one, 5 + index, lambda: records) for index, one in enumerate(meters)]
    found = talk(WiredMaster().search_secondary(), SimulatedBus(slaves))
    assert [one.meter for one in found.slaves] == meters
    assert found.collisions == ()


@pytest.mark.parametrize(
    "others",
    [
        [("KAM", 0x33, 0x07)],
        [("ELS", 0x34, 0x07), ("ELS", 0x35, 0x07)],
        [("ELS", 0x33, 0x04), ("KAM", 0x33, 0x04)],
    ],
)
def test_slaves_with_one_number_are_told_apart_by_type_version_and_manufacturer(others):
    meters = [Address("ELS", "12345678", 0x33, 0x07)]
    meters += [Address(maker, "12345678", version, kind) for maker, version, kind in others]
    bus = SimulatedBus([SimulatedSlave(one, 1, lambda: (WATER,)) for one in meters] + [slave("55555555")])
    found = talk(WiredMaster().search_secondary(), bus)
    assert {one.meter for one in found.slaves} == {*meters, Address("ELS", "55555555", 0x33, 0x07)}
    assert found.collisions == ()
    (telegram,) = talk(WiredMaster().read(SecondaryAddress.of(meters[-1])), bus)
    assert telegram.meter == meters[-1]


def test_slaves_that_nothing_tells_apart_are_reported_as_a_collision():
    alike = [slave("12345678", manufacturer=maker) for maker in ("XQY", "XQZ")]
    found = talk(WiredMaster().search_secondary(), SimulatedBus([*alike, slave("55555555")]))
    assert [one.meter.identification for one in found.slaves] == ["55555555"]
    assert found.collisions == ("*-12345678",)


def test_a_search_of_primary_addresses_tells_slaves_and_collisions():
    bus = SimulatedBus([slave("12345678", 3), slave("87654321", 7), slave("11111111", 7)])
    found = talk(WiredMaster().search_primary(0, 10), bus)
    assert [(one.address, one.meter.identification) for one in found.slaves] == [(3, "12345678")]
    assert found.collisions == ("7",)


def test_commands_are_acknowledged_and_obeyed():
    one = slave("12345678", 5)
    bus = SimulatedBus([one])
    master = WiredMaster()
    assert talk(master.reset(5), bus)
    talk(master.reset_application(5, 0x10), bus)
    assert one.resets == 1
    talk(master.set_primary_address(SecondaryAddress("12345678"), 77), bus)
    assert one.primary_address == 77
    talk(master.set_baud_rate(77, 9600), bus)
    assert one.baud_rate == 9600
    with pytest.raises(NoAnswerError):
        talk(master.set_baud_rate(5, 9600), bus)


def test_impossible_addresses_are_our_callers_mistake():
    for text in ("1234", "1234567G", ""):
        with pytest.raises(WmbusUsageError):
            SecondaryAddress.from_text(text)
    with pytest.raises(WmbusUsageError):
        next(WiredMaster().read(251))
    with pytest.raises(WmbusUsageError):
        next(WiredMaster().set_baud_rate(1, 1234))
    with pytest.raises(WmbusUsageError):
        LongFrame(8, 1, bytes(254)).to_bytes()
    whole = SecondaryAddress.from_text("1234567893153307")
    assert whole == SecondaryAddress("12345678", "ELS", 0x33, 0x07)
    assert whole.to_bytes() == bytes.fromhex("7856341293153307")


def test_equal_answers_look_like_one_and_others_like_noise():
    assert overlapped([b"\xe5", b"\xe5"]) == b"\xe5"
    request = next(WiredMaster().read(1))
    assert is_complete(request, request.octets + b"\xe5")
    assert not is_complete(request, request.octets)


@given(st.lists(st.binary(max_size=40), max_size=60))
def test_the_master_survives_anything_on_the_line(answers):
    for conversation in (
        WiredMaster().read(1),
        WiredMaster().read(SecondaryAddress()),
        WiredMaster().search_secondary(SecondaryAddress("123456FF")),
    ):
        try:
            next(conversation)
            for answer in [*answers, *[b""] * 200]:
                conversation.send(answer)
        except (StopIteration, TelegramError):
            continue

"""Whatever comes over the air or from a module: a value, or the one documented error."""

from datetime import UTC, datetime

from chunking import read_chunks
from hypothesis import example, given
from hypothesis import strategies as st

from concentrator.wmbus.address import Address
from concentrator.wmbus.answer import to_answer
from concentrator.wmbus.compact import FormatMemory
from concentrator.wmbus.errors import TelegramError
from concentrator.wmbus.frame import FrameFormat, LinkFrame, decode_frame, encode_frame
from concentrator.wmbus.modules.imst import ImstModule
from concentrator.wmbus.modules.imst_hci import HciMessage, HciReader
from concentrator.wmbus.modules.iu891a import Iu891aModule, hci_message, parse_message
from concentrator.wmbus.modules.radiocrafts import RadiocraftsModule
from concentrator.wmbus.modules.slip import SlipReader, encode_slip
from concentrator.wmbus.record_plan import read_record
from concentrator.wmbus.records import decode_records, merge_records, read_header
from concentrator.wmbus.security import KeyRing, MessageCounters
from concentrator.wmbus.telegram import decode_telegram
from concentrator.wmbus.values import value_length

HEARD_AT = datetime(2026, 5, 4, tzinfo=UTC)
RADIO_FORMATS = st.sampled_from([FrameFormat.WITHOUT_CRC, FrameFormat.A, FrameFormat.B])
ADDRESSES = st.builds(
    lambda data: Address.from_link_layer(bytes((data[0], data[1] & 0x7F)) + data[2:]),
    st.binary(min_size=8, max_size=8),
)
KEYS = KeyRing({"12345678": bytes(range(16))})
METER = Address("ELS", "12345678", 0x33, 0x03)
CI_FIELDS = st.sampled_from(bytes.fromhex("72787A79737B696A6B8C8D8E8F9081A05A8A7C7D"))


def survive(data, frame_format=None):
    try:
        telegram = decode_telegram(
            data, keys=KEYS, formats=FormatMemory(), counters=MessageCounters(), frame_format=frame_format
        )
    except TelegramError:
        return
    repr(telegram)
    if telegram.meter is not None:
        to_answer(telegram, HEARD_AT)


@given(st.binary(max_size=300), st.none() | st.sampled_from(list(FrameFormat)))
@example(b"", FrameFormat.WIRED)
def test_any_octets_are_a_telegram_or_a_telegram_error(data, frame_format):
    survive(data, frame_format)


@given(CI_FIELDS, st.binary(max_size=120))
def test_any_content_behind_a_known_ci_field(ci, content):
    payload = bytes((ci,)) + content
    survive(encode_frame(LinkFrame(0x44, METER, payload, FrameFormat.WITHOUT_CRC)))


@given(st.binary(max_size=200))
def test_records_of_any_octets_end_and_come_back_when_complete(data):
    found = decode_records(data)
    for record in found.records:
        assert not isinstance(record.value, float)
        str(record.value)
    payload = b"\x72" + METER.to_transport_layer() + bytes(4) + data
    survive(encode_frame(LinkFrame(0x44, METER, payload, FrameFormat.WITHOUT_CRC)))
    if not found.fault:
        values = b"".join(record.raw for record in found.records) + found.manufacturer_data
        again = decode_records(merge_records(found.headers, values))
        assert [r.raw for r in again.records] == [r.raw for r in found.records]
        assert (again.manufacturer_data, again.headers) == (found.manufacturer_data, found.headers)


HEADERS = st.sampled_from(
    [
        bytes.fromhex(text)
        for text in [
            "0413",
            "426C",
            "046D",
            "0C13",
            "0A5A",
            "023B",
            "01FD17",
            "0578",
            "0E8400",
            "8404FF0A",
            "0679",
            "0303",
            "0779",
            "066D",
            "0D78",
            "056D",
            "026D",
            "0B6E",
            "04FD17",
            "0913",
            "02FF20",
            "0404",
            "8C1004",
            "0CFB0D",
            "0013",
        ]
    ]
)
VALUES = st.one_of(
    st.binary(min_size=16, max_size=16),
    st.sampled_from(
        [b"\x00" * 16, b"\xff" * 16, b"\x00\x00\x00\x80" * 4, b"\x12\x34\xf5\x0f" * 4, b"\x80" * 16]
    ),
)


def chain(headers, values):
    """Records whose values are cut out of `values`, as long as each coding wants them."""
    whole = b""
    for header, value in zip(headers, values, strict=True):
        if header[0] & 0x0F == 0x0D:
            value = b"\x05" + value  # noqa: PLW2901 - a text of five characters
        whole += header + value[: value_length(header[0] & 0x0F, value, 0)]
    return whole


def one_by_one(data):
    at, found = 0, []
    while at < len(data):
        header, at = read_header(data, at)
        end = at + value_length(header.coding, data, at)
        found.append(read_record(header, data[at:end]))
        at = end
    return found


@given(
    st.data(),
    st.lists(HEADERS, min_size=1, max_size=12),
)
def test_the_plan_of_a_layout_gives_what_reading_header_by_header_gives(data, headers):
    for _ in range(3):
        values = data.draw(st.lists(VALUES, min_size=len(headers), max_size=len(headers)))
        octets = chain(headers, values)
        for _ in range(2):
            assert list(decode_records(octets).records) == one_by_one(octets)


@given(ADDRESSES, st.integers(0, 255), st.binary(min_size=1, max_size=230), RADIO_FORMATS)
def test_frames_round_trip(address, c_field, payload, frame_format):
    frame = LinkFrame(c_field, address, payload, frame_format)
    assert decode_frame(encode_frame(frame), frame_format) == frame


MESSAGES = st.builds(
    HciMessage,
    st.sampled_from([1, 2]),
    st.integers(0, 255),
    st.binary(max_size=40),
    st.none() | st.integers(0, 0xFFFFFFFF),
    st.none() | st.integers(0, 255),
)


@given(st.lists(MESSAGES, max_size=6), st.lists(st.integers(1, 20), min_size=1, max_size=20))
def test_module_messages_survive_any_chunking(messages, sizes):
    stream = b"".join(message.to_bytes(check=True) for message in messages)
    reader = HciReader()
    got = read_chunks(stream, sizes, reader.receive_data, reader.next_message)
    assert got == messages


@given(st.lists(st.binary(max_size=60), max_size=10))
def test_the_drivers_survive_any_octets_from_their_modules(chunks):
    for driver in (ImstModule(), Iu891aModule(), RadiocraftsModule()):
        drive(driver, chunks)


def drive(driver, chunks):
    driver.start(0.0)
    now = 0.0
    for chunk in chunks:
        now += 0.4
        driver.receive_data(chunk, now)
        driver.handle_timeout(now)
        driver.data_to_send()
        while driver.next_event() is not None:
            pass
    timeout = driver.next_timeout()
    assert timeout is None or timeout > now


@given(
    st.lists(st.binary(min_size=1, max_size=60), max_size=6),
    st.lists(st.integers(1, 9), min_size=1, max_size=9),
)
def test_slip_frames_survive_any_chunking(contents, sizes):
    stream = b"".join(map(encode_slip, contents))
    reader = SlipReader()
    got = read_chunks(stream, sizes, reader.receive_data, reader.next_frame)
    assert got == contents
    assert reader.frames_dropped == 0


@given(st.integers(0, 255), st.integers(0, 255), st.binary(max_size=40), st.integers(0, 45))
def test_a_message_in_slip_comes_back_and_a_flipped_octet_is_found(service, number, payload, position):
    reader = SlipReader()
    reader.receive_data(hci_message(service, number, payload))
    frame = reader.next_frame()
    assert parse_message(frame) == (service, number, payload)
    damaged = bytearray(frame)
    damaged[position % len(frame)] ^= 0x10
    assert parse_message(bytes(damaged)) is None


DIEHL = st.sampled_from(["DME", "EWT", "HYD", "SAP", "SPL", "APA", "TCH"])


@given(DIEHL, st.integers(0, 255), st.integers(0, 255), st.integers(0, 255), st.binary(max_size=60))
def test_meters_with_a_makers_own_content_survive_any_octets(maker, version, device_type, ci, content):
    meter = Address(maker, "12345678", version, device_type)
    survive(encode_frame(LinkFrame(0x44, meter, bytes((ci,)) + content, FrameFormat.WITHOUT_CRC)))

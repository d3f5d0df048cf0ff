"""Link layer, security and compact frames of M-Bus, against vectors of the standards and of other code."""

import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from concentrator.wmbus import commands
from concentrator.wmbus.address import Address, manufacturer_code, manufacturer_letters
from concentrator.wmbus.compact import FormatMemory, UnknownFormatError
from concentrator.wmbus.crc import crc_en13757
from concentrator.wmbus.errors import TelegramError, WmbusUsageError
from concentrator.wmbus.frame import FrameFormat, LinkFrame, decode_frame, encode_frame
from concentrator.wmbus.layers import Content
from concentrator.wmbus.security import KeyRing, MessageCounters, MeterKey, SecurityState
from concentrator.wmbus.telegram import decode_telegram

# OMS volume 2, annex N: a gas meter with security mode 7.
OMS_MODE_7 = bytes.fromhex(
    "434493157856341233038C2075900F002C25B30A000021924D4F2FB66E017A75002007109058475F4BC91DF878B80A1B0F98"
    "B629024AAC727942BFC549233C0140829B93"
)
OMS_KEY = bytes(range(16))
METER = Address("ELS", "12345678", 0x33, 0x03)
RECORDS = bytes.fromhex("0C1427048502046D32371F1502FD170000")


def test_crc_has_the_check_values_of_a_compact_frame():
    assert crc_en13757(bytes.fromhex("02FF20041344 13615B6167".replace(" ", ""))) == 0xA8ED


def test_manufacturer_letters_and_codes():
    for letters, code in (("KAM", 0x2C2D), ("ELS", 0x1593), ("APA", 0x0601), ("SON", 0x4DEE)):
        assert manufacturer_letters(code) == letters
        assert manufacturer_code(letters) == code
    with pytest.raises(WmbusUsageError):
        manufacturer_code("K1")


@pytest.mark.parametrize("payload_octets", [1, 5, 6, 22, 114, 115, 116, 117, 130, 200])
@pytest.mark.parametrize("frame_format", [FrameFormat.WITHOUT_CRC, FrameFormat.A, FrameFormat.B])
def test_frames_come_back_from_every_format(frame_format, payload_octets):
    frame = LinkFrame(0x44, METER, bytes(i & 0xFF for i in range(payload_octets)), frame_format)
    octets = encode_frame(frame)
    assert decode_frame(octets, frame_format) == frame
    assert decode_frame(octets) == frame


@pytest.mark.parametrize("frame_format", [FrameFormat.A, FrameFormat.B])
def test_a_flipped_bit_in_a_frame_with_crc_is_found(frame_format):
    octets = bytearray(encode_frame(LinkFrame(0x44, METER, b"\x78" + RECORDS, frame_format)))
    for position in range(1, len(octets)):
        octets[position] ^= 0x10
        with pytest.raises(TelegramError):
            decode_frame(bytes(octets), frame_format)
        octets[position] ^= 0x10


def test_a_format_a_frame_is_laid_out_as_the_standard_says():
    octets = encode_frame(LinkFrame(0x44, METER, bytes(range(20)), FrameFormat.A))
    assert octets[0] == 29
    assert int.from_bytes(octets[10:12], "big") == crc_en13757(octets[:10])
    assert int.from_bytes(octets[28:30], "big") == crc_en13757(octets[12:28])
    assert int.from_bytes(octets[34:36], "big") == crc_en13757(octets[30:34])
    assert len(octets) == 36


def test_a_wired_frame_is_read_and_its_check_sum_checked():
    body = bytes.fromhex("0801") + b"\x78" + RECORDS
    octets = bytes((0x68, len(body), len(body), 0x68)) + body + bytes((sum(body) & 0xFF, 0x16))
    frame = decode_frame(octets)
    assert (frame.frame_format, frame.primary_address) == (FrameFormat.WIRED, 1)
    assert encode_frame(frame) == octets
    with pytest.raises(TelegramError, match="should end"):
        decode_frame(octets[:-2] + b"\x00\x16")


def test_a_cut_off_telegram_says_so():
    with pytest.raises(TelegramError, match="cut off"):
        decode_telegram(OMS_MODE_7[:-9])
    with pytest.raises(TelegramError, match="cut off"):
        decode_telegram(OMS_MODE_7[:-1], frame_format=FrameFormat.WITHOUT_CRC)
    plain = encode_frame(LinkFrame(0x44, METER, b"\x78" + RECORDS, FrameFormat.WITHOUT_CRC))
    short = decode_telegram(plain[:-1])
    assert len(short.records) == 2
    assert short.fault


def test_octets_behind_the_telegram_are_a_surplus_and_not_read():
    telegram = decode_telegram(
        encode_frame(LinkFrame(0x44, METER, b"\x78" + RECORDS, FrameFormat.WITHOUT_CRC)) + b"\x01\x02"
    )
    assert telegram.frame.surplus == 2
    assert len(telegram.records) == 3
    assert not telegram.fault


def test_mode_7_example_of_oms():
    counters = MessageCounters()
    keys = KeyRing({"12345678": OMS_KEY})
    telegram = decode_telegram(OMS_MODE_7, keys=keys, counters=counters)
    assert telegram.security.state is SecurityState.DECODED
    assert (telegram.security.mode, telegram.security.counter) == (7, 0xAB3)
    assert [(r.quantity, str(r.value), r.scaler) for r in telegram.records] == [
        ("volume", "2850427", -2),
        ("date_time", "2008-05-31 23:50", 0),
        ("error_flags", "0", 0),
    ]
    assert decode_telegram(OMS_MODE_7, keys=keys, counters=counters).security.state is SecurityState.REPLAY
    restored = MessageCounters(counters.highest)
    again = decode_telegram(OMS_MODE_7, keys=keys, counters=restored)
    assert again.security.state is SecurityState.REPLAY
    assert again.records == ()


def test_mode_7_with_a_forged_octet_or_a_wrong_key_is_refused_and_does_not_move_the_counter():
    counters = MessageCounters()
    for position in (12, 17, 24, 36, 40, len(OMS_MODE_7) - 1):
        forged = bytearray(OMS_MODE_7)
        forged[position] ^= 1
        try:
            telegram = decode_telegram(bytes(forged), keys=KeyRing({"12345678": OMS_KEY}), counters=counters)
        except TelegramError:
            continue
        if position == 12:
            continue  # the ELL access number is outside of what the MAC protects
        assert telegram.security.state is SecurityState.KEY_WRONG, position
        assert telegram.records == ()
    wrong = decode_telegram(OMS_MODE_7, keys=KeyRing({"ELS-12345678": bytes(16)}), counters=MessageCounters())
    assert wrong.security.state is SecurityState.KEY_WRONG
    missing = decode_telegram(OMS_MODE_7, keys=KeyRing())
    assert missing.security.state is SecurityState.KEY_MISSING
    assert str(METER) in missing.security.reason


def mode_5(key, plain, *, address=METER, access_number=0x2A, extra=b"", long_header=False):
    plain += b"\x2f" * (-len(plain) % 16)
    vector = address.to_link_layer() + bytes((access_number,)) * 8
    encryptor = Cipher(algorithms.AES(key), modes.CBC(vector)).encryptor()
    header = bytes((access_number, 0)) + (0x0500 | len(plain) // 16 << 4).to_bytes(2, "little")
    start = b"\x72" + address.to_transport_layer() if long_header else b"\x7a"
    payload = start + header + encryptor.update(plain) + encryptor.finalize() + extra
    sender = Address("AMB", "99999999", 1, 0x37) if long_header else address
    return encode_frame(LinkFrame(0x44, sender, payload, FrameFormat.WITHOUT_CRC))


@pytest.mark.parametrize("long_header", [False, True])
def test_mode_5_with_short_and_long_header(long_header):
    octets = mode_5(OMS_KEY, b"\x2f\x2f" + RECORDS, long_header=long_header, extra=bytes.fromhex("01FD7105"))
    telegram = decode_telegram(octets, keys=KeyRing({"12345678": OMS_KEY}))
    assert telegram.meter == METER
    assert telegram.security.state is SecurityState.DECODED
    assert [r.quantity for r in telegram.records] == ["volume", "date_time", "error_flags", "rf_level"]
    assert (
        decode_telegram(octets, keys=KeyRing({"12345678": bytes(16)})).security.state
        is SecurityState.KEY_WRONG
    )
    unknown = decode_telegram(octets)
    assert unknown.security.state is SecurityState.KEY_MISSING
    assert [r.quantity for r in unknown.records] == ["rf_level"]


def test_the_key_that_names_its_manufacturer_goes_first():
    octets = mode_5(OMS_KEY, b"\x2f\x2f" + RECORDS)
    keys = KeyRing({"12345678": bytes(16), "ELS-12345678": OMS_KEY})
    assert decode_telegram(octets, keys=keys).security.state is SecurityState.DECODED
    keys.remove("ELS-12345678")
    assert decode_telegram(octets, keys=keys).security.state is SecurityState.KEY_WRONG


@pytest.mark.parametrize("sent_control", [0x20, 0x30])
@pytest.mark.parametrize("ci", [0x8D, 0x8F])
def test_ell_aes_ctr_also_through_a_repeater(ci, sent_control):
    session = (1 << 29 | 0x1234567).to_bytes(4, "little")
    block = METER.to_link_layer() + b"\x20" + session + bytes(3)
    content = b"\x78" + RECORDS
    plain = crc_en13757(content).to_bytes(2, "little") + content
    encryptor = Cipher(algorithms.AES(OMS_KEY), modes.CTR(block)).encryptor()
    receiver = Address("KAM", "00000001", 1, 0x31).to_link_layer() if ci == 0x8F else b""
    head = bytes((ci, sent_control, 0x55)) + receiver + session
    octets = encode_frame(
        LinkFrame(0x44, METER, head + encryptor.update(plain) + encryptor.finalize(), FrameFormat.A)
    )
    telegram = decode_telegram(octets, keys=KeyRing({"12345678": OMS_KEY}))
    assert telegram.security.state is SecurityState.DECODED
    assert telegram.access_number == 0x55
    assert len(telegram.records) == 3
    assert decode_telegram(octets).security.state is SecurityState.KEY_MISSING
    assert (
        decode_telegram(octets, keys=KeyRing({"12345678": bytes(16)})).security.state
        is SecurityState.KEY_WRONG
    )


def test_plain_content_under_an_encrypted_header_is_refused_for_a_meter_with_a_key():
    header = b"\x7a\x2a\x00" + (0x0520).to_bytes(2, "little")
    plain = (b"\x2f\x2f" + RECORDS).ljust(32, b"\x2f")
    octets = encode_frame(LinkFrame(0x44, METER, header + plain, FrameFormat.WITHOUT_CRC))
    unkeyed = decode_telegram(octets)
    assert unkeyed.security.state is SecurityState.ALREADY_PLAIN
    assert len(unkeyed.records) == 3
    keyed = decode_telegram(octets, keys=KeyRing({"12345678": OMS_KEY}))
    assert keyed.security.state is SecurityState.KEY_WRONG
    assert keyed.records == ()
    ell_keys = KeyRing({"67676767": OMS_KEY})
    assert decode_telegram(FULL, keys=ell_keys).security.state is SecurityState.KEY_WRONG
    assert decode_telegram(FULL).security.state is SecurityState.ALREADY_PLAIN


def test_modes_that_are_not_supported_are_named():
    for mode, name in ((13, "TLS"), (3, "DES"), (21, "21")):
        payload = b"\x7a\x01\x00" + (mode << 8 | 0x10).to_bytes(2, "little") + bytes(range(1, 17))
        telegram = decode_telegram(encode_frame(LinkFrame(0x44, METER, payload, FrameFormat.WITHOUT_CRC)))
        assert telegram.security.state is SecurityState.NOT_SUPPORTED
        assert name in telegram.security.reason


def test_keys_do_not_show():
    key = MeterKey(OMS_KEY)
    ring = KeyRing({"12345678": key})
    for text in (repr(key), str(key), repr(ring), str(ring), f"{ring!r}"):
        assert OMS_KEY.hex() not in text.lower()
        assert repr(OMS_KEY) not in text
    with pytest.raises(WmbusUsageError) as caught:
        MeterKey.from_hex("secret-that-is-no-hex")
    assert "secret" not in str(caught.value)
    with pytest.raises(WmbusUsageError):
        KeyRing({"123": OMS_KEY})


FULL = bytes.fromhex(
    "2E442D2C6767676730048D2039D1684020BCDB7803062C000043060000000314630000426C7F2A022D130001FF2100"
)
COMPACT = bytes.fromhex("25442D2C6767676730048D203AD2684020D81579E7F1D5902C00000000006300007F2A130000")


def test_a_compact_frame_needs_its_full_frame_and_then_gives_the_same_records():
    formats = FormatMemory(well_known=())
    early = decode_telegram(COMPACT, formats=formats)
    assert early.records == ()
    assert "F1E7" in early.fault
    full = decode_telegram(FULL, formats=formats)
    compact = decode_telegram(COMPACT, formats=formats)
    assert [r.quantity for r in compact.records] == [r.quantity for r in full.records]
    assert [str(r.value) for r in compact.records][:3] == ["44", "0", "99"]
    restored = FormatMemory(iter(formats), well_known=())
    assert decode_telegram(COMPACT, formats=restored).records == compact.records


def test_a_compact_frame_whose_crc_misses_gives_no_values():
    formats = FormatMemory()
    decode_telegram(FULL, formats=formats)
    content = COMPACT[COMPACT.index(b"\x79") + 1 :]
    with pytest.raises(TelegramError, match="CRC"):
        formats.expand(content[:-1] + b"\x01")
    with pytest.raises(UnknownFormatError):
        FormatMemory(well_known=()).expand(content)


def test_a_well_known_format_need_not_be_heard_first():
    records = decode_telegram(COMPACT, formats=FormatMemory()).records
    assert [str(record.value) for record in records][:3] == ["44", "0", "99"]
    assert list(FormatMemory()) == []


def test_a_format_frame_teaches_a_format():
    formats = FormatMemory()
    decode_telegram(FULL, formats=formats)
    (headers,) = formats
    other = FormatMemory()
    signature = crc_en13757(headers).to_bytes(2, "little")
    payload = b"\x69" + bytes((len(headers) + 2,)) + signature + headers
    decode_telegram(encode_frame(LinkFrame(0x44, METER, payload, FrameFormat.WITHOUT_CRC)), formats=other)
    assert list(other) == [headers]


def test_a_format_frame_whose_length_octet_looks_like_a_filler():
    headers = b"".join(bytes((0x84, storage, 0x13)) for storage in range(1, 16))
    frame_data = bytes((len(headers) + 2,)) + crc_en13757(headers).to_bytes(2, "little") + headers
    assert frame_data[0] == 0x2F
    clear = encode_frame(LinkFrame(0x44, METER, b"\x69" + frame_data, FrameFormat.WITHOUT_CRC))
    formats = FormatMemory()
    assert decode_telegram(clear, formats=formats).fault == ""
    assert list(formats) == [headers]
    checked = encode_frame(LinkFrame(0x44, METER, b"\x69\x2f\x2f" + frame_data, FrameFormat.WITHOUT_CRC))
    assert decode_telegram(checked, formats=formats).fault == ""


def test_the_format_memory_is_bounded():
    formats = FormatMemory(largest_number=3)
    for number in range(10):
        formats.learn_headers(bytes((0x04, 0x10 + number)))
    assert len(formats) == 3


GATEWAY = Address("ODC", "00000001", 0x01, 0x31)


def test_commands_to_a_meter_carry_its_address_and_open_with_its_key():
    key = MeterKey(OMS_KEY)
    octets = commands.send_records(METER, GATEWAY, 0x2A, RECORDS, key)
    command = decode_telegram(octets, keys=KeyRing({"12345678": OMS_KEY}))
    assert (command.sender, command.meter) == (GATEWAY, METER)
    assert command.content is Content.COMMAND
    assert [record.quantity for record in command.records] == ["volume", "date_time", "error_flags"]
    assert decode_telegram(octets).security.state is SecurityState.KEY_MISSING
    plain = decode_telegram(commands.send_records(METER, GATEWAY, 1, RECORDS))
    assert len(plain.records) == 3
    for make, name in (
        (commands.request_data, "REQ-UD2"),
        (commands.reset_link, "SND-NKE"),
        (commands.confirm_installation, "CNF-IR"),
        (commands.acknowledge, "ACK"),
    ):
        telegram = decode_telegram(make(METER, GATEWAY, 7))
        assert (telegram.frame.c_field_name, telegram.meter, telegram.access_number) == (name, METER, 7)
    with pytest.raises(WmbusUsageError):
        commands.send_records(METER, GATEWAY, 1, bytes(240), key)


def test_alarms_and_errors_of_a_meter_are_records():
    def report(text):
        payload = bytes.fromhex(text)
        return decode_telegram(
            encode_frame(LinkFrame(0x08, METER, payload, FrameFormat.WITHOUT_CRC))
        ).records[0]

    assert (report("7105").quantity, report("7105").value) == ("alarm_state", 5)
    assert report("6E0100000010").qualifiers == ("access_denied",)

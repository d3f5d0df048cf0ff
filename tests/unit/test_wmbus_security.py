"""Security modes 4, 8, 9, 10 and fragments: telegrams encrypted here, apart from the decoder's own functions."""

import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESCCM, AESGCM
from cryptography.hazmat.primitives.cmac import CMAC

from concentrator.wmbus.address import Address
from concentrator.wmbus.fragments import FragmentMemory
from concentrator.wmbus.frame import FrameFormat, LinkFrame, encode_frame
from concentrator.wmbus.security import KeyRing, MessageCounters, SecurityState
from concentrator.wmbus.telegram import decode_telegram

METER = Address("ELS", "12345678", 0x33, 0x03)
LINK_ADDRESS = bytes.fromhex("9315785634123303")
KEY = bytes.fromhex("00112233445566778899AABBCCDDEEFF")
RECORDS = bytes.fromhex("0C1427048502046D32371F1502FD170000")
KEYS = KeyRing({"12345678": KEY})


def cmac(key, data):
    mac = CMAC(algorithms.AES(key))
    mac.update(data)
    return mac.finalize()


def ephemeral(constant, counter):
    return cmac(KEY, bytes((constant,)) + counter.to_bytes(4, "little") + LINK_ADDRESS[2:6] + b"\x07" * 7)


def protected_message(mode, counter, *, plain=RECORDS, mac_octets=8, length=None):
    """AFL fields and the message behind them; `length` is the ML field of a fragmented message."""
    authentication_type = {4: 4, 8: 5, 12: 6, 16: 7}[mac_octets]
    mcl = bytes((authentication_type | 0x20 | (0x40 if length else 0),))
    fields = mcl + counter.to_bytes(4, "little") + (length.to_bytes(2, "little") if length else b"")
    encryption, authentication = ephemeral(0, counter), ephemeral(1, counter)
    blocks = 0
    if mode == 7:
        plain = b"\x2f\x2f" + plain
        plain += b"\x2f" * (-len(plain) % 16)
        blocks = len(plain) // 16
    header = b"\x7a\x11\x00" + (mode << 8 | blocks << 4).to_bytes(2, "little") + b"\x10"
    if mode in (7, 8):
        cipher = modes.CBC(bytes(16)) if mode == 7 else modes.CTR(bytes(16))
        encryptor = Cipher(algorithms.AES(encryption), cipher).encryptor()
        message = header + encryptor.update(plain) + encryptor.finalize()
        return fields, message, cmac(authentication, fields + message)[:mac_octets]
    nonce = LINK_ADDRESS + counter.to_bytes(4, "little")
    if mode == 9:
        sealed = AESGCM(encryption).encrypt(nonce, plain, fields + header)
        return fields, header + sealed[:-16], sealed[-16:][:mac_octets]
    sealed = AESCCM(encryption, mac_octets).encrypt(nonce + b"\0", plain, fields + header)
    return fields, header + sealed[:-mac_octets], sealed[-mac_octets:]


def frame(payload):
    return encode_frame(LinkFrame(0x44, METER, payload, FrameFormat.A))


def telegram_octets(mode, counter, **options):
    fields, message, mac = protected_message(mode, counter, **options)
    body = b"\x00\x2c" + fields + mac
    return frame(b"\x90" + bytes((len(body),)) + body + message)


@pytest.mark.parametrize("mac_octets", [4, 8, 12, 16])
@pytest.mark.parametrize("mode", [7, 8, 9, 10])
def test_modes_with_derived_keys_open_once_and_only_with_their_key(mode, mac_octets):
    octets = telegram_octets(mode, 77, mac_octets=mac_octets)
    counters = MessageCounters({str(METER): 76})
    opened = decode_telegram(octets, keys=KEYS, counters=counters)
    assert opened.security.state is SecurityState.DECODED
    assert [record.quantity for record in opened.records] == ["volume", "date_time", "error_flags"]
    assert counters.highest == {str(METER): 77}
    again = decode_telegram(octets, keys=KEYS, counters=counters)
    assert (again.security.state, again.records) == (SecurityState.REPLAY, ())
    wrong = decode_telegram(octets, keys=KeyRing({"12345678": bytes(16)}))
    assert (wrong.security.state, wrong.records) == (SecurityState.KEY_WRONG, ())
    assert decode_telegram(octets).security.state is SecurityState.KEY_MISSING


@pytest.mark.parametrize("mode", [7, 8, 9, 10])
def test_a_forged_octet_is_refused_and_does_not_move_the_counter(mode):
    fields, message, mac = protected_message(mode, 5)
    counters = MessageCounters()
    for position in range(1, len(message)):
        if position == 4 or (mode == 7 and position == 3):
            continue  # the mode and the number of blocks: another mode, not a forgery of this one
        forged = bytearray(message)
        forged[position] ^= 1
        body = b"\x00\x2c" + fields + mac
        octets = frame(b"\x90" + bytes((len(body),)) + body + bytes(forged))
        assert not decode_telegram(octets, keys=KEYS, counters=counters).security.readable, position
    assert counters.highest == {}


@pytest.mark.parametrize("mode", [8, 9, 10])
def test_without_message_counter_these_modes_are_refused(mode):
    _, message, _ = protected_message(mode, 5)
    refused = decode_telegram(frame(message), keys=KEYS)
    assert refused.security.state is SecurityState.NOT_SUPPORTED
    assert "without message counter" in refused.security.reason


def wrapped(fields, mac, message):
    body = b"\x00\x2c" + fields + mac
    return frame(b"\x90" + bytes((len(body),)) + body + message)


@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize("authenticated", ["all", "counter on", "header", "nothing"])
def test_other_forms_of_nonce_and_header_of_modes_9_and_10_are_opened_too(authenticated, big):
    counter = 77
    fields = b"\x25" + counter.to_bytes(4, "little")
    for mode in (9, 10):
        header = b"\x7a\x11\x00" + (mode << 8).to_bytes(2, "little") + b"\x10"
        covered = {
            "all": fields + header,
            "counter on": fields[1:] + header,
            "header": header,
            "nothing": b"",
        }[authenticated]
        nonce = LINK_ADDRESS + counter.to_bytes(4, "big" if big else "little")
        if mode == 9:
            sealed = AESGCM(ephemeral(0, counter)).encrypt(nonce, RECORDS, covered)
            sealed, mac = sealed[:-16], sealed[-16:][:8]
        else:
            sealed = AESCCM(ephemeral(0, counter), 8).encrypt(nonce + b"\0", RECORDS, covered)
            sealed, mac = sealed[:-8], sealed[-8:]
        octets = wrapped(fields, mac, header + sealed)
        opened = decode_telegram(octets, keys=KEYS, counters=MessageCounters())
        assert (opened.security.state, len(opened.records)) == (SecurityState.DECODED, 3)
        refused = decode_telegram(octets, keys=KeyRing({"12345678": bytes(16)}))
        assert refused.security.state is SecurityState.KEY_WRONG


@pytest.mark.parametrize("big", [False, True])
def test_a_nonce_of_twelve_octets_opens_mode_10(big):
    counter = 77
    fields = b"\x25" + counter.to_bytes(4, "little")
    header = b"\x7a\x11\x00\x00\x0a\x10"
    nonce = LINK_ADDRESS + counter.to_bytes(4, "big" if big else "little")
    for covered in (fields + header, fields[1:] + header, header):
        sealed = AESCCM(ephemeral(0, counter), 8).encrypt(nonce, RECORDS, covered)
        octets = wrapped(fields, sealed[-8:], header + sealed[:-8])
        opened = decode_telegram(octets, keys=KEYS, counters=MessageCounters())
        assert (opened.security.state, len(opened.records)) == (SecurityState.DECODED, 3)
        forged = wrapped(fields, sealed[-8:], header + bytes((sealed[0] ^ 1,)) + sealed[1:-8])
        assert decode_telegram(forged, keys=KEYS).security.state is SecurityState.KEY_WRONG


@pytest.mark.parametrize("mode", [9, 10])
def test_a_tag_behind_the_content_is_found_too(mode):
    counter = 77
    fields = b"\x20" + counter.to_bytes(4, "little")
    header = b"\x7a\x11\x00" + (mode << 8).to_bytes(2, "little") + b"\x10"
    cipher = AESGCM(ephemeral(0, counter)) if mode == 9 else AESCCM(ephemeral(0, counter), 12)
    message = header + cipher.encrypt(bytes(12 if mode == 9 else 13), RECORDS, fields + header)
    body = b"\x00\x28" + fields
    octets = frame(b"\x90" + bytes((len(body),)) + body + message)
    counters = MessageCounters()
    opened = decode_telegram(octets, keys=KEYS, counters=counters)
    assert (opened.security.state, len(opened.records)) == (SecurityState.DECODED, 3)
    assert decode_telegram(octets, keys=KEYS, counters=counters).security.state is SecurityState.REPLAY
    forged = decode_telegram(frame(b"\x90" + bytes((len(body),)) + body + message[:-1] + b"\0"), keys=KEYS)
    assert forged.security.state is SecurityState.KEY_WRONG


@pytest.mark.parametrize(
    "first_block",
    [
        bytes(16),
        LINK_ADDRESS + (77).to_bytes(4, "little") + bytes(4),
        LINK_ADDRESS + b"\x11" * 8,
        (77).to_bytes(4, "little") + bytes(12),
        LINK_ADDRESS + (77).to_bytes(4, "big") + b"\0\0\0\1",
    ],
)
@pytest.mark.parametrize("filler", [b"", b"\x2f\x2f"])
def test_other_first_counter_blocks_of_mode_8_are_opened_too(first_block, filler):
    counter = 77
    fields = b"\x25" + counter.to_bytes(4, "little")
    header = b"\x7a\x11\x00" + (8 << 8).to_bytes(2, "little") + b"\x10"
    encryptor = Cipher(algorithms.AES(ephemeral(0, counter)), modes.CTR(first_block)).encryptor()
    message = header + encryptor.update(filler + RECORDS) + encryptor.finalize()
    mac = cmac(ephemeral(1, counter), fields + message)[:8]
    opened = decode_telegram(wrapped(fields, mac, message), keys=KEYS)
    assert [record.quantity for record in opened.records] == ["volume", "date_time", "error_flags"]


def test_mode_2_is_des_with_a_key_of_eight_octets():
    octets = bytes.fromhex("1E468B050100000004077A01001002BBD1EAFD0222F871CB70DA16C78AE098")
    key = bytes.fromhex("0102030405060708")
    opened = decode_telegram(octets, keys=KeyRing({"00000001": key}))
    assert (opened.security.state, opened.records[0].value) == (SecurityState.DECODED, 1000)
    for wrong in (key[::-1], bytes(16)):
        refused = decode_telegram(octets, keys=KeyRing({"00000001": wrong}))
        assert (refused.security.state, refused.records) == (SecurityState.KEY_WRONG, ())
    assert decode_telegram(octets).security.state is SecurityState.KEY_MISSING


def test_factory_keys_open_what_they_close_and_nothing_else():
    meter = Address("APA", "12345678", 0x05, 0x07)
    plain = (b"\x2f\x2f" + RECORDS).ljust(32, b"\x2f")
    for key, state in ((bytes(16), SecurityState.DECODED), (KEY, SecurityState.KEY_MISSING)):
        vector = meter.to_link_layer() + b"\x11" * 8
        encryptor = Cipher(algorithms.AES(key), modes.CBC(vector)).encryptor()
        sealed = encryptor.update(plain) + encryptor.finalize()
        payload = b"\x7a\x11\x00" + (0x0520).to_bytes(2, "little") + sealed
        octets = encode_frame(LinkFrame(0x44, meter, payload, FrameFormat.A))
        assert decode_telegram(octets).security.state is state


def test_mode_4_has_a_zero_vector():
    plain = (b"\x2f\x2f" + RECORDS).ljust(32, b"\x2f")
    encryptor = Cipher(algorithms.AES(KEY), modes.CBC(bytes(16))).encryptor()
    sealed = encryptor.update(plain) + encryptor.finalize()
    octets = frame(b"\x7a\x11\x00" + (0x0420).to_bytes(2, "little") + sealed)
    assert len(decode_telegram(octets, keys=KEYS).records) == 3
    wrong = decode_telegram(octets, keys=KeyRing({"12345678": bytes(16)}))
    assert wrong.security.state is SecurityState.KEY_WRONG


def fragments_of(mode, counter, size=20, plain=RECORDS * 5):
    length = len(protected_message(mode, counter, plain=plain, length=1)[1])
    fields, message, mac = protected_message(mode, counter, plain=plain, length=length)
    parts = [message[at : at + size] for at in range(0, len(message), size)]
    for number, part in enumerate(parts, 1):
        last = number == len(parts)
        control = number | (0 if last else 0x4000) | (0x3800 if number == 1 else 0) | (0x0400 if last else 0)
        body = control.to_bytes(2, "little") + (fields if number == 1 else b"") + (mac if last else b"")
        yield frame(b"\x90" + bytes((len(body),)) + body + part)


@pytest.mark.parametrize("mode", [7, 8, 9, 10])
def test_fragments_give_the_message_when_the_last_one_came(mode):
    memory, counters = FragmentMemory(), MessageCounters()
    *first, last = fragments_of(mode, 9)
    for octets in first:
        for _ in range(2):  # a repeater sends it once more
            waiting = decode_telegram(octets, keys=KEYS, counters=counters, fragments=memory)
            assert waiting.security.state is SecurityState.INCOMPLETE
    whole = decode_telegram(last, keys=KEYS, counters=counters, fragments=memory)
    assert whole.security.state is SecurityState.DECODED
    assert len(whole.records) == 15
    assert len(memory) == 0


def test_a_missing_fragment_gives_the_message_up():
    memory = FragmentMemory()
    parts = list(fragments_of(8, 9))
    del parts[1]
    states = {decode_telegram(one, keys=KEYS, fragments=memory).security.state for one in parts}
    assert states == {SecurityState.INCOMPLETE}
    assert len(memory) == 0


def test_the_memory_of_begun_messages_is_bounded():
    memory = FragmentMemory()
    first, *_ = fragments_of(8, 9)
    afl = decode_telegram(first).afl
    for number in range(1000):
        memory.take(Address("ELS", f"{number:08}", 1, 3), afl, b"\x7a")
    assert len(memory) < 100

"""USI framing: the worked frames, and each kind of drop. Runs on CPython and on MicroPython."""

import unittest

from plc.errors import LocalPlcError
from plc.usi.crc import crc, crc_16, crc_32, crc_size, xor_8
from plc.usi.framing import EXTENDED_LENGTH_2021, FrameDecoder, encode_frame

# (protocol, payload, frame on the wire): computed independently and compared with the modem's own C.
WORKED_FRAMES = (
    (0x25, "0A0001", "7E00E50A00014E0C7E"),
    (0x25, "120000000C0000", "7E01E5120000000C0000F10D7E"),
    (0x25, "0D781D", "7E00E50D781D46F77E"),
    (0x30, "2D0020", "7E00F02D0020FD7E"),
    (0x30, "2F0050", "7E00F02F00508F7E"),
    (0x30, "370110007D00040102030400", "7E0330370110007D5D00040102030400687E"),
    (0x00, "00A000", "7E00C000A000D5DA43F67E"),
    (0x02, "80907E", "7E00C280907D5E695E38777E"),
    (0x06, "0E00501E0000", "7E01860E00501E00006368E1027E"),
    (0x24, "0A313131313131313131", "7E02A40A3131313131313131316F077E"),
)


def decode_all(decoder, data):
    decoder.receive_data(data)
    frames = []
    while True:
        frame = decoder.next_frame()
        if frame is None:
            return frames
        frames.append(frame)


class CrcTest(unittest.TestCase):
    def test_check_values(self):
        self.assertEqual(crc_32(b"123456789"), 0x89A1897F)
        self.assertEqual(crc_16(b"123456789"), 0xBEEF)
        self.assertEqual(xor_8(b"123456789"), 0x31)

    def test_crc_16_of_short_messages(self):
        self.assertEqual(crc_16(b""), 0)
        self.assertEqual(crc_16(b"\xab"), 0xAB)
        self.assertEqual(crc_16(b"\xab\xcd"), 0xABCD)

    def test_folding_equals_the_plain_loop(self):
        for length in range(70):
            data = bytes([(31 * index + length) & 0xFF for index in range(length)])
            plain = 0
            for octet in data:
                plain ^= octet
            self.assertEqual(xor_8(data), plain)

    def test_size_follows_the_protocol(self):
        self.assertEqual(
            [crc_size(protocol) for protocol in (0x00, 0x07, 0x25, 0x13, 0x30, 0x27)], [4, 4, 2, 2, 1, 1]
        )
        self.assertEqual(crc(0x3F, b"\x01\x02"), 3)


class FramingTest(unittest.TestCase):
    def test_worked_frames(self):
        for protocol, payload, wire in WORKED_FRAMES:
            payload = bytes.fromhex(payload)
            wire = bytes.fromhex(wire)
            self.assertEqual(encode_frame(protocol, payload), wire)
            self.assertEqual(decode_all(FrameDecoder(), wire), [(protocol, payload)])

    def test_octet_by_octet(self):
        decoder = FrameDecoder()
        frames = []
        for _, _, wire in WORKED_FRAMES:
            for octet in bytes.fromhex(wire):
                frames += decode_all(decoder, bytes([octet]))
        self.assertEqual(
            frames, [(protocol, bytes.fromhex(payload)) for protocol, payload, _ in WORKED_FRAMES]
        )

    def test_extended_length_sets_the_command_bit(self):
        payload = bytes.fromhex("0B0101010400") + b"\x55" * 1024
        wire = encode_frame(0x25, payload)
        self.assertEqual(wire[:6], bytes.fromhex("7E01A58B0101"))
        self.assertEqual(decode_all(FrameDecoder(), wire), [(0x25, payload)])

    def test_2021_profile_has_no_extended_length_for_g3(self):
        payload = b"\x0b" + b"\x55" * 1029
        with self.assertRaises(LocalPlcError):
            encode_frame(0x25, payload, EXTENDED_LENGTH_2021)
        self.assertEqual(len(encode_frame(0x30, payload, EXTENDED_LENGTH_2021)), len(payload) + 5)
        # Where there is no extended length, bit 7 belongs to the payload.
        wire = encode_frame(0x25, b"\x8b\x01", EXTENDED_LENGTH_2021)
        self.assertEqual(decode_all(FrameDecoder(EXTENDED_LENGTH_2021), wire), [(0x25, b"\x8b\x01")])

    def test_what_cannot_be_sent(self):
        for protocol, payload in ((0x40, b""), (0x30, b"\x80"), (0x30, bytes(2048)), (0x13, bytes(1024))):
            with self.assertRaises(LocalPlcError):
                encode_frame(protocol, payload)

    def test_longest_frames(self):
        for protocol, length in ((0x30, 2047), (0x00, 1023), (0x13, 0)):
            payload = bytes([0x7D, 0x7E] * 1024)[:length]
            wire = encode_frame(protocol, payload)
            self.assertEqual(decode_all(FrameDecoder(), wire), [(protocol, payload)])


GOOD = bytes.fromhex("7E00F02D0020FD7E")


class DropTest(unittest.TestCase):
    def check(self, spoilt, counter, count=1):
        decoder = FrameDecoder()
        self.assertEqual(decode_all(decoder, spoilt + GOOD), [(0x30, b"\x2d\x00\x20")])
        expected = {
            "frames": 1,
            "bad_crc": 0,
            "bad_length": 0,
            "bad_escape": 0,
            "too_long": 0,
            "too_short": 0,
            "garbage_octets": 0,
        }
        expected[counter] = count
        self.assertEqual(decoder.counters, expected)

    def test_bad_crc(self):
        self.check(bytes.fromhex("7E00F02D0020FC7E"), "bad_crc")

    def test_bad_length(self):
        self.check(bytes.fromhex("7E00F02D00DD7E"), "bad_length")

    def test_bad_escape(self):
        for escape in ("7D7D", "7D00", "7D"):
            self.check(bytes.fromhex("7E00F02D" + escape + "7E"), "bad_escape")

    def test_too_short(self):
        for body in ("00", "00F0", "00E50A"):
            self.check(bytes.fromhex("7E" + body + "7E"), "too_short")

    def test_too_long(self):
        self.check(b"\x7e" + bytes(5000) + b"\x7e", "too_long")
        self.check(b"\x7e" + bytes(3000) + b"\x01" * 3000 + b"\x7e", "too_long")

    def test_garbage_before_the_first_flag(self):
        self.check(b"hello", "garbage_octets", 5)

    def test_garbage_between_frames_costs_no_frame(self):
        decoder = FrameDecoder()
        self.assertEqual(len(decode_all(decoder, GOOD + b"noise" + GOOD)), 2)
        self.assertEqual(decoder.counters["garbage_octets"], 5)

    def test_repeated_flags_resynchronise(self):
        decoder = FrameDecoder()
        self.assertEqual(len(decode_all(decoder, b"\x7e\x7e\x7e" + GOOD + b"\x7e\x7e" + GOOD)), 2)

    def test_one_lost_flag_costs_nothing(self):
        self.assertEqual(len(decode_all(FrameDecoder(), GOOD[:-1] + GOOD)), 2)
        self.assertEqual(len(decode_all(FrameDecoder(), GOOD + GOOD[1:])), 2)

    def test_reset_forgets_the_half_frame(self):
        decoder = FrameDecoder()
        decoder.receive_data(GOOD[:4])
        decoder.reset()
        self.assertEqual(len(decode_all(decoder, GOOD)), 1)
        self.assertEqual(decoder.counters["bad_length"], 0)

    def test_memory_is_bounded_without_flags(self):
        decoder = FrameDecoder()
        decoder.receive_data(b"\x7e")
        for _ in range(100):
            decoder.receive_data(bytes(1000))
        self.assertEqual(decoder.counters["too_long"], 1)
        self.assertEqual(len(decode_all(decoder, b"\x7e" + GOOD)), 1)


if __name__ == "__main__":
    unittest.main()

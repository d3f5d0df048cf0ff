"""G3: tables, IPv6 and words of messages. Runs on CPython and on MicroPython."""

import unittest

from plc import commands as kinds
from plc.errors import MessageError
from plc.g3 import commands, ib, ipv6
from plc.g3.commands import COMMANDS, ROWS
from plc.g3.messages import describe

PSK = b"PSK-secret-octet"
GMK = b"GMK-secret-octet"
PAN = 0x781D
A = b"\x00\x80\xe1\xff\xfe\xf0\x00\x01"


def sample(kind, seed):
    if 0 < kind <= 4:
        return (0x01020304 + seed) & ((1 << (8 * kind)) - 1)
    if kind < 0:
        return bytes([(seed + index) & 0xFF for index in range(-kind)])
    return bytes([seed & 0xFF] * (8 if kind == kinds.ADDRESS8 else 5))


class TableTest(unittest.TestCase):
    def test_every_row_round_trips(self):
        for row in ROWS:
            for fields in (row[3], row[3] + row[4]):
                values = {}
                for index, (name, kind) in enumerate(fields):
                    values[name] = sample(kind, index)
                message = COMMANDS.decode(COMMANDS.encode(row[0], **values))
                self.assertEqual((message.command, message.trailing), (row[0], b""))
                for name, _ in row[3] + row[4]:
                    self.assertEqual(message.values[name], values.get(name))

    def test_worked_payloads(self):
        self.assertEqual(COMMANDS.encode(10, band=0, role=1), bytes.fromhex("0A0001"))
        self.assertEqual(COMMANDS.encode(18, attribute=0x0C, index=0), bytes.fromhex("120000000C0000"))
        self.assertEqual(COMMANDS.encode(13, pan_id=PAN), bytes.fromhex("0D781D"))

    def test_fields_of_one_generation_only(self):
        self.assertIsNone(COMMANDS.decode(bytes.fromhex("0A00")).values["role"])
        status = bytes.fromhex("20781D020001020000000500")
        self.assertIsNone(COMMANDS.decode(status).values["media"])
        self.assertEqual(COMMANDS.decode(status + b"\x01").number("media"), 1)

    def test_a_refused_get_has_no_value(self):
        message = COMMANDS.decode(bytes.fromhex("28A70000000C0005"))
        self.assertEqual((message.number("status"), message.values["value"]), (0xA7, None))

    def test_hops(self):
        hops = commands.decode_hops(bytes.fromhex("00010014010000" + "0002"))
        self.assertEqual(len(hops), 1)
        self.assertEqual((hops[0]["address"], hops[0]["link_cost"]), (1, 0x14))

    def test_routing_entry(self):
        octets = bytes.fromhex("0005000100282203016 8".replace(" ", ""))
        record = ib.decode_record("adp", 0x0C, octets)
        self.assertEqual((record["destination"], record["next_hop"], record["route_cost"]), (5, 1, 40))
        self.assertEqual((ib.hop_count(record), record["valid_time"]), (2, 360))
        self.assertEqual(ib.encode_record("adp", 0x0C, **record), octets)
        for octets in (b"", bytes(9)):
            with self.assertRaises(MessageError):
                ib.decode_record("adp", 0x0C, octets)


class Ipv6Test(unittest.TestCase):
    def test_link_local_address(self):
        # fe80::781d:ff:fe00:1
        address = ipv6.link_local_address(PAN, 1)
        self.assertEqual(address, bytes.fromhex("FE80000000000000781D00FFFE000001"))
        self.assertEqual(ipv6.short_address_of(address, PAN), 1)
        self.assertIsNone(ipv6.short_address_of(address, 0x781E))
        self.assertEqual(ipv6.eui64_of(bytes(8) + b"\x02\x80\xe1\xff\xfe\xf0\x00\x01"), A)

    def test_packet(self):
        # Built and summed octet by octet by hand of RFC 8200 for ports 4059 and the data 00 01.
        source, destination = ipv6.link_local_address(PAN, 0), ipv6.link_local_address(PAN, 1)
        packet = ipv6.encode_udp(source, destination, 4059, 4059, b"\x00\x01")
        self.assertEqual(packet[:8], bytes.fromhex("60000000000A1108"))
        words = [0x0FDB, 0x0FDB, 10, 1, 10, 17]
        for octets in (source, destination):
            words += [octets[index] << 8 | octets[index + 1] for index in range(0, 16, 2)]
        total = sum(words)
        while total > 0xFFFF:
            total = (total & 0xFFFF) + (total >> 16)
        self.assertEqual(packet[46:48], (0xFFFF - total).to_bytes(2, "big"))
        self.assertEqual(ipv6.decode_udp(packet), (source, destination, 4059, 4059, b"\x00\x01"))

    def test_lengths_round_trip(self):
        source, destination = ipv6.link_local_address(PAN, 0), ipv6.link_local_address(PAN, 9)
        for length in (0, 1, 2, 255, 1224):
            data = bytes([length & 0xFF] * length)
            self.assertEqual(ipv6.decode_udp(ipv6.encode_udp(source, destination, 1, 2, data))[4], data)

    def test_every_spoilt_octet_of_the_datagram_is_found(self):
        packet = ipv6.encode_udp(
            ipv6.link_local_address(PAN, 0), ipv6.link_local_address(PAN, 1), 1, 2, b"data"
        )
        for position in range(8, len(packet)):
            spoilt = bytearray(packet)
            spoilt[position] ^= 0x10
            with self.assertRaises(MessageError):
                ipv6.decode_udp(bytes(spoilt))

    def test_what_is_no_udp(self):
        packet = ipv6.encode_udp(bytes(16), bytes(16), 1, 2, b"data")
        for spoilt in (
            b"",
            packet[:47],
            b"\x40" + packet[1:],
            packet[:6] + b"\x3a" + packet[7:],
            packet[:-1],
        ):
            with self.assertRaises(MessageError):
                ipv6.decode_udp(spoilt)

    def test_wrapper(self):
        data = ipv6.encode_wrapper(16, 1, b"abc")
        self.assertEqual(data, bytes.fromhex("0001001000010003616263"))
        self.assertEqual(ipv6.decode_wrapper(data + data), [(16, 1, b"abc"), (16, 1, b"abc")])
        for spoilt in (data[:-1], b"\x00\x02" + data[2:], data + b"\x00"):
            with self.assertRaises(MessageError):
                ipv6.decode_wrapper(spoilt)


class DescribeTest(unittest.TestCase):
    def test_words(self):
        self.assertEqual(
            describe(bytes.fromhex("0A0001"), True),
            ("ADP_INITIALIZE.request", [("band", "0 CENELEC-A"), ("role", "1 coordinator")]),
        )
        name, fields = describe(
            bytes.fromhex("2800" + "0000000C" + "0000" + "0A" + "00050001002822030168"), False
        )
        self.assertEqual(name, "ADPM_GET.confirm")
        self.assertIn("next_hop=1", fields[-1][1])
        self.assertEqual(fields[1], ("attribute", "0x0000000C adp_routing_table"))

    def test_keys_are_never_shown(self):
        for payload in (
            COMMANDS.encode(60, attribute=2, index=0, value=PSK),
            COMMANDS.encode(60, attribute=3, index=0, value=PSK),
            COMMANDS.encode(60, attribute=4, index=0, value=PSK) + PSK,
            COMMANDS.encode(22, attribute=0x71, index=0, value=PSK),
            COMMANDS.encode(17, attribute=0x080000C2, index=0, value=PSK),
            COMMANDS.encode(61, eui64=A, short_address=1, pan_id=1, key_index=0, gmk=PSK),
            COMMANDS.encode(60, attribute=2, index=0, value=PSK)[:-1],
        ):
            text = str(describe(payload, True))
            self.assertTrue(PSK[:8].hex() not in text)
            self.assertTrue("not shown" in text)

    def test_nothing_is_raised(self):
        for command in range(256):
            for tail in (b"", b"\x00", bytes(60)):
                self.assertTrue(describe(bytes([command]) + tail, False)[0])


if __name__ == "__main__":
    unittest.main()

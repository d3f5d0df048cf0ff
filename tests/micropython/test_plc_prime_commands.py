"""The PRIME_API table: every row both ways, the firmware differences, and words for people."""

import unittest

from plc import commands as kinds
from plc.errors import LocalPlcError, MessageError
from plc.prime import commands, enumerations, pib
from plc.prime.commands import COMMANDS, ROWS
from plc.prime.messages import describe


def sample(kind, seed):
    """A value that fits a field of a kind."""
    if 0 < kind <= 4:
        return (0x01020304 + seed) & ((1 << (8 * kind)) - 1)
    if kind < 0:
        return bytes([(seed + index) & 0xFF for index in range(-kind)])
    if kind == kinds.MAC_THEN_1:
        return b"\x00\x80\xe1\x00\x00\x01\x00\x00"
    return bytes([seed & 0xFF] * 5)


class RowTest(unittest.TestCase):
    def test_every_row_round_trips_with_and_without_optional_fields(self):
        for row in ROWS:
            for fields in (row[3], row[3] + row[4]):
                values = {}
                for index, (name, kind) in enumerate(fields):
                    values[name] = sample(kind, index)
                payload = COMMANDS.encode(row[0], **values)
                message = COMMANDS.decode(payload)
                self.assertEqual(message.command, row[0])
                self.assertEqual(message.trailing, b"")
                for name, _ in row[3] + row[4]:
                    self.assertEqual(message.values[name], values.get(name))

    def test_every_truncation_is_refused_or_shortens_the_tail(self):
        for row in ROWS:
            values = {}
            for index, (name, kind) in enumerate(row[3]):
                values[name] = sample(kind, index)
            payload = COMMANDS.encode(row[0], **values)
            ends_open = bool(row[3]) and row[3][-1][1] == kinds.REST
            for length in range(1, len(payload)):
                if ends_open or row[0] == commands.CL_432_JOIN_INDICATION:
                    continue
                with self.assertRaises(MessageError):
                    COMMANDS.decode(payload[:length])

    def test_ids_are_unique(self):
        self.assertEqual(len({row[0] for row in ROWS}), len(ROWS))

    def test_octets_that_a_later_firmware_appends_are_kept(self):
        message = COMMANDS.decode(bytes.fromhex("3B0001AABB"))
        self.assertEqual(message.number("address"), 1)
        self.assertEqual(message.trailing, b"\xaa\xbb")

    def test_what_cannot_be_encoded(self):
        for command, values in (
            (0x2D, {"pib": 0x10000}),
            (0x2D, {"pib": -1}),
            (0x2D, {}),
            (0x2D, {"pib": 1, "bip": 2}),
            (0x5B, {"eui48": b"\x00" * 5}),
            (0x31, {"pib": 1, "value": bytes(256)}),
            (0x31, {"pib": 1, "value": 5}),
            (0x7F, {}),
        ):
            with self.assertRaises(LocalPlcError):
                COMMANDS.encode(command, **values)

    def test_empty_and_unknown(self):
        for payload in (b"", b"\x7f", b"\x5f\x00", b"\xb7\x01"):
            with self.assertRaises(MessageError):
                COMMANDS.decode(payload)


class FirmwareTest(unittest.TestCase):
    def test_data_request(self):
        payload = COMMANDS.encode(
            commands.CL_432_DL_DATA_REQUEST,
            destination_lsap=1,
            source_lsap=16,
            destination_address=0x7D,
            data=b"\x01\x02\x03\x04",
            link_class=0,
        )
        self.assertEqual(payload, bytes.fromhex("370110007D00040102030400"))

    def test_join_indication_with_six_and_with_eight_octets_of_mac(self):
        for mac in ("0080E1F00001", "0080E1F000010000"):
            message = COMMANDS.decode(bytes.fromhex("3A04" + "53303031" + "0005" + mac + "01"))
            self.assertEqual(message.octets("device_id"), b"S001")
            self.assertEqual(message.number("address"), 5)
            self.assertEqual(message.octets("mac")[:6], bytes.fromhex("0080E1F00001"))
            self.assertEqual(message.number("authenticated_encryption"), 1)

    def test_network_event_with_and_without_channel(self):
        event = "4F020080E1F000010500420307070A"
        message = COMMANDS.decode(bytes.fromhex(event))
        self.assertEqual(message.number("lnid"), 0x42)
        self.assertIsNone(message.values["pch"])
        message = COMMANDS.decode(bytes.fromhex(event + "00010002"))
        self.assertEqual(message.number("pch_lsid"), 2)
        self.assertEqual(message.number("sid"), 5)

    def test_plme_confirm_with_and_without_channel(self):
        for tail, pch in (("", None), ("0003", 3)):
            message = COMMANDS.decode(bytes.fromhex("1C0080800436200304" + tail))
            self.assertEqual(message.octets("value"), bytes.fromhex("36200304"))
            self.assertEqual(message.values["pch"], pch)


class InformationBaseTest(unittest.TestCase):
    def test_record_sizes(self):
        sizes = {
            0x50: 14,
            0x51: 11,
            0x58: 13,
            0x52: 4,
            0x53: 5,
            0x55: 16,
            0x56: 10,
            0x57: 10,
            0x59: 10,
            0x8250: 25,
        }
        for attribute, size in sizes.items():
            self.assertEqual(pib.record_size(attribute), size)

    def test_records_round_trip_and_a_cut_record_is_left_out(self):
        values = {"address": 7, "serial": b"S1" + bytes(14), "serial_length": 2, "eui48": b"abcdef"}
        record = pib.encode_record(0x8250, **values)
        self.assertEqual(pib.decode_records(0x8250, record + record + record[:-1]), [values, values])

    def test_unknown_layout(self):
        with self.assertRaises(MessageError):
            pib.decode_records(0x2050, bytes(40))

    def test_names_and_layers(self):
        self.assertEqual(pib.attribute_name(0x8101), "plc_state")
        self.assertEqual(pib.attribute_name(0x0050), "registered_devices")
        self.assertEqual(pib.attribute_name(0x1234), "0x1234")
        self.assertEqual(
            [pib.is_phy(attribute) for attribute in (0xA0, 0x8080, 0x40, 0x8100)], [True, True, False, False]
        )
        self.assertEqual(pib.attribute_size(0x8101), 1)

    def test_which_statuses_are_worth_a_retry(self):
        self.assertEqual(enumerations.TRANSIENT_TRANSMIT_STATUSES, (2, 0x80, 0x81, 0x82, 0x84, 0xC2))


class DescribeTest(unittest.TestCase):
    def test_words(self):
        name, fields = describe(bytes.fromhex("39011000 7D02".replace(" ", "")), False)
        self.assertEqual(name, "CL_432_DL_DATA.confirm")
        self.assertEqual(fields[-1], ("transmit_status", "2 timeout"))
        self.assertEqual(fields[2], ("destination_address", "0x007D"))
        self.assertEqual(describe(b"\x2d\x81\x01", True), ("MLME_GET.request", [("pib", "0x8101 plc_state")]))

    def test_wrong_direction_is_marked(self):
        self.assertEqual(describe(b"\x2b", False)[1], [("direction", "unexpected")])

    def test_records_are_shown_one_by_one(self):
        name, fields = describe(bytes.fromhex("3000005000 1C".replace(" ", "")) + bytes(28), False)
        self.assertEqual(name, "MLME_LIST_GET.confirm")
        self.assertEqual([field for field, _ in fields], ["result", "pib", "record", "record"])

    def test_nothing_is_raised(self):
        for payload in (b"", b"\xff", b"\x37\x01", bytes.fromhex("30000020500002AABB")):
            self.assertTrue(describe(payload, True)[0])


if __name__ == "__main__":
    unittest.main()

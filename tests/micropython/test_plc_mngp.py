"""MNGP bodies, and a firmware upgrade octet by octet. Runs on CPython and on MicroPython."""

import unittest

from modem_script import ScriptedModem

from plc.errors import MessageError
from plc.prime import commands, mngp
from plc.prime import firmware_upgrade as fu
from plc.prime.base_node import BaseNode
from plc.prime.commands import COMMANDS
from plc.usi.crc import crc_32
from plc.usi.framing import PROTOCOL_PRIME_API

EUI = b"\x00\x80\xe1\x00\x00\x07"


class BodyTest(unittest.TestCase):
    def test_get(self):
        self.assertEqual(mngp.encode_get_query([(0xA0, 0), (0x75, 1)]), bytes.fromhex("00A000007501"))
        self.assertEqual(mngp.decode_get_query(bytes.fromhex("00A000007501")), [(0xA0, 0), (0x75, 1)])
        found = [(0xA0, 0, b"\x01\x02"), (0x24, 0, b"\x04")]
        body = bytes.fromhex("00A000010201" + "0024000400")
        self.assertEqual(mngp.encode_get_response(found), body)
        self.assertEqual(mngp.decode_get_response(body), found)
        # An attribute of unknown size takes what is left.
        self.assertEqual(
            mngp.decode_get_response(bytes.fromhex("123400AABBCC00")), [(0x1234, 0, b"\xaa\xbb\xcc")]
        )
        for spoilt in (body[:-1], body[:5], body + b"\x00", b"\x00"):
            with self.assertRaises(MessageError):
                mngp.decode_get_response(spoilt)
        with self.assertRaises(MessageError):
            mngp.decode_get_query(b"\x00\x01")

    def test_list(self):
        # The query of the reference's worked example.
        self.assertEqual(mngp.encode_list_query(0x0050), bytes.fromhex("0E00501E0000"))
        self.assertEqual(mngp.decode_list_query(bytes.fromhex("0E00501E0102")), (0x50, 30, 0x102))
        self.assertEqual(mngp.decode_list_query(bytes.fromhex("0E00501E83010203")), (0x50, 30, 0x10203))
        pairs = [(1, b"abcd"), (2, b"efgh")]
        body = bytes.fromhex("0F005302040C") + b"\x00\x01abcd\x00\x02efgh"
        self.assertEqual(mngp.encode_list_response(0x53, pairs), body)
        self.assertEqual(mngp.decode_list_response(body), (0x53, pairs))
        # A record length that counts the iterator too.
        self.assertEqual(mngp.decode_list_response(body[:4] + b"\x06" + body[5:]), (0x53, pairs))
        self.assertEqual(mngp.decode_list_response(bytes.fromhex("0F0053000000")), (0x53, []))
        for spoilt in (b"", body[:-1], b"\x0e" + body[1:], body[:5]):
            with self.assertRaises(MessageError):
                mngp.decode_list_response(spoilt)
        with self.assertRaises(MessageError):
            mngp.decode_list_query(b"\x0e\x00")


class UpgradeTest(unittest.TestCase):
    def test_the_order_of_steps(self):
        network = BaseNode()
        modem = ScriptedModem(network, PROTOCOL_PRIME_API, COMMANDS)
        crc_answers = [7, 7, 0]

        def answer(message):
            command = message.command
            if command == commands.MLME_GET_REQUEST:
                value = b"\x04" if message.number("pib") == 0x8101 else bytes(6)
                return [COMMANDS.encode(0x2E, result=0, pib=message.number("pib"), value=value)]
            if command == commands.PLME_GET_REQUEST:
                return [COMMANDS.encode(0x1C, result=0, pib=message.number("pib"), value=bytes(4), pch=0)]
            if command == commands.MLME_LIST_GET_REQUEST:
                return [COMMANDS.encode(0x30, result=0, pib=message.number("pib"), records=b"")]
            if command == commands.FU_GET_VERSION_REQUEST:
                return [COMMANDS.encode(0x4C, eui48=EUI, vendor=b"V", model=b"M", version=b"2")]
            ack = crc_answers.pop(0) if command == commands.FU_CHECK_CRC_REQUEST else 0
            return [COMMANDS.encode(0x49, echoed_command=command, ack=ack, extra=0)]

        modem.answer = answer
        network.start(0.0)
        modem.pump()
        modem.events()
        modem.commands_received()
        data = bytes(range(256)) * 4 + b"end"
        image = fu.FirmwareImage(data, b"V", b"M", b"2", signature_algorithm=1, signature_size=3)
        network.start_firmware_upgrade(image, [EUI], fu.UpgradeOptions(), modem.now)
        modem.pump()
        modem.wait(10.0)
        received = modem.received
        self.assertEqual(
            [message.command for message in received][:15],
            [0x40, 0x3D, 0x3E, 0x3F, 0x46, 0x4E, 0x41, 0x42, 0x42, 0x42, 0x43, 0x43, 0x43, 0x45][:15],
        )
        init = received[6]
        self.assertEqual(
            (
                init.number("frame_count"),
                init.number("file_size"),
                init.number("frame_size"),
                init.number("file_crc"),
            ),
            (3, len(data), 512, crc_32(data)),
        )
        self.assertEqual([message.number("frame_number") for message in received[7:10]], [1, 2, 3])
        self.assertEqual(b"".join([message.octets("data") for message in received[7:10]]), data)
        self.assertEqual(modem.names(), ["FirmwareUpgradeStarted"])
        modem.send(0x4A, state=1, pages=3, eui48=EUI)
        modem.send(0x4A, state=1, pages=3, eui48=EUI)
        modem.send(0x4A, state=2, pages=6, eui48=EUI)
        modem.send(0x4A, state=1, pages=3, eui48=b"\x00" * 6)
        self.assertEqual(modem.names(), ["FirmwareUpgradeProgressed", "FirmwareUpgradeProgressed"])
        modem.send(0x4A, state=0, pages=0, eui48=b"\xff" * 6)
        events = modem.events()
        self.assertEqual(events[-1].outcomes, {EUI: fu.CONFIRMED})

    def test_versions_decide(self):
        upgrade = fu.FirmwareUpgrade(fu.FirmwareImage(b"x", b"", b"", b"2"), [EUI], fu.UpgradeOptions())
        for version, completed, outcome in (
            (b"2", False, fu.CONFIRMED),
            (b"1", False, fu.INCOMPLETE),
            (b"1", True, fu.REVERTED),
            (None, True, fu.NOT_ANSWERED),
        ):
            upgrade.completed = {EUI: True} if completed else {}
            upgrade.decide(EUI, version)
            self.assertEqual(upgrade.outcomes[EUI], outcome)


if __name__ == "__main__":
    unittest.main()

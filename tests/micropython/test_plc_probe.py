"""The probe against scripted modems, and keys in traffic. Runs on CPython and on MicroPython."""

import unittest

from plc.g3 import commands as g3_commands
from plc.g3 import coordinator_commands
from plc.g3 import messages as g3_messages
from plc.prime import commands as prime_commands
from plc.prime import messages as prime_messages
from plc.prime import mngp
from plc.probe import ModemProbe
from plc.usi.framing import PROTOCOL_ADP_G3, PROTOCOL_PRIME_API, FrameDecoder, encode_frame

KEY = b"\x11" * 16


def run(answer):
    """Drive a probe; `answer` maps (protocol, payload) to payloads."""
    probe = ModemProbe()
    decoder = FrameDecoder()
    now = 0.0
    probe.start(now)
    for _ in range(1000):
        if probe.done:
            return probe, now
        data = probe.data_to_send()
        answers = []
        if data:
            decoder.receive_data(data)
            while True:
                frame = decoder.next_frame()
                if frame is None:
                    break
                answers += [encode_frame(frame[0], payload) for payload in answer(frame[0], frame[1])]
        if answers:
            for octets in answers:
                probe.receive_data(octets, now)
        else:
            now = probe.next_timeout()
            probe.handle_timeout(now)
    raise AssertionError("the probe does not end")


def prime_answers(with_channel):
    def answer(protocol, payload):
        if protocol != PROTOCOL_PRIME_API:
            return []
        message = prime_commands.COMMANDS.decode(payload)
        attribute = message.number("pib")
        value = b"\x04" if attribute == 0x8101 else bytes([0, 0x80, 0xE1, 0, 0, 1])
        if message.command == prime_commands.MLME_GET_REQUEST:
            return [prime_commands.COMMANDS.encode(0x2E, result=0, pib=attribute, value=value)]
        pch = 0 if with_channel else None
        return [prime_commands.COMMANDS.encode(0x1C, result=0, pib=attribute, value=b"\x01\x02", pch=pch)]

    return answer


def g3_answers(lbp, initialised=True):
    def answer(protocol, payload):
        if protocol != PROTOCOL_ADP_G3:
            return []
        command = payload[0]
        if command == g3_commands.LBP_SET_REQUEST:
            return lbp
        if not initialised:
            return [bytes([0, 1, command])]
        message = g3_commands.COMMANDS.decode(payload)
        confirm = {18: 40, 23: 46}[command]
        name = "status" if confirm == 40 else "mac_status"
        return [
            g3_commands.COMMANDS.encode(
                confirm,
                attribute=message.number("attribute"),
                index=0,
                value=b"\x02\x80\xe1\xff\xfe\x00\x00\x01",
                **{name: 0},
            )
        ]

    return answer


class ProbeTest(unittest.TestCase):
    def test_prime_generations(self):
        for with_channel, generation in ((True, "harmony"), (False, "2021")):
            probe, now = run(prime_answers(with_channel))
            self.assertEqual((probe.finding.family, probe.finding.generation), ("prime", generation))
            self.assertEqual(probe.finding.identity, bytes([0, 0x80, 0xE1, 0, 0, 1]))
            self.assertEqual(now, 0.0)
            self.assertIn(("phy_crc_incorrect", str(0x102)), probe.finding.counters)

    def test_a_service_node_is_no_base_node(self):
        def answer(protocol, payload):
            return [
                octets[:-1] + b"\x02" if payload[1:3] == b"\x81\x01" else octets
                for octets in base(protocol, payload)
            ]

        base = prime_answers(True)
        self.assertIn("no base node", run(answer)[0].finding.remark)

    def test_g3_generations(self):
        unsupported = g3_commands.COMMANDS.encode(70, lbp_status=2, attribute=0x7FFFFFFF, index=0)
        for lbp, generation in (
            ([unsupported], "b"),
            ([bytes([0, 1, 60])], "b"),  # not allowed now: a command that it knows
            ([bytes([0, 2, 60])], "a"),
            ([], "a"),
        ):
            for initialised in (True, False):
                probe, _ = run(g3_answers(lbp, initialised))
                self.assertEqual((probe.finding.family, probe.finding.generation), ("g3", generation))
                self.assertEqual(bool(probe.finding.identity), initialised)
                self.assertEqual(bool(probe.finding.remark), not initialised)

    def test_silence_has_words(self):
        probe, now = run(lambda protocol, payload: [])
        self.assertEqual((probe.finding, now), (None, 6.0))
        self.assertEqual(probe.silence(), "nothing comes back")
        probe = ModemProbe()
        probe.start(0.0)
        probe.receive_data(b"\x55\xaa\x55", 0.0)
        self.assertIn("another speed", probe.silence())
        probe.receive_data(encode_frame(0x31, b"\x01"), 0.0)
        self.assertIn("another protocol", probe.silence())


class MaskTest(unittest.TestCase):
    def test_keys_of_g3(self):
        for values in (
            {"command": 60, "attribute": 2, "index": 0, "value": KEY},
            {"command": 22, "attribute": 0x71, "index": 1, "value": KEY},
            {"command": 17, "attribute": 0x080000C2, "index": 0, "value": KEY},
            {"command": 61, "eui64": bytes(8), "short_address": 1, "pan_id": 2, "key_index": 0, "gmk": KEY},
        ):
            command = values.pop("command")
            payload = g3_commands.COMMANDS.encode(command, **values)
            masked = g3_messages.mask_keys(payload)
            self.assertEqual(len(masked), len(payload))
            self.assertEqual(masked, payload.replace(KEY, bytes(16)))
            for spoilt in (payload[:-1], payload + KEY):
                masked = g3_messages.mask_keys(spoilt)
                self.assertEqual(len(masked), len(spoilt))
                self.assertEqual(masked.find(KEY[:4]), -1)
        harmless = g3_commands.COMMANDS.encode(17, attribute=0x0F, index=0, value=b"\x0e")
        self.assertEqual(g3_messages.mask_keys(harmless), harmless)
        self.assertEqual(g3_messages.mask_keys(b""), b"")

    def test_keys_in_mngp_and_in_the_older_coordinator_protocol(self):
        body = b"\x81\x40" + b"\x00\x80\xe1\x00\x00\x07" + KEY
        self.assertEqual(mngp.mask_keys(2, body), body.replace(KEY, bytes(16)))
        self.assertEqual(mngp.mask_keys(2, b"\x80\x90" + KEY), b"\x80\x90" + KEY)
        self.assertEqual(repr(mngp.describe(2, body)).find("1111"), -1)
        payload = coordinator_commands.COMMANDS.encode(2, attribute=1, index=0, value=KEY)
        masked = coordinator_commands.mask_keys(payload)
        self.assertEqual((len(masked), masked.find(KEY[:4])), (len(payload), -1))
        self.assertEqual(repr(coordinator_commands.describe(payload)).find("1111"), -1)
        self.assertEqual(coordinator_commands.mask_keys(b"\x04\x00\x07"), b"\x04\x00\x07")
        self.assertEqual(coordinator_commands.mask_keys(b""), b"")

    def test_device_unique_keys_of_prime(self):
        eui = b"\x00\x80\xe1\x00\x00\x07"
        payload = prime_commands.COMMANDS.encode(0x31, pib=0x8140, value=eui + KEY)
        masked = prime_messages.mask_keys(payload)
        self.assertEqual(masked, payload.replace(KEY, bytes(16)))
        self.assertEqual(prime_messages.describe(payload, True)[1][-1][1], eui.hex() + " (not shown)")
        for spoilt in (payload, payload[:-1], payload + KEY):
            self.assertEqual(prime_messages.mask_keys(spoilt).find(KEY[:4]), -1)
            for _, text in prime_messages.describe(spoilt, True)[1]:
                self.assertEqual(text.find("11111111"), -1)
        harmless = prime_commands.COMMANDS.encode(0x31, pib=0x8151, value=b"\x01")
        self.assertEqual(prime_messages.mask_keys(harmless), harmless)


if __name__ == "__main__":
    unittest.main()

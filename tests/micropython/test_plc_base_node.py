"""BaseNode against a scripted modem: start-up, nodes, the data path, silence, restarts."""

import unittest

from modem_script import ScriptedModem

from plc.errors import LocalPlcError
from plc.prime import commands, pib
from plc.prime.base_node import BaseNode
from plc.prime.commands import COMMANDS
from plc.usi.framing import encode_frame

BASE = bytes.fromhex("0080E1000001")
A = bytes.fromhex("0080E1F00001")
B = bytes.fromhex("0080E1F00002")


class PrimeScript(ScriptedModem):
    def __init__(self, network):
        super().__init__(network, 0x30, COMMANDS)
        self.registered = []  # (eui48, lnid, state, lsid, sid, level)
        self.connected = []  # (address, serial, eui48)
        self.silent = False
        self.confirm_data = 0  # transmit status, or None for no confirm
        self.production_eui48 = True
        self.answer = self.by_the_book

    def by_the_book(self, message):
        if self.silent:
            return []
        command = message.command
        attribute = message.values.get("pib", 0)
        if command == commands.MLME_GET_REQUEST:
            values = {
                0x8101: b"\x04",
                0x24: b"\x00",
                0x8100: BASE,
                0x1F: BASE,
                0x8141: b"\x01",
                0x40: b"\0\0\0\x2a",
            }
            if not self.production_eui48:
                values.pop(0x8100)
            value = values.get(attribute)
            result = 11 if value is None else 0
            return [
                COMMANDS.encode(commands.MLME_GET_CONFIRM, result=result, pib=attribute, value=value or b"")
            ]
        if command == commands.PLME_GET_REQUEST:
            return [COMMANDS.encode(commands.PLME_GET_CONFIRM, result=2, pib=attribute, value=b"")]
        if command == commands.MLME_LIST_GET_REQUEST:
            if attribute == 0x50:
                names = ("eui48", "lnid", "state", "lsid", "sid", "level")
                records = [
                    pib.encode_record(
                        0x50, terminal_capabilities=0, switch_capabilities=0, **dict(zip(names, entry))
                    )
                    for entry in self.registered
                ]
            elif attribute != 0x8250:
                records = []
            else:
                records = [
                    pib.encode_record(
                        0x8250,
                        address=address,
                        serial=(serial + bytes(16))[:16],
                        serial_length=len(serial),
                        eui48=eui48,
                    )
                    for address, serial, eui48 in self.connected
                ]
            return [
                COMMANDS.encode(commands.MLME_LIST_GET_CONFIRM, result=0, pib=attribute, records=part)
                for part in records + [b""]
            ]
        if command == commands.MLME_SET_REQUEST:
            return [COMMANDS.encode(commands.MLME_SET_CONFIRM, result=0)]
        if command == commands.MLME_RESET_REQUEST:
            return [COMMANDS.encode(commands.MLME_RESET_CONFIRM, result=0)]
        if command == commands.CL_432_DL_DATA_REQUEST and self.confirm_data is not None:
            return [self.data_confirm(message, self.confirm_data)]
        return []

    def data_confirm(self, message, status):
        return COMMANDS.encode(
            commands.CL_432_DL_DATA_CONFIRM,
            destination_lsap=message.number("destination_lsap"),
            source_lsap=message.number("source_lsap"),
            destination_address=message.number("destination_address"),
            transmit_status=status,
        )

    def join(self, eui48, address, serial=b"SN1"):
        self.connected.append((address, serial, eui48))
        self.send(
            commands.CL_432_JOIN_INDICATION,
            device_id=serial,
            address=address,
            mac=eui48 + b"\0\0",
            authenticated_encryption=0,
        )

    def event(self, event, eui48, sid=0, lnid=1, lsid=0xFF):
        self.send(
            commands.NETWORK_EVENT_INDICATION,
            event=event,
            eui48=eui48,
            sid=sid,
            lnid=lnid,
            lsid=lsid,
            alive_rx=0,
            alive_tx=0,
            alive_time=0,
        )


def started(**options):
    network = BaseNode(**options)
    modem = PrimeScript(network)
    network.start(0.0)
    modem.pump()
    return network, modem


class StartTest(unittest.TestCase):
    def test_order_of_requests_and_no_reset(self):
        network, modem = started()
        asked = [(message.command, message.values.get("pib")) for message in modem.received]
        self.assertEqual(
            asked,
            [
                (0x2D, 0x8101), (0x2D, 0x24), (0x2D, 0x8100), (0x2D, 0x8141),
                (0x2D, 0x8126), (0x1B, 0x8080), (0x2D, 0x8201), (0x2F, 0x50), (0x2F, 0x8250),
            ],
        )  # fmt: skip
        events = modem.events()
        self.assertEqual([type(event).__name__ for event in events], ["NetworkStarted"])
        self.assertEqual(events[0].identity, BASE)
        self.assertEqual(network.security_profile, 1)

    def test_reset_when_asked_for(self):
        _, modem = started(reset=True)
        self.assertEqual(modem.received[0].command, commands.MLME_RESET_REQUEST)

    def test_eui48_of_the_mac_when_production_has_none(self):
        network = BaseNode()
        modem = PrimeScript(network)
        modem.production_eui48 = False
        network.start(0.0)
        modem.pump()
        self.assertEqual(network.eui48, BASE)

    def test_listed_nodes_join_with_their_parents(self):
        network = BaseNode()
        modem = PrimeScript(network)
        modem.registered = [(A, 1, 2, 9, 0, 0), (B, 2, 1, 0xFF, 9, 1)]
        modem.connected = [(1, b"SN-A", A), (2, b"SN-B", B), (0x0FFF, b"all", b"\xff" * 6)]
        network.start(0.0)
        modem.pump()
        events = modem.events()
        self.assertEqual(
            [type(event).__name__ for event in events],
            ["NetworkStarted", "LinkQualityReported", "LinkQualityReported", "NodeJoined", "NodeJoined"],
        )
        self.assertEqual((events[2].parent, events[2].level, events[2].role), (A, 1, "terminal"))
        self.assertEqual(sorted([(event.eui, event.address, event.identity) for event in events[3:]]),
                         [(A, 1, "SN-A"), (B, 2, "SN-B")])  # fmt: skip

    def test_capabilities(self):
        network, _ = started()
        self.assertEqual(network.capabilities.family, "prime")
        self.assertEqual(network.capabilities.requests_in_flight, 1)
        self.assertTrue(network.capabilities.broadcast)

    def test_a_silent_modem_is_lost_once_and_found_again(self):
        network = BaseNode()
        modem = PrimeScript(network)
        modem.silent = True
        network.start(0.0)
        modem.pump()
        modem.wait(60.0)
        self.assertEqual(modem.names(), ["ModemLost"])
        modem.silent = False
        modem.wait(70.0)
        self.assertEqual(modem.names(), ["NetworkStarted"])

    def test_the_reason_names_a_foreign_protocol_and_a_wrong_speed(self):
        for noise, word in (
            (encode_frame(0x25, b"\x00\x00\x0a"), "another protocol"),
            (b"\x00\xf8" * 40, "wrong speed"),
        ):
            network = BaseNode()
            modem = PrimeScript(network)
            modem.silent = True
            network.start(0.0)
            modem.pump()
            modem.wait(7.0)
            network.receive_data(noise, modem.now)
            modem.wait(3.0)
            events = modem.events()
            self.assertEqual(type(events[0]).__name__, "ModemLost")
            self.assertIn(word, events[0].reason)

    def test_restart_of_the_port_lists_anew(self):
        network, modem = started()
        modem.join(A, 1)
        modem.events()
        token = network.send_apdu(1, 16, 1, b"\xc0", 0.0)
        network.start(1.0)
        modem.pump()
        events = modem.events()
        self.assertEqual(
            [type(event).__name__ for event in events], ["ApduNotSent", "NetworkStarted", "NodeJoined"]
        )
        self.assertEqual((events[0].token, events[0].transient), (token, True))


class NodeTest(unittest.TestCase):
    def test_join_and_leave(self):
        network, modem = started()
        modem.events()
        modem.join(A, 5, b"SERIAL0001")
        modem.send(commands.CL_432_LEAVE_INDICATION, address=5)
        joined, left = modem.events()
        self.assertEqual((joined.eui, joined.address, joined.identity), (A, 5, "SERIAL0001"))
        self.assertEqual((left.eui, left.address), (A, 5))
        with self.assertRaises(LocalPlcError):
            network.send_apdu(5, 16, 1, b"", 0.0)

    def test_serial_text_is_made_printable(self):
        _, modem = started()
        modem.events()
        modem.join(A, 5, b"S\x00\x01\xffN \x00\x00")
        self.assertEqual(modem.events()[0].identity, "SN")

    def test_registering_anew_ends_the_old_connection(self):
        _, modem = started()
        modem.event(0, A, lnid=3)
        modem.join(A, 5)
        modem.events()
        modem.event(0, A, lnid=4)
        modem.join(A, 6)
        self.assertEqual(modem.names(), ["NodeLeft", "LinkQualityReported", "TopologyChanged", "NodeJoined"])

    def test_unregister(self):
        _, modem = started()
        modem.join(A, 5)
        modem.events()
        modem.event(1, A)
        self.assertEqual(modem.names(), ["NodeLeft", "TopologyChanged"])

    def test_promotion_and_children(self):
        _, modem = started()
        modem.event(0, A)
        modem.event(2, A, lsid=7)
        modem.event(0, B, sid=7, lnid=2)
        reports = [event for event in modem.events() if type(event).__name__ == "LinkQualityReported"]
        self.assertEqual([(report.role, report.level, report.parent) for report in reports],
                         [("terminal", 0, None), ("switch", 0, None), ("terminal", 1, A)])  # fmt: skip

    def test_alive_is_counted(self):
        network, modem = started()
        modem.events()
        modem.event(4, A)
        self.assertEqual((network.counters["alive_events"], modem.names()), (1, []))

    def test_an_address_given_to_another_node(self):
        _, modem = started()
        modem.join(A, 5)
        modem.events()
        modem.join(B, 5)
        left, joined = modem.events()
        self.assertEqual((left.eui, joined.eui), (A, B))

    def test_expel(self):
        network, modem = started()
        modem.join(A, 5)
        modem.events()
        modem.received = []
        network.expel(A, 0.0)
        modem.pump()
        self.assertEqual((modem.received[0].number("pib"), modem.received[0].octets("value")), (0x6D, A))
        self.assertEqual(modem.names(), ["TopologyChanged"])
        with self.assertRaises(LocalPlcError):
            network.expel(B, 0.0)

    def test_refresh_tells_all_and_a_periodic_list_tells_differences(self):
        network, modem = started(refresh_interval_s=100.0)
        modem.join(A, 1)
        modem.join(B, 2)
        modem.events()
        network.refresh(0.0)
        modem.pump()
        self.assertEqual(modem.names(), ["NodeJoined", "NodeJoined"])
        modem.connected.pop()
        modem.connected.append((3, b"SN3", bytes(6)))
        modem.wait(100.0)
        events = modem.events()
        self.assertEqual(
            [(type(event).__name__, event.address) for event in events], [("NodeJoined", 3), ("NodeLeft", 2)]
        )

    def test_diagnostics(self):
        network, modem = started()
        network.read_diagnostics(0.0)
        modem.pump()
        self.assertEqual(network.counters["mac_tx_data_packets"], 42)


class DataTest(unittest.TestCase):
    def start(self, **options):
        network, modem = started(**options)
        modem.join(A, 1)
        modem.join(B, 2)
        modem.events()
        modem.received = []
        return network, modem

    def test_sent_and_answered(self):
        network, modem = self.start()
        token = network.send_apdu(1, 16, 1, b"\xc0\x01", 0.0)
        modem.pump()
        request = modem.received[0]
        self.assertEqual((request.number("destination_lsap"), request.number("source_lsap")), (1, 16))
        modem.send(
            commands.CL_432_DL_DATA_INDICATION,
            destination_lsap=16,
            source_lsap=1,
            destination_address=0,
            source_address=1,
            data=b"\xc4",
            link_class=0,
        )
        sent, received = modem.events()
        self.assertEqual(sent.token, token)
        self.assertEqual(
            (received.address, received.source_sap, received.destination_sap, received.apdu),
            (1, 1, 16, b"\xc4"),
        )

    def test_one_request_at_a_time(self):
        network, modem = self.start()
        modem.confirm_data = None
        network.send_apdu(1, 16, 1, b"1", 0.0)
        network.send_apdu(2, 16, 1, b"2", 0.0)
        network.read_diagnostics(0.0)
        modem.pump()
        self.assertEqual(len(modem.received), 1)
        modem.confirm_data = 0
        modem.send_payload(modem.data_confirm(modem.received[0], 0))
        self.assertEqual(modem.names(), ["ApduSent", "DiagnosticsRead", "ApduSent"])

    def test_urgent_apdus_go_before_those_that_only_wait(self):
        network, modem = self.start()
        modem.confirm_data = None
        tokens = [
            network.send_apdu(1 + n % 2, 16, 1, b"x", 0.0, urgent) for n, urgent in enumerate((0, 0, 0, 1, 1))
        ]
        modem.pump()
        modem.confirm_data = 0
        modem.send_payload(modem.data_confirm(modem.received[0], 0))
        sent = [event.token for event in modem.events()]
        self.assertEqual(sent, [tokens[0], tokens[3], tokens[4], tokens[1], tokens[2]])

    def test_transient_status_is_tried_again(self):
        network, modem = self.start()
        modem.confirm_data = 0x81
        network.send_apdu(1, 16, 1, b"1", 0.0)
        modem.pump()
        modem.wait(0.4)
        self.assertEqual(len(modem.received), 1)
        modem.confirm_data = 0
        modem.wait(0.2)
        self.assertEqual(modem.names(), ["ApduSent"])
        self.assertEqual(network.counters["retransmissions"], 1)

    def test_three_attempts_and_then_not_sent(self):
        network, modem = self.start()
        modem.confirm_data = 2
        network.send_apdu(1, 16, 1, b"1", 0.0)
        modem.pump()
        modem.wait(5.0)
        (event,) = modem.events()
        self.assertTrue(event.transient)
        self.assertIn("timeout", event.reason)
        self.assertEqual(len(modem.received), 3)

    def test_another_node_is_served_during_the_pause(self):
        network, modem = self.start()
        modem.confirm_data = 2
        network.send_apdu(1, 16, 1, b"1", 0.0)
        network.send_apdu(1, 16, 1, b"1b", 0.0)
        network.send_apdu(2, 16, 1, b"2", 0.0)
        modem.pump()
        self.assertEqual([message.octets("data") for message in modem.received], [b"1", b"2"])

    def test_a_pause_that_ends_during_another_request_asks_for_no_time(self):
        network, modem = self.start()
        modem.confirm_data = 2
        network.send_apdu(1, 16, 1, b"1", 0.0)
        modem.pump()
        modem.silent = True
        network.read_diagnostics(0.0)
        network.handle_timeout(1.0)
        self.assertTrue(network.next_timeout() > 1.0)
        modem.now = 1.0
        modem.silent = False
        modem.confirm_data = 0
        modem.wait(60.0)
        self.assertEqual(modem.names(), ["DiagnosticsRead", "ApduSent"])

    def test_a_node_that_is_gone(self):
        network, modem = self.start()
        modem.confirm_data = 0xC0
        modem.connected = [(2, b"SN1", B)]
        network.send_apdu(1, 16, 1, b"1", 0.0)
        modem.pump()
        events = modem.events()
        self.assertEqual([type(event).__name__ for event in events], ["ApduNotSent", "NodeLeft"])
        self.assertEqual((events[0].transient, events[1].eui), (False, A))

    def test_missing_confirm_then_next(self):
        network, modem = self.start(data_confirm_timeout_s=10.0)
        modem.confirm_data = None
        network.send_apdu(1, 16, 1, b"1", 0.0)
        modem.pump()
        modem.wait(9.0)
        self.assertEqual(modem.names(), [])
        modem.confirm_data = 0
        network.send_apdu(2, 16, 1, b"2", modem.now)
        modem.wait(2.0)
        self.assertEqual(modem.names(), ["ApduNotSent", "ApduSent"])
        self.assertEqual(network.counters["missing_confirms"], 1)

    def test_silent_restart_is_told_by_a_fresh_list(self):
        network, modem = self.start()
        modem.confirm_data = None
        modem.connected = []
        network.send_apdu(1, 16, 1, b"1", 0.0)
        modem.pump()
        modem.wait(41.0)
        self.assertEqual(modem.names(), ["ApduNotSent", "NodeLeft", "NodeLeft", "ModemLost"])
        modem.wait(3.0)
        modem.join(A, 9)
        self.assertEqual(modem.names(), ["NetworkStarted", "NodeJoined"])

    def test_answer_stands_for_a_lost_confirm(self):
        network, modem = self.start()
        modem.confirm_data = None
        network.send_apdu(1, 16, 1, b"1", 0.0)
        modem.pump()
        modem.send(
            commands.CL_432_DL_DATA_INDICATION,
            destination_lsap=16,
            source_lsap=1,
            destination_address=0,
            source_address=1,
            data=b"\xc4",
            link_class=0,
        )
        self.assertEqual(modem.names(), ["ApduSent", "ApduReceived"])

    def test_broadcast(self):
        network, modem = self.start()
        network.send_apdu(commands.BROADCAST_ADDRESS, 16, 0, b"\xc0", 0.0)
        modem.pump()
        self.assertEqual(modem.received[0].number("destination_address"), 0x0FFF)
        self.assertEqual(modem.names(), ["ApduSent"])

    def test_limits(self):
        network, modem = self.start()
        network.send_apdu(1, 16, 1, bytes(1012), 0.0)
        modem.pump()
        self.assertEqual(modem.names(), ["ApduSent"])
        for address, sap, length in ((1, 16, 1013), (3, 16, 1), (1, 256, 1)):
            with self.assertRaises(LocalPlcError):
                network.send_apdu(address, sap, 1, bytes(length), 0.0)

    def test_the_queue_is_bounded(self):
        network, modem = self.start()
        modem.confirm_data = None
        for _ in range(1100):
            network.send_apdu(1, 16, 1, b"1", 0.0)
        events = modem.events()
        self.assertEqual({type(event).__name__ for event in events}, {"ApduNotSent"})
        self.assertTrue(all([event.transient for event in events]))

    def test_unknown_and_short_messages_are_counted(self):
        network, modem = self.start()
        for payload in (b"\x7f\x01", b"\x39\x01", b"", b"\x4f"):
            modem.send_payload(payload)
        network.receive_data(encode_frame(0x13, b"sniffed"), 0.0)
        self.assertEqual(network.counters["unknown_commands"], 1)
        self.assertEqual(network.counters["short_messages"], 3)
        self.assertEqual(network.counters["foreign_protocol_frames"], 1)
        self.assertEqual(modem.names(), [])

    def test_a_spoilt_list_removes_nobody(self):
        network, modem = self.start()
        modem.answer = None
        network.refresh(0.0)
        modem.pump()
        part = COMMANDS.encode(commands.MLME_LIST_GET_CONFIRM, result=0, pib=0x50, records=b"")
        network.receive_data(encode_frame(0x30, part), 0.0)
        modem.pump()
        for _ in range(3):
            last = COMMANDS.encode(commands.MLME_LIST_GET_CONFIRM, result=0, pib=0x8250, records=b"")
            network.receive_data(b"\x7espoilt\x7e" + encode_frame(0x30, last), 0.0)
            modem.pump()
        self.assertEqual(modem.names(), [])

    def test_keep_alive_finds_a_dead_modem(self):
        _, modem = self.start()
        modem.silent = True
        modem.wait(75.0)
        self.assertEqual(modem.names(), ["ModemLost"])


if __name__ == "__main__":
    unittest.main()

"""G3: Coordinator against a scripted modem. Runs on CPython and on MicroPython."""

import unittest

from modem_script import ScriptedModem

from plc.errors import LocalPlcError
from plc.g3 import commands, ib, ipv6
from plc.g3.commands import COMMANDS
from plc.g3.coordinator import Coordinator
from plc.usi.framing import encode_frame

PSK = b"PSK-secret-octet"
GMK = b"GMK-secret-octet"
PAN = 0x781D
EUI = b"\x00\x80\xe1\xff\xfe\x00\x00\x00"
A = b"\x00\x80\xe1\xff\xfe\xf0\x00\x01"
B = b"\x00\x80\xe1\xff\xfe\xf0\x00\x02"


class G3Script(ScriptedModem):
    def __init__(self, network):
        super().__init__(network, 0x25, COMMANDS)
        self.initialized = False
        self.pan = b"\xff\xff"
        self.short = b"\xff\xff"
        self.eui64 = bytes(8)
        self.keys = {}
        self.routes = []
        self.lqis = []
        self.silent = False
        self.unknown = ()  # attributes that it does not answer for
        self.refuse_keys = False
        self.confirm = 0  # status of data confirms, or None for none
        self.answer = self.by_the_book

    def by_the_book(self, message):
        command = message.command
        if self.silent or message.values.get("attribute") in self.unknown:
            return []
        if command == 10:
            self.initialized = True
            return [COMMANDS.encode(0, status=0, refused_command=10)]
        if not self.initialized:
            return [COMMANDS.encode(0, status=1, refused_command=command)]
        attribute, index = message.values.get("attribute"), message.values.get("index")
        if command == 60:
            self.keys[attribute] = message.octets("value")
            return [
                COMMANDS.encode(70, lbp_status=1 if self.refuse_keys else 0, attribute=attribute, index=0)
            ]
        if command == 22:
            if attribute == ib.MAC_EXTENDED_ADDRESS:
                self.eui64 = message.octets("value")
            if attribute == ib.MAC_SHORT_ADDRESS:
                self.short = message.octets("value")
            return [COMMANDS.encode(45, mac_status=0, attribute=attribute, index=index)]
        if command == 17:
            return [COMMANDS.encode(39, status=0xB1, attribute=attribute, index=index)]
        if command == 13:
            self.pan = message.number("pan_id").to_bytes(2, "big")
            return [COMMANDS.encode(34, status=0)]
        if command == 23:
            values = {
                ib.MAC_PAN_ID: self.pan,
                ib.MAC_SHORT_ADDRESS: self.short,
                ib.MAC_EXTENDED_ADDRESS: self.eui64,
            }
            values[0x101] = b"\x00\x00\x00\x2a"
            value = values.get(attribute)
            if attribute == ib.MAC_POS_TABLE and index < len(self.lqis):
                value = self.lqis[index]
            status = 0xF9 if value is None else 0
            return [COMMANDS.encode(46, mac_status=status, attribute=attribute, index=index, value=value)]
        if command == 18:
            value = self.routes[index] if attribute == 0x0C and index < len(self.routes) else None
            status = 0xA7 if value is None else 0
            return [COMMANDS.encode(40, status=status, attribute=attribute, index=index, value=value)]
        if command == 20:
            return [COMMANDS.encode(43, status=0)]
        if command == 11 and self.confirm is not None:
            return [COMMANDS.encode(30, status=self.confirm, handle=message.number("handle"))]
        return []

    def join(self, eui64):
        self.received = []
        self.send(71, eui64=eui64)
        assigned = [message for message in self.received if message.command == 66]
        address = assigned[0].number("short_address")
        if address != commands.DECLINE:
            self.send(72, eui64=eui64, short_address=address)
        return address

    def push(self, address, apdu, lqi=100, port=4059, pan=PAN):
        packet = ipv6.encode_udp(
            ipv6.link_local_address(pan, address),
            ipv6.link_local_address(pan, 0),
            4059,
            port,
            ipv6.encode_wrapper(1, 16, apdu),
        )
        self.send(31, link_quality=lqi, packet=packet)


def started(**options):
    options.setdefault("eui64", EUI)
    network = Coordinator(PAN, PSK, GMK, **options)
    modem = G3Script(network)
    network.start(0.0)
    modem.pump()
    return network, modem


class StartTest(unittest.TestCase):
    def test_order_of_requests(self):
        network, modem = started()
        steps = [(message.command, message.values.get("attribute")) for message in modem.received]
        self.assertEqual(
            steps[:12],
            [
                (23, 0x50), (23, 0x53), (10, None), (23, 0x08000001), (22, 0x08000001), (60, 2), (60, 3),
                (22, 0x53), (17, 7), (17, 0x0F), (17, 0x12), (13, None),
            ],
        )  # fmt: skip
        self.assertEqual(modem.keys, {2: PSK, 3: GMK})
        self.assertEqual(modem.pan, b"\x78\x1d")
        (event,) = modem.events()
        self.assertEqual(event.identity, EUI)
        self.assertIn("0x781D", event.description)
        self.assertEqual(network.capabilities.largest_apdu, 1224)
        self.assertTrue(network.capabilities.requests_in_flight > 1)

    def test_a_running_network_is_left_alone(self):
        network, modem = started()
        modem.join(A)
        modem.events()
        modem.received = []
        network.start(5.0)
        modem.pump()
        self.assertTrue(10 not in [message.command for message in modem.received])
        self.assertEqual(modem.names(), ["NetworkStarted", "NodeJoined"])

    def test_reset_initialises_all_the_same(self):
        network, modem = started(reset=True)
        modem.received = []
        network.start(5.0)
        modem.pump()
        self.assertEqual(modem.received[0].command, 10)

    def test_known_devices_are_there_at_once(self):
        _, modem = started(known_addresses={A: 5, B: 9})
        joined = modem.events()[1:]
        self.assertEqual(
            sorted([(event.eui, event.address, event.identity) for event in joined]), [(A, 5, ""), (B, 9, "")]
        )

    def test_refused_keys_are_named_without_their_value(self):
        network = Coordinator(PAN, PSK, GMK)
        modem = G3Script(network)
        modem.refuse_keys = True
        network.start(0.0)
        modem.pump()
        (event,) = modem.events()
        self.assertIn("LBP_SET.confirm", event.reason)
        self.assertTrue("secret" not in repr(event) and PSK.hex() not in repr(event))
        modem.refuse_keys = False
        modem.wait(5.0)
        self.assertEqual(modem.names(), ["NetworkStarted"])

    def test_keys_are_in_no_repr_and_no_error(self):
        network, _ = started()
        self.assertTrue("secret" not in repr(network))
        try:
            Coordinator(PAN, PSK + b"x", GMK)
            self.fail("a key of 17 octets was taken")
        except LocalPlcError as error:
            self.assertTrue("secret" not in str(error))

    def test_silence(self):
        network = Coordinator(PAN, PSK, GMK)
        modem = G3Script(network)
        modem.silent = True
        network.start(0.0)
        modem.pump()
        modem.wait(60.0)
        self.assertEqual(modem.names(), ["ModemLost"])

    def test_keep_alive_finds_a_restarted_modem(self):
        _, modem = started()
        modem.events()
        modem.initialized = False
        modem.pan = modem.short = b"\xff\xff"
        modem.wait(70.0)
        self.assertEqual(modem.names(), ["ModemLost", "NetworkStarted"])


class JoinTest(unittest.TestCase):
    def test_addresses_are_given_in_order_and_told(self):
        _, modem = started(known_addresses={A: 1})
        modem.events()
        self.assertEqual(modem.join(B), 2)
        self.assertEqual(modem.names(), ["ShortAddressAssigned", "NodeJoined", "TopologyChanged"])

    def test_a_known_device_keeps_its_address(self):
        _, modem = started(known_addresses={A: 77})
        modem.events()
        self.assertEqual(modem.join(A), 77)
        self.assertEqual(modem.names(), ["NodeLeft", "NodeJoined", "TopologyChanged"])

    def test_foreign_devices_are_declined_and_told_once(self):
        network, modem = started(allowed={A})
        modem.events()
        self.assertEqual(modem.join(B), 0xFFFF)
        self.assertEqual(modem.join(B), 0xFFFF)
        self.assertEqual(modem.names(), ["NodeDeclined"])
        self.assertEqual(network.counters["declined_joins"], 2)
        network.set_allowed({A, B}, 0.0)
        self.assertEqual(modem.join(B), 1)

    def test_leave_and_expel(self):
        network, modem = started()
        modem.join(A)
        modem.join(B)
        modem.events()
        modem.send(73, short_address=1)
        network.expel(B, 0.0)
        modem.pump()
        kick = modem.received[-1]
        self.assertEqual((kick.command, kick.octets("eui64"), kick.number("short_address")), (62, B, 2))
        self.assertEqual(modem.names(), ["NodeLeft", "NodeLeft"])
        with self.assertRaises(LocalPlcError):
            network.expel(EUI, 0.0)
        with self.assertRaises(LocalPlcError):
            network.send_apdu(1, 16, 1, b"", 0.0)

    def test_the_modem_knows_better(self):
        _, modem = started()
        modem.join(A)
        modem.events()
        modem.send(72, eui64=B, short_address=1)
        self.assertEqual(modem.names(), ["NodeLeft", "ShortAddressAssigned", "NodeJoined", "TopologyChanged"])


class DataTest(unittest.TestCase):
    def start(self, **options):
        network, modem = started(**options)
        for number in range(1, 13):
            modem.join(A[:-1] + bytes([number]))
        modem.events()
        modem.received = []
        return network, modem

    def test_packet_and_answer(self):
        network, modem = self.start()
        token = network.send_apdu(3, 16, 1, b"\xc0\x01", 0.0)
        modem.pump()
        source, destination, _, port, data = ipv6.decode_udp(modem.received[0].octets("packet"))
        self.assertEqual(source, ipv6.link_local_address(PAN, 0))
        self.assertEqual(destination, ipv6.link_local_address(PAN, 3))
        self.assertEqual((port, data), (4059, bytes.fromhex("0001001000010002C001")))
        modem.push(3, b"\xc4\x01")
        sent, quality, received = modem.events()
        self.assertEqual((sent.token, quality.quality), (token, 100))
        self.assertEqual((received.address, received.source_sap, received.destination_sap), (3, 1, 16))
        self.assertEqual(received.apdu, b"\xc4\x01")

    def test_eight_in_flight_and_one_for_each_node(self):
        network, modem = self.start()
        modem.confirm = None
        for address in (1, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10):
            network.send_apdu(address, 16, 1, b"\xc0", 0.0)
        modem.pump()
        handles = [message.number("handle") for message in modem.received]
        self.assertEqual(len(set(handles)), 8)
        for handle in handles[::1][3:5]:
            modem.send(30, status=0, handle=handle)
        self.assertEqual(modem.names(), ["ApduSent", "ApduSent"])
        self.assertEqual(len(modem.received), 10)

    def test_full_buffers_pause_the_host(self):
        network, modem = self.start()
        modem.send(47, full_buffers=1)
        network.send_apdu(1, 16, 1, b"\xc0", 0.0)
        modem.pump()
        self.assertEqual(modem.received, [])
        modem.wait(5.0)
        self.assertEqual(modem.names(), ["ApduSent"])

    def test_route_errors_are_tried_again_and_then_the_node_has_left(self):
        network, modem = self.start()
        modem.confirm = 0xA5
        network.send_apdu(1, 16, 1, b"\xc0", 0.0)
        modem.pump()
        modem.wait(10.0)
        self.assertEqual([message.command for message in modem.received], [11, 11, 11])
        self.assertEqual(modem.names(), ["ApduNotSent", "NodeLeft"])
        # A packet of it brings it back.
        modem.push(1, b"\x0f")
        self.assertEqual(modem.names(), ["NodeJoined", "LinkQualityReported", "ApduReceived"])

    def test_a_node_that_has_gone_is_looked_for(self):
        network, modem = self.start(refresh_interval_s=300.0)
        modem.confirm = 0xA5
        network.send_apdu(1, 16, 1, b"\xc0", 0.0)
        modem.pump()
        modem.wait(10.0)
        modem.events()
        modem.wait(300.0)
        self.assertEqual(modem.names(), ["NodeJoined"])

    def test_permanent_status(self):
        network, modem = self.start()
        modem.confirm = 0xA3
        network.send_apdu(1, 16, 1, b"\xc0", 0.0)
        modem.pump()
        (event,) = modem.events()
        self.assertTrue(not event.transient)
        self.assertIn("bad IPv6 frame", event.reason)

    def test_missing_confirm(self):
        network, modem = self.start()
        modem.confirm = None
        network.send_apdu(1, 16, 1, b"\xc0", 0.0)
        modem.pump()
        modem.wait(61.0)
        self.assertEqual(modem.names(), ["ApduNotSent"])

    def test_refused_data_tells_of_a_restart(self):
        network, modem = self.start()
        modem.initialized = False
        modem.pan = modem.short = b"\xff\xff"
        network.send_apdu(1, 16, 1, b"\xc0", 0.0)
        modem.pump()
        self.assertEqual(modem.names(), ["ApduNotSent", "ModemLost"])
        modem.wait(3.0)
        self.assertEqual(modem.names()[0], "NetworkStarted")

    def test_foreign_packets_are_counted(self):
        network, modem = self.start()
        modem.push(1, b"\xc4", port=0xF0B1)
        modem.push(1, b"\xc4", pan=0x1234)
        modem.push(99, b"\xc4")
        modem.send(31, link_quality=1, packet=b"\x60")
        self.assertEqual((network.counters["foreign_packets"], modem.names()), (4, []))

    def test_limits(self):
        network, _ = self.start()
        for address, sap, length in ((1, 16, 1225), (99, 16, 1), (1, 0x10000, 1)):
            with self.assertRaises(LocalPlcError):
                network.send_apdu(address, sap, 1, bytes(length), 0.0)

    def test_routes_are_told(self):
        network, modem = self.start()
        entry = ib.encode_record(
            "adp",
            0x0C,
            destination=2,
            next_hop=1,
            route_cost=40,
            hops_and_weak_links=2,
            flags=3,
            valid_time=300,
        )
        modem.routes = [entry]
        modem.lqis = [ib.encode_record("mac", 0x120, short_address=1, lqi=90, valid_time=5)]
        network.refresh(0.0)
        modem.pump()
        reports = {
            event.address: event for event in modem.events() if type(event).__name__ == "LinkQualityReported"
        }
        self.assertEqual((reports[2].hops, reports[2].parent), (2, reports[1].eui))
        self.assertEqual((reports[1].role, reports[1].quality), ("router", 90))
        self.assertEqual(len(reports), 12)

    def test_diagnostics(self):
        network, modem = self.start()
        network.read_diagnostics(0.0)
        modem.pump()
        self.assertEqual(network.counters["mac_tx_data_packet_count"], 42)

    def test_silence_amid_optional_requests_is_named_at_once(self):
        network, modem = self.start()
        modem.events()
        modem.silent = True
        network.read_diagnostics(modem.now)
        modem.pump()
        # One optional request, and three whether the modem is alive: three seconds each.
        modem.wait(12.0)
        self.assertEqual([event.reason for event in modem.events()], ["the modem does not answer"])
        modem.silent = False
        modem.wait(5.0)
        self.assertIn("NetworkStarted", modem.names())

    def test_optional_requests_that_the_firmware_does_not_know_are_no_loss(self):
        network, modem = self.start()
        modem.events()
        modem.unknown = (ib.MAC_NEIGHBOUR_TABLE, ib.MAC_POS_TABLE)
        network.read_diagnostics(modem.now)
        modem.pump()
        modem.wait(12.0)
        self.assertEqual(modem.names(), ["DiagnosticsRead"])

    def test_a_modem_of_the_other_family_is_named(self):
        network = Coordinator(PAN, PSK, GMK)
        modem = G3Script(network)
        modem.silent = True
        network.start(0.0)
        modem.pump()
        modem.wait(13.0)
        for _ in range(20):
            network.receive_data(encode_frame(0x30, b"\x3b\x00\x01"), modem.now)
            modem.wait(2.0)
        self.assertIn("another protocol", modem.events()[0].reason)


if __name__ == "__main__":
    unittest.main()

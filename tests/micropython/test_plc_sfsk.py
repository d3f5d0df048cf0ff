"""S-FSK: local frames, MAC, LLC and CIASE octet by octet, and the initiator against a modem by the book."""

import unittest

from plc.errors import LocalPlcError, MessageError
from plc.sfsk import ciase, commands, llc, mac
from plc.sfsk.commands import COMMANDS
from plc.sfsk.framing import ANSWER, LOCAL_FRAME, STATUS, LocalFrameDecoder, encode_local_frame
from plc.sfsk.initiator import Initiator
from plc.sfsk.messages import apdu_of, describe

TITLE = b"ODC\x00\x00\x00\x00\x01"
METER = b"ABC\x00\x00\x00\x00\x07"
OTHER = b"XYZ\x00\x00\x00\x00\x09"


def frames_of(decoder, data):
    decoder.receive_data(data)
    found = []
    while True:
        frame = decoder.next_frame()
        if frame is None:
            return found
        found.append(frame)


class Framing(unittest.TestCase):
    # By hand from the data sheet: 02, length, command, data, and the sum of all from the length on.
    READ_CONFIG = bytes.fromhex("02 05 41 12 00 58 00".replace(" ", ""))

    def test_a_frame_by_hand(self):
        self.assertEqual(encode_local_frame(b"\x41\x12\x00"), self.READ_CONFIG)
        self.assertEqual(frames_of(LocalFrameDecoder(), self.READ_CONFIG), [(LOCAL_FRAME, b"\x41\x12\x00")])

    def test_octet_by_octet_with_answers_and_statuses(self):
        decoder = LocalFrameDecoder()
        found = []
        for octet in b"\x06" + self.READ_CONFIG + b"\x3f\x80\x15":
            found += frames_of(decoder, bytes((octet,)))
        expected = [
            (ANSWER, b"\x06"),
            (LOCAL_FRAME, b"\x41\x12\x00"),
            (STATUS, b"\x80"),
            (ANSWER, b"\x15"),
        ]
        self.assertEqual(found, expected)
        self.assertEqual(decoder.counters["garbage_octets"], 0)

    def test_a_good_frame_is_found_behind_a_claim(self):
        decoder = LocalFrameDecoder()
        # 02 20: a frame of 32 octets that will never be whole.
        self.assertEqual(frames_of(decoder, b"\x02\x20" + self.READ_CONFIG), [])
        decoder.give_up()
        self.assertEqual(decoder.next_frame(), (LOCAL_FRAME, b"\x41\x12\x00"))

    def test_what_is_no_frame_is_counted(self):
        decoder = LocalFrameDecoder()
        spoilt = bytearray(self.READ_CONFIG)
        spoilt[3] ^= 1
        self.assertEqual(
            frames_of(decoder, bytes(spoilt) + b"\x02\x01" + self.READ_CONFIG)[-1][0], LOCAL_FRAME
        )
        self.assertEqual(decoder.counters["bad_crc"], 1)
        self.assertEqual(decoder.counters["bad_length"] > 0, True)
        self.assertEqual(decoder.counters["garbage_octets"] > 0, True)

    def test_sizes(self):
        self.assertEqual(len(encode_local_frame(bytes(248))), 252)
        for size in (0, 249):
            with self.assertRaises(LocalPlcError):
                encode_local_frame(bytes(size))


class Mac(unittest.TestCase):
    def test_a_frame_by_hand(self):
        frame = mac.MacFrame(0xC00, 0xFFF, b"\x90\xfd\x00", 7)
        # Credits 111 111 00, source C00, destination FFF, no padding told.
        self.assertEqual(frame.to_bytes(), bytes.fromhex("fcc00fff0090fd00"))
        decoded = mac.decode_mac_frame(bytes.fromhex("f2005c000090fd00"))
        self.assertEqual((decoded.source, decoded.destination), (0x005, 0xC00))
        self.assertEqual((decoded.initial_credit, decoded.current_credit, decoded.delta_credit), (7, 4, 2))
        self.assertEqual(decoded.repetitions, 3)

    def test_padding_is_cut_off_where_it_is(self):
        bare = mac.MacFrame(1, 0xC00, b"\x90\x01\x02abc").to_bytes()
        # 5 of header, 6 of SDU, 22 of padding and 3 of check sequence fill one subframe.
        padded = bare[:4] + b"\x16" + bare[5:] + bytes(22)
        self.assertEqual(mac.decode_mac_frame(padded).sdu, b"\x90\x01\x02abc")
        self.assertEqual(mac.decode_mac_frame(bare[:4] + b"\x16" + bare[5:]).sdu, b"\x90\x01\x02abc")

    def test_subframes_and_airtime(self):
        self.assertEqual([mac.subframes(size) for size in (0, 28, 29, 64, 242)], [1, 1, 2, 2, 7])
        self.assertAlmostEqual(mac.slot_s(2400), 0.15)
        self.assertAlmostEqual(mac.airtime_s(29, 3, 2400), 2 * 4 * 0.15)

    def test_limits(self):
        for frame in (
            mac.MacFrame(0x1000, 0, b""),
            mac.MacFrame(0, 0x1000, b""),
            mac.MacFrame(0, 0, bytes(243)),
            mac.MacFrame(0, 0, b"", 8),
            mac.MacFrame(0, 0, b"", 1, 1, 4),
        ):
            with self.assertRaises(LocalPlcError):
                frame.to_bytes()
        with self.assertRaises(MessageError):
            mac.decode_mac_frame(bytes(4))


class Llc(unittest.TestCase):
    def test_by_hand(self):
        self.assertEqual(llc.encode_llc(1, 16, b"\xc0\x01"), bytes.fromhex("900110c001"))
        self.assertEqual(llc.decode_llc(bytes.fromhex("900110c001")), (1, 16, b"\xc0\x01"))
        for octets in (b"\x90\x01", b"\x91\x01\x10\xc0"):
            with self.assertRaises(MessageError):
                llc.decode_llc(octets)
        with self.assertRaises(LocalPlcError):
            llc.encode_llc(1, 16, bytes(llc.LARGEST_DATA + 1))
        with self.assertRaises(LocalPlcError):
            llc.encode_llc(256, 16, b"")


class Ciase(unittest.TestCase):
    # A-XDR written out by hand; the tags are those of the standard's CHOICE.
    def test_discover(self):
        pdu = ciase.encode_discover_request(100, 10, 2, 1)
        self.assertEqual(pdu, bytes.fromhex("1d64000a0201"))
        self.assertEqual(ciase.decode_discover_request(pdu), (100, 10, 2, 1))
        report = bytes.fromhex("1e02") + METER + b"\x00" + OTHER + b"\x01\x82"
        self.assertEqual(ciase.encode_discover_report([(METER, None), (OTHER, 0x82)]), report)
        self.assertEqual(ciase.decode_discover_report(report), [(METER, None), (OTHER, 0x82)])

    def test_titles_of_six_octets(self):
        report = bytes.fromhex("1e01") + b"ABCDEF" + b"\x01\x01"
        self.assertEqual(ciase.decode_discover_report(report), [(b"ABCDEF", 1)])
        register = ciase.encode_register_request(b"INITIA", [(b"ABCDEF", 3)])
        self.assertEqual(ciase.decode_register_request(register), (b"INITIA", [(b"ABCDEF", 3)]))

    def test_register(self):
        pdu = bytes.fromhex("1c") + TITLE + b"\x02" + METER + b"\x00\x01" + OTHER + b"\x0b\xff"
        self.assertEqual(ciase.encode_register_request(TITLE, [(METER, 1), (OTHER, 0xBFF)]), pdu)
        self.assertEqual(ciase.decode_register_request(pdu), (TITLE, [(METER, 1), (OTHER, 0xBFF)]))

    def test_ping(self):
        self.assertEqual(ciase.encode_ping(ciase.PING_REQUEST, METER), b"\x19" + METER)
        self.assertEqual(ciase.decode_ping(b"\x1a" + METER), METER)

    def test_repeater_call(self):
        self.assertEqual(ciase.encode_repeater_call(0x63), bytes.fromhex("1f00630000"))
        self.assertEqual(ciase.encode_repeater_call(0x63, 5, 80), bytes.fromhex("1f006301050150"))
        self.assertEqual(ciase.decode_repeater_call(bytes.fromhex("1f00630000")), (0x63, 0, 104))
        self.assertEqual(ciase.decode_repeater_call(bytes.fromhex("1f006301050150")), (0x63, 5, 80))

    def test_clear_alarm(self):
        self.assertEqual(ciase.encode_clear_alarm([0x82]), bytes.fromhex("390082"))
        self.assertEqual(ciase.encode_clear_alarm([1, 2]), bytes.fromhex("3901020102"))
        self.assertEqual(ciase.decode_clear_alarm(bytes.fromhex("3901020102")), [(b"", 1), (b"", 2)])
        pdu = ciase.encode_clear_alarm([1], [METER, OTHER])
        self.assertEqual(ciase.decode_clear_alarm(pdu), [(METER, 1), (OTHER, 1)])
        pdu = ciase.encode_clear_alarm_by_server([(METER, 1), (OTHER, 2)])
        self.assertEqual(ciase.decode_clear_alarm(pdu), [(METER, 1), (OTHER, 2)])
        with self.assertRaises(LocalPlcError):
            ciase.encode_clear_alarm([])

    def test_cut_off_ones_are_refused(self):
        decoders = (
            (ciase.decode_discover_request, ciase.encode_discover_request(1, 2, 3, 0)),
            (ciase.decode_discover_report, ciase.encode_discover_report([(METER, 3)])),
            (ciase.decode_register_request, ciase.encode_register_request(TITLE, [(METER, 1)])),
            (ciase.decode_ping, ciase.encode_ping(ciase.PING_RESPONSE, METER)),
            (ciase.decode_repeater_call, ciase.encode_repeater_call(9, 1, 2)),
            (ciase.decode_clear_alarm, ciase.encode_clear_alarm([1, 2])),
        )
        for decode, pdu in decoders:
            decode(pdu)
            with self.assertRaises(MessageError):
                decode(pdu[:-1])
            with self.assertRaises(MessageError):
                decode(b"\x00" + pdu[1:])


class Table(unittest.TestCase):
    def test_entries_are_little_endian(self):
        payload = COMMANDS.encode(commands.ACCESS_DB_REQUEST, entry=0x0012, value=b"")
        self.assertEqual(payload, b"\x41\x12\x00")
        self.assertEqual(COMMANDS.decode(payload).number("entry"), 0x12)

    def test_configuration(self):
        config = commands.master_config(0xC01, 2400)
        self.assertEqual(len(config), 36)
        self.assertEqual(commands.address_of_config(config), 0xC01)
        self.assertEqual(commands.address_of_config(bytes(36)), None)
        self.assertEqual(commands.address_of_config(b""), None)

    def test_words(self):
        sdu = llc.encode_llc(0xFD, 0, ciase.encode_discover_request(100, 10, 2, 1))
        payload = COMMANDS.encode(
            commands.MA_DATA_REQUEST, mac_frame=mac.MacFrame(0xC00, 0xFFF, sdu, 2).to_bytes()
        )
        name, fields = describe(payload)
        self.assertEqual(name, "MA_Data_Request")
        self.assertEqual(("ciase", "Discover.request") in fields, True)
        self.assertEqual(("destination", "0xFFF all physical") in fields, True)
        self.assertEqual(apdu_of(payload), b"")
        data = mac.MacFrame(1, 0xC00, llc.encode_llc(16, 1, b"\xc4\x01"), 2, 1, 1)
        payload = COMMANDS.encode(commands.MA_DATA_INDICATION, mac_frame=data.to_bytes())
        self.assertEqual(apdu_of(payload), b"\xc4\x01")
        for octets in (b"", b"\x99", b"\x50\x01", b"\x51" + bytes(6)):
            self.assertEqual(len(describe(octets)), 2)


class Modem:
    """Answers as the data sheet says, and lets one server answer as the standard says."""

    def __init__(self, network):
        self.network = network
        self.decoder = LocalFrameDecoder()
        self.now = 0.0
        self.config = b""
        self.servers = {}  # title -> MAC address, NEW when not registered
        self.deaf = False  # nothing comes back from the air
        self.sent = []  # (destination, destination LSAP, data)
        self.events = []
        self.statuses = []  # of the next confirms; OK when there are none

    def send(self, command, **values):
        self.network.receive_data(encode_local_frame(COMMANDS.encode(command, **values)), self.now)

    def up(self, source, destination_lsap, source_lsap, data, credit=3, current=2, delta=1):
        sdu = llc.encode_llc(destination_lsap, source_lsap, data)
        frame = mac.MacFrame(source, 0xC00, sdu, credit, current, delta)
        self.send(commands.MA_DATA_INDICATION, mac_frame=frame.to_bytes())

    def pump(self):
        while True:
            data = self.network.data_to_send()
            if not data:
                break
            for kind, payload in frames_of(self.decoder, data):
                if kind == LOCAL_FRAME:
                    self.take(COMMANDS.decode(payload))
        while True:
            event = self.network.next_event()
            if event is None:
                return
            self.events.append(event)

    def take(self, message):
        if message.command == commands.WRITE_CONFIG_REQUEST:
            self.config = message.octets("config")
            self.send(commands.WRITE_CONFIG_CONFIRM, config=self.config)
        elif message.command == commands.ACCESS_DB_REQUEST:
            if not self.config:
                self.send(commands.ACCESS_DB_ERROR, error_code=0x21)
            elif message.number("entry") == commands.DB_READ_CONFIG:
                self.send(commands.ACCESS_DB_CONFIRM, entry=0x12, value=self.config)
            else:
                value = bytes(range(24)) if message.number("entry") == commands.DB_DATA_COUNTERS else b"\x07"
                self.send(commands.ACCESS_DB_CONFIRM, entry=message.number("entry"), value=value)
        elif message.command == commands.MA_DATA_REQUEST:
            status = self.statuses.pop(0) if self.statuses else 0xFF
            self.send(commands.MA_DATA_CONFIRM, transmission_status=status)
            if status == 0xFF:
                frame = mac.decode_mac_frame(message.octets("mac_frame"))
                destination_lsap, source_lsap, data = llc.decode_llc(frame.sdu)
                self.sent.append((frame.destination, destination_lsap, data))
                if not self.deaf:
                    self.answer(frame, destination_lsap, source_lsap, data)

    def answer(self, frame, destination_lsap, source_lsap, data):
        if destination_lsap != 0xFD:
            self.up(frame.destination, source_lsap, destination_lsap, b"echo" + data)
        elif data[0] == ciase.DISCOVER_REQUEST:
            for title in self.servers:
                if self.servers[title] == mac.NEW:
                    self.up(mac.NEW, 0, 0xFD, ciase.encode_discover_report([(title, None)]))
        elif data[0] == ciase.REGISTER_REQUEST:
            for title, address in ciase.decode_register_request(data)[1]:
                self.servers[title] = address
        elif data[0] == ciase.PING_REQUEST and self.servers.get(data[1:]) == frame.destination:
            self.up(frame.destination, 0, 0xFD, ciase.encode_ping(ciase.PING_RESPONSE, data[1:]))

    def wait(self, seconds):
        end = self.now + seconds
        self.pump()
        while True:
            due = self.network.next_timeout()
            if due is None or due > end:
                self.now = end
                self.pump()
                return
            self.now = max(self.now, due)
            self.network.handle_timeout(self.now)
            self.pump()

    def names(self):
        names = [type(event).__name__ for event in self.events]
        self.events = []
        return names


def started(**options):
    network = Initiator(TITLE, **options)
    modem = Modem(network)
    network.start(0.0)
    return network, modem


class InitiatorTests(unittest.TestCase):
    def test_a_server_is_discovered_registered_and_pinged(self):
        _network, modem = started()
        modem.servers[METER] = mac.NEW
        modem.wait(120.0)
        self.assertEqual(modem.servers[METER], 1)
        self.assertEqual(
            modem.names(),
            [
                "NetworkStarted",
                "ShortAddressAssigned",
                "NodeJoined",
                "LinkQualityReported",
                "TopologyChanged",
            ],
        )
        tags = [data[0] for _, lsap, data in modem.sent if lsap == 0xFD]
        self.assertEqual(tags[:3], [ciase.DISCOVER_REQUEST, ciase.REGISTER_REQUEST, ciase.PING_REQUEST])
        self.assertEqual(tags[-1], ciase.REPEATER_CALL_REQUEST)

    def test_an_apdu_and_its_answer(self):
        network, modem = started()
        modem.servers[METER] = mac.NEW
        modem.wait(120.0)
        modem.events = []
        token = network.send_apdu(1, 16, 1, b"get", modem.now)
        modem.pump()
        self.assertEqual(modem.names(), ["ApduSent", "ApduReceived"])
        self.assertEqual(token, 1)
        self.assertEqual(modem.sent[-1], (1, 1, b"get"))
        with self.assertRaises(LocalPlcError):
            network.send_apdu(2, 16, 1, b"get", modem.now)
        with self.assertRaises(LocalPlcError):
            network.send_apdu(1, 16, 1, bytes(240), modem.now)

    def test_the_channel_waits_for_the_answer(self):
        network, modem = started()
        modem.servers = {METER: mac.NEW, OTHER: mac.NEW}
        modem.wait(120.0)
        modem.deaf = True
        modem.sent = []
        network.send_apdu(1, 16, 1, b"one", modem.now)
        network.send_apdu(2, 16, 1, b"two", modem.now)
        modem.pump()
        self.assertEqual([data for _, _, data in modem.sent], [b"one"])
        modem.up(1, 16, 1, b"answer")
        modem.pump()
        self.assertEqual([data for _, _, data in modem.sent], [b"one", b"two"])

    def test_a_busy_modem_is_asked_again(self):
        network, modem = started()
        modem.servers[METER] = mac.NEW
        modem.wait(120.0)
        modem.events = []
        modem.statuses = [0x14, 0x1E]
        network.send_apdu(1, 16, 1, b"get", modem.now)
        modem.wait(5.0)
        self.assertEqual(modem.names(), ["ApduSent", "ApduReceived"])
        modem.statuses = [0x03]
        network.send_apdu(1, 16, 1, b"get", modem.now)
        modem.wait(5.0)
        self.assertEqual(modem.events[0].transient, False)

    def test_a_server_that_is_silent_has_left_and_comes_back_new(self):
        network, modem = started()
        modem.servers[METER] = mac.NEW
        modem.wait(120.0)
        modem.events = []
        modem.deaf = True
        for _ in range(3):
            network.send_apdu(1, 16, 1, b"get", modem.now)
            modem.wait(60.0)
        modem.wait(60.0)
        self.assertEqual(modem.names().count("NodeLeft"), 1)
        modem.deaf = False
        modem.servers[METER] = mac.NEW
        modem.wait(400.0)
        self.assertEqual("NodeJoined" in modem.names(), True)
        self.assertEqual(modem.servers[METER], 1)

    def test_a_known_server_keeps_its_address_and_is_pinged(self):
        _network, modem = started(known_addresses={METER: 7})
        modem.servers[METER] = 7
        modem.wait(60.0)
        self.assertEqual("NodeJoined" in modem.names(), True)
        self.assertEqual(modem.sent[0], (7, 0xFD, b"\x19" + METER))

    def test_who_may_not_come_is_told_once(self):
        network, modem = started(allowed={OTHER})
        modem.servers = {METER: mac.NEW, OTHER: mac.NEW}
        modem.wait(900.0)
        names = modem.names()
        self.assertEqual((names.count("NodeDeclined"), names.count("NodeJoined")), (1, 1))
        self.assertEqual(modem.servers[METER], mac.NEW)
        network.set_allowed(None, modem.now)
        modem.wait(120.0)
        self.assertEqual(modem.servers[METER], 2)

    def test_expelled(self):
        network, modem = started()
        modem.servers[METER] = mac.NEW
        modem.wait(120.0)
        modem.events = []
        network.expel(METER, modem.now)
        modem.servers[METER] = mac.NEW
        modem.wait(900.0)
        self.assertEqual(modem.names().count("NodeLeft"), 1)
        self.assertEqual(modem.servers[METER], mac.NEW)
        with self.assertRaises(LocalPlcError):
            network.expel(OTHER, modem.now)

    def test_every_server_is_addressed_in_time(self):
        _network, modem = started()
        modem.servers[METER] = mac.NEW
        modem.wait(120.0)
        modem.sent = []
        modem.wait(4000.0)
        pings = [data for _, _, data in modem.sent if data[0] == ciase.PING_REQUEST]
        self.assertEqual(len(pings) >= 2, True)

    def test_alarms_are_told_and_cleared(self):
        network, modem = started()
        modem.wait(1.0)
        modem.events = []
        modem.up(mac.NEW, 0, 0xFD, ciase.encode_discover_report([(METER, 0x82)]))
        modem.pump()
        self.assertEqual(repr(modem.events), "[AlarmReported(alarm=130, eui=" + METER.hex() + ")]")
        network.clear_alarm([0x82], modem.now, [METER])
        modem.wait(60.0)
        tags = [data[0] for _, _, data in modem.sent]
        self.assertEqual(ciase.CLEAR_ALARM_REQUEST in tags, True)

    def test_a_modem_that_lost_its_configuration(self):
        _network, modem = started()
        modem.servers[METER] = mac.NEW
        modem.wait(120.0)
        modem.events = []
        modem.config = b""
        modem.wait(120.0)
        names = modem.names()
        self.assertEqual(names[:3], ["ModemLost", "NetworkStarted", "NodeJoined"])

    def test_diagnostics(self):
        network, modem = started()
        modem.wait(100.0)
        network.read_diagnostics(modem.now)
        modem.wait(30.0)
        self.assertEqual(network.counters["modem_crc_ok"], 0x03020100)
        self.assertEqual(network.counters["modem_min_delta_credit"], 7)

    def test_a_frame_that_the_modem_did_not_take_is_sent_again(self):
        network = Initiator(TITLE)
        network.start(0.0)
        first = network.data_to_send()
        network.receive_data(b"\x15", 0.1)
        self.assertEqual(network.data_to_send(), first)
        network.receive_data(b"\x15", 0.2)
        self.assertEqual(network.data_to_send(), b"")

    def test_arguments(self):
        for options in ({"local_address": 1}, {"baud_rate": 9600}):
            with self.assertRaises(LocalPlcError):
                Initiator(TITLE, **options)
        with self.assertRaises(LocalPlcError):
            Initiator(b"short")


if __name__ == "__main__":
    unittest.main()

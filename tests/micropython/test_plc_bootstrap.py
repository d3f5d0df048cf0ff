"""Bootstrapping on the host: ciphers, EAP-PSK, LBP and the server. Runs on CPython and on MicroPython.

The vectors of EAP-PSK were computed apart from this code, with AES-ECB, CMAC and CTR of a library and EAX by its
definition.
"""

import unittest

from aes_block import aes, plain_aes

from plc.errors import LocalPlcError, MessageError
from plc.g3 import bootstrap, eap_psk, lbp
from plc.g3.bootstrap import BootstrapServer
from plc.g3.ciphers import cmac, eax_decrypt, eax_encrypt, equal

PSK = bytes(range(16))
ID_S = bytes.fromhex("0080E1FFFE000000")
ID_P = bytes.fromhex("0080E1FFFEF00001")
OTHER = bytes.fromhex("0080E1FFFEF00002")
RAND_S = bytes(range(0x20, 0x30))
RAND_P = bytes(range(0x40, 0x50))
GMK = bytes(range(0x60, 0x70))
PARAMETERS = bytes.fromhex("1D020005" + "271100") + GMK + bytes.fromhex("2B0100")
AK = bytes.fromhex("18b62d2c84c5e4571afc41a29db71f4d")
KDK = bytes.fromhex("97b704350085028363924612565b9b0d")
TEK = bytes.fromhex("0a989e082afa4df0ef15d76f3e750645")
MSK = bytes.fromhex(
    "582cd61aab4cadada48ac364399c4c7538ed538dbe960a3ebf7d9a634d199ea8"
    "82dd4a3590db0e03df5bda7ac798b8116017db4a82506b53ff4952688555d783"
)
MAC_P = bytes.fromhex("5f548c0a00e9d7571f5ce42c3b24e380")
MAC_S = bytes.fromhex("58e97f713011060cfabbe0611ec3709c")
MESSAGE_1 = bytes.fromhex("0401001e2f00202122232425262728292a2b2c2d2e2f0080e1fffe000000")
MESSAGE_2 = bytes.fromhex(
    "0801003e2f40202122232425262728292a2b2c2d2e2f404142434445464748494a4b4c4d4e4f"
    "5f548c0a00e9d7571f5ce42c3b24e3800080e1fffef00001"
)
MESSAGE_3 = bytes.fromhex(
    "040200562f80202122232425262728292a2b2c2d2e2f58e97f713011060cfabbe0611ec3709c0000000035b6b460"
    "4442d442599446e97ac88744c3b391e6036f877c8408e6a8c6f320e49ca83b5bd418306c5aac624b"
)
MESSAGE_4 = bytes.fromhex(
    "080200302fc0202122232425262728292a2b2c2d2e2f00000001639ea9141049fd1ae8040ee29666a09b62f40291e3dc"
)


class CipherTest(unittest.TestCase):
    def test_aes(self):
        # FIPS 197, appendix C.1.
        key, block = bytes(range(16)), bytes.fromhex("00112233445566778899aabbccddeeff")
        for function in (aes, plain_aes):
            self.assertEqual(function(key)(block), bytes.fromhex("69c4e0d86a7b0430d8cdb78070b4c55a"))

    def test_cmac(self):
        # RFC 4493, clause 4.
        encrypt = aes(bytes.fromhex("2b7e151628aed2a6abf7158809cf4f3c"))
        message = bytes.fromhex(
            "6bc1bee22e409f96e93d7e117393172aae2d8a571e03ac9c9eb76fac45af8e51"
            "30c81c46a35ce411e5fbc1191a0a52eff69f2445df4f9b17ad2b417be66c3710"
        )
        for size, mac in (
            (0, "bb1d6929e95937287fa37d129b756746"),
            (16, "070a16b46b4d4144f79bdd9dd04a287c"),
            (40, "dfa66747de9ae63030ca32611497c827"),
            (64, "51f0bebf7e3b9d92fc49741779363cfe"),
        ):
            self.assertEqual(cmac(encrypt, message[:size]), bytes.fromhex(mac))

    def test_eax(self):
        # The paper's own vectors.
        for message, key, nonce, header, cipher in (
            ("", "233952DEE4D5ED5F9B9C6D6FF80FF478", "62EC67F9C3A4A407FCB2A8C49031A8B3", "6BFB914FD07EAE6B",
             "E037830E8389F27B025A2D6527E79D01"),
            ("F7FB", "91945D3F4DCBEE0BF45EF52255F095A4", "BECAF043B0A23D843194BA972C66DEBD", "FA3BFD4806EB53FA",
             "19DD5C4C9331049D0BDAB0277408F67967E5"),
        ):  # fmt: skip
            encrypt = aes(bytes.fromhex(key))
            arguments = (encrypt, bytes.fromhex(nonce), bytes.fromhex(header))
            ciphertext, tag = eax_encrypt(*arguments, bytes.fromhex(message))
            self.assertEqual(ciphertext + tag, bytes.fromhex(cipher))
            self.assertEqual(eax_decrypt(*arguments, ciphertext, tag), bytes.fromhex(message))
            spoilt = bytes([tag[0] ^ 1]) + tag[1:]
            self.assertIsNone(eax_decrypt(*arguments, ciphertext, spoilt))
            self.assertIsNone(eax_decrypt(*arguments, ciphertext, tag[:-1]))

    def test_comparison(self):
        self.assertTrue(equal(b"ab", b"ab"))
        self.assertFalse(equal(b"ab", b"ac"))
        self.assertFalse(equal(b"ab", b"a"))


class EapPskTest(unittest.TestCase):
    def exchange(self):
        return eap_psk.ServerExchange(aes, PSK, ID_S, RAND_S, 1)

    def test_intermediate_values(self):
        keys = eap_psk.Keys(aes, PSK)
        self.assertEqual((keys.authentication_key, keys.key_derivation_key), (AK, KDK))
        self.assertEqual(keys.transient_key(RAND_P), TEK)
        self.assertEqual(keys.master_session_key(RAND_P), MSK)
        self.assertEqual(keys.mac_p(ID_P, ID_S, RAND_S, RAND_P), MAC_P)
        self.assertEqual(keys.mac_s(ID_S, RAND_P), MAC_S)

    def test_the_four_messages(self):
        exchange = self.exchange()
        self.assertEqual(exchange.message_1(), MESSAGE_1)
        self.assertTrue(exchange.take_message_2(eap_psk.decode_packet(MESSAGE_2)))
        self.assertEqual(exchange.message_3(PARAMETERS), MESSAGE_3)
        result, parameters = exchange.take_message_4(eap_psk.decode_packet(MESSAGE_4))
        self.assertEqual((result, parameters), (eap_psk.RESULT_DONE_SUCCESS, bytes.fromhex("31020000")))

    def test_every_spoilt_octet_is_found(self):
        for position in range(len(MESSAGE_2)):
            spoilt = bytearray(MESSAGE_2)
            spoilt[position] ^= 0x80
            try:
                self.assertFalse(self.exchange().take_message_2(eap_psk.decode_packet(bytes(spoilt))))
            except MessageError:
                pass
        for position in range(len(MESSAGE_4)):
            spoilt = bytearray(MESSAGE_4)
            spoilt[position] ^= 0x80
            exchange = self.exchange()
            exchange.take_message_2(eap_psk.decode_packet(MESSAGE_2))
            exchange.message_3(PARAMETERS)
            with self.assertRaises(MessageError):
                exchange.take_message_4(eap_psk.decode_packet(bytes(spoilt)))

    def test_outcomes_and_what_is_no_packet(self):
        self.assertEqual(eap_psk.encode_outcome(eap_psk.CODE_SUCCESS, 9), bytes.fromhex("0C090004"))
        self.assertEqual(eap_psk.decode_packet(bytes.fromhex("10090004")).code, eap_psk.CODE_FAILURE)
        for spoilt in (b"", b"\x04\x01\x00", MESSAGE_2[:-1], MESSAGE_2 + b"\x00", b"\x14\x01\x00\x04",
                       bytes.fromhex("0401000A2F0000000000")):  # fmt: skip
            with self.assertRaises(MessageError):
                eap_psk.decode_packet(spoilt)

    def test_a_key_of_another_size(self):
        with self.assertRaises(LocalPlcError):
            eap_psk.Keys(aes, b"short")


class LbpTest(unittest.TestCase):
    def test_frames(self):
        frame = lbp.Frame(lbp.CHALLENGE, ID_P, b"\x04data", media=1, disable_backup=True)
        octets = b"\xac\x00" + ID_P + b"\x04data"
        self.assertEqual(frame.to_bytes(), octets)
        again = lbp.decode_frame(octets)
        self.assertEqual((again.kind, again.eui64, again.data), (lbp.CHALLENGE, ID_P, b"\x04data"))
        self.assertEqual((again.media, again.disable_backup, again.holds_parameters), (1, True, False))
        self.assertTrue(lbp.decode_frame(b"\x90\x00" + ID_P + b"\x2b\x01\x01").holds_parameters)
        with self.assertRaises(MessageError):
            lbp.decode_frame(octets[:9])
        with self.assertRaises(LocalPlcError):
            lbp.Frame(16, ID_P)
        with self.assertRaises(LocalPlcError):
            lbp.Frame(1, ID_P[:-1])

    def test_parameters(self):
        self.assertEqual(
            lbp.decode_parameters(PARAMETERS),
            [(0x1D, b"\x00\x05"), (0x27, b"\x00" + GMK), (0x2B, b"\x00")],
        )
        joined = b"".join(
            [lbp.encode_parameter(name, value) for name, value in lbp.decode_parameters(PARAMETERS)]
        )
        self.assertEqual(joined, PARAMETERS)
        for cut in (1, 2, 3, 5, 20):
            with self.assertRaises(MessageError):
                lbp.decode_parameters(PARAMETERS[:cut])


def joining(data=b"", eui64=ID_P):
    return lbp.Frame(lbp.JOINING, eui64, data).to_bytes()


class ServerTest(unittest.TestCase):
    def setUp(self):
        self.admitted = {ID_P: 5, OTHER: 6}
        self.server = self.make()

    def make(self, **options):
        options = dict(psk=PSK, **options) if "psk" not in options else options
        return BootstrapServer(aes, lambda size: RAND_S[:size], self.admitted.get, ID_S, GMK, **options)

    def requests(self, server=None):
        found = []
        while True:
            request = (server or self.server).next_request()
            if request is None:
                return found
            frame = lbp.decode_frame(request.frame)
            found.append((request.destination, request.secured, frame.kind, frame.data))
            self.handle = request.handle

    def outcomes(self, server=None):
        found = []
        while True:
            outcome = (server or self.server).next_outcome()
            if outcome is None:
                return found
            found.append((outcome.kind, outcome.eui64, outcome.address))

    def join(self, source=0):
        self.server.receive_frame(source, joining(), 0.0)
        self.server.receive_frame(source, joining(MESSAGE_2), 1.0)
        self.server.receive_frame(source, joining(MESSAGE_4), 2.0)
        requests = self.requests()
        self.server.confirm(self.handle, True, 3.0)
        return requests

    def test_a_device_joins_octet_by_octet(self):
        self.assertEqual(
            self.join(),
            [
                (ID_P, False, lbp.CHALLENGE, MESSAGE_1),
                (ID_P, False, lbp.CHALLENGE, MESSAGE_3),
                (ID_P, False, lbp.ACCEPTED, bytes.fromhex("0C020004")),
            ],
        )
        self.assertEqual(self.outcomes(), [(bootstrap.JOINED, ID_P, 5)])
        self.assertIsNone(self.server.next_timeout())

    def test_a_device_behind_an_agent(self):
        for destination, secured, _, _ in self.join(source=9):
            self.assertEqual((destination, secured), (b"\x00\x09", True))

    def test_silence_is_met_with_repeats_and_given_up(self):
        self.server.receive_frame(0, joining(), 0.0)
        for attempt in range(bootstrap.MESSAGE_ATTEMPTS):
            self.assertEqual(self.requests(), [(ID_P, False, lbp.CHALLENGE, MESSAGE_1)])
            self.assertEqual(self.server.next_timeout(), bootstrap.MESSAGE_TIMEOUT_S * (attempt + 1))
            self.server.handle_timeout(self.server.next_timeout())
        self.assertEqual(self.requests(), [])
        self.assertEqual(self.outcomes(), [(bootstrap.FAILED, ID_P, 5)])
        # It begins anew: the second exchange is another one.
        self.server.receive_frame(0, joining(), 200.0)
        self.assertEqual(self.requests()[0][3][:2], b"\x04\x02")

    def test_what_was_not_delivered_is_tried_soon(self):
        self.server.receive_frame(0, joining(), 0.0)
        self.requests()
        self.server.confirm(self.handle, False, 1.0)
        self.assertEqual(self.server.next_timeout(), 1.0 + bootstrap.RETRY_PAUSE_S)

    def test_repeated_and_foreign_frames_change_nothing(self):
        self.server.receive_frame(0, joining(), 0.0)
        self.server.receive_frame(0, joining(), 0.5)
        self.server.receive_frame(0, joining(MESSAGE_4), 0.6)
        self.server.receive_frame(0, joining(MESSAGE_2), 1.0)
        self.server.receive_frame(0, joining(MESSAGE_2), 1.5)
        self.server.receive_frame(0, joining(MESSAGE_2, OTHER), 1.6)
        self.server.receive_frame(0, b"\x10", 1.6)
        self.server.receive_frame(0, joining(b"\x04"), 1.6)
        self.server.receive_frame(0x8000, joining(eui64=OTHER), 1.7)
        self.server.receive_frame(0, lbp.Frame(lbp.ACCEPTED, ID_P).to_bytes(), 1.8)
        self.server.receive_frame(0, joining(MESSAGE_4), 2.0)
        self.assertEqual(
            [kind for _, _, kind, _ in self.requests()], [lbp.CHALLENGE, lbp.CHALLENGE, lbp.ACCEPTED]
        )
        self.assertEqual(self.server.counters["lbp_unexpected_frames"], 5)
        self.assertEqual(self.server.counters["lbp_bad_frames"], 2)

    def test_who_may_not_join(self):
        self.admitted = {}
        server = self.make()
        server.receive_frame(0, joining(), 0.0)
        self.assertEqual(self.requests(server), [(ID_P, False, lbp.DECLINE, bytes.fromhex("10000004"))])
        server = self.make(psk=b"", device_psks={OTHER: PSK})
        server.receive_frame(0, joining(), 0.0)
        self.assertEqual(self.requests(server)[0][2], lbp.DECLINE)
        self.assertEqual(self.outcomes(server), [(bootstrap.DECLINED, ID_P, 0)])

    def test_another_psk(self):
        self.server = self.make(device_psks={ID_P: b"another key here"})
        self.server.receive_frame(0, joining(), 0.0)
        self.server.receive_frame(0, joining(MESSAGE_2), 0.0)
        self.assertEqual(self.requests()[-1], (ID_P, False, lbp.DECLINE, bytes.fromhex("10010004")))
        self.assertEqual(self.outcomes(), [(bootstrap.DECLINED, ID_P, 5)])
        self.assertIsNone(self.server.next_timeout())

    def test_full_slots(self):
        self.server = self.make(slots=1)
        self.server.receive_frame(0, joining(), 0.0)
        self.server.receive_frame(0, joining(eui64=OTHER), 0.0)
        self.assertEqual(len(self.requests()), 1)
        self.assertEqual(self.server.counters["lbp_busy"], 1)

    def test_leave_and_kick(self):
        self.server.receive_frame(5, lbp.Frame(lbp.KICK_FROM_DEVICE, ID_P).to_bytes(), 0.0)
        self.assertEqual(self.outcomes(), [(bootstrap.LEFT, ID_P, 5)])
        self.server.kick(ID_P, 5, 0.0)
        self.assertEqual(self.requests(), [(b"\x00\x05", True, lbp.KICK_TO_DEVICE, b"")])
        self.server.confirm(self.handle, True, 1.0)
        self.assertIsNone(self.server.next_timeout())

    def test_rotation_without_members_is_done_at_once(self):
        self.server.start_rotation(b"another key here", [], 0.0)
        self.assertEqual(self.outcomes(), [(bootstrap.ACTIVATED, b"", 0)])
        self.assertEqual(self.server.gmk_index, 1)

    def test_a_member_that_cannot_be_rekeyed_does_not_hold_up_the_rest(self):
        self.server.start_rotation(b"another key here", [(ID_P, 5)], 0.0)
        self.assertEqual(self.requests()[0][:3], (b"\x00\x05", True, lbp.CHALLENGE))
        for _ in range(bootstrap.MESSAGE_ATTEMPTS):
            self.server.handle_timeout(self.server.next_timeout())
        self.assertEqual(self.outcomes(), [(bootstrap.REKEY_FAILED, ID_P, 5), (bootstrap.ACTIVATED, b"", 0)])

    def test_keys_that_are_none(self):
        for options in ({"psk": b"short"}, {"device_psks": {ID_P: b"short"}}, {"gmk_index": 2}):
            with self.assertRaises(LocalPlcError):
                self.make(**options)
        with self.assertRaises(LocalPlcError):
            self.server.start_rotation(b"short", [], 0.0)


if __name__ == "__main__":
    unittest.main()

"""EAP-PSK as ITU-T G.9903 uses it: keys and the four messages of RFC 4764, from the server's side.

G.9903 shifts the EAP code left by two bits on the wire; for the protected channel's header it is the code of
RFC 3748 again. Identity of the server: 8 octets (34 for ARIB); of the device: its EUI-64 (ARIB: 36).

    1  server  RAND_S, ID_S
    2  device  RAND_S, RAND_P, MAC_P, ID_P
    3  server  RAND_S, MAC_S, protected(result, configuration parameters)
    4  device  RAND_S, protected(result, configuration parameters)
"""

from plc.errors import LocalPlcError, MessageError
from plc.g3.ciphers import cmac, eax_decrypt, eax_encrypt, equal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from plc.g3.ciphers import Aes

KEY_SIZE = 16
RAND_SIZE = 16

# On the wire: the code of RFC 3748, shifted left by two.
CODE_REQUEST = 0x04
CODE_RESPONSE = 0x08
CODE_SUCCESS = 0x0C
CODE_FAILURE = 0x10
_CODE_SHIFT = 2
_TYPE_PSK = 0x2F

# The T field in the flags, already at its place.
MESSAGE_1 = 0x00
MESSAGE_2 = 0x40
MESSAGE_3 = 0x80
MESSAGE_4 = 0xC0

# Results of the protected channel.
RESULT_CONTINUE = 1
RESULT_DONE_SUCCESS = 2
RESULT_DONE_FAILURE = 3
_RESULT_SHIFT = 6
_EXTENSION = 0x20
_EXTENSION_CONFIGURATION = 0x02

_HEAD_SIZE = 6  # code, identifier, length, type, flags
_HEADER_SIZE = _HEAD_SIZE + RAND_SIZE  # what the protected channel authenticates
_NONCE_SIZE = 4
_NONCE_PADDING = bytes(12)
_MAC_SIZE = 16


class Packet:
    """One EAP packet. `flags` and `body` are empty for success and failure."""

    __slots__ = ("body", "code", "flags", "identifier", "octets")

    def __init__(self, code: int, identifier: int, flags: int, body: bytes, octets: bytes) -> None:
        self.code = code
        self.identifier = identifier
        self.flags = flags
        self.body = body  # from RAND_S on
        self.octets = octets


def encode_packet(code: int, identifier: int, flags: int, body: bytes) -> bytes:
    """Make a request or response of EAP-PSK."""
    length = _HEAD_SIZE + len(body)
    return bytes((code, identifier, length >> 8, length & 0xFF, _TYPE_PSK, flags)) + body


def encode_outcome(code: int, identifier: int) -> bytes:
    """Make a success or failure."""
    return bytes((code, identifier, 0, 4))


def decode_packet(octets: bytes) -> Packet:
    """Take an EAP packet apart. Raises MessageError when it is none, or not of EAP-PSK."""
    if len(octets) < 4:
        raise MessageError(f"{len(octets)} octets are no EAP packet")
    length = octets[2] << 8 | octets[3]
    if length != len(octets):
        raise MessageError(f"an EAP packet of {len(octets)} octets says it has {length}")
    code, identifier = octets[0], octets[1]
    if code in (CODE_SUCCESS, CODE_FAILURE):
        return Packet(code, identifier, 0, b"", octets)
    if code not in (CODE_REQUEST, CODE_RESPONSE):
        raise MessageError(f"0x{code:02X} is no EAP code of G3")
    if length < _HEADER_SIZE or octets[4] != _TYPE_PSK:
        raise MessageError("an EAP packet is not of EAP-PSK")
    return Packet(code, identifier, octets[5] & 0xC0, octets[_HEAD_SIZE:], octets)


class Keys:
    """AK and KDK of a device's PSK (RFC 4764, 2.1); never shown."""

    __slots__ = ("_aes", "authentication_key", "key_derivation_key")

    def __init__(self, aes: "Aes", psk: bytes) -> None:
        if len(psk) != KEY_SIZE:
            raise LocalPlcError(f"a PSK has {KEY_SIZE} octets, got {len(psk)}")
        encrypt = aes(psk)
        block = encrypt(bytes(KEY_SIZE))
        self._aes = aes
        self.authentication_key = encrypt(_flip(block, 1))
        self.key_derivation_key = encrypt(_flip(block, 2))

    def transient_key(self, rand_p: bytes) -> bytes:
        """TEK: the key of the protected channel."""
        encrypt = self._aes(self.key_derivation_key)
        return encrypt(_flip(encrypt(rand_p), 1))

    def master_session_key(self, rand_p: bytes) -> bytes:
        """MSK, 64 octets; G3 itself does not use it."""
        encrypt = self._aes(self.key_derivation_key)
        block = encrypt(rand_p)
        return b"".join([encrypt(_flip(block, index + 2)) for index in range(4)])

    def mac_p(self, id_p: bytes, id_s: bytes, rand_s: bytes, rand_p: bytes) -> bytes:
        """What proves the device's knowledge of the PSK."""
        return cmac(self._aes(self.authentication_key), id_p + id_s + rand_s + rand_p)

    def mac_s(self, id_s: bytes, rand_p: bytes) -> bytes:
        """What proves the server's knowledge of the PSK."""
        return cmac(self._aes(self.authentication_key), id_s + rand_p)


def _flip(block: bytes, number: int) -> bytes:
    """Exclusive or of a block's last octet with a number."""
    return block[:-1] + bytes((block[-1] ^ number,))


class ServerExchange:
    """One authentication of one device, from the first challenge to its last word."""

    __slots__ = (
        "_aes",
        "_id_s",
        "_identifier",
        "_keys",
        "_nonce",
        "_rand_p",
        "_rand_s",
        "_transient_key",
        "stage",
    )

    def __init__(
        self, aes: "Aes", psk: bytes, id_s: bytes, rand_s: bytes, identifier: int, nonce: int = 0
    ) -> None:
        self._aes = aes
        self._keys = Keys(aes, psk)
        self._id_s = id_s
        self._rand_s = rand_s
        self._rand_p = b""
        self._identifier = identifier & 0xFF
        self._nonce = nonce
        self._transient_key = b""
        self.stage = 1  # number of the message that was made last

    @property
    def identifier(self) -> int:
        """Of the request that was made last, which the response repeats."""
        return self._identifier

    def message_1(self) -> bytes:
        """The first challenge."""
        return encode_packet(CODE_REQUEST, self._identifier, MESSAGE_1, self._rand_s + self._id_s)

    def take_message_2(self, packet: Packet) -> bool:
        """Check the device's proof; False when its PSK is not ours. Raises MessageError for another message."""
        body = self._body(packet, MESSAGE_2, RAND_SIZE + _MAC_SIZE)
        rand_p, mac_p, id_p = body[:RAND_SIZE], body[RAND_SIZE : RAND_SIZE + _MAC_SIZE], body[32:]
        if not equal(mac_p, self._keys.mac_p(id_p, self._id_s, self._rand_s, rand_p)):
            return False
        self._transient_key = self._keys.transient_key(rand_p)
        self._rand_p = rand_p
        return True

    def message_3(self, parameters: bytes) -> bytes:
        """The second challenge: our proof, and the configuration parameters under the protected channel."""
        self.stage = 3
        self._identifier = (self._identifier + 1) & 0xFF
        plaintext = bytes((RESULT_DONE_SUCCESS << _RESULT_SHIFT | _EXTENSION, _EXTENSION_CONFIGURATION))
        plaintext += parameters
        mac_s = self._keys.mac_s(self._id_s, self._rand_p)
        # The length field, which the header holds, counts what is not yet made: its size is known.
        size = _MAC_SIZE + _NONCE_SIZE + _MAC_SIZE + len(plaintext)
        packet = encode_packet(CODE_REQUEST, self._identifier, MESSAGE_3, self._rand_s + bytes(size))
        nonce = self._nonce.to_bytes(_NONCE_SIZE, "big")
        ciphertext, tag = eax_encrypt(
            self._aes(self._transient_key), _NONCE_PADDING + nonce, protected_header(packet), plaintext
        )
        return packet[:_HEADER_SIZE] + mac_s + nonce + tag + ciphertext

    def take_message_4(self, packet: Packet) -> "tuple[int, bytes]":
        """The device's result, and its configuration parameters.

        Raises MessageError for another message or one whose tag is not right.
        """
        body = self._body(packet, MESSAGE_4, _NONCE_SIZE + _MAC_SIZE + 1)
        plaintext = eax_decrypt(
            self._aes(self._transient_key),
            _NONCE_PADDING + body[:_NONCE_SIZE],
            protected_header(packet.octets),
            body[_NONCE_SIZE + _MAC_SIZE :],
            body[_NONCE_SIZE : _NONCE_SIZE + _MAC_SIZE],
        )
        if plaintext is None:
            raise MessageError("the tag of EAP-PSK message 4 is not right")
        parameters = b""
        if plaintext[0] & _EXTENSION and plaintext[1:2] == bytes((_EXTENSION_CONFIGURATION,)):
            parameters = plaintext[2:]
        return plaintext[0] >> _RESULT_SHIFT, parameters

    def _body(self, packet: Packet, flags: int, smallest: int) -> bytes:
        """What follows RAND_S in a response to our last request."""
        body = packet.body
        if packet.code != CODE_RESPONSE or packet.flags != flags or packet.identifier != self._identifier:
            raise MessageError("an EAP-PSK message is not the one that was asked for")
        if body[:RAND_SIZE] != self._rand_s or len(body) < RAND_SIZE + smallest:
            raise MessageError("an EAP-PSK message is of another exchange, or cut off")
        return body[RAND_SIZE:]


def protected_header(packet: bytes) -> bytes:
    """What the protected channel authenticates of a packet: its first 22 octets, with the code of RFC 3748."""
    return bytes((packet[0] >> _CODE_SHIFT,)) + packet[1:_HEADER_SIZE]

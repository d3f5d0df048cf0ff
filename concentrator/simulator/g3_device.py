"""The bootstrapping of a simulated G3 device: its own side of LBP and EAP-PSK (ITU-T G.9903, RFC 4764).

Written apart from the product's server, on a library's primitives: CMAC from `cryptography`, EAX put together by
its definition. It is strict: what the server must not send is answered by nothing.
"""

from __future__ import annotations

import random
import struct
from dataclasses import dataclass, field

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.cmac import CMAC

_JOINING, _KICK_FROM = 0x10, 0x40
_ACCEPTED, _CHALLENGE, _DECLINE, _KICK_TO = 0x90, 0xA0, 0xB0, 0xC0
_SHORT_ADDRESS, _GMK, _ACTIVATION, _RESULT = 0x1D, 0x27, 0x2B, 0x31
_DONE_SUCCESS = 2


def _aes(key: bytes, block: bytes) -> bytes:
    encryptor = Cipher(algorithms.AES(key), modes.ECB()).encryptor()  # noqa: S305 one block, as RFC 4764 derives keys
    return encryptor.update(block) + encryptor.finalize()


def _cmac(key: bytes, data: bytes) -> bytes:
    calculation = CMAC(algorithms.AES(key))
    calculation.update(data)
    return calculation.finalize()


def _xor(*parts: bytes) -> bytes:
    total = 0
    for part in parts:
        total ^= int.from_bytes(part, "big")
    return total.to_bytes(16, "big")


def eax(key: bytes, nonce: bytes, header: bytes, data: bytes, *, seal: bool) -> tuple[bytes, bytes]:
    """EAX by its definition: the data turned over, and the tag of its ciphertext."""

    def omac(tweak: int, octets: bytes) -> bytes:
        return _cmac(key, bytes(15) + bytes([tweak]) + octets)

    first = omac(0, nonce)
    turned = Cipher(algorithms.AES(key), modes.CTR(first)).encryptor().update(data)
    return turned, _xor(first, omac(1, header), omac(2, turned if seal else data))


def derive_keys(psk: bytes) -> tuple[bytes, bytes]:
    """AK and KDK (RFC 4764, 2.1)."""
    block = _aes(psk, bytes(16))
    return _aes(psk, _xor(block, b"\x01")), _aes(psk, _xor(block, b"\x02"))


@dataclass(slots=True)
class BootstrapDevice:
    """What a device knows and does. Its keys are as the last challenge or acceptance left them."""

    eui64: bytes
    psk: bytes
    draws: random.Random = field(repr=False)
    short_address: int | None = None
    group_keys: dict[int, bytes] = field(default_factory=dict[int, bytes], repr=False)
    active_index: int = 0
    joined: bool = False
    _rand_p: bytes = b""
    _id_s: bytes = b""
    _pending: list[tuple[int, bytes]] = field(default_factory=list[tuple[int, bytes]], repr=False)

    def forget(self) -> None:
        """Lose keys and address."""
        self.short_address = None
        self.group_keys = {}
        self.joined = False
        self._pending = []

    def first_joining(self) -> bytes:
        """The frame that asks for admission."""
        return bytes([_JOINING, 0]) + self.eui64

    def leaving(self) -> bytes:
        """The frame that says good-bye."""
        self.forget()
        return bytes([_KICK_FROM, 0]) + self.eui64

    def receive_frame(self, frame: bytes) -> bytes | None:
        """Take a frame of the server; gives the answer."""
        if len(frame) < 10 or frame[2:10] != self.eui64:  # noqa: PLR2004 the length of an LBP head
            return None
        kind, data = frame[0] & 0xF0, frame[10:]
        if kind == _KICK_TO:
            self.forget()
        elif kind == _CHALLENGE:
            answer = self._challenge(data)
            return None if answer is None else bytes([_JOINING, 0]) + self.eui64 + answer
        elif kind == _ACCEPTED and data:
            self._accept(data)
        elif kind == _DECLINE:
            self._pending = []
        return None

    def _challenge(self, data: bytes) -> bytes | None:
        code, identifier, length, method, flags = struct.unpack_from(">BBHBB", data)
        if (code, length, method) != (4, len(data), 0x2F):
            return None
        rand_s, body = data[6:22], data[22:]
        authentication_key, derivation_key = derive_keys(self.psk)
        if flags == 0x00:
            self._id_s = body
            self._rand_p = self.draws.randbytes(16)
            proof = _cmac(authentication_key, self.eui64 + self._id_s + rand_s + self._rand_p)
            return self._response(identifier, 0x40, rand_s + self._rand_p + proof + self.eui64)
        if flags != 0x80 or not self._rand_p:  # noqa: PLR2004 the T field of message 3
            return None
        mac_s, nonce, tag, sealed = body[:16], body[16:20], body[20:36], body[36:]
        if mac_s != _cmac(authentication_key, self._id_s + self._rand_p):
            return None
        transient_key = _aes(derivation_key, _xor(_aes(derivation_key, self._rand_p), b"\x01"))
        # G.9903 shifts the code on the wire; what is authenticated is that of RFC 3748.
        opened, right = eax(transient_key, bytes(12) + nonce, b"\x01" + data[1:22], sealed, seal=False)
        if tag != right or opened[:2] != bytes([_DONE_SUCCESS << 6 | 0x20, 0x02]):
            return None
        self._pending = self._parameters(opened[2:])
        wrong = next((name for name, value in self._pending if not self._is_good(name, value)), None)
        result = bytes([_RESULT, 2, 2 if wrong else 0, wrong or 0])
        plaintext = bytes([(3 if wrong else _DONE_SUCCESS) << 6 | 0x20, 0x02]) + result
        answer_nonce = (int.from_bytes(nonce, "big") + 1).to_bytes(4, "big")
        head = self._response(identifier, 0xC0, rand_s + bytes(20 + len(plaintext)))[:22]
        ciphertext, tag = eax(
            transient_key, bytes(12) + answer_nonce, b"\x02" + head[1:], plaintext, seal=True
        )
        return head + answer_nonce + tag + ciphertext

    @staticmethod
    def _response(identifier: int, flags: int, body: bytes) -> bytes:
        return struct.pack(">BBHBB", 8, identifier, 6 + len(body), 0x2F, flags) + body

    @staticmethod
    def _parameters(octets: bytes) -> list[tuple[int, bytes]]:
        found: list[tuple[int, bytes]] = []
        while octets:
            end = 2 + octets[1]
            found.append((octets[0], octets[2:end]))
            octets = octets[end:]
        return found

    @staticmethod
    def _is_good(name: int, value: bytes) -> bool:
        sizes = {_SHORT_ADDRESS: 2, _GMK: 17, _ACTIVATION: 1}
        return sizes.get(name) == len(value)

    def _accept(self, data: bytes) -> None:
        if data[0] & 1:
            parameters = self._parameters(data)
        elif data[0] == 0x0C:  # noqa: PLR2004 the EAP success of G.9903
            parameters, self._pending = self._pending, []
        else:
            return
        for name, value in parameters:
            if name == _SHORT_ADDRESS:
                self.short_address = int.from_bytes(value, "big")
                self.group_keys = {}
                self.joined = True
            elif name == _GMK:
                self.group_keys[value[0]] = value[1:]
            elif name == _ACTIVATION and value[0] in self.group_keys:
                self.active_index = value[0]

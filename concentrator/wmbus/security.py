"""Keys and ciphers of M-Bus (EN 13757-7, OMS volume 2): modes 4, 5, 7 to 10, and the AES-CTR of the ELL.

Mode 5: AES-128-CBC with the meter's own key, vector from address and access number; the first two octets
2F 2F tell a right key from a wrong one; mode 4 is the same with zero vector. ELL: AES-CTR, protected by a CRC
only.

The modes with derived keys, 7 to 10, are in `derived_keys`. Mode 2 is DES-CBC with zero vector. Modes 3 (DES with a
vector of the date, withdrawn) and 13 (TLS, which a listener cannot follow) are named, not decrypted.

Keys never appear in a repr or an exception text.
"""

from __future__ import annotations

import enum
import hmac
from collections.abc import Mapping
from typing import NamedTuple

from cryptography.hazmat.decrepit.ciphers.algorithms import TripleDES
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from concentrator.wmbus.address import Address
from concentrator.wmbus.crc import crc_en13757
from concentrator.wmbus.errors import WmbusUsageError

KEY_OCTETS = 16
DES_KEY_OCTETS = 8
_MOST_METERS_FOUND = 4096
BLOCK_OCTETS = 16
DECRYPTION_CHECK = b"\x2f\x2f"
MODE_NONE = 0
MODE_DES_CBC_ZERO_VECTOR = 2
MODE_AES_CBC_ZERO_VECTOR = 4
MODE_AES_CBC_ADDRESS_VECTOR = 5
MODE_AES_CBC_DERIVED_KEY = 7
MODE_AES_CTR = 8
MODE_AES_GCM = 9
MODE_AES_CCM = 10
# The modes that name how much of them is encrypted; what follows is plain.
BLOCK_MODES = frozenset(
    (
        MODE_DES_CBC_ZERO_VECTOR,
        MODE_AES_CBC_ZERO_VECTOR,
        MODE_AES_CBC_ADDRESS_VECTOR,
        MODE_AES_CBC_DERIVED_KEY,
    )
)
DERIVED_KEY_MODES = frozenset((MODE_AES_CBC_DERIVED_KEY, MODE_AES_CTR, MODE_AES_GCM, MODE_AES_CCM))

# EN 13757-7 table of modes; what is not in it is reserved or a vendor's.
MODE_NAMES: dict[int, str] = {
    0: "none",
    1: "manufacturer specific",
    2: "DES-CBC, zero vector",
    3: "DES-CBC, address vector",
    4: "AES-CBC, zero vector",
    5: "AES-CBC, address vector",
    7: "AES-CBC, derived key, CMAC",
    8: "AES-CTR and CMAC",
    9: "AES-GCM",
    10: "AES-CCM",
    13: "TLS",
}

# Key derivation, as the configuration field extension selects it.
KDF_NONE, KDF_CMAC = 0, 1

# Communication control bits that a repeater changes on the way.
_HOP_COUNT = 0x10
_REPEATED_ACCESS = 0x02


class SecurityState(enum.StrEnum):
    """What became of a telegram's protection."""

    PLAIN = "plain"  # the telegram is not protected
    DECODED = "decoded"  # decrypted, and the check of its mode fits
    ALREADY_PLAIN = "already_plain"  # the header announces encryption, the content is plain; no key is set up
    KEY_MISSING = "key_missing"
    KEY_WRONG = "key_wrong"  # the key gives noise: a wrong key, or a forged telegram
    INCOMPLETE = "incomplete"  # one fragment of a message whose others are still to come
    REPLAY = "replay"  # authentic, but its message counter is not above the highest seen
    NOT_SUPPORTED = "not_supported"


class MeterKey:
    """A meter's AES-128 key, or the DES key of an old one. Its octets leave it only towards a cipher."""

    __slots__ = ("_octets",)

    def __init__(self, octets: bytes) -> None:
        if len(octets) not in (KEY_OCTETS, DES_KEY_OCTETS):
            raise WmbusUsageError(f"a meter's key has {KEY_OCTETS} octets (DES: 8), got {len(octets)}")
        self._octets = bytes(octets)

    @classmethod
    def from_hex(cls, text: str) -> MeterKey:
        """Read 32 hex digits (DES: 16).

        Raises:
            WmbusUsageError: other than that (the text is not repeated).
        """
        try:
            octets = bytes.fromhex(text)
        except ValueError:
            raise WmbusUsageError(f"a key is 32 hex digits; this one has {len(text)} characters") from None
        return cls(octets)

    @property
    def is_des(self) -> bool:
        """Whether it is a key of 8 octets, for DES only."""
        return len(self._octets) == DES_KEY_OCTETS

    def reveal(self) -> bytes:
        """The octets, for a cipher."""
        return self._octets

    def __repr__(self) -> str:
        return "MeterKey(...)"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, MeterKey) and hmac.compare_digest(self._octets, other.reveal())

    def __hash__(self) -> int:
        return hash(self._octets)


class KeyRing:
    """The keys of many meters, found by identification, or by manufacturer and identification.

    Two manufacturers may have used the same number: a key that names its manufacturer goes first.
    """

    def __init__(
        self, keys: Mapping[str, bytes | MeterKey] | None = None, *, everyone: bytes | MeterKey | None = None
    ) -> None:
        """`everyone` holds for each meter that has no key of its own.

        Raises:
            WmbusUsageError: a key has not 16 octets, or a name is none of a meter.
        """
        self._keys: dict[str, MeterKey] = {}
        self._found: dict[Address, MeterKey | None] = {}
        self._everyone = everyone if isinstance(everyone, MeterKey | None) else MeterKey(everyone)
        for name, key in (keys or {}).items():
            self.add(name, key)

    def add(self, meter: str, key: bytes | MeterKey) -> None:
        """Set the key of a meter, named `12345678` or `ELS-12345678`.

        Raises:
            WmbusUsageError: the key has not 16 octets, or the name is none of a meter.
        """
        identification = meter.rpartition("-")[2]
        if len(identification) != 8:  # noqa: PLR2004 - eight characters by the standard
            raise WmbusUsageError(f"a meter is named 12345678 or ELS-12345678, got {meter!r}")
        self._found.clear()
        self._keys[meter.upper()] = key if isinstance(key, MeterKey) else MeterKey(key)

    def remove(self, meter: str) -> None:
        """Forget the key of a meter, if there is one."""
        self._found.clear()
        self._keys.pop(meter.upper(), None)

    def key_for(self, address: Address) -> MeterKey | None:
        """The key of the meter at `address`, or None."""
        try:
            return self._found[address]
        except KeyError:
            pass
        named = self._keys.get(f"{address.manufacturer}-{address.identification}")
        key = named or self._keys.get(address.identification) or self._everyone
        if len(self._found) >= _MOST_METERS_FOUND:
            self._found.clear()
        self._found[address] = key
        return key

    def __len__(self) -> int:
        return len(self._keys)

    def __repr__(self) -> str:
        return f"KeyRing({len(self._keys)} keys)"


class MessageCounters:
    """The highest authentic message counter of each meter; it must rise (EN 13757-7, modes 7 to 10).

    `highest` is the state to store and to restore from: without it a restart opens the door to replays.
    """

    def __init__(self, highest: Mapping[str, int] | None = None) -> None:
        self.highest: dict[str, int] = dict(highest or {})

    def accept(self, address: Address, counter: int) -> bool:
        """Take a counter of an authentic telegram; False when it is not above the highest one."""
        meter = str(address)
        if counter <= self.highest.get(meter, -1):
            return False
        self.highest[meter] = counter
        return True


class Security(NamedTuple):
    """The protection of one telegram: `mode` of the transport layer, and what came of it.

    `reason` says in words what is missing. `counter` is the message counter, where there is one.
    `ell_encrypted`: the extended link layer announced AES-CTR.
    """

    state: SecurityState = SecurityState.PLAIN
    mode: int = MODE_NONE
    reason: str = ""
    counter: int | None = None
    ell_encrypted: bool = False

    @property
    def mode_name(self) -> str:
        """The mode in words."""
        return MODE_NAMES.get(self.mode, f"reserved or vendor's own ({self.mode})")

    @property
    def readable(self) -> bool:
        """Whether the content may be taken as the meter's: records are given in these states only."""
        return self.state in (SecurityState.PLAIN, SecurityState.DECODED, SecurityState.ALREADY_PLAIN)


PLAIN = Security()


def decrypt_mode_5(
    key: MeterKey, address: Address, access_number: int, ciphertext: bytes, check: bytes = DECRYPTION_CHECK
) -> bytes | None:
    """Decrypt whole blocks of mode 5; None when they do not begin with the check (a wrong key)."""
    vector = address.to_link_layer() + bytes((access_number,)) * 8
    plain = decrypt_cbc(key.reveal(), vector, ciphertext)
    return plain if plain.startswith(check) else None


def encrypt_mode_5(key: MeterKey, address: Address, access_number: int, plain: bytes) -> bytes:
    """Encrypt whole blocks of mode 5, for a telegram to the meter at `address`."""
    vector = address.to_link_layer() + bytes((access_number,)) * 8
    encryptor = Cipher(algorithms.AES(key.reveal()), modes.CBC(vector)).encryptor()
    return encryptor.update(plain) + encryptor.finalize()


def decrypt_mode_2(key: MeterKey, ciphertext: bytes) -> bytes | None:
    """Decrypt whole blocks of mode 2 (DES, which protects from nobody today); None without 2F 2F."""
    # DES is triple DES with one key three times.
    decryptor = Cipher(TripleDES(key.reveal() * 3), modes.CBC(bytes(DES_KEY_OCTETS))).decryptor()
    plain = decryptor.update(ciphertext) + decryptor.finalize()
    return plain if plain.startswith(DECRYPTION_CHECK) else None


def decrypt_mode_4(key: MeterKey, ciphertext: bytes) -> bytes | None:
    """Decrypt whole blocks of mode 4; None when the 2F 2F check misses (a wrong key)."""
    plain = decrypt_cbc(key.reveal(), bytes(BLOCK_OCTETS), ciphertext)
    return plain if plain.startswith(DECRYPTION_CHECK) else None


def decrypt_ell(
    key: MeterKey, address: Address, communication_control: int, session_number: int, ciphertext: bytes
) -> bytes | None:
    """Decrypt from the ELL's payload CRC to the end; None when that CRC misses. The CRC is cut off.

    A repeater changes the hop bit, and some senders count the repeated-access bit out too: the CRC tells.
    """
    for cleared in (_HOP_COUNT, _HOP_COUNT | _REPEATED_ACCESS):
        counter_block = (
            address.to_link_layer()
            + bytes((communication_control & ~cleared & 0xFF,))
            + session_number.to_bytes(4, "little")
            + bytes(3)
        )
        plain = crypt_ctr(key.reveal(), counter_block, ciphertext)
        if ell_crc_fits(plain):
            return plain[2:]
    return None


def ell_crc_fits(payload: bytes) -> bool:
    """Whether the first two octets are the CRC of the rest."""
    return len(payload) > 2 and int.from_bytes(payload[:2], "little") == crc_en13757(payload[2:])  # noqa: PLR2004


def decrypt_cbc(key: bytes, vector: bytes, ciphertext: bytes) -> bytes:
    """Decrypt whole blocks of AES-CBC."""
    decryptor = Cipher(algorithms.AES(key), modes.CBC(vector)).decryptor()
    return decryptor.update(ciphertext) + decryptor.finalize()


def crypt_ctr(key: bytes, counter_block: bytes, data: bytes) -> bytes:
    """Encrypt or decrypt by AES-CTR from the first counter block on."""
    decryptor = Cipher(algorithms.AES(key), modes.CTR(counter_block)).decryptor()
    return decryptor.update(data) + decryptor.finalize()

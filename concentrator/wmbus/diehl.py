"""What the Diehl companies (Diehl, Hydrometer, Sappel, EWT) send that is not of the standard.

Telegrams with a manufacturer CI-field, and those whose configuration field has bit 12 set, write version and
device type in front of the identification; Sappel writes neither. Their content is scrambled by a linear feedback
shift register whose start depends on address, first octets and a key. Two keys are known to all; a meter's own key
takes their place. It hides nothing from who knows the two: no security. Facts from public reverse engineering.
"""

from __future__ import annotations

from concentrator.wmbus.address import Address
from concentrator.wmbus.frame import LinkFrame

MANUFACTURERS = frozenset(("DME", "EWT", "HYD", "SAP", "SPL"))
# The key that Diehl delivers meters of security mode 5 with.
FACTORY_KEY = bytes.fromhex("51728910E66D83F8" * 2)
_KEYS = tuple(bytes.fromhex(text) for text in ("39BC8A10E66D83F8", "51728910E66D83F8"))
_C_FIELDS = frozenset((0x44, 0x46))
_CI_ALARM, _CI_SHORT = 0x71, 0x7A
_CI_PRIOS = frozenset(range(0xA0, 0xA8))
_CI_PRIOS_SCRAMBLED = frozenset((0xB1, 0xB2, 0xB3))
_CONFIGURATION_HIGH_AT, _SCRAMBLED_BIT = 4, 0x10
_WATER = 0x07
_PRIOS_MARK = 0x4B
_CHECK_MASK = 0xEF


def with_standard_address(frame: LinkFrame) -> LinkFrame:
    """The frame with its address in the standard's order, if a Diehl company sent it in its own."""
    address, payload = frame.address, frame.payload
    if (
        address is None
        or address.manufacturer not in MANUFACTURERS
        or frame.c_field not in _C_FIELDS
        or not payload
        or not (payload[0] in _CI_PRIOS or payload[0] in _CI_PRIOS_SCRAMBLED or is_scrambled(payload))
    ):
        return frame
    sent = address.to_link_layer()
    if address.manufacturer == "SAP" and payload[0] in _CI_PRIOS:
        return frame._replace(address=address._replace(version=0, device_type=_WATER))
    return frame._replace(address=Address.from_link_layer(sent[:2] + sent[4:8] + sent[2:4]))


def is_scrambled(payload: bytes) -> bool:
    """Whether a payload with a standard CI-field has scrambled content."""
    if payload[0] == _CI_ALARM:
        return True
    return (
        payload[0] == _CI_SHORT
        and len(payload) > _CONFIGURATION_HIGH_AT
        and bool(payload[_CONFIGURATION_HIGH_AT] & _SCRAMBLED_BIT)
    )


def open_records(sent_address: bytes, payload: bytes, key: bytes | None = None) -> bytes | None:
    """Unscramble the content behind a short transport header; None when no key fits its check sum."""
    for one in (key,) if key else _KEYS:
        plain = _unscramble(sent_address, payload, one)
        if sum(plain) & _CHECK_MASK == payload[_CONFIGURATION_HIGH_AT] & _CHECK_MASK:
            return plain
    return None


def open_prios(sent_address: bytes, payload: bytes, key: bytes | None = None) -> bytes | None:
    """Unscramble what follows the first five octets of a PRIOS payload; None when no key fits."""
    for one in (key,) if key else _KEYS:
        plain = _unscramble(sent_address, payload, one)
        if plain[:1] == bytes((_PRIOS_MARK,)):
            return plain
    return None


def _unscramble(sent_address: bytes, payload: bytes, key: bytes) -> bytes:
    state = int.from_bytes(key[:4], "big") ^ int.from_bytes(key[4:8], "big")
    state ^= int.from_bytes(sent_address[:4], "big") ^ int.from_bytes(sent_address[4:8], "big")
    state ^= int.from_bytes(payload[:4], "big")
    plain = bytearray()
    for octet in payload[5:]:
        for _ in range(8):
            bit = (state >> 1 ^ state >> 2 ^ state >> 11 ^ state >> 31) & 1
            state = (state << 1 | bit) & 0xFFFFFFFF
        plain.append(octet ^ state & 0xFF)
    return bytes(plain)

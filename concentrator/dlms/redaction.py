"""APDUs without what must not be shown: passwords in the clear.

An AARQ with low level security carries the password itself (Green Book, 9.2.2.2.2 and 11.3); a SET of an association's
secret carries the next one (Blue Book, class 15 attribute 7). Neither is ciphered by those who use it. Challenges,
wrapped keys and ciphered APDUs stay as they are.

What was deciphered is another matter: there secrets travel because the APDU is ciphered. `may_be_shown` lets those
services pass that are known to carry none, and nothing else.
"""

from __future__ import annotations

import re

# mechanism-name [11]: 2.16.756.5.8.2.1, then calling-authentication-value [12] with its charstring [0].
_LOW_LEVEL_AARQ = re.compile(
    rb"\x8b\x07\x60\x85\x74\x05\x08\x02\x01\xac(?P<outer>.)\x80(?P<length>.)", re.DOTALL
)
# Set-Request-Normal of class 15, attribute 7, no selective access; the secret is an octet string.
_SET_SECRET = re.compile(rb"\xc1\x01.\x00\x0f.{6}\x07\x00\x09(?P<length>.)", re.DOTALL)
# Services by their first octet (Green Book, 9.5) that answer, or tell by themselves.
_ANSWERS = frozenset({0x0C, 0x0D, 0x0E, 0x0F, 0xC2, 0xC4, 0xC5, 0xC7, 0xD8})
_GET, _SET, _ACTION = 0xC0, 0xC1, 0xC3
_NORMAL, _NEXT, _WITH_LIST = 1, 2, 3
# Interface classes whose attributes and methods take secrets: Association SN and LN, PPP setup, Security setup, M-Bus
# client, Account to Token gateway (Blue Book).
_SECRETIVE = frozenset({12, 15, 44, 64, 72, 111, 112, 113, 115})
# cosem-attribute-descriptor of what can be read and is a secret: class, OBIS code, attribute.
_SECRET_ATTRIBUTE = re.compile(rb"\x00(\x0f.{6}\x07|\x0c.{6}\x07|\x2c.{6}\x05)", re.DOTALL)
_DESCRIPTOR_OCTETS = 12


def may_be_shown(apdu: bytes) -> bool:
    """Whether an APDU that came ciphered may be shown in plain: a request that names no secret, or an answer.

    An answer belongs to a request: whoever hides the request hides what comes after it too.
    """
    if not apdu:
        return False
    if apdu[0] in _ANSWERS:
        return True
    if len(apdu) < _DESCRIPTOR_OCTETS or apdu[0] not in (_GET, _SET, _ACTION):
        return apdu[:2] == bytes((_GET, _NEXT))
    if apdu[0] == _GET:
        return apdu[1] in (_NORMAL, _NEXT, _WITH_LIST) and not _SECRET_ATTRIBUTE.search(apdu)
    # Lists, and data in blocks, whose class is in another APDU, are left out.
    return apdu[1] == _NORMAL and int.from_bytes(apdu[3:5], "big") not in _SECRETIVE


def without_passwords(octets: bytes) -> bytes:
    """The same octets, of an APDU or of any frame around one, with passwords replaced by zeros of the same length."""
    for pattern in (_LOW_LEVEL_AARQ, _SET_SECRET):
        for found in pattern.finditer(octets):
            first = found.end()
            last = min(len(octets), first + found["length"][0])
            octets = octets[:first] + bytes(last - first) + octets[last:]
    return octets
